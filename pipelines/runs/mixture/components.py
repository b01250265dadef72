"""The rows of a mixture's components: datasets of runs as they are, and existing data rendered like a run's rows."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.earlier_runs import dataset_folder
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import DONE, check_whole, read_object
from limbeck.corpus.records import CONVERSATION_COLUMNS, read_conversations, read_seeds
from limbeck.corpus.seeds import derive_id
from limbeck.corpus.tables import Delimited, Table, TableRow, open_dataset, open_tables, plain
from limbeck.generators.contract import Question
from limbeck.pipelines.runs.card import DATA, ROWS_PER_GROUP
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.mixture.config import EarlierComponent, OwnComponent, RowsComponent, RunComponent
from limbeck.pipelines.runs.mixture.facts import FACTS, MixtureFacts, RunOfRows, mixture_file
from limbeck.pipelines.runs.records import validated
from limbeck.pipelines.runs.rows import Answered, ConversationRows, RowsConfig, turns
from limbeck.pipelines.runs.rows import plain as stored

PAIR = ("prompt", "completion")
TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_COMPONENT, _ORIGIN = "component", "origin"


@dataclass(frozen=True)
class MixedRow:
    """One row of a component: the columns to train on, where it comes from, and, in place of columns, why it is unusable.

    `inner`: its component in the mixture that it was read from; "" if it was not in one.
    """

    origin: str
    values: dict[str, Any]
    reason: str | None = None
    inner: str = ""


@dataclass(frozen=True)
class Opened:
    """A component whose input was found: `rows` reads it from the beginning; `runs`: those that rows come from."""

    component: OwnComponent | EarlierComponent | RunComponent | RowsComponent
    rows: Callable[[], Iterator[MixedRow]]
    runs: tuple[RunOfRows, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What the rows of all components must have: the columns that students train on, in the format of the recipe's rows."""

    renderer: RowsConfig
    columns: tuple[str, ...] = PAIR


def opened(
    component: OwnComponent | EarlierComponent | RunComponent | RowsComponent, wanted: Wanted, run: RunFolder | None, number: int
) -> Opened:
    """Find a component's input; `run` and `number`: the run and the round of components `own` and `earlier`.

    Raises LimbeckError, which names the component, if its input is missing or cannot be trained on with the others.
    """
    try:
        return _opened(component, wanted, run, number)
    except LimbeckError as error:
        raise of_component(component.name, error) from error


def of_component(name: str, error: LimbeckError) -> LimbeckError:
    """The error with the component's name in front."""
    return LimbeckError(f"component {name!r} of the mixture: {error}")


def _opened(
    component: OwnComponent | EarlierComponent | RunComponent | RowsComponent, wanted: Wanted, run: RunFolder | None, number: int
) -> Opened:
    if isinstance(component, RowsComponent):
        runs = runs_of(Path(component.path)) if component.path is not None else ()
        return Opened(component, lambda: _existing(component, wanted), runs)
    if isinstance(component, RunComponent):
        folder = dataset_folder(component.run, component.round, component.selection)
        if component.selection is None and not (folder / DONE).exists():
            raise LimbeckError(f"{folder} is not finished yet; resume that run, or choose another round")
        root = Path(component.run).expanduser().resolve()
        folders, runs = [folder], (_run_of(root, folder, component.selection),)
    else:
        assert run is not None, f"{component.name} is a component of a run"
        rounds = [number] if isinstance(component, OwnComponent) else component.before(number)
        root, folders, runs = run.path, [run.dataset(each) for each in rounds], ()
    for folder in folders:
        _check_columns(folder / DATA, wanted)
    return Opened(component, lambda: chain.from_iterable(_of_dataset(root, folder, wanted.columns) for folder in folders), runs)


def _run_of(root: Path, dataset: Path, selection: str | None) -> RunOfRows:
    return RunOfRows(run=str(root), round=int(dataset.relative_to(root).parts[1]), selection=selection)


