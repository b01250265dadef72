"""The n-gram filter's rows per second, against the official engine and our own index, both queried row by row.

    python -m benchmarks.ngrams_filter INDEX [--peer-python PYTHON] [--rows 4000] [--runs 5]

The outputs are sentences of installed packages' descriptions. Ours is the whole filter: text in, table of scores out, with
tokenisation, in parts of 1,000 rows. The official engine (infini-gram 2.6.0, prefetch depths 0, its fastest setting) gets
precomputed token ids, and runs the queries that the columns need (`creativity` per row, `infgram_prob` for each of its tokens) on
a sample of 60 rows. Both sides alternate, and their answers on the sample are compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

FLOOR = 1e-6
PART_ROWS = 1000
SPAN_TOKENS = 8
SAMPLE_ROWS = 60


def main() -> None:
    """Alternate, compare the answers, print rows per second and ratios."""
    if sys.argv[1:2] == ["as-peer"]:
        peer(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("index")
    parser.add_argument("--peer-python")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    from limbeck.filters.ngram.indexes import open_index

    index = open_index(arguments.index)
    texts = sentences(arguments.rows)
    ids = index.tokenizer.encode_batch(texts)
    print(f"{len(texts):,} rows of {np.mean([len(one) for one in ids]):.1f} tokens on average; {index.tokens:,} tokens indexed")
    for file in Path(arguments.index).glob("t*"):  # texts and tables into the page cache
        file.read_bytes()
    sides: dict[str, list[float]] = {"the filter": [], "our index, row by row": []}
    sample = [one.tolist() for one in ids[:: max(1, len(ids) // SAMPLE_ROWS)]][:SAMPLE_ROWS]
    critic(arguments.index, texts[:PART_ROWS])
    answers = critic(arguments.index, texts[:: max(1, len(ids) // SAMPLE_ROWS)][:SAMPLE_ROWS])[1]
    for _ in range(arguments.runs):
        sides["the filter"].append(len(texts) / critic(arguments.index, texts)[0])
        sides["our index, row by row"].append(len(sample) / ours_by_row(index, sample))
        if arguments.peer_python:
            seconds, found = official(arguments.peer_python, arguments.index, sample)
            sides.setdefault("official engine", []).append(len(sample) / seconds)
            assert np.allclose(found, answers, atol=1e-9), "the two sides' scores differ"
    for name, rates in sides.items():
        ratios = np.array(sides["the filter"]) / np.array(rates)
        print(
            f"{name}: {np.mean(rates):,.0f} rows/s ({min(rates):,.0f} to {max(rates):,.0f});"
            f" the filter is {np.mean(ratios):,.1f} times as fast ({min(ratios):,.1f} to {max(ratios):,.1f})"
        )


def sentences(number: int) -> list[str]:
    """Sentences of installed packages' descriptions, drawn with a fixed seed (repeatedly if there are too few)."""
    from limbeck.corpus.packages import read_packages
    from limbeck.corpus.sentences import split_sentences

    found = {" ".join(sentence.split()) for row in read_packages() for sentence in split_sentences(row.text)}
    some = sorted(sentence for sentence in found if 20 <= len(sentence) <= 400)
    return [some[at] for at in np.random.default_rng(0).choice(len(some), number, replace=number > len(some))]


def critic(index: str, texts: list[str]) -> tuple[float, list[list[float]]]:
    """Seconds of the whole filter, and its three figures per row."""
    import pyarrow as pa

    from limbeck.filters.ngram.ngrams import NgramsConfig

    filter_ = NgramsConfig(index=index, span_tokens=SPAN_TOKENS, floor_probability=FLOOR).build(engines=None)  # type: ignore[arg-type]
    parts = [texts[at : at + PART_ROWS] for at in range(0, len(texts), PART_ROWS)]
    tables = [pa.table({"candidate_id": [str(at) for at in range(len(part))], "output": part}) for part in parts]
    begin = time.perf_counter()
    scores = pa.concat_tables([filter_.score(table) for table in tables])
    seconds = time.perf_counter() - begin
    columns = [scores[name].to_pylist() for name in ("longest_tokens", "coverage", "infgram_logprob")]
    return seconds, [list(row) for row in zip(*columns, strict=True)]


def ours_by_row(index: Any, rows: list[list[int]]) -> float:
    """Seconds of our index queried row by row, from ids."""
    begin = time.perf_counter()
    for ids in rows:
        figures(index.creativity(ids).tolist(), index.score(ids).probabilities.tolist())
    return time.perf_counter() - begin


def figures(ends: list[int], probabilities: list[float]) -> list[float]:
    """The longest span in tokens, the coverage, and the mean log-probability of one row."""
    reach, covered = 0, 0
    for place, end in enumerate(ends):
        reach = end if end - place >= SPAN_TOKENS else reach
        covered += reach > place
    longest = max(end - place for place, end in enumerate(ends))
    return [longest, covered / len(ends), float(np.mean(np.log(np.maximum(probabilities, FLOOR))))]


def official(python: str, index: str, rows: list[list[int]]) -> tuple[float, list[list[float]]]:
    """Seconds of the official engine in its own process, and the same three figures per row."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "rows.json", Path(folder) / "out.json"
        given.write_text(json.dumps(rows), encoding="utf-8")
        subprocess.run([python, __file__, "as-peer", index, str(given), str(out)], check=True, stdout=subprocess.DEVNULL)
        found = json.loads(out.read_text(encoding="utf-8"))
    return found["seconds"], found["figures"]


def peer(index: str, given: str, out: str) -> None:
    """Run under the peer's Python, which has only its engine and numpy."""
    from infini_gram.engine import InfiniGramEngine  # type: ignore[import-not-found]

    rows = json.loads(Path(given).read_text(encoding="utf-8"))
    engine = InfiniGramEngine(index, eos_token_id=0, ds_prefetch_depth=0, sa_prefetch_depth=0, od_prefetch_depth=0)
    for ids in rows[:3]:
        engine.creativity(ids)
    begin = time.perf_counter()
    found = []
    for ids in rows:
        probabilities = [engine.infgram_prob(ids[:at], ids[at])["prob"] for at in range(len(ids))]
        found.append(figures(engine.creativity(ids)["rs"], probabilities))
    seconds = time.perf_counter() - begin
    Path(out).write_text(json.dumps({"seconds": seconds, "figures": found}), encoding="utf-8")


if __name__ == "__main__":
    main()
