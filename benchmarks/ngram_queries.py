"""One engine's query times: run by benchmarks/ngram.py in its own process, under each engine's own Python, alternating.

    python benchmarks/ngram_queries.py official|ours INDEX INDEX_OF_MANY_SHARDS WORKLOAD.npz OUT.json

Needs only numpy and the engine, so that the peer's environment can run it. Every time is one call from Python, with the
official engine's prefetch depths at 0, its fastest setting. Warm-up uses other queries than the measured ones.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

END = 0  # SmolLM2's <|endoftext|>
DELIMITER_TEXTS = ("\n", ".")

Figures = dict[str, float]


def main() -> None:
    """Time every row and write the figures."""
    engine_name, index, many, workload_path, out = sys.argv[1:]
    workload = dict(np.load(workload_path))
    for folder in (index, many):
        for file in sorted(Path(folder).glob("t*")):  # texts and tables into the page cache
            file.read_bytes()
    rows = official(index, many, workload) if engine_name == "official" else ours(index, many, workload)
    Path(out).write_text(json.dumps(rows), encoding="utf-8")


def official(index: str, many: str, workload: dict[str, Any]) -> dict[str, Figures]:
    """The official engine's rows."""
    from infini_gram.engine import InfiniGramEngine

    tuned = {"ds_prefetch_depth": 0, "sa_prefetch_depth": 0, "od_prefetch_depth": 0}
    engine = InfiniGramEngine(index, eos_token_id=END, **tuned)
    warm(engine.count, workload)
    rows = {}
    for size in (1, 2, 5, 10):
        rows[f"count n={size} list"] = each(engine.count, lists(workload[f"count{size}"]), lambda found: found["count"])
    rows["prob list"] = each(lambda ids: engine.prob(ids[:-1], ids[-1]), lists(workload["prob"]), lambda found: found["cont_cnt"])
    for size in (1, 2, 3):
        rows[f"next tokens {size} list"] = each(engine.ntd, lists(workload[f"next{size}"]), lambda found: found["prompt_cnt"])
    for size in (64, 500):
        items = lists(workload[f"context{size}"])
        rows[f"infgram_prob {size} list"] = each(lambda ids: engine.infgram_prob(ids[:-1], ids[-1]), items, continued)
    text = workload["text"].tolist()
    places = range(len(text) - workload["scored_tokens"].item(), len(text))
    calls = ((text[max(0, at - 500) : at], text[at]) for at in places)
    rows["score array"] = each(lambda call: engine.infgram_prob(*call), calls, continued)
    rows["creativity list"] = each(engine.creativity, lists(workload["pieces"]), lambda found: sum(found["rs"]))
    marks = workload["delimiters"].tolist()
    rows["trace list"] = each(
        lambda ids: engine.attribute(ids, marks, 1, 10, False), lists(workload["pieces"]), lambda found: len(found["spans"])
    )
    engine = InfiniGramEngine(many, eos_token_id=END, **tuned)
    warm(engine.count, workload, 500)
    rows["count, many shards list"] = each(engine.count, lists(workload["count5"][:4000]), lambda found: found["count"])
    return rows


def continued(found: dict[str, Any]) -> int:
    """How often the next token followed the suffix."""
    return int(found["cont_cnt"])


