"""Gates at which a run waits: what a test does to a run that is still going must not depend on how fast either is.

A process that comes to a chosen rename waits there until the test opens the gate. The test waits until the gate is reached,
then sends its signal, fills the disk or looks around, and opens it.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 300.0  # of a condition that holds after seconds on a quiet machine


class Gate:
    """One rename, as a plan for tests/sitecustomize.py."""

    def __init__(self, folder: Path, rename: str, when: str = "before") -> None:
        """`rename` is a regular expression on the path that a file or folder is renamed to."""
        self.plan, self._open = folder / "gate.json", folder / "gate.open"
        self.plan.write_text(json.dumps([{"rename": rename, "when": when, "hold": str(self._open)}]))

    @property
    def reached(self) -> bool:
        """Whether a process has come to it."""
        return Path(f"{self.plan}.0").exists()

    def wait(self, process: subprocess.Popen[str]) -> None:
        """Wait until a process has come to it; `process` is the run."""
        wait_for(lambda: self.reached, process)

    def open(self) -> None:
        """Let everything through, from now on."""
        self._open.touch()


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until the condition holds; fails if `process` exits first, with what it printed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, _printed(process)
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.02)


def _printed(process: subprocess.Popen[str] | None) -> str:
    pipes: list[IO[str] | None] = [process.stdout, process.stderr] if process else []
    return "".join(pipe.read() for pipe in pipes if pipe is not None)
