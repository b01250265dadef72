"""A round's candidates with their scores, decisions and documents, filtered and sorted; reads only the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from limbeck.corpus.config import nearest
from limbeck.corpus.earlier_runs import dataset_folder
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import check_whole, part_names, register
from limbeck.pipelines.runs.folder import RunFolder, existing
from limbeck.pipelines.runs.select import NOT_SCORES

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

# Columns that are not scores, in display order; the scores come between these and `prompt`.
FACTS = ("candidate_id", "source_id", "sample", "kept", "rejected_by", "reason", "output", "document", "reference", "origin")
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
    with _joined(folder, number, decisions) as connection:
        types = {row[0]: row[1] for row in connection.execute("describe joined").fetchall()}
        conditions: list[str] = []
        values: list[object] = []
        if rejected_by is not None:
            conditions.append("rejected_by = ?")
            values.append(_known(rejected_by, _rejecters(connection, folder, number), f"round {number} has no filter"))
        if kept is not None:
            conditions.append("kept = ?")
            values.append(kept)
        if source is not None:
            conditions.append("starts_with(source_id, ?)")
            values.append(source)
        order = "source_id, sample"
        if sort is not None:
            column = _quoted(_known(sort, list(types), "there is no column"))
            missing = f"{column} is null" + (f" or isnan({column})" if types[sort] in ("DOUBLE", "FLOAT") else "")
            order = f"({missing}), {column} {'desc' if descending else 'asc'}, {order}"
        where = f"where {' and '.join(conditions)}" if conditions else ""
        end = "" if limit is None else f"limit {int(limit)}"
        found: pa.Table = connection.sql(f"select * from joined {where} order by {order} {end}", params=values).to_arrow_table()
        ((rows,),) = connection.execute(f"select count(*) from joined {where}", values).fetchall()
        found = found.replace_schema_metadata({MATCHING: str(rows)})
    if source is not None and not found.num_rows and rejected_by is None and kept is None:
        raise LimbeckError(f"round {number} of {run} has no candidate of source {source!r}; give a source_id or a prefix of one")
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


def _joined(folder: RunFolder, number: int, decisions: Path) -> duckdb.DuckDBPyConnection:
    """A connection with the view `joined`; close it (or use it in a with statement)."""
    import duckdb

    connection = duckdb.connect()
    register(connection, "candidates", folder.candidates(number))
    register(connection, "sources", folder.sources("train"))
    check_whole(decisions)
    file = str(decisions).replace("'", "''")
    connection.execute(f"create view decisions as select * from read_parquet('{file}')")
    selected, joins, taken = [], [], {*FACTS, *AFTER_SCORES}
    for index, name in enumerate(_filters(folder, number)):
        register(connection, f"scores {index}", folder.scores(number, name))
        columns = [row[0] for row in connection.execute(f'describe "scores {index}"').fetchall()]
        for column in (column for column in columns if column not in NOT_SCORES):
            unique = f"{name}.{column}" if column in taken else column
            taken.add(unique)
            selected.append(f'"scores {index}".{_quoted(column)} as {_quoted(unique)}')
        joins.append(f'left join "scores {index}" using (candidate_id)')
    facts = "candidate_id, d.source_id, d.sample, d.kept, d.rejected_by, d.reason, c.output, s.document, s.reference, s.origin"
    connection.execute(
        f"create view joined as select {', '.join([facts, *selected, 'c.prompt, c.finish_reason, c.output_tokens'])} "
        f"from decisions d join candidates c using (candidate_id) join sources s on s.source_id = d.source_id {' '.join(joins)}"
    )
    return connection


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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _figure(value: Any) -> str:
    if isinstance(value, list) and len(value) > LONGEST_LIST_SHOWN:
        return f"({len(value)} values)"
    return "–" if value is None else f"{value:z.3g}" if isinstance(value, float) else str(value)
