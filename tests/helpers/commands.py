"""The `limbeck` command: forked from a process with its imports, or (to be signalled or killed) started as a new process."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from helpers.clusters import DRIVER_SETTINGS
from helpers.paths import SEARCH_PATH, child_environment


def limbeck(
    *arguments: Any, faults: Path | None = None, timeout: float = 600, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; `faults` is a plan for tests/sitecustomize.py."""
    return _forked("", arguments, settings(faults, **environment), timeout, folder)


def script(path: Path, *arguments: Any, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, in its folder."""
    return _forked(str(path), arguments, settings(**environment), timeout, path.parent)


def start(
    *arguments: Any, faults: Path | None = None, stdout: int | None = None, stderr: int = subprocess.PIPE, **environment: str
) -> subprocess.Popen[str]:
    """Start the command line in its own process; Ctrl-C reaches it even if these tests run in the background."""
    return subprocess.Popen(
        command(*arguments),
        env=settings(faults, **environment),
        stdout=stdout,
        stderr=stderr,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def command(*arguments: Any) -> list[str]:
    """The command line as a list, for its own process."""
    return [sys.executable, "-m", "limbeck", *map(str, arguments)]


def settings(faults: Path | None = None, **environment: str) -> dict[str, str]:
    """The environment of a run: this checkout on the path, and the faults if there are any."""
    more = {"FAULTS": str(faults)} if faults else {}
    return child_environment(HF_HUB_OFFLINE="1", **more, **environment)


class _Server:
    """The client side of helpers/command_server.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.command_server"],
            env=settings(OPENBLAS_NUM_THREADS="1", **DRIVER_SETTINGS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def run(self, order: dict[str, Any], timeout: float) -> int:
        with self._lock:
            stdin, stdout = self._pipes()
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
            process = int(stdout.readline())
            late = threading.Event()

            def end() -> None:
                late.set()
                os.kill(process, signal.SIGKILL)

            timer = threading.Timer(timeout, end)
            timer.start()
            try:
                code = int(stdout.readline())
            except BaseException:  # of a test's own time limit: the answer would be read as the next command's
                os.kill(process, signal.SIGKILL)
                self._process.kill()
                _server.cache_clear()
                raise
            finally:
                timer.cancel()
            if late.is_set():
                raise subprocess.TimeoutExpired(order["arguments"], timeout)
            return code

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        assert self._process.poll() is None, "the command server has ended"
        return self._process.stdin, self._process.stdout


@functools.cache
def _server() -> _Server:
    """One per test process; it ends when this process does."""
    return _Server()


def _forked(
    path: str, arguments: Sequence[Any], environment: dict[str, str], timeout: float, folder: Path | None
) -> subprocess.CompletedProcess[str]:
    if environment["PYTHONPATH"] != SEARCH_PATH:  # installed packages are looked up at import
        line = [sys.executable, *([path] if path else ["-m", "limbeck"]), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=timeout, env=environment, cwd=folder)
    with tempfile.TemporaryDirectory() as made:
        texts = [Path(made) / name for name in ("stdout", "stderr")]
        for text in texts:
            text.touch()
        order = {
            "script": path,
            "arguments": list(map(str, arguments)),
            "environment": environment,
            "folder": str(folder or Path.cwd()),
            "stdout": str(texts[0]),
            "stderr": str(texts[1]),
        }
        code = _server().run(order, timeout)
        printed = [text.read_text(encoding="utf-8", errors="replace") for text in texts]
    return subprocess.CompletedProcess([path, *order["arguments"]], code, *printed)
