"""Helpers for tests of builds: inputs, a naive writer of the format, and ways to crash."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = {"u8": 1, "u16": 2, "u32": 4}


def naive_files(documents: list[list[int]], shards: int, version: int, dtype: str) -> dict[str, bytes]:
    """The expected tokenized, offset and table files of each shard, by the definition of the format."""
    width = WIDTHS[dtype]
    files: dict[str, bytes] = {}
    for shard in range(shards):
        text, offsets = b"", []
        for ids in documents[shard::shards]:
            offsets.append(len(text))
            text += b"\xff" * width
            text += b"".join(token.to_bytes(width, "little") for token in (ids if version == 4 else ids[::-1]))
        order = sorted(range(0, len(text), width), key=lambda at: text[at:])
        entry = next(n for n in range(1, 9) if 256**n >= len(text))
        files[f"tokenized.{shard}"] = text
        files[f"offset.{shard}"] = np.array(offsets, dtype="<u8").tobytes()
        files[f"table.{shard}"] = b"".join(at.to_bytes(entry, "little") for at in order)
    return files


def write_ids(folder: Path, documents: list[list[int]]) -> Path:
    np.save(folder / "ids.npy", np.array([token for ids in documents for token in ids], dtype=np.int64))
    np.save(folder / "ids.offsets.npy", np.cumsum([0, *map(len, documents)]))
    return folder / "ids.npy"


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file of a finished index."""
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_naive(folder: Path, expected: dict[str, bytes]) -> bool:
    return all((folder / name).read_bytes() == content for name, content in expected.items())


def large_documents() -> list[list[int]]:
    """About 40,000 tokens with long repeats, enough for many batches and parts."""
    random = np.random.default_rng(5)
    once = [random.integers(0, 300, size).tolist() for size in random.integers(0, 400, 100)]
    return once + once[::3] + [[7] * 3000, [7] * 2000]


def killed_at(moment: int, work: Callable[[Callable[..., None]], object]) -> bool:
    """Run `work` in a forked process that kills itself at its `moment`-th disk access or report."""
    pid = os.fork()
    if pid == 0:
        try:
            left = moment
            lock = threading.Lock()

            def step(*_: object) -> None:
                nonlocal left
                with lock:
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                        time.sleep(60)  # until the signal arrives

            for name in ("fsync", "replace", "rename", "truncate", "unlink", "link", "symlink", "rmdir"):
                original = getattr(os, name)

                def counted(*args: Any, original: Callable[..., Any] = original, **named: Any) -> Any:
                    step()
                    return original(*args, **named)

                setattr(os, name, counted)
            work(step)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def dies_after(seconds: float, work: Callable[[], object], last: Path) -> None:
    """Run `work` in a forked process that waits before it publishes `last`, and kill it after `seconds`."""
    pid = os.fork()
    if pid == 0:
        try:
            replace = os.replace

            def held(source: Any, target: Any, **named: Any) -> None:
                while Path(target) == last:
                    time.sleep(60)
                replace(source, target, **named)

            os.replace = held
            work()
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
