"""Show the progress of a run from its folder, and stop it."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import part_names
from limbeck.pipelines.runs import self_test
from limbeck.pipelines.runs.events import acceptance_words, read_events, seconds_by_stage
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.lock import lock_holder
from limbeck.pipelines.runs.lost import lost_files, missing_words, round_numbers
from limbeck.pipelines.runs.opening import begun
from limbeck.pipelines.runs.records import ended_early, read_bounds, read_decision, read_rows
from limbeck.pipelines.runs.report_model import RoundDecision
from limbeck.pipelines.runs.separation import unclear, warning
from limbeck.pipelines.runs.stopping import as_sentence
from limbeck.pipelines.runs.training import progress_file, training_progress

WAYS_OUT = ("rerun", "a new run", "another --out")
"""Words of a failure that says itself what to do: when to rerun, or that only another run can help."""


def status(run: Path) -> dict[str, Any]:
    """State, driver, stage and rounds of a run, as plain data.

    The state is starting (a driver has the folder, but nothing is recorded yet), running, finished, incomplete (finished, but
    it has lost the files that `missing` names) or stopped.
    """
    folder = begun(run)
    events, holder = read_events(folder.events), lock_holder(folder)
    last: dict[str, Any] = events[-1] if events else {"event": "nothing"}
    missing = None if holder else _missing(folder)
    stages = [
        _stage(event) for event in events if event["event"] in ("stage_started", "part_done", "stage_done", "training_started")
    ]
    numbers = round_numbers(folder) if folder.lock_file.exists() else range(0)
    decisions = [read_decision(folder, number) for number in numbers]
    last_decision = next((decision for decision in reversed(decisions) if decision is not None), None)
    alarms = map(as_sentence, last_decision.warnings if last_decision else ())
    bounds = read_bounds(folder)
    separations = bounds.separation if bounds else []
    tests = self_test.stored(folder.self_test)
    return {
        "warning": " ".join(filter(None, (self_test.warning(tests), warning(separations), *alarms))) or None,
        "note": " ".join(filter(None, (self_test.note(tests), unclear(separations)))) or None,
        "run": str(run),
        "state": _state(events, holder, missing),
        "missing": missing,
        "driver": {key: holder[key] for key in ("process", "host")} if holder else None,
        "stage": stages[-1] if stages else None,
        "training": _training(folder, events) if holder else None,
        "last_event": last["event"],
        "last_words": last.get("words"),
        "seconds_since_last_event": round(time.time() - last["time"], 1) if "time" in last else None,
        "seconds": seconds_by_stage(events),
        "acceptance": next((_facts(event) for event in reversed(events) if event["event"] == "acceptance"), None),
        "best_round": last_decision.best if last_decision else None,
        "ended": ended_early(folder, decisions) if folder.lock_file.exists() else None,
        "rounds": [_round(folder, number, decision) for number, decision in zip(numbers, decisions, strict=True)],
    }


def _state(events: list[dict[str, Any]], holder: dict[str, Any] | None, missing: str | None) -> str:
    if holder:
        return "running" if events else "starting"
    ends = [event["event"] for event in events if event["event"] in ("run_done", "extended")]
    if ends and ends[-1] == "run_done":
        return "incomplete" if missing else "finished"
    return "stopped"


def _missing(folder: RunFolder) -> str | None:
    """The first file that the run has lost and the way out, as a sentence; None if it is whole."""
    if not folder.lock_file.exists():
        return None
    lost = (path for number in round_numbers(folder) for path in lost_files(folder, number))
    return next((missing_words(folder, path) for path in lost), None)


def show(found: dict[str, Any]) -> None:
    """Print a status as text."""
    if found["warning"]:
        print(f"warning: {found['warning']}")
    where = f" ({_who(found['driver'])})" if found["driver"] else ""
    if found["state"] == "starting":
        print(f"{found['run']}: starting{where}")
        return
    print(f"{found['run']}: {found['state']}{where}, {found['seconds']['total']:.0f} s of work")
    if found["state"] == "running":
        print(f"stage: {found['stage'] or 'starting'}, last event {found['seconds_since_last_event']:.0f} s ago")
        if found["training"]:
            print(f"training: {found['training']}")
        if found["last_event"] == "waiting":
            print(found["last_words"])
    if found["state"] == "stopped":
        words = found["last_words"] or found["last_event"]
        where = f"stopped at {found['stage']}" if found["stage"] else "stopped before its first stage"
        print(f"{where}: {words}" + ("" if any(way in words for way in WAYS_OUT) else "; rerun the same command to resume"))
    if found["missing"]:
        print(found["missing"])
    if found["acceptance"]:
        print(f"round {found['acceptance']['round']}: {acceptance_words(found['acceptance'])}")
    for row in found["rounds"]:
        kept = f", kept {row['kept']} of {row['candidates']} candidates" if row["kept"] is not None else ""
        student = ", student trained" if row["student"] else ""
        student += " (the best on dev)" if row["round"] == found["best_round"] else ""
        print(f"round {row['round']}: {row['parts_done']} of {row['parts']} parts scored{kept}{student}")
    if found["ended"]:
        print(found["ended"])
    if found["note"]:
        print(found["note"])


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder['process'] or 'unknown'} on {holder['host']}"


def stop(run: Path, timeout_seconds: float = 60.0) -> str:
    """Interrupt a run on this host, as Ctrl-C does; returns the result as a sentence."""
    folder = begun(run)
    holder = lock_holder(folder)
    if holder is None:
        return f"{run} is not running"
    if not holder["process"]:
        raise LimbeckError(
            f"{run} is being run by a process on this machine that {folder.run_lock.name} does not name; try again in a moment, "
            "or stop that process"
        )
    if holder["host"] != socket.gethostname():
        raise LimbeckError(f"{run} is being run by process {holder['process']} on {holder['host']}; run `limbeck stop` there")
    os.kill(holder["process"], signal.SIGTERM)
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if lock_holder(folder) is None:
            return f"{run} stopped; rerun `limbeck run` to resume"
        time.sleep(0.2)
    raise LimbeckError(
        f"process {holder['process']} did not stop within {timeout_seconds:.0f} s; run: kill -9 {holder['process']}"
    )


def _facts(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("time", "event")}


def _training(folder: RunFolder, events: list[dict[str, Any]]) -> str | None:
    """The progress of the training that is running, as a sentence; None if none is."""
    last = next((event for event in reversed(events) if event["event"] in ("training_started", "trained", "run_started")), None)
    if last is None or last["event"] != "training_started":
        return None
    return training_progress(progress_file(folder, last["round"]), bar=False)


def _stage(event: dict[str, Any]) -> str:
    return str(event.get("stage") or f"round-{event['round']}/student")


def _round(folder: RunFolder, number: int, decision: RoundDecision | None) -> dict[str, Any]:
    parts = len(part_names(folder.sources("train")))
    scores = [len(part_names(path)) for path in (folder.round(number) / "scores").glob("*")]
    rows = read_rows(folder, number)
    return {
        "round": number,
        "parts": parts,
        "parts_done": min(scores, default=0),
        "kept": rows.kept if rows else None,
        "candidates": rows.candidates if rows else None,
        "student": folder.student(number).exists(),
        "decision": None if decision is None else decision.model_dump(mode="json"),
    }
