"""The n-gram engine against the official one (`infini-gram`), both built from one corpus with one tokenizer, in one run.

    python -m benchmarks.ngram WORK [--quick] [--runs 5] [--peer-python PYTHON] [--only queries]

creates in the folder WORK whatever is missing of: a corpus (benchmarks/ngram_corpus.py, or --corpus with folders of JSON lines),
an environment with the official engine (unless --peer-python names one that has infini-gram 2.6.0 and transformers), both
indexes, and ours again in 16 shards, which both engines read. Then both answer the same queries, each in its own process,
alternating. The official engine runs with its fastest settings: prefetch depths 0, the fast tokenizer. Times are of single calls
from Python unless a row says batch; a ratio is official mean by our mean, with its range over the runs.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ngram_builds, ngram_corpus
from limbeck.cluster.engines.models import resolve
from limbeck.infinigram.tokenizers import Tokenizer, load_tokenizer

STEPS = ("ours", "our_table", "official")
PEER = ("infini-gram==2.6.0", "transformers==5.23.0", "flask")
SHARDS = 16
SEPARATOR = 65535
# Each row of ours, the official row it is compared with, and the target ratio.
ROWS = {
    **{
        f"count n={n} {form}": (f"count n={n} list", least)
        for n in (1, 2, 5, 10)
        for form, least in (("list", 15), ("array", 15), ("batch", 50))
    },
    "prob list": ("prob list", 20),
    "prob array": ("prob list", 20),
    **{f"next tokens {n} list": (f"next tokens {n} list", least) for n, least in ((1, 15), (2, 50), (3, 50))},
    **{
        f"infgram_prob {n} {form}": (f"infgram_prob {n} list", least)
        for n in (64, 500)
        for form, least in (("array", 25), ("list", 15))
    },
    "score array": ("score array", 500),
    "score, one thread array": ("score array", 500),
    "creativity list": ("creativity list", 150),
    "creativity array": ("creativity list", 150),
    "trace list": ("trace list", 150),
    "trace with documents array": ("trace list", None),
    "count, many shards list": ("count, many shards list", 50),
    "count, many shards array": ("count, many shards list", 50),
    "count, many shards batch": ("count, many shards list", 50),
}
_SAME_ANSWERS = ("count", "prob", "infgram_prob", "next tokens")


def main() -> None:
    """Build what is missing, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--corpus", type=Path, help="a folder of JSON lines with `text`; held_out.jsonl beside it")
    parser.add_argument("--tokenizer", default="embedded:smollm2-135m-instruct", help="a model, by folder or embedded name")
    parser.add_argument("--quick", action="store_true", help="40 MB of text")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--only", choices=[*STEPS, "queries"], help="only one build, if it is missing, or only the queries")
    parser.add_argument("--under", default="", help="a command that wraps every measured process (flock, nice, taskset)")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    corpus = arguments.corpus or work / "corpus" / "train"
    if arguments.corpus is None:
        ngram_corpus.make_corpus(
            work / "corpus", None, 40_000_000 if arguments.quick else 350_000_000, work / "corpus" / "packages"
        )
    peer_python = arguments.peer_python or _peer(work / "peer")
    tokenizer = str(resolve(arguments.tokenizer))
    print(machine(), flush=True)
    figures = _built(work, corpus, tokenizer, peer_python, arguments.only)
    if all(name in figures for name in STEPS):
        files = ("tokenized.0", "offset.0", "metadata.0", "metaoff.0", "table.0")
        equal = {file: ngram_builds.same_bytes(work / "ours" / file, work / "official" / file) for file in files}
        print(f"the same bytes in both: {equal}", builds_table(figures), sep="\n", flush=True)
    if arguments.only in (None, "queries"):
        if not (work / "many").exists():
            ngram_builds.dealt(work / "ours", work / "many", SHARDS)
        workload = work / "workload.npz"
        if not workload.exists():
            loaded = load_tokenizer(tokenizer)
            np.savez(workload, **make_workload(work / "ours", corpus.parent / "held_out.jsonl", loaded, arguments.quick))  # type: ignore[arg-type]
        print(queries_table(run_queries(work, workload, peer_python, arguments.runs, shlex.split(arguments.under))))


def machine() -> str:
    """The hardware and its current load."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    return f"{date.today()}, {cores} cores of {names[0]}, {memory:.0f} GiB, Python {platform.python_version()}, load {load}"


def _peer(folder: Path) -> Path:
    """Make an environment with the official engine."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER], check=True)
    return python


def _built(work: Path, corpus: Path, tokenizer: str, peer_python: Path, only: str | None) -> dict[str, Any]:
    """Build the missing indexes (or only one); the measurements are stored beside them."""
    record = work / "builds.json"
    figures: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    cores = len(os.sched_getaffinity(0))
    steps: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: ngram_builds.ours(corpus, work / "ours", tokenizer),
        lambda: ngram_builds.our_table(work / "ours", work, 2, cores),
        lambda: ngram_builds.official(corpus, work / "official", tokenizer, peer_python, 16, cores),
    )
    for name, step in zip(STEPS, steps, strict=True):
        if name not in figures and only in (None, name, "queries"):
            print(f"{name} ...", flush=True)
            figures[name] = step()
            record.write_text(json.dumps(figures, indent=1))
    return figures


