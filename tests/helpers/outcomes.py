"""Comparisons for tests of interrupted runs: rows, reports, and how often each part was reported."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.pipelines.runs.events import read_events

# a run reports these once, however often it is resumed, and with one worker always in the same order
MILESTONES = ("part_done", "calibrated", "selected", "training_started", "trained", "evaluated")


def assert_same_outcome(run: Path, reference: Path, rounds: int) -> None:
    """Candidates, decisions and datasets are equal row for row; no partial files are left."""
    for number in range(rounds):
        here, there = run / "rounds" / f"{number:03d}", reference / "rounds" / f"{number:03d}"
        assert read_parts(here / "candidates", CANDIDATES).equals(read_parts(there / "candidates", CANDIDATES))
        assert read_table(here / "decisions.parquet").equals(read_table(there / "decisions.parquet"))
        assert rows_of(here / "dataset").equals(rows_of(there / "dataset"))
    mine, theirs = (json.loads((folder / "report.json").read_text()) for folder in (run, reference))
    assert [part["evaluation"] for part in mine["rounds"]] == [part["evaluation"] for part in theirs["rounds"]]


def as_text(table: pa.Table) -> str:
    """Every value of every row, so that two tables with NaN in the same places are equal."""
    return repr(table.to_pylist())


def rows_of(dataset: Path) -> pa.Table:
    return read_table(next((dataset / "data").glob("*.parquet")))


def milestones(run: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(run / "events.jsonl") if event["event"] in MILESTONES]


def parts_done(out: Path) -> Counter[tuple[str, str]]:
    """How often each part of a stage was reported; stages of held-out splits have the same name for every model."""
    return Counter((event["stage"], event["part"]) for event in milestones(out) if event["event"] == "part_done")
