"""Near-duplicates at scale: seconds, peak memory, recall and precision on planted copies, and datasketch in the same run.

The pool is generated: 7 in 10 rows are originals (sentences of 6 to 24 Zipf-distributed words, or the sentences of a folder of
.jsonl files with a `text` field), 3 in 10 are copies of one with a share of words, drawn from 0 to 20 %, replaced, dropped or
doubled; the rows are then shuffled. The copies' exact similarity is computed with sets in plain Python. Shingles are word pairs
and the threshold is 0.7, the filter's defaults.

    python benchmarks/duplicates.py pool [--rows 1000000] [--corpus FOLDER]   MinHash, against datasketch on a sample
    python benchmarks/duplicates.py vectors [--rows 100000]                   cosines, against plain blocked products
    python benchmarks/duplicates.py encoder [--rows 2000]                     all-MiniLM, against sentence-transformers
"""

import argparse
import json
import multiprocessing
import re
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.sentences import split_sentences
from limbeck.filters.sets.cosine import similar_vectors, unit
from limbeck.filters.sets.duplicates import DuplicatesConfig

THRESHOLD = 0.7
COPIES = 0.3
VOCABULARY = 200_000
WORD = re.compile(r"\w+")


def main() -> None:
    """Run one of the comparisons and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pool", "vectors", "encoder"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--corpus", type=Path, help="a folder of .jsonl files; default: Zipf words")
    parser.add_argument("--sample", type=int, default=10_000, help="number of rows for datasketch")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    compare = {"pool": compare_pool, "vectors": compare_vectors, "encoder": compare_encoder}[arguments.what]
    for name, value in compare(arguments).items():
        print(f"{name:>44}  {value}", flush=True)


def compare_pool(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole pool in its own process, then the sample with both, alternating."""
    rows = arguments.rows or 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.parquet"
        in_own_process(write_pool, path, rows, arguments.corpus)
        figures = in_own_process(measure_pool, path)
        sample = pq.read_table(path).slice(0, arguments.sample)
        figures |= compare_sample(sample, arguments.runs)
    extrapolated = figures["datasketch seconds on the sample"] * rows / arguments.sample
    figures["datasketch seconds, extrapolated to all rows"] = round(extrapolated)
    figures["ratio, all rows"] = round(extrapolated / figures["seconds"], 1)
    return figures


