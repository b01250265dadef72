"""Memory and time of reading sources and writing them as parts, per document.

The documents are generated: each has 60 to 240 random words out of 30,000, one in five is a copy of an earlier one with a tenth
of its words replaced. They are read from a JSON Lines file, grouped, split and written as Parquet parts, in a process of its own.

    python benchmarks/sources.py [--rows 200000] [--before CHECKOUT]

With --before the same is done by the code of another checkout of this repository, in the same run, and the rows that both have
written are compared. "Memory" is the peak of anonymous memory (RssAnon) above that of the imported libraries: what the system
cannot take back. "Resident" includes mapped files, which it can.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

WORDS = 30_000

CHILD = """
import re, sys, threading, time
from pathlib import Path
from pydantic import TypeAdapter
from limbeck.corpus import sources
from limbeck.corpus.parts import write_part, write_parts
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.tokenizer import Tokenizer
import json

def status(field):
    return int(re.search(rf"{field}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

def watch():
    while True:
        peak[0] = max(peak[0], status("RssAnon"))
        time.sleep(0.005)

rows, model, out = sys.argv[1:]
config = TypeAdapter(sources.SourcesConfig).validate_python({"kind": "jsonl", "path": rows})
tokenizer = Tokenizer.load(Path(model))
tokenizer.count(["warm"])
before, peak, began = status("RssAnon"), [0], time.monotonic()
threading.Thread(target=watch, daemon=True).start()
if hasattr(sources, "prepared"):
    with sources.prepared(config, tokenizer, 0, Path(out)) as found:
        for split in ("train", "dev", "test", "rejected"):
            for number, table in enumerate(found.tables(split, rows=250)):
                write_part(Path(out) / split, f"part-{number:05d}", table, SOURCES)
else:
    table = sources.read_sources(config, tokenizer, 0)
    for split in ("train", "dev", "test", "rejected"):
        chosen = table.filter([value == split for value in table["split"].to_pylist()])
        write_parts(Path(out) / split, chosen, 250, SOURCES)
seconds = time.monotonic() - began
print(json.dumps({"anonymous": peak[0] - before, "resident": status("VmHWM"), "seconds": seconds}))
"""


def main() -> None:
    """Measure one or two versions and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version, with its extension built")
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        size = write_rows(place / "rows.jsonl", arguments.rows)
        write_tokenizer(place / "model")
        print(f"{arguments.rows:,} documents, {size / arguments.rows:,.0f} bytes each", flush=True)
        found = {}
        for name, checkout in (("before", arguments.before), ("now", here)):
            if checkout is not None:
                found[name] = measured(checkout, place, place / name)
                show(name, found[name], arguments.rows)
        if len(found) == 2:
            print(f"memory before / now: {found['before']['anonymous'] / found['now']['anonymous']:.1f}")
            print(f"the same rows: {digest(place / 'before') == digest(place / 'now')}")


def write_rows(path: Path, rows: int) -> int:
    """Write the documents and return their size in bytes."""
    draw = random.Random(1)
    recent: list[list[str]] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            words = [f"w{draw.randrange(WORDS):x}" for _ in range(draw.randint(60, 240))]
            if recent and number % 5 == 0:
                words = list(draw.choice(recent))
                for _ in range(len(words) // 10):
                    words[draw.randrange(len(words))] = f"w{draw.randrange(WORDS):x}"
            recent = [*recent[-100:], words]
            text = ". ".join(" ".join(words[start : start + 12]).capitalize() for start in range(0, len(words), 12))
            file.write(json.dumps({"text": f"{text}.", "number": number}) + "\n")
    return path.stat().st_size


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def measured(checkout: Path, place: Path, out: Path) -> dict[str, Any]:
    """Prepare the sources with the code of a checkout, in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(place / "rows.jsonl"), str(place / "model"), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(command, env=environment, cwd=place, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def show(name: str, found: dict[str, Any], rows: int) -> None:
    """Print the figures of a version."""
    memory, resident = found["anonymous"] / rows, found["resident"] / 1e6
    seconds = found["seconds"]
    print(f"{name:>8}: memory {memory:,.0f} bytes per document, resident {resident:,.0f} MB, {seconds:.0f} s", flush=True)


def digest(out: Path) -> list[tuple[str, int, str]]:
    """The splits with the number of their rows and a hash of them."""
    found = []
    for split in ("train", "dev", "test", "rejected"):
        rows, content = 0, hashlib.sha256()
        for path in sorted((out / split).glob("part-*.parquet")):
            table = pq.read_table(path, partitioning=None)
            rows += table.num_rows
            content.update(str(table.to_pylist()).encode())
        found.append((split, rows, content.hexdigest()))
    return found


if __name__ == "__main__":
    main()
