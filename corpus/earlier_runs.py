"""The dataset of an earlier run, or a selection stored beside it, as input rows; only the layout of run folders is used."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import COMPUTED_AGAIN, DONE
from limbeck.corpus.readers import RawRow, text_row
from limbeck.corpus.tables import Table, parquet_rows, plain

KEPT = ("prompt", "completion", "messages", "instruction", "input", "output", "document", "reference", "facts")
"""The columns of a dataset that go into the record; ids and scores belong to the earlier run."""

BEST = "best"
"""The link in a run's folder to its best student."""

_STUDENT = re.compile(r"rounds/(\d{3,})/student")


def read_run(run: str, number: int | Literal["last", "best"], selection: str | None) -> Iterator[RawRow]:
    """Yield one row per row of a dataset, with origin `RUN/rounds/NNN/dataset:candidate_id`.

    The text is the row's document; rows without one are related by the source that they were made from. Raises LimbeckError if
    there is no such run, round, dataset or selection.
    """
    folder = dataset_folder(run, number, selection)
    root = Path(run).expanduser().resolve()
    where = f"{root.name}/{folder.relative_to(root).as_posix()}"
    files = sorted((folder / "data").glob("*.parquet"))
    if not files:
        raise LimbeckError(f"{folder} has no Parquet file in data/; {_way_out(selection)}")
    for file in files:
        for row in map(plain, parquet_rows(file, f"{where}/{file.name}", Table(str(file)))):
            if row.reason is not None:
                yield RawRow(row.origin, "", reason=row.reason)
            elif "rejected" in row.record or "label" in row.record:
                raise LimbeckError(f"{file} holds preference pairs, which are no input rows; {_other_rows(selection)}")
            elif "prompt" not in row.record or "output" not in row.record:
                raise LimbeckError(f"{file} is not a run's dataset (it has {', '.join(row.record)}); name a run folder")
            else:
                yield _row(where, row.origin, row.record)


def best_round(run: str | Path) -> int:
    """The round whose student is linked as `best` in a run's folder; raises LimbeckError if none is."""
    link = Path(run).expanduser() / BEST
    found = _STUDENT.fullmatch(os.readlink(link)) if link.is_symlink() else None
    if found is None:
        why = "is a copy of its student, not a link" if link.exists() else "does not exist: no student was measured on dev yet"
        raise LimbeckError(f"{link} {why}; give the number of a round")
    return int(found[1])


def student_link(number: int) -> str:
    """What `best` in a run's folder links to, if that round is the best."""
    return f"rounds/{number:03d}/student"


def dataset_folder(run: str | Path, number: int | Literal["last", "best"], selection: str | None) -> Path:
    """Where the dataset of a round, or a selection of it, is stored.

    "last": the last round that has a dataset; "best": the round whose student is the best on dev.
    """
    folder = Path(run).expanduser().resolve()
    if not folder.is_dir():
        raise LimbeckError(f"no such run folder: {run}; correct the path (paths are relative to the folder you run in)")
    if not (folder / "lock.json").exists():
        if (folder / "run.lock").exists():
            raise LimbeckError(f"the run {run} has no dataset yet: it is starting, or was stopped before it began")
        raise LimbeckError(f"{run} is not a run folder (it has no lock.json); name the folder given to `limbeck run --out`")
    rounds = {int(place.parent.name): place for place in folder.glob("rounds/*/dataset") if place.parent.name.isdigit()}
    if not rounds:
        raise LimbeckError(f"the run {run} has no dataset yet; let its round 0 finish first")
    if number == "last":
        _refuse_lost_dataset(folder, run, max(rounds))
    chosen = max(rounds) if number == "last" else best_round(folder) if number == "best" else number
    if chosen not in rounds:
        known = ", ".join(str(known) for known in sorted(rounds))
        raise LimbeckError(f"the run {run} has no dataset of round {chosen}; rounds with a dataset: {known}")
    if selection is None:
        return rounds[chosen]
    stored = [place for place in rounds[chosen].parent.glob("selections/*/dataset") if place.parent.name[0] != "."]
    found = {place.parent.name: place for place in stored}
    if selection not in found:
        known = (
            f"it has {', '.join(sorted(found))}" if found else f"`limbeck filter {run} --set ... --apply {selection}` makes one"
        )
        raise LimbeckError(f"round {chosen} of the run {run} has no selection {selection!r}; {known}")
    return found[selection]


def _refuse_lost_dataset(folder: Path, run: str | Path, last: int) -> None:
    """Raise LimbeckError if a round after the `last` one with a dataset has lost its own: an earlier one is no answer."""
    finished = (folder / "evaluation" / DONE).exists()
    for home in sorted(folder.glob("rounds/[0-9]*")):
        evaluated = finished or (home / "evaluation.json").exists()
        if evaluated and home.name.isdigit() and int(home.name) > last:
            raise LimbeckError(f"the dataset of round {int(home.name)} of the run {run} is missing; {COMPUTED_AGAIN}")


def selected_again(selection: str) -> str:
    """The way out if files of a selection are lost or broken."""
    return f"remove the folder of the selection and make it again: `limbeck filter --apply {selection}`"


def _other_rows(selection: str | None) -> str:
    return "store a selection without them (limbeck filter RUN --apply NAME)" if selection is None else "name another selection"


def _way_out(selection: str | None) -> str:
    return COMPUTED_AGAIN if selection is None else selected_again(selection)


def _row(where: str, origin: str, columns: Mapping[str, Any]) -> RawRow:
    record = {name: columns[name] for name in KEPT if columns.get(name) is not None}
    if isinstance(facts := record.get("facts"), str):
        record["facts"] = json.loads(facts)
    if candidate_id := columns.get("candidate_id"):
        origin = f"{where}:{candidate_id}"
    row = text_row(origin, record.get("document") or "", record.get("reference"))
    if row.text:
        return replace(row, record=record)
    return replace(row, reason=None if row.reason == "empty" else row.reason, record=record, related=columns.get("source_id"))
