"""Gates at which a run waits, so that what a test does to a running run does not depend on timing.

A process that reaches a chosen rename waits there until the test opens the gate. The test waits until the gate is reached, sends
its signal, fills the disk or inspects the run, and opens it.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 300.0  # for a condition that takes seconds on an idle machine


class Gate:
    """One rename, or several; `plan` is for tests/sitecustomize.py, in the environment variable FAULTS."""

    def __init__(self, folder: Path, *renames: str, when: str = "before") -> None:
        """Each of `renames` is a regular expression that matches the target path of a rename."""
        self.plan = folder / "gate.json"
        holds = [{"rename": rename, "when": when, "hold": str(self._release(i))} for i, rename in enumerate(renames)]
        self.plan.write_text(json.dumps(holds))

    @property
    def reached(self) -> bool:
        """Whether a process has reached the first rename."""
        return Path(f"{self.plan}.0").exists()

    def wait(self, process: subprocess.Popen[str]) -> None:
        """Wait until a process has reached the first rename; `process` is the run."""
        wait_for(lambda: self.reached, process)

    def open(self, number: int = 0) -> None:
        """Let all processes through the rename of this number, from now on."""
        self._release(number).touch()

    def _release(self, number: int) -> Path:
        return self.plan.with_name(f"gate.open.{number}")


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until the condition holds; fails if `process` exits first, and shows its output."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, _printed(process)
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.02)


def _printed(process: subprocess.Popen[str] | None) -> str:
    pipes: list[IO[str] | None] = [process.stdout, process.stderr] if process else []
    return "".join(pipe.read() for pipe in pipes if pipe is not None)
