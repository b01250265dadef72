"""The cost of a query on an index that is not in memory: disk reads (major page faults) and time of counts on cold files.

    python -m benchmarks.ngram_cold WORK [--queries 300]

WORK is a folder made by benchmarks/ngram.py. Before each row the text and the table are evicted from the page cache
(POSIX_FADV_DONTNEED); the sampled keys are read on opening, as in a service. The official figures are of the same files.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (2, 5, 10)


def main() -> None:
    """Measure each engine in its own process and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--engine", choices=["ours", "official"], help="measure this one here (used by the script itself)")
    arguments = parser.parse_args()
    if arguments.engine is not None:
        print(json.dumps(measure(arguments.work, arguments.engine, arguments.queries)))
        return
    from benchmarks.ngram import machine  # not in the peer's environment

    print(machine())
    for engine, python in (("ours", sys.executable), ("official", arguments.peer_python)):
        if python is not None:
            command = [str(python), __file__, str(arguments.work), "--engine", engine, "--queries", str(arguments.queries)]
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path[: 2 if engine == "official" else None])),
            }
            print(engine, subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def measure(work: Path, engine: str, queries: int) -> dict[str, Any]:
    """Faults and microseconds per query, by the query's length in tokens."""
    workload = np.load(work / "workload.npz")
    figures: dict[str, Any] = {}
    for size in SIZES:
        folder = work / engine
        evict(folder)
        count = _opened(engine, folder)
        evict(folder)
        asked = [query.tolist() for query in workload[f"count{size}"][:queries]]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        begin = time.perf_counter()
        for query in asked:
            count(query)
        seconds = time.perf_counter() - begin
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before
        figures[f"n={size}"] = {"reads": round(faults / queries, 1), "microseconds": round(seconds * 1e6 / queries)}
    return figures


def evict(folder: Path) -> None:
    """Evict the text and the table from the page cache, as far as no process has them mapped."""
    for name in ("tokenized.0", "table.0"):
        descriptor = os.open(folder / name, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _opened(engine: str, folder: Path) -> Any:
    if engine == "ours":
        from limbeck.infinigram.index import Index

        return Index.open(folder).count
    from infini_gram.engine import InfiniGramEngine

    return InfiniGramEngine(str(folder), eos_token_id=0, ds_prefetch_depth=0, sa_prefetch_depth=0, od_prefetch_depth=0).count


if __name__ == "__main__":
    main()
