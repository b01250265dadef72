"""A round's candidates with their scores, decisions and documents, filtered and sorted; reads only the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.config import nearest
from limbeck.corpus.earlier_runs import dataset_folder
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import check_whole, part_names
from limbeck.pipelines.runs.folder import RunFolder, existing
from limbeck.pipelines.runs.scored import IDS, NOT_SCORES, Scored, connect_parts, quoted, text
from limbeck.pipelines.runs.select import all_numbers

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

# Columns that are not scores, in display order; the scores come between these and `prompt`.
FACTS = ("candidate_id", "source_id", "sample", "kept", "rejected_by", "reason", "output", "document", "reference", "origin")
DECIDED = ("kept", "rejected_by", "reason")
OF_SOURCES = ("document", "reference", "origin")
LONGEST_LIST_SHOWN = 8
MATCHING = b"matching"
AFTER_SCORES = ("prompt", "finish_reason", "output_tokens")


def candidates(
    run: Path,
    round: int | None = None,
    rejected_by: str | None = None,
    kept: bool | None = None,
    source: str | None = None,
    sort: str | None = None,
    descending: bool = True,
    limit: int | None = 20,
    selection: str | None = None,
) -> pa.Table:
    """Return candidates joined with scores, decision and source: `FACTS`, then each score, then `AFTER_SCORES`.

    `round` None: the last one with decisions. `selection`: the decisions of `limbeck filter --apply` (None: the run's own).
    `source` is a source_id or a prefix of one. Rows are sorted by source_id and sample, or by the column `sort` with missing
    values last. A score whose name is taken is named `filter.column`. The table's metadata says how many rows there are without
    the limit (`matching`). Raises LimbeckError for an unknown name, with the nearest
    known one.
    """
    folder = existing(run)
    number = decided_round(folder, round)
    decisions = folder.decisions(number)
    if selection is not None:
        decisions = dataset_folder(folder.path, number, selection).parent / "decisions.parquet"
    check_whole(decisions)
    with scored_round(folder, number) as scored:
        connection = scored.connection
        connection.execute(f"create view decisions as select * from read_parquet({text(str(decisions))})")
        if rejected_by is not None:
            _known(rejected_by, _rejecters(connection, folder, number), f"round {number} has no filter")
        order = "position" if sort is None else _order(scored, sort, descending)
        asked = {"rejected_by = ?": rejected_by, "kept = ?": kept, "starts_with(s.source_id, ?)": source}
        asked = {condition: value for condition, value in asked.items() if value is not None}
        where = f"where {' and '.join(asked)}" if asked else ""
        end = "" if limit is None else f"limit {int(limit)}"
        tables = f"scored s join decisions d using (candidate_id) {'join sorted using (position)' if 'sorted.' in order else ''}"
        columns = "s.position, d.kept, d.rejected_by, d.reason"
        query = f"select {columns} from {tables} {where} order by {order} {end}"
        found = _rows(scored, connection.sql(query, params=list(asked.values())).to_arrow_table())
        counted = f"select count(*) from scored s join decisions d using (candidate_id) {where}"
        ((rows,),) = connection.execute(counted, list(asked.values())).fetchall()
        found = found.replace_schema_metadata({MATCHING: str(rows)})
    if source is not None and not found.num_rows and rejected_by is None and kept is None:
        raise LimbeckError(f"round {number} of {run} has no candidate of source {source!r}; give a source_id or a prefix of one")
    return found


def scored_round(folder: RunFolder, number: int) -> Scored:
    """Open a round with the scores of all its filters; close it after use."""
    scores = {name: folder.scores(number, name) for name in _filters(folder, number)}
    return connect_parts(folder.candidates(number), scores, folder.sources("train"))


def score_owners(folder: RunFolder, number: int) -> dict[str, str]:
    """The filter of each score column, by the name under which `candidates` returns the column."""
    with scored_round(folder, number) as scored:
        owners = {f"{name}.{column}": name for name, schema in scored.reader.scores.items() for column in schema.names}
        return {shown: owners[stored] for shown, stored in _unique_names(scored).items()}


def _order(scored: Scored, sort: str, descending: bool) -> str:
    """The SQL order of the rows by a column, missing values last; a column that is not in `scored` is read as `sorted`."""
    scores = _unique_names(scored)
    _known(sort, [*FACTS, *scores, *AFTER_SCORES], "there is no column")
    if sort in scores and scores[sort] in all_numbers(scored):
        column = f"s.{quoted(scores[sort])}"
        missing = f"{column} is null or isnan({column})"
    else:
        column = f"s.{sort}" if sort in (*IDS, "finish_reason") else f"d.{sort}" if sort in DECIDED else "sorted.value"
        if column == "sorted.value":
            _read_column(scored, sort, scores)
        missing = f"{column} is null"
    return f"({missing}), {column} {'desc' if descending else 'asc'}, position"


def _read_column(scored: Scored, sort: str, scores: Mapping[str, str]) -> None:
    """Read a column of texts or evidence of all candidates into the table `sorted`, as `value`."""
    scored.connection.execute("create table every as select position from scored")
    of_source = {"value": sort} if sort in OF_SOURCES else {}
    texts, evidence = ([] if of_source or sort in scores else [sort]), [scores[sort]] if sort in scores else []
    made = False
    for batch in scored.fetch("every", texts, of_source, evidence=evidence):
        value = batch[batch.column_names[-1]]
        scored.connection.register("batch", pa.table({"candidate_id": batch["candidate_id"], "value": value}))
        scored.connection.execute(f"{'insert into found' if made else 'create table found as'} select * from batch")
        made = True
    scored.connection.execute("create view sorted as select position, value from scored join found using (candidate_id)")


def _rows(scored: Scored, chosen: pa.Table) -> pa.Table:
    """The rows of `chosen` ({position, kept, rejected_by, reason}), in its order, with the columns of `candidates`."""
    scored.connection.register("ranked", chosen)
    scored.connection.execute("create table chosen as select position from ranked")
    by_position = pc.sort_indices(chosen["position"])  # rows are read in this order
    scores = _unique_names(scored)
    numbers = [name for name in scores.values() if name in all_numbers(scored)]
    evidence = [name for name in scores.values() if name not in numbers]
    texts = ["output", *AFTER_SCORES]
    table = pa.concat_tables(scored.fetch("chosen", texts, {name: name for name in OF_SOURCES}, numbers, evidence))
    types = {f"{name}.{field.name}": field.type for name, schema in scored.reader.scores.items() for field in schema}
    columns = {name: table[name] for name in (*IDS, *texts, *OF_SOURCES)}
    columns |= {name: chosen[name].take(by_position) for name in DECIDED}
    columns |= {name: _typed(table[stored], types[stored]) for name, stored in scores.items()}
    found = pa.table({name: columns[name] for name in (*FACTS, *scores, *AFTER_SCORES)})
    return found.take(pc.sort_indices(by_position))


def _typed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A score in the type of its parts."""
    return column if pa.types.is_null(kind) else column.cast(kind)


def _unique_names(scored: Scored) -> dict[str, str]:
    """The scores by the name under which they are shown: the column, or `filter.column` if that name is taken."""
    found: dict[str, str] = {}
    for name, schema in scored.reader.scores.items():
        for column in (column for column in schema.names if column not in NOT_SCORES):
            unique = f"{name}.{column}" if column in (*FACTS, *AFTER_SCORES, *found) else column
            found[unique] = f"{name}.{column}"
    return found


def score_columns(table: pa.Table) -> list[str]:
    """The names of the score columns of a table that `candidates` returned."""
    return [name for name in table.column_names if name not in FACTS and name not in AFTER_SCORES]


def matching(table: pa.Table) -> int:
    """How many candidates there are without the limit of the table that `candidates` returned."""
    return int((table.schema.metadata or {}).get(MATCHING, table.num_rows))


def show(table: pa.Table, console: Console | None = None) -> None:
    """Print candidates, one panel each: decision, output, start of the document, scores; model text is never parsed as markup.

    The last line says how many are shown, of how many.
    """
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = console or Console()
    scores = score_columns(table)
    for row in table.to_pylist():
        verdict = Text("kept", "green") if row["kept"] else Text(f"rejected by {row['rejected_by']}: {row['reason']}", "red")
        document = " ".join(row["document"].split())
        body = Text.assemble(
            verdict, ("\noutput    ", "bold cyan"), (row["output"] or "(no output)", "bold"),
            ("\ndocument  ", "bold magenta"), document[:400] + (" …" if len(document) > 400 else ""), ("\nscores    ", "bold"),
            ("  ".join(f"{name} {_figure(row[name])}" for name in scores), "dim"),
        )  # fmt: skip
        console.print(Panel(body, title=Text(f"{row['source_id']} · sample {row['sample']}"), title_align="left"))
    total = matching(table)
    some = f"{table.num_rows} of " if table.num_rows < total else ""
    console.print(Text(f"{some}{total} candidate{'' if total == 1 else 's'}"))


def last_round(folder: RunFolder, made: str) -> int | None:
    """The last round whose folder contains the path `made`, or None."""
    numbers = [int(path.name) for path in (folder.path / "rounds").glob("[0-9]*") if (path / made).exists()]
    return max(numbers, default=None)


def decided_round(folder: RunFolder, wanted: int | None) -> int:
    """The round to read (None: the last with decisions); raises LimbeckError if it has none."""
    last = last_round(folder, "decisions.parquet")
    if last is None:
        raise LimbeckError(f"{folder.path} has no decisions yet; resume the run with `limbeck run`")
    if wanted is not None and not folder.decisions(wanted).exists():
        raise LimbeckError(f"round {wanted} of {folder.path} has no decisions; the last round with decisions is {last}")
    return last if wanted is None else wanted


def _filters(folder: RunFolder, number: int) -> list[str]:
    scores = folder.round(number) / "scores"
    return sorted(path.name for path in scores.glob("*") if part_names(path))


def _rejecters(connection: duckdb.DuckDBPyConnection, folder: RunFolder, number: int) -> list[str]:
    seen = connection.execute("select distinct rejected_by from decisions where rejected_by is not null").fetchall()
    return sorted({"generator", *_filters(folder, number), *(row[0] for row in seen)})


def _known(name: str, known: Sequence[str], fault: str) -> str:
    if name in known:
        return name
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
    raise LimbeckError(f"{fault} {name!r}; {hint}")


def _figure(value: Any) -> str:
    if isinstance(value, list) and len(value) > LONGEST_LIST_SHOWN:
        return f"({len(value)} values)"
    return "–" if value is None else f"{value:z.3g}" if isinstance(value, float) else str(value)
