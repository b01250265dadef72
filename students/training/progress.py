"""What a training worker is doing, in a file that the driver reads. Imports no torch."""

import time
from collections import deque
from pathlib import Path

from limbeck.corpus.parts import write_json

STEPS_TIMED = 20  # the time left is estimated from this many steps
SECONDS_BETWEEN_WORDS = 1.0  # for words that change with every batch


class Progress:
    """Writes the progress file; on all workers but the first it writes nothing."""

    def __init__(self, file: Path, *, first_worker: bool) -> None:
        self._file, self._writes = file, first_worker
        self._ends: deque[float] = deque(maxlen=STEPS_TIMED + 1)
        self._written = 0.0

    def words(self, words: str, *, often: bool = False) -> None:
        """Report what is being done between steps; `often`: it may be skipped if it comes soon after other words."""
        now = time.monotonic()
        if self._writes and not (often and now - self._written < SECONDS_BETWEEN_WORDS):
            self._written = now
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, {"words": words}, replace=True)

    def step_began(self) -> None:
        """Start the clock of the first step of this process."""
        if not self._ends:
            self._ends.append(time.monotonic())

    def step(self, step: int, steps: int, loss: float, tokens_per_second: float) -> None:
        """Report a finished step, with the seconds that the others will take at the pace of the last ones."""
        self._ends.append(time.monotonic())
        pace = (self._ends[-1] - self._ends[0]) / max(1, len(self._ends) - 1)
        if self._writes:
            facts = {"unit": "step", "step": step, "steps": steps, "loss": loss}
            facts |= {"tokens_per_second": round(tokens_per_second, 1), "seconds_left": round(pace * (steps - step), 1)}
            write_json(self._file, facts, replace=True)