def runs_of(path: Path) -> tuple[RunOfRows, ...]:
    """The runs that rows at a path come from: of a mixed dataset, or inside a run's folder."""
    place = path.expanduser().resolve()
    for folder in (place, *place.parents):
        if mixture_file(folder).is_file():
            file = mixture_file(folder)
            return tuple(validated(MixtureFacts, read_object(file), file).runs)
        if (folder / "lock.json").is_file():
            inside = place.relative_to(folder).parts
            known = len(inside) > 1 and inside[0] == "rounds" and inside[1].isdigit()
            return (RunOfRows(run=str(folder), round=int(inside[1]) if known else None),)
    return ()


def _check_columns(file: Path, wanted: Wanted) -> None:
    """Raise LimbeckError if a dataset lacks columns, or has conversations for text rows or the reverse."""
    check_whole(file)
    schema = pq.read_schema(file)
    if "label" in schema.names and "label" not in wanted.columns:
        raise LimbeckError(
            f"{file} holds labelled answers, rejected ones too, which are not to be trained on; choose another dataset"
        )
    for column in wanted.columns:
        if column not in schema.names:
            raise LimbeckError(
                f"{file} has no column {column!r}, which the student trains on; choose another dataset, or another student"
            )
        found = schema.field(column).type
        if column in PAIR and pa.types.is_list(found) != wanted.renderer.chat:
            raise _other_form(str(file), chat=pa.types.is_list(found), kind=wanted.renderer.kind)


def _other_form(where: str, *, chat: bool, kind: str) -> LimbeckError:
    have, want = ("conversations", "text") if chat else ("text", "conversations")
    way_out = "set rows to a format of conversations" if chat else "set rows to a format of text"
    return LimbeckError(
        f"the rows of {where} are {have}, but those of the mixture are {want} (rows.kind {kind}); {way_out}, or give the rows as "
        "instruction, input and output, which are rendered like the others"
    )


def _of_dataset(root: Path, folder: Path, columns: Sequence[str]) -> Iterator[MixedRow]:
    """The rows of a run's dataset, with origin `RUN/rounds/NNN/dataset:candidate_id`."""
    where = f"{root.name}/{folder.relative_to(root).as_posix()}"
    with pq.ParquetFile(folder / DATA) as file:
        for batch in file.iter_batches(ROWS_PER_GROUP, columns=["candidate_id", *columns]):
            for row in batch.to_pylist():
                origin = f"{where}:{row.pop('candidate_id')}"
                missing = next((column for column, value in row.items() if value is None), None)
                yield MixedRow(origin, row) if missing is None else MixedRow(origin, {}, f"no {missing!r}")


def _existing(component: RowsComponent, wanted: Wanted) -> Iterator[MixedRow]:
    for table in _tables(component):
        yield from _of_table(table, component, wanted)


def _tables(component: RowsComponent) -> Iterator[Table]:
    if component.dataset is not None:
        return open_dataset(component.dataset, component.dataset_configuration, component.dataset_split)
    given = Path(str(component.path)).expanduser()
    data = given / "data" if (given / "data").is_dir() and ((given / FACTS).exists() or (given / "README.md").exists()) else given
    return open_tables(str(data), Delimited(component.delimiter, component.quote, "set `quote: null`"))