def ours(index: str, many: str, workload: dict[str, Any]) -> dict[str, Figures]:
    """Our rows; calls that take arrays are also timed with lists."""
    from limbeck import _infinigram
    from limbeck.infinigram.compat import InfiniGramEngine
    from limbeck.infinigram.index import Index

    opened = Index.open(index)
    warm(opened.count, workload)
    rows = {}
    for size in (1, 2, 5, 10):
        queries = workload[f"count{size}"]
        rows[f"count n={size} list"] = each(opened.count, lists(queries), int)
        rows[f"count n={size} array"] = each(opened.count, list(queries), int)
        rows[f"count n={size} batch"] = batches(_infinigram, opened, queries)
    prompts = [(ids[:-1], int(ids[-1])) for ids in workload["prob"]]
    as_lists = [(ids.tolist(), token) for ids, token in prompts]
    rows["prob list"] = each(lambda call: opened.prob(*call), as_lists, lambda found: found.continuation_count)
    rows["prob array"] = each(lambda call: opened.prob(*call), prompts, lambda found: found.continuation_count)
    for size in (1, 2, 3):
        queries = workload[f"next{size}"]
        rows[f"next tokens {size} list"] = each(opened.next_tokens, lists(queries), lambda found: found.prompt_count)
        rows[f"next tokens {size} array"] = each(opened.next_tokens, list(queries), lambda found: found.prompt_count)
    for size in (64, 500):
        prompts = [(ids[:-1], int(ids[-1])) for ids in workload[f"context{size}"]]
        as_lists = [(ids.tolist(), token) for ids, token in prompts]
        rows[f"infgram_prob {size} list"] = each(lambda call: opened.infgram_prob(*call), as_lists, lambda found: found[1])
        rows[f"infgram_prob {size} array"] = each(lambda call: opened.infgram_prob(*call), prompts, lambda found: found[1])
    for threads in (1, _infinigram.threads()):
        _infinigram.set_threads(threads)
        begin = time.perf_counter()
        scores = opened.score(workload["text"])
        seconds = time.perf_counter() - begin
        name = "score array" if threads > 1 else "score, one thread array"
        rows[name] = {
            "mean": seconds * 1e6 / len(workload["text"]),
            "seconds": seconds,
            "answers": float(scores.continuation_counts.sum()),
        }
    rows["creativity list"] = each(opened.creativity, lists(workload["pieces"]), lambda ends: int(ends.sum()))
    rows["creativity array"] = each(opened.creativity, list(workload["pieces"]), lambda ends: int(ends.sum()))
    same = InfiniGramEngine(index, eos_token_id=END)
    marks = workload["delimiters"].tolist()
    rows["trace list"] = each(
        lambda ids: same.attribute(ids, marks, 1, 10, False), lists(workload["pieces"]), lambda found: len(found["spans"])
    )
    rows["trace with documents array"] = each(opened.trace, list(workload["pieces"]), len)
    opened = Index.open(many)
    warm(opened.count, workload)
    rows["count, many shards list"] = each(opened.count, lists(workload["count5"][:4000]), int)
    rows["count, many shards array"] = each(opened.count, list(workload["count5"][:4000]), int)
    rows["count, many shards batch"] = batches(_infinigram, opened, workload["count5"][:4000])
    return rows


def batches(extension: Any, opened: Any, queries: Any) -> Figures:
    """The whole row as one batch on one thread, in time per query."""
    threads = extension.threads()
    extension.set_threads(1)
    offsets = np.arange(len(queries) + 1) * queries.shape[1]
    flat = queries.reshape(-1)
    begin = time.perf_counter()
    counts = opened.count_batch(flat, offsets)
    seconds = time.perf_counter() - begin
    extension.set_threads(threads)
    return {"mean": seconds * 1e6 / len(queries), "answers": float(counts.sum())}


def lists(queries: Any) -> list[list[int]]:
    """Arrays as lists, which the official engine takes."""
    return [query.tolist() for query in queries]


def warm(count: Callable[[Any], Any], workload: dict[str, Any], calls: int = 20_000) -> None:
    """Touch the files with queries that are not measured."""
    for query in lists(workload["warm"][:calls]):
        count(query)


def each(call: Callable[[Any], Any], items: Iterable[Any], answer: Callable[[Any], int]) -> Figures:
    """Microseconds of every single call: mean, median, 99th percentile; and the sum of the answers, to compare engines.

    As in `timeit`, the garbage collector is off: it would otherwise traverse the lists of all queries during a measurement.
    """
    nanoseconds = []
    answers = 0
    clock = time.perf_counter_ns
    gc.collect()
    gc.disable()
    for item in items:
        begin = clock()
        found = call(item)
        nanoseconds.append(clock() - begin)
        answers += answer(found)
    gc.enable()
    times = np.array(nanoseconds) / 1000
    return {
        "mean": float(times.mean()),
        "p50": float(np.median(times)),
        "p99": float(np.percentile(times, 99)),
        "calls": len(times),
        "answers": float(answers),
    }


if __name__ == "__main__":
    main()
