"""How a student's training gets on, from the files that its workers write."""

import json
from pathlib import Path
from typing import Any

from limbeck.corpus.amounts import minutes
from limbeck.corpus.files import has_types
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.students.training.settings import PROGRESS_FILE
from limbeck.students.training.step_log import METRICS_LOG, read_step_log

BAR_CHARACTERS = 24


def progress_file(folder: RunFolder, number: int) -> Path:
    """The progress of the training of a round's student."""
    return folder.student(number).parent / "training" / PROGRESS_FILE


def training_progress(path: Path, *, bar: bool = True) -> str:
    """The latest progress that the trainer has written, as a sentence; `bar`: with a progress bar before it."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return "starting"
    if isinstance(found, dict) and "words" in found:
        return str(found["words"])
    if not has_types(found, {"step": int, "steps": int, "unit": str, "loss": int | float}):
        return "starting"
    drawn = f"{progress_bar(found['step'], found['steps'])} " if bar else ""
    words = f"{drawn}{found['unit']} {found['step']} of {found['steps']}, loss {found['loss']:.3f}"
    if has_types(found, {"tokens_per_second": int | float, "seconds_left": int | float}):
        words += f", {found['tokens_per_second']:,.0f} tokens/s, {minutes(found['seconds_left'])} left"
    return words


def progress_bar(done: int, total: int) -> str:
    """How much of the total is done, drawn."""
    full = round(BAR_CHARACTERS * done / total) if total else 0
    return "█" * full + "░" * (BAR_CHARACTERS - full)


def step_lines(folder: RunFolder, number: int) -> list[dict[str, Any]]:
    """The metrics of every training step of a round's student, trained or in training; [] of versions that logged none."""
    student = folder.student(number)
    return read_step_log(student / METRICS_LOG) or read_step_log(student.parent / "training" / METRICS_LOG)
