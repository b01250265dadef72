"""How long both indexers take and how much memory: a helper of benchmarks/ngram.py, and the check of a build in little memory.

    python -m benchmarks.ngram_builds CORPUS INDEX --memory 400MiB --same-as OTHER_INDEX

builds CORPUS again in a process whose private memory the kernel limits to that size (RLIMIT_DATA) and compares the tables.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MIB = 1 << 20
_OFFICIAL = """
import sys, transformers
load = transformers.AutoTokenizer.from_pretrained
transformers.AutoTokenizer.from_pretrained = lambda name, **options: load(sys.argv[1])
from infini_gram import indexing
sys.argv = ["indexing", *sys.argv[2:]]
indexing.main()
"""
_OURS = """
import json, resource, sys, time
from infinigram.build import Settings, build
corpus, index, tokenizer, shards, memory, limit = json.loads(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
begin, steps = time.perf_counter(), {}
def report(step, done, total, unit):
    now = time.perf_counter() - begin
    steps[step] = [steps.get(step, [now])[0], now]
build([corpus], index, Settings(tokenizer=tokenizer, shards=shards, memory_bytes=memory), report)
print(json.dumps({"seconds": time.perf_counter() - begin, "steps": steps}))
"""
_OUR_TABLE = """
import json, sys, time
from pathlib import Path
from infinigram.tables import make_table
text, table, width, memory, threads = json.loads(sys.argv[1])
begin = time.perf_counter()
make_table(Path(text), width, Path(table), memory, threads, lambda *_: None)
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""


def ours(corpus: Path, index: Path, tokenizer: str, shards: int = 1, memory_bytes: int | None = None) -> dict[str, Any]:
    """Build our index of a corpus (a folder of JSON lines): seconds of the whole and of each step, and the peak of memory.

    With `memory_bytes` the build is told so much, and the kernel refuses it more private memory.
    """
    given = json.dumps([str(corpus), str(index), tokenizer, shards, memory_bytes, memory_bytes])
    return _watched([sys.executable, "-c", _OURS, given])


def our_table(index: Path, scratch: Path, width_bytes: int, threads: int) -> dict[str, Any]:
    """Sort the tokens of an index again, all at once: seconds and the peak of memory of the suffix-array step alone."""
    text = index / "tokenized.0"
    table = scratch / "table.0"
    given = json.dumps([str(text), str(table), width_bytes, 64 << 30, threads])
    figures = _watched([sys.executable, "-c", _OUR_TABLE, given])
    figures["tokens"] = text.stat().st_size // width_bytes
    figures["equal"] = same_bytes(table, index / "table.0")
    table.unlink()
    return figures


def official(corpus: Path, index: Path, tokenizer: str, peer_python: Path, memory_gib: int, cores: int) -> dict[str, Any]:
    """Build the official index with the same tokenizer (a local folder, in its quick form, put in the place of a hub's)."""
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


def same_bytes(a: Path, b: Path) -> bool:
    """Whether two files hold the same."""
    with open(a, "rb") as one, open(b, "rb") as other:
        return hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()


def _watched(command: list[str]) -> dict[str, Any]:
    """Run a command; its seconds, its JSON (last line), and the largest memory of its processes together, in bytes."""
    begin = time.perf_counter()
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true" if command[0] == sys.executable else "false"}
    peak: dict[str, int] = {"resident": 0, "private": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        watcher = threading.Thread(target=_watch, args=(process, peak))
        watcher.start()
        output, _ = process.communicate()
        watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} failed with status {process.returncode}; its words are above")
    figures: dict[str, Any] = {"seconds": time.perf_counter() - begin, "output": output}
    last = output.strip().rsplit("\n", 1)[-1]
    if last.startswith("{"):
        figures |= json.loads(last)
        del figures["output"]
    return figures | {"peak_bytes": peak["resident"], "peak_private_bytes": peak["private"]}


def _watch(process: subprocess.Popen[str], peak: dict[str, int]) -> None:
    while process.poll() is None:
        sums = {"resident": 0, "private": 0}
        for pid in _tree(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for name, field in (("resident", "VmRSS"), ("private", "RssAnon")):
                found = re.search(rf"{field}:\s+(\d+) kB", status)
                sums[name] += int(found[1]) * 1024 if found else 0
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
