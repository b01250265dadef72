"""Five changes of an index under load: failed requests, wrong counts, and how long a change takes to be served.

    python -m benchmarks.ngram_swaps WORK [--seconds 60] [--workers 2] [--clients 8]

Builds an index of random texts in WORK, serves it with `limbeck ngram serve`, and asks for counts and documents without pause
while documents are appended, removed and compacted. A count must be that of a state of the index which was current at some moment
of the request or up to SERVED_SECONDS before it; the counts of every state come from Python's `str.count` over its texts.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

PHRASES = ("still", "copper", "alembic", "the worm", "er", "q", "vapour rises", "zz")
WORDS = "the still boils vapour rises copper worm head spirit drips alembic water fire quick".split()
SERVED_SECONDS = 10.0
TEXTS, ADDED, REMOVED = 20_000, 500, 300


@dataclass
class States:
    """Counts of every state of the index, and the moment at which the change after it had been made."""

    counts: list[dict[str, int]] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def add(self, texts: list[str]) -> None:
        """A new state; called before its change begins, since a service may follow before the command ends."""
        self.counts.append({phrase: sum(text.count(phrase) for text in texts) for phrase in PHRASES})

    def allowed(self, phrase: str, asked: float) -> set[int]:
        """Counts that a request which began at `asked` and ends now may return."""
        ends = [*self.ended, float("inf"), float("inf")]  # a change may be under way
        return {counts[phrase] for counts, end in zip(list(self.counts), ends, strict=False) if end + SERVED_SECONDS >= asked}


@dataclass
class Found:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def text(drawn: random.Random) -> str:
    return " ".join(drawn.choices(WORDS, k=drawn.randint(5, 60)))


def ask(url: str, states: States, found: Found, stop: threading.Event, seed: int) -> None:
    drawn = random.Random(seed)
    with httpx.Client(base_url=url, timeout=60) as client:
        while not stop.is_set():
            phrase = drawn.choice(PHRASES)
            route = drawn.choice(("count", "count", "search"))
            asked = time.monotonic()
            try:
                answer = client.post(f"/v1/swapped/{route}", json={"text": phrase})
            except httpx.HTTPError as error:
                with found.lock:
                    found.failed[type(error).__name__] += 1
                continue
            with found.lock:
                found.answers[route] += 1
                if answer.status_code != 200:
                    found.failed[f"{answer.status_code} {answer.text[:200]}"] += 1
                elif answer.json()["count"] not in (allowed := states.allowed(phrase, asked)):
                    found.wrong.append(f"{phrase!r}: {answer.json()['count']}, allowed {sorted(allowed)}")


def command(*words: object) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "limbeck", "ngram", *map(str, words), "--json"], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def write(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    return folder


def change(work: Path, index: Path, states: States, texts: list[str], number: int) -> list[str]:
    """Append, remove or compact; returns the texts of the new state."""
    drawn = random.Random(number)
    kind = ("append", "remove", "append", "remove", "compact")[number % 5]
    if kind == "append":
        added = [text(drawn) for _ in range(ADDED)]
        folder = write(work / f"added-{number}", added)
        states.add(texts := [*texts, *added])
        command("append", index, folder)
    elif kind == "remove":
        gone = set(drawn.sample(range(TEXTS), REMOVED))  # of the first build, whose document numbers are its lines
        texts = ["" if place in gone else one for place, one in enumerate(texts)]
        states.add(texts)
        command("remove", index, *sorted(gone))
    else:
        states.add(texts)
        command("compact", index)
    states.ended.append(time.monotonic())
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    drawn = random.Random(0)
    texts = [text(drawn) for _ in range(TEXTS)]
    index, states, found, stop = given.work / "index", States(), Found(), threading.Event()
    command("build", write(given.work / "texts", texts), "--out", index, "--tokenizer", "bytes")
    states.add(texts)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [
        sys.executable,
        "-m",
        "limbeck",
        "ngram",
        "serve",
        f"swapped={index}",
        "--port",
        str(port),
        "--workers",
        str(given.workers),
    ]
    service = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait(url)
        clients = [threading.Thread(target=ask, args=(url, states, found, stop, seed)) for seed in range(given.clients)]
        for client in clients:
            client.start()
        began = time.monotonic()
        for number in range(5):
            time.sleep(max(0.0, began + (number + 0.5) * given.seconds / 5 - time.monotonic()))
            texts = change(given.work, index, states, texts, number)
        time.sleep(max(0.0, began + given.seconds - time.monotonic()))
        health = httpx.get(f"{url}/health").json()
    finally:
        stop.set()
        for client in clients:
            client.join()
        service.terminate()
        service.wait()
    changed = f"5 changes of the index, {given.clients} clients, {given.workers} workers"
    faults = f"{sum(found.failed.values())} failed, {len(found.wrong)} wrong counts; health: {health['status']}"
    print(f"{sum(found.answers.values()):,} requests in {given.seconds:.0f} s, {changed}: {faults}")
    for line_ in [*found.failed.items(), *found.wrong[:20]]:
        print(" ", line_)
    if found.failed or found.wrong:
        raise SystemExit(1)


def wait(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("the service did not start")


if __name__ == "__main__":
    main()