def _of_table(table: Table, component: RowsComponent, wanted: Wanted) -> Iterator[MixedRow]:
    """The rows of one file, read by the columns of its first readable row."""
    rows, unread = iter(table.rows), list[TableRow]()
    for row in rows:
        unread.append(row)
        if row.reason is None:
            break
    names = set(unread[-1].record) if unread else set()
    table.rows = chain(unread, rows)
    if names >= set(wanted.columns):
        yield from _as_they_are(table, wanted)
    elif wanted.columns != PAIR:
        missing = next(column for column in wanted.columns if column not in names)
        if names:
            raise LimbeckError(f"{table.where} has no column {missing!r}, which the student trains on; it has {_listed(names)}")
        yield from _unreadable(table)
    elif names & set(CONVERSATION_COLUMNS):
        if not wanted.renderer.chat:
            raise _other_form(table.where, chat=True, kind=wanted.renderer.kind)
        yield from map(_conversation, read_conversations([table], None))
    elif names >= {"instruction", "output"} or names >= {"instruction", "instances"}:
        if wanted.renderer.kind in ("tldr", "control_codes"):
            raise LimbeckError(
                f"{table.where} has instructions, which rows.kind {wanted.renderer.kind} does not render; give its rows as "
                "prompt and completion"
            )
        yield from (_instruction(row.origin, row.record, row.reason, wanted.renderer) for row in read_seeds([table]))
    elif names:
        raise LimbeckError(
            f"{table.where} has {_listed(names)}; rows to train on have prompt and completion, messages, or instruction and "
            "output: rename its columns"
        )
    else:
        yield from _unreadable(table)


def _unreadable(table: Table) -> Iterator[MixedRow]:
    return (MixedRow(row.origin, {}, row.reason or "no columns") for row in table.rows)


def _listed(names: Iterable[str]) -> str:
    return "the columns " + ", ".join(sorted(names))


def _as_they_are(table: Table, wanted: Wanted) -> Iterator[MixedRow]:
    """Rows that have the columns; those of a mixture keep where they came from."""
    for row in map(plain, table.rows):
        record = row.record
        values = {column: record.get(column) for column in wanted.columns}
        missing = next((column for column, value in values.items() if value is None), None)
        reason = row.reason or (None if missing is None else f"no {missing!r}")
        if reason is None:
            reason = _misfit(table, values, wanted)
        mixed = isinstance(record.get(_COMPONENT), str) and isinstance(record.get(_ORIGIN), str)
        origin = str(record[_ORIGIN]) if mixed else row.origin
        yield MixedRow(origin, {} if reason else values, reason, str(record[_COMPONENT]) if mixed else "")


def _misfit(table: Table, values: dict[str, Any], wanted: Wanted) -> str | None:
    """Why a column cannot be trained on; raises LimbeckError if prompts are text where turns are wanted, or the reverse."""
    for column in wanted.columns:
        value = values[column]
        if column not in PAIR:
            if isinstance(value, str | bool | int | float) or _are_turns(value):
                continue
            return f"{column} is neither text, a number nor a list of turns"
        if not isinstance(value, str) and not _are_turns(value):
            return f"{column} is neither text nor a list of turns"
        if isinstance(value, str) == wanted.renderer.chat:
            raise _other_form(table.where, chat=not wanted.renderer.chat, kind=wanted.renderer.kind)
        if not value:
            return f"empty {column}"
        if not isinstance(value, str):
            values[column] = [{"role": turn["role"], "content": turn["content"]} for turn in value]
    return None


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str) for turn in value
    )


def _conversation(row: Any) -> MixedRow:
    """A conversation up to its last assistant turn."""
    if row.reason is not None:
        return MixedRow(row.origin, {}, row.reason)
    said = turns(row.record["messages"])
    if said is None or not any(turn.role == "assistant" for turn in said):
        return MixedRow(row.origin, {}, "no assistant turn to train on")
    found = ConversationRows().row(Answered(Question("", ""), "", said))
    return MixedRow(row.origin, {"prompt": stored(found.prompt), "completion": stored(found.completion)})


def _instruction(origin: str, record: Any, reason: str | None, renderer: RowsConfig) -> MixedRow:
    """An instruction with its output, rendered like the rows of a run; templates are drawn by its text."""
    if reason is None and not record["output"]:
        reason = "empty output"
    if reason is not None:
        return MixedRow(origin, {}, reason)
    identity = derive_id("mixture", json.dumps([record["instruction"], record["input"]], ensure_ascii=False))
    question = Question(identity, record["instruction"], input=record["input"] or None)
    found = renderer.row(Answered(question, record["output"]))
    return MixedRow(origin, {"prompt": stored(found.prompt), "completion": stored(found.completion)})
