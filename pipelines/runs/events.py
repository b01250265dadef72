"""The event log of a run: one JSON line per event in `events.jsonl` and full segments `events-000001.jsonl`, and a listener."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from limbeck.corpus.amounts import minutes
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.files import has_types
from limbeck.corpus.storage.local import LocalStore

_NUMBER = int | float
_FACTS: Mapping[str, Mapping[str, Any]] = {
    "stage_started": {"stage": str},
    "stage_done": {"stage": str, "seconds": _NUMBER, "model_seconds": _NUMBER},
    "part_done": {"stage": str, "seconds": _NUMBER, "output_tokens": int},
    "training_started": {"round": int},
    "rounds_ended": {"round": int, "words": str},
    "acceptance": {"round": int, "accepted": int, "target": int, "rate": _NUMBER, "candidates": int},
}
"""The types of the facts that are read of events."""

Listener = Callable[[dict[str, Any]], None]


class Events:
    """Append events to the log and pass each to a listener (the live panel, or plain lines)."""

    def __init__(self, path: Path, listener: Listener | None = None) -> None:
        self._path, self._listener = path, listener
        self._store = LocalStore(path.parent)

    def emit(self, event: str, **facts: Any) -> None:
        """Record one event with its Unix time."""
        line = {"time": round(time.time(), 3), "event": event, **facts}
        try:
            self._store.append(self._path.name, json.dumps(line, ensure_ascii=False).encode())
        except OSError as error:
            raise LimbeckError(
                f"cannot write {self._path}: {error.strerror}; free some space and rerun the same command"
            ) from error
        if self._listener:
            self._listener(line)


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a run, also of segments that were completed before; a truncated or damaged line is skipped."""
    events = []
    for line in LocalStore(path.parent).records(path.name):
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if _is_event(event):
                events.append(event)
    return events


def _is_event(line: Any) -> bool:
    """Whether a line is an event with the facts that its readers need."""
    return has_types(line, {"event": str, "time": _NUMBER}) and has_types(line, _FACTS.get(line["event"], {}))


def seconds_by_stage(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum `seconds` and `model_seconds` of finished stages: {"total", "model", "by_stage": {stage: {"total", "model"}}}.

    `total` sums the time between the first and last event of each process, so that pauses before a resume are not counted.
    """
    stages: dict[str, dict[str, float]] = {}
    total, opened, last = 0.0, None, None
    for event in events:
        if event["event"] == "run_started":
            total += (last - opened) if opened is not None and last is not None else 0.0
            opened = event["time"] - event.get("seconds_before", 0.0)
        last = event["time"]
        if event["event"] == "stage_done":
            entry = stages.setdefault(event["stage"], {"total": 0.0, "model": 0.0})
            entry["total"] += event["seconds"]
            entry["model"] += event["model_seconds"]
    total += (last - opened) if opened is not None and last is not None else 0.0
    return {"total": total, "model": sum(stage["model"] for stage in stages.values()), "by_stage": stages}


def acceptance_words(facts: Mapping[str, Any]) -> str:
    """The progress of a round with a target, as text."""
    words = f"{facts['accepted']} of {facts['target']} rows accepted, {facts['rate']:.1%} of {facts['candidates']} candidates"
    if not facts["accepted"]:
        return words
    left = f", {minutes(facts['seconds_left'])} left" if facts["accepted"] < facts["target"] else ""
    return f"{words}, {facts['tokens_per_accepted']:.0f} tokens per row{left}"
