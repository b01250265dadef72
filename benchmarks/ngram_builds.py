"""Time and memory of both indexers: a helper of benchmarks/ngram.py, and a test of builds in little memory.

    python -m benchmarks.ngram_builds CORPUS INDEX --memory 400MiB --same-as OTHER_INDEX

builds CORPUS again in a process whose private memory the kernel limits to that size (RLIMIT_DATA) and compares the tables.
"""

import argparse
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.infinigram.build import Settings, build

MIB = 1 << 20
_OFFICIAL = """
import sys, transformers
load, folder = transformers.AutoTokenizer.from_pretrained, sys.argv.pop(1)
transformers.AutoTokenizer.from_pretrained = lambda name, **options: load(folder)
from infini_gram import indexing
indexing.main()
"""
_OURS = """
import json, os, resource, sys, time
from limbeck.infinigram.build import Settings, build
corpus, index, tokenizer, memory = json.loads(sys.argv[1])
def limit():
    groups = dict(line.strip().split(":", 2)[1:] for line in open("/proc/self/cgroup"))
    for root, kind, file in (("/sys/fs/cgroup/memory", "memory", "limit_in_bytes"), ("/sys/fs/cgroup", "", "max")):
        folder = f"{root}{groups.get(kind)}/limbeck-{os.getpid()}"
        try:
            os.mkdir(folder)
            for name, value in ((f"memory.{file}", memory), ("cgroup.procs", os.getpid())):
                with open(f"{folder}/{name}", "w") as handle:
                    handle.write(str(value))
            return folder
        except OSError:
            continue
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    return "ulimit -d"
limited_by = limit() if memory else ""
begin, steps = time.perf_counter(), {}
def report(step, done, total, unit):
    now = time.perf_counter() - begin
    steps[step] = [steps.get(step, [now])[0], now]
build([corpus], index, Settings(tokenizer=tokenizer, memory_bytes=memory), report)
print(json.dumps({"seconds": time.perf_counter() - begin, "steps": steps, "limited_by": limited_by}))
"""
_OUR_TABLE = """
import json, sys, time
from pathlib import Path
from limbeck.infinigram.tables import make_table
text, table, width, memory, threads = json.loads(sys.argv[1])
begin = time.perf_counter()
make_table(Path(text), width, Path(table), memory, threads, lambda *_: None)
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""


def ours(corpus: Path, index: Path, tokenizer: str, memory_bytes: int | None = None) -> dict[str, Any]:
    """Build our index of a corpus (a folder of JSON lines): seconds (wall and CPU), steps, peak memory.

    `memory_bytes` sets the build's memory budget, enforced by the kernel: with a memory cgroup if one can be created, which
    includes the page cache, else with `ulimit -d`.
    """
    given = json.dumps([str(corpus), str(index), tokenizer, memory_bytes])
    figures = _watched([sys.executable, "-c", _OURS, given])
    if figures["limited_by"].startswith("/"):
        group = Path(figures["limited_by"])
        peaks = [group / name for name in ("memory.max_usage_in_bytes", "memory.peak") if (group / name).exists()]
        figures |= {"limited_by": "memory cgroup", "peak_cgroup_bytes": int(peaks[0].read_text()) if peaks else None}
        group.rmdir()
    return figures


def our_table(index: Path, scratch: Path, width_bytes: int, threads: int) -> dict[str, Any]:
    """Sort the tokens of an index again, all at once: seconds and peak memory of the suffix-array step alone."""
    text = index / "tokenized.0"
    table = scratch / "table.0"
    given = json.dumps([str(text), str(table), width_bytes, 64 << 30, threads])
    figures = _watched([sys.executable, "-c", _OUR_TABLE, given])
    figures["tokens"] = text.stat().st_size // width_bytes
    figures["equal"] = same_bytes(table, index / "table.0")
    table.unlink()
    return figures


def official(corpus: Path, index: Path, tokenizer: str, peer_python: Path, memory_gib: int, cores: int) -> dict[str, Any]:
    """Build the official index with the same tokenizer (a local folder, fast form, in place of a hub id)."""
    command = [
        str(peer_python),
        "-c",
        _OFFICIAL,
        tokenizer,
        "--data_dir",
        str(corpus.absolute()),
        "--save_dir",
        str(index.absolute()),
    ]
    command += ["--tokenizer", "olmo", "--cpus", str(cores), "--mem", str(memory_gib), "--ulimit", "4096", "--add_metadata"]
    figures = _watched(command)
    took = re.findall(r"Step 2 \(build_sa\): Done. Took ([0-9.]+) seconds", figures.pop("output"))
    figures["table_seconds"] = sum(map(float, took))
    return figures


def dealt(index: Path, folder: Path, shards: int) -> None:
    """Rebuild our single-shard index with many shards, from its token ids."""
    tokens = np.fromfile(index / "tokenized.0", dtype="<u2")
    begins = np.fromfile(index / "offset.0", dtype="<u8").astype(np.int64) // 2
    ids = folder.with_name("ids.npy")
    np.save(ids, np.delete(tokens, begins))
    np.save(ids.with_name("ids.offsets.npy"), np.append(begins, len(tokens)) - np.arange(len(begins) + 1))
    build([ids], folder, Settings(shards=shards))


def same_bytes(a: Path, b: Path) -> bool:
    """Whether two files have the same content."""
    with open(a, "rb") as one, open(b, "rb") as other:
        return hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()


def _watched(command: list[str]) -> dict[str, Any]:
    """Run a command; return its seconds, its JSON (last line), and the peak total memory of its processes, in bytes.

    "sorting" counts the official indexer's sorting and merging processes, without the parent Python process.
    """
    begin = time.perf_counter()
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true" if command[0] == sys.executable else "false"}
    peak: dict[str, int] = {"resident": 0, "private": 0, "sorting": 0}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        watcher = threading.Thread(target=_watch, args=(process, peak))
        watcher.start()
        output, _ = process.communicate()
        watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} failed with status {process.returncode}; see its output above")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    figures: dict[str, Any] = {"seconds": time.perf_counter() - begin, "cpu_seconds": cpu_seconds, "output": output}
    last = output.strip().rsplit("\n", 1)[-1]
    if last.startswith("{"):
        figures |= json.loads(last)
        del figures["output"]
    return figures | {f"peak_{name}_bytes": value for name, value in peak.items()}


def _watch(process: subprocess.Popen[str], peak: dict[str, int]) -> None:
    while process.poll() is None:
        sums = dict.fromkeys(peak, 0)
        for pid in _tree(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for name, field in (("resident", "VmRSS"), ("private", "RssAnon")):
                found = re.search(rf"{field}:\s+(\d+) kB", status)
                sums[name] += int(found[1]) * 1024 if found else 0
                if name == "resident" and found and "rust_indexing" in status:
                    sums["sorting"] += int(found[1]) * 1024
        for name, total in sums.items():
            peak[name] = max(peak[name], total)
        time.sleep(0.05)


def _tree(pid: int) -> list[int]:
    try:
        children = [child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    except OSError:
        return []
    return [pid, *(below for child in children for below in _tree(int(child)))]


def main() -> None:
    """Build in little memory and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--memory", default="400MiB")
    parser.add_argument("--tokenizer", default="tiktoken:gpt2")
    parser.add_argument("--same-as", type=Path, required=True)
    arguments = parser.parse_args()
    memory = int(arguments.memory.removesuffix("MiB")) * MIB
    figures = ours(arguments.corpus, arguments.index, arguments.tokenizer, memory_bytes=memory)
    names = ("tokenized.0", "table.0")
    figures["equal"] = {name: same_bytes(arguments.index / name, arguments.same_as / name) for name in names}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