def write_pool(path: Path, rows: int, corpus: Path | None) -> None:
    """Originals and copies, shuffled in blocks of families so that any slice has whole families."""
    rng = np.random.default_rng(1)
    originals = round(rows * (1 - COPIES))
    found = real_sentences(corpus, originals) if corpus else zipf_sentences(rng, originals)
    texts, families = [], []
    copies = np.bincount(rng.integers(0, originals, rows - originals), minlength=originals)
    for family, (text, count) in enumerate(zip(found, copies.tolist(), strict=True)):
        texts += [text, *(edited(text, rng) for _ in range(count))]
        families += [family] * (count + 1)
    order = np.argsort(np.array(families) // 1000 + rng.random(rows), kind="stable")
    table = {
        "candidate_id": [f"{i:08d}" for i in range(rows)],
        "source_id": [f"source-{i // 8:07d}" for i in range(rows)],
        "sample": pa.array(np.arange(rows, dtype=np.int32) % 8),
        "output": pa.array(texts).take(order),
        "family": pa.array(families, pa.int64()).take(order),
    }
    pq.write_table(pa.table(table), path)


def zipf_sentences(rng: np.random.Generator, count: int) -> list[str]:
    """Sentences of 6 to 24 words, the n-th word of the vocabulary with probability proportional to 1 / n."""
    chances = 1 / np.arange(1, VOCABULARY + 1)
    edges = np.cumsum(chances / chances.sum())
    lengths = rng.integers(6, 25, count)
    words = np.minimum(np.searchsorted(edges, rng.random(lengths.sum())), VOCABULARY - 1)
    named = [f"w{number:x}" for number in range(VOCABULARY)]
    pieces = np.split(words, np.cumsum(lengths)[:-1])
    return [" ".join(named[word] for word in piece.tolist()) + "." for piece in pieces]


def real_sentences(folder: Path, count: int) -> list[str]:
    """The first distinct sentences of 5 to 40 words of the folder's documents, alternating between files."""
    seen: dict[str, None] = {}
    readers = [read_sentences(file) for file in sorted(folder.glob("*.jsonl"))]
    while readers and len(seen) < count:
        for reader in list(readers):
            sentences = next(reader, None)
            if sentences is None:
                readers.remove(reader)
            else:
                seen.update(dict.fromkeys(sentence for sentence in sentences if 5 <= len(sentence.split()) <= 40))
    if len(seen) < count:
        raise SystemExit(f"{folder} has only {len(seen)} sentences, {count} are needed; lower --rows")
    return list(seen)[:count]


def read_sentences(file: Path) -> Iterator[list[str]]:
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            yield [" ".join(sentence.split()) for sentence in split_sentences(json.loads(line)["text"])]


def edited(text: str, rng: np.random.Generator) -> str:
    """A copy with 0 to 20 % of its words replaced, dropped or doubled."""
    words = text.split()
    share = 0.2 * rng.random()
    changed = []
    for word, draw, kind in zip(words, rng.random(len(words)), rng.integers(0, 3, len(words)), strict=True):
        if draw >= share:
            changed.append(word)
        elif kind == 0:
            changed.append(f"new{rng.integers(1 << 20):x}")
        elif kind == 1:
            changed += [word, word]
    return " ".join(changed) or text


def measure_pool(path: Path) -> dict[str, Any]:
    """Seconds and peak memory of the filter on the pool, and a comparison of its groups with the planted ones."""
    table = pq.read_table(path)
    before = peak_mib()
    clock = time.perf_counter()
    told = DuplicatesConfig(method="minhash", min_similarity=THRESHOLD).build().select(table.drop_columns("family"))
    seconds = time.perf_counter() - clock
    peak = peak_mib()
    kept_for = np.arange(table.num_rows)
    dropped = told["candidate_id"].cast(pa.int64()).to_numpy()
    kept_for[dropped] = told["duplicate_of"].cast(pa.int64()).to_numpy()
    families = table["family"].to_numpy()
    direct = told["similarity"].to_numpy() >= THRESHOLD
    same_family = families[dropped] == families[kept_for[dropped]]
    found = recall(table, kept_for, range(0, table.num_rows))
    return {
        "rows": table.num_rows,
        "characters per row": round(sum(map(len, table["output"].to_pylist())) / table.num_rows, 1),
        "seconds": round(seconds, 1),
        "peak MiB (of that before: interpreter and table)": f"{peak:.0f} ({before:.0f})",
        "rows dropped": len(dropped),
        "planted pairs of at least the threshold": found[1],
        "recall of these": f"{found[0] / found[1]:.5f}",
        "dropped rows at least as near to the kept one": f"{direct.mean():.4f}",
        "dropped rows that are near or of its family": f"{(direct | same_family).mean():.5f}",
        "the others: joined by a chain": int((~direct & ~same_family).sum()),
    }


def recall(table: pa.Table, groups: np.ndarray, places: range) -> tuple[int, int]:
    """The number of planted pairs (a copy and the first row of its family) at or above the threshold that are in one group."""
    families = table["family"].to_numpy()
    texts = table["output"].to_pylist()
    firsts: dict[int, tuple[int, set[tuple[str, ...]]]] = {}
    met = found = 0
    for place in places:
        pairs = shingles(texts[place])
        first, others = firsts.setdefault(families[place], (place, pairs))
        if first != place and len(pairs & others) / len(pairs | others) >= THRESHOLD:
            found += 1
            met += int(groups[place] == groups[first])
    return met, found


def shingles(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return {tuple(words[i : i + 2]) for i in range(max(1, len(words) - 1))}


def compare_sample(sample: pa.Table, runs: int) -> dict[str, Any]:
    """The filter and datasketch on the same rows, alternating; datasketch's pairs are not verified, which favours it."""
    theirs, ours = [], []
    for _ in range(runs):
        seconds, groups = timed(lambda: datasketch_groups(sample["output"].to_pylist()))
        theirs.append(seconds)
        ours.append(timed(lambda: DuplicatesConfig(method="minhash", min_similarity=THRESHOLD).build().select(sample))[0])
    met, found = recall(sample, groups, range(sample.num_rows))
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return {
        "sample rows": sample.num_rows,
        "datasketch seconds on the sample": round(float(np.mean(theirs)), 2),
        "filter seconds on the sample": round(float(np.mean(ours)), 3),
        "ratio on the sample, mean and range": f"{np.mean(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
        "datasketch's recall on the sample": f"{met / found:.5f}",
    }


def datasketch_groups(texts: list[str]) -> np.ndarray:
    """MinHash and MinHashLSH with the same number of permutations, joined by union-find."""
    from datasketch import MinHash, MinHashLSH

    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    sets = [[" ".join(words).encode() for words in shingles(text)] for text in texts]
    index = MinHashLSH(threshold=THRESHOLD, num_perm=256)
    for row, sketch in enumerate(MinHash.bulk(sets, num_perm=256)):
        for other in index.query(sketch):
            one, two = sorted((root(row), root(int(other))))
            parent[two] = one
        index.insert(row, sketch)
    return np.array([root(row) for row in range(len(texts))])


def compare_vectors(arguments: argparse.Namespace) -> dict[str, Any]:
    """Vectors of 384 dimensions with about the spread of sentence vectors, one in five near another; cosine at least 0.9."""
    rows = arguments.rows or 100_000
    rng = np.random.default_rng(2)
    spread = np.exp(-np.arange(384) / 120)
    vectors = unit((rng.normal(size=(rows, 384)) * spread).astype(np.float32))
    copies = rng.permutation(rows)[: rows // 5]
    noise = 0.3 * rng.random((len(copies), 1)) * unit(rng.normal(size=(len(copies), 384)).astype(np.float32))
    vectors[copies] = unit((vectors[rng.integers(0, rows, len(copies))] + noise).astype(np.float32))
    seconds, labels = timed(lambda: similar_vectors(vectors, np.zeros(rows, np.int64), 0.9))
    sample = min(rows, 20_000)
    plain, counted = timed(lambda: plain_products(vectors, sample))
    return {
        "vectors": rows,
        "seconds": round(seconds, 1),
        "rows dropped": int((labels != np.arange(rows)).sum()),
        "pairs by plain products of the sample": counted,
        "plain products, seconds, extrapolated": round(plain * (rows / sample) ** 2, 1),
        "ratio": round(plain * (rows / sample) ** 2 / seconds, 2),
    }


def plain_products(vectors: np.ndarray, rows: int) -> int:
    """The number of pairs of the first rows that reach the cosine, by products of whole blocks."""
    count = 0
    for start in range(0, rows, 2048):
        for other in range(start, rows, 2048):
            count += int(np.count_nonzero(vectors[start : start + 2048] @ vectors[other : min(other + 2048, rows)].T >= 0.9))
    return count


def compare_encoder(arguments: argparse.Namespace) -> dict[str, Any]:
    """all-MiniLM-L6-v2 in float32 on the CPU, both with their own batching, alternating."""
    from sentence_transformers import SentenceTransformer

    from limbeck.cluster.engines.models import resolve
    from limbeck.cluster.engines.scoring_models.encoder import EncoderConfig

    rows = arguments.rows or 2000
    texts = real_sentences(arguments.corpus, rows) if arguments.corpus else zipf_sentences(np.random.default_rng(3), rows)
    encoder = EncoderConfig(device="cpu").load()
    peer = SentenceTransformer(str(resolve(EncoderConfig().model)), device="cpu")
    ours, theirs, worst = [], [], 0.0
    for _ in range(arguments.runs):
        seconds, vectors = timed(lambda: encoder.encode(texts))
        ours.append(seconds)
        seconds, expected = timed(lambda: peer.encode(texts, batch_size=32, normalize_embeddings=True))
        theirs.append(seconds)
        worst = max(worst, float(np.abs(vectors - expected).max()))
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return {
        "texts": rows,
        "texts per second": round(rows / float(np.mean(ours))),
        "sentence-transformers, texts per second": round(rows / float(np.mean(theirs))),
        "ratio, mean and range": f"{np.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        "largest difference of a coordinate": f"{worst:.1e}",
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    clock = time.perf_counter()
    result = work()
    return time.perf_counter() - clock, result


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
