"""Helpers for tests of the n-gram service: a corpus with its own tokenizer, servers on loopback, the commands."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn

from helpers.paths import child_environment
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.compat import InfiniGramEngine
from limbeck.infinigram.index import Index
from limbeck.infinigram.service.app import ServiceConfig, make_app
from limbeck.infinigram.service.limits import Application
from limbeck.infinigram.service.served import IndexSpec

WORDS = (
    "the still boils slowly while the vapour rises into the head and cools in the worm until spirit drips from the end "
    "of copper glass water fire cup ünïcödé größe 蒸留器 alembic"
).split()


def texts(count: int = 80) -> list[str]:
    drawn = random.Random(7)
    made = [" ".join(drawn.choice(WORDS) for _ in range(drawn.randint(1, 60))) + ".\n" for _ in range(count - 2)]
    return [
        *made,
        "the still boils slowly while the vapour rises <b>into</b> & the head",
        "the still boils slowly. A quicksilver lamp burns",
    ]


def write_corpus(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "number": number}) for number, text in enumerate(texts())]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_tokenizer(path: Path) -> Path:
    """A byte-level BPE of 500 tokens, in which words include the preceding space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*texts(), *["the"] * 50], trainer)
    tokenizer.save(str(path))
    return path


def build_indexes(folder: Path) -> dict[str, Path]:
    """The same texts tokenised as words (u16, two shards) and as bytes (u8)."""
    corpus = write_corpus(folder / "corpus")
    tokenizer = write_tokenizer(folder / "tokenizer.json")
    made = {"words": folder / "words", "bytes": folder / "bytes"}
    build([corpus], made["words"], Settings(tokenizer=str(tokenizer), shards=2))
    build([corpus], made["bytes"], Settings(tokenizer="bytes"))
    return made


@contextlib.contextmanager
def running(app: Application, *, healthy: bool = True, **settings: Any) -> Iterator[str]:
    """Serve an application in a thread of this process; yields its address, once it answers or, if `healthy`, is well."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", backlog=2048, **settings))  # type: ignore[arg-type]
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            await_health(url, statuses=(200,) if healthy else (200, 503))
            yield url
        finally:
            server.should_exit = True
            thread.join(20)


def await_health(url: str, process: subprocess.Popen[str] | None = None, statuses: tuple[int, ...] = (200,)) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/healthz", timeout=5).status_code in statuses:
                return
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"{url} did not start")


def environment() -> dict[str, str]:
    """The environment of a process that imports what this one does, including the extension."""
    return child_environment()


COMMAND = [sys.executable, "-m", "limbeck", "ngram"]


def ngram(*arguments: Any, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `limbeck ngram ...`."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=environment(), cwd="/", capture_output=True, text=True, timeout=120, input=stdin)


@contextlib.contextmanager
def serving(folder):
    """Two indexes served in this process, with an engine on the same files to compare answers with."""
    folders = build_indexes(folder)
    specs = tuple(IndexSpec(name=name, paths=(str(path),)) for name, path in folders.items())
    with running(make_app(ServiceConfig(specs))) as url, httpx.Client(base_url=url, timeout=30) as client:
        index = Index.open(folders["words"])
        official = InfiniGramEngine.of(index, index.tokenizer.vocabulary, compat=True)
        yield SimpleNamespace(url=url, client=client, specs=specs, index=index, official=official, folders=folders)


def ask(here, route, body, index="words"):
    answer = here.client.post(f"/v1/{index}/{route}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def official(here, query_type, status=200, **fields):
    answer = here.client.post("/", json={"index": "words", "query_type": query_type, **fields})
    assert answer.status_code == status, answer.text
    return answer.json()
