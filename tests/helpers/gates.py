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
    """One rename, or several; `plan` is for tests/sitecustomize.py, in the environment variable FAULTS."""

    def __init__(self, folder: Path, *renames: str, when: str = "before") -> None:
        """Each of `renames` is a regular expression on the path that a file or folder is renamed to."""
        self.plan = folder / "gate.json"
        holds = [{"rename": rename, "when": when, "hold": str(self._release(i))} for i, rename in enumerate(renames)]
        self.plan.write_text(json.dumps(holds))

    @property
    def reached(self) -> bool:
        """Whether a process has come to the first rename."""
        return Path(f"{self.plan}.0").exists()

    def wait(self, process: subprocess.Popen[str]) -> None:
        """Wait until a process has come to the first rename; `process` is the run."""
        wait_for(lambda: self.reached, process)

    def open(self, number: int = 0) -> None:
        """Let everything through the rename of this number, from now on."""
        self._release(number).touch()

    def _release(self, number: int) -> Path:
        return self.plan.with_name(f"gate.open.{number}")


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
