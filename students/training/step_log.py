"""Facts of every training step, one JSON object per line. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from limbeck.corpus.parts import write_text

METRICS_LOG = "metrics.jsonl"
"""File with the metrics of every step, in the training's folder and then in the student's."""


class StepLog:
    """A file to which each step adds one line; a resumed training continues after its checkpoint, so no step is there twice."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def begin(self, step: int | None) -> None:
        """Remove the lines of steps after `step`, from which training resumes; None: it starts, so all lines are removed."""
        kept = [] if step is None else [line for line in self.lines() if line["step"] <= step]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, "".join(json.dumps(line) + "\n" for line in kept), replace=True)

    def add(self, line: dict[str, Any]) -> None:
        """Append one line, which has the key `step`."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """All lines in order, without one that a killed process wrote in part."""
        return read_step_log(self._file)


def read_step_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log, up to the first that is not a JSON object with a step; [] if there is no file."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not (isinstance(line, dict) and isinstance(line.get("step"), int)):
            break
        lines.append(line)
    return lines