def builds_table(figures: dict[str, Any]) -> str:
    """The table of the builds."""
    ours, table, official = figures["ours"], figures["our_table"], figures["official"]
    tokens = table["tokens"]
    whole = official["seconds"] / ours["seconds"]
    cores = official["cpu_seconds"] / ours["cpu_seconds"]
    sort = official["table_seconds"] / table["seconds"]
    bytes_a_token = [official["peak_sorting_bytes"] / tokens, table["peak_resident_bytes"] / tokens]
    return "\n".join(
        [
            f"{tokens:,} tokens, including separators",
            "| | official | ours | ratio | target |",
            "|---|---|---|---|---|",
            f"| build, including tokenisation | {official['seconds']:.0f} s | {ours['seconds']:.0f} s | {whole:.1f} | 4 |",
            f"| the same, CPU seconds | {official['cpu_seconds']:.0f} s | {ours['cpu_seconds']:.0f} s | {cores:.1f} | |",
            f"| suffix array | {official['table_seconds']:.1f} s | {table['seconds']:.1f} s | {sort:.1f} | 5 |",
            f"| its peak memory, bytes per token | {bytes_a_token[0]:.1f} | {bytes_a_token[1]:.1f} | | 10 |",
        ]
    )


def make_workload(index: Path, held_out: Path, tokenizer: Tokenizer, quick: bool) -> dict[str, Any]:
    """The queries: half from the corpus, half from held-out documents; next-token prompts from the corpus."""
    draw = np.random.default_rng(0)
    corpus = np.memmap(index / "tokenized.0", dtype="<u2", mode="r")
    with open(held_out, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    unseen = np.concatenate([np.append(ids, SEPARATOR) for ids in tokenizer.encode_batch(texts)]).astype(np.uint16)

    def pieces(tokens: int, count: int, source: Any) -> Any:
        starts = draw.integers(0, len(source) - tokens, size=3 * count + 100)
        windows = np.stack([source[start : start + tokens] for start in starts])
        return windows[~(windows == SEPARATOR).any(axis=1)][:count]

    def mixed(tokens: int, count: int) -> Any:
        return draw.permutation(np.concatenate([pieces(tokens, count // 2, corpus), pieces(tokens, count // 2, unseen)]))

    workload: dict[str, Any] = {f"count{size}": mixed(size, 20_000) for size in (1, 2, 5, 10)}
    workload |= {f"next{size}": pieces(size, 200, corpus) for size in (1, 2, 3)}
    workload |= {f"context{size}": mixed(size + 1, 2000) for size in (64, 500)}
    text = unseen[unseen != SEPARATOR]
    return workload | {
        "prob": mixed(6, 10_000),
        "warm": mixed(5, 20_000),
        "pieces": pieces(512, 20, unseen),
        "text": text[:1_000_000],
        "scored_tokens": np.array(2_000 if quick else 20_000),
        "delimiters": np.array([tokenizer.encode(mark)[0] for mark in ("\n", ".")]),
    }


def run_queries(work: Path, workload: Path, peer_python: Path, runs: int, under: list[str]) -> list[dict[str, Any]]:
    """The rows of both engines, run by run."""
    script = str(Path(__file__).with_name("ngram_queries.py"))
    results = []
    for run in range(runs):
        result: dict[str, Any] = {"load": os.getloadavg()[0]}
        for engine, python in (("official", str(peer_python)), ("ours", sys.executable)):
            out = work / f"run.{run}.{engine}.json"
            command = [*under, python, script, engine, str(work / engine), str(work / "many"), str(workload), str(out)]
            search_path = os.pathsep.join(["", *filter(None, sys.path)]) if engine == "ours" else ""
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": search_path})
            result[engine] = json.loads(out.read_text())
        for name, figures in result["official"].items():
            if name.startswith(_SAME_ANSWERS) and result["ours"][name]["answers"] != figures["answers"]:
                raise SystemExit(
                    f"the engines' answers to {name} differ: {figures['answers']} and {result['ours'][name]['answers']}"
                )
        results.append(result)
    return results


def queries_table(results: list[dict[str, Any]]) -> str:
    """The table of the queries: microseconds, means and medians over the runs, and ratios of means with their range."""
    loads = ", ".join(f"{result['load']:.1f}" for result in results)
    lines = [
        f"{len(results)} runs, load before each: {loads}; the same answers in every row of counts",
        "| microseconds | official mean (median) | ours mean (median) | ratio of means (range) | of medians | target |",
        "|---|---|---|---|---|---|",
    ]
    for name, (against, least) in ROWS.items():
        official = [result["official"][against] for result in results]
        ours = [result["ours"][name] for result in results]
        ratios = [theirs["mean"] / own["mean"] for theirs, own in zip(official, ours, strict=True)]
        ratio = np.mean([theirs["mean"] for theirs in official]) / np.mean([own["mean"] for own in ours])
        shown = [f"{np.mean([one['mean'] for one in side]):,.2f}{_median(side)}" for side in (official, ours)]
        medians = [np.mean([one.get("p50", one["mean"]) for one in side]) for side in (official, ours)]
        spread = f"{ratio:,.0f} ({min(ratios):,.0f} to {max(ratios):,.0f})"
        lines.append(f"| {name} | {' | '.join(shown)} | {spread} | {medians[0] / medians[1]:,.0f} | {least or ''} |")
    score = [result["ours"]["score array"]["seconds"] for result in results]
    scored = results[0]["official"]["score array"]
    lines.append(
        f"Scoring is time per token; 1M tokens took us {np.mean(score):.2f} s. The official figure is extrapolated from "
        f"{scored['calls']:,} tokens with at most 500 tokens before each; ours has no such bound."
    )
    return "\n".join(lines)


def _median(side: list[dict[str, float]]) -> str:
    return f" ({np.mean([one['p50'] for one in side]):,.2f})" if "p50" in side[0] else ""


if __name__ == "__main__":
    main()
