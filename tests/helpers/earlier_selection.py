"""Selection with the whole round in memory, as it was before it read part by part: the oracle of test_scored.py."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import CANDIDATES, DECISIONS
from limbeck.filters.contract import Bound, SetFilter
from limbeck.generators.contract import Question
from limbeck.pipelines.runs.rows import Answered, RowsConfig, plain, turns

CANDIDATES_VIEW = "candidates"
SOURCES_VIEW = "sources"
GENERATOR = "generator"
"""`rejected_by` of a candidate that the generator could not make."""

UNDECIDED = "undecided"
"""`rejected_by` of a row that cannot be decided, because a score needed by a bound was never computed."""

BEYOND_TARGET = "target"
"""`rejected_by` of an accepted row beyond the target's N rows."""

NOT_SCORES = ("candidate_id", "error", "skipped_by")
"""Columns of a score part that are neither scores nor evidence."""

_NUMBERS = {"DOUBLE", "FLOAT", "BOOLEAN", *(f"{sign}{size}INT" for sign in ("", "U") for size in ("", "BIG", "SMALL", "TINY"))}
_NUMBERS |= {"INTEGER", "UINTEGER", "HUGEINT", '"NULL"'}

FilterBounds = Sequence[tuple[str, Sequence[Bound]]]
"""Filters in recipe order, each with its name and its bounds in the order in which they are applied."""


def scores_view(name: str) -> str:
    """The name of the view with a filter's scores."""
    return f"scores.{name}"


def connect(candidates: pa.Table, scores: Mapping[str, pa.Table], sources: pa.Table | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection whose views are these tables."""
    connection = duckdb.connect()
    connection.register(CANDIDATES_VIEW, candidates)
    if sources is not None:
        connection.register(SOURCES_VIEW, sources)
    for name, table in scores.items():
        connection.register(scores_view(name), table)
    return connection


def joined(connection: duckdb.DuckDBPyConnection, names: Sequence[str], *, evidence: bool = False) -> pa.Table:
    """Return the candidates with every score of the named filters as `filter.column`, sorted by (source_id, sample).

    `evidence`: include non-numeric columns (findings, vectors, graphs), and `document` if the connection has the sources.
    """
    columns, source = ["c.*"], _from(names)
    if evidence and connection.execute(f"select 1 from duckdb_views() where view_name = '{SOURCES_VIEW}'").fetchall():
        columns.append("d.document")
        source += f" left join {SOURCES_VIEW} as d on d.source_id = c.source_id"
    for name in names:
        scores, others = _columns(connection, name)
        columns += [f"{_score(name, column)} as {_quoted(f'{name}.{column}')}" for column in scores]
        if evidence:
            columns += [f"{_quoted(f's.{name}')}.{_quoted(column)} as {_quoted(f'{name}.{column}')}" for column in others]
    return _arrow(connection, f"select {', '.join(columns)} {source} order by c.source_id, c.sample")


def decide(
    connection: duckdb.DuckDBPyConnection,
    filters: FilterBounds,
    set_filters: Sequence[SetFilter] = (),
    on_evidence: Callable[[str, pa.Table], None] | None = None,
) -> pa.Table:
    """Return `limbeck.corpus.schemas.DECISIONS`: exactly one row per candidate, sorted by (source_id, sample).

    A row is rejected by the first filter in recipe order that rejects it, with the first of its bounds that fails; then each
    set-wise filter selects from the survivors of the previous one. A bounded score that is missing or not finite rejects the
    row, unless it was skipped because another filter rejects the row: then that filter decides, and if it no longer rejects, the
    row is `UNDECIDED`. `on_evidence` receives the evidence of each set-wise filter. Raises LimbeckError if a bound names an
    unknown score column, or if a set-wise filter returns a duplicate or unknown candidate.
    """
    known_columns = {name: connection.sql(f"select * from {_quoted(scores_view(name))} limit 0").columns for name, _ in filters}
    decisions = _arrow(connection, _decision_query(filters, known_columns))
    (candidates,) = connection.execute(f"select count(*) from {_quoted(CANDIDATES_VIEW)}").fetchall()[0]
    ids, rejected_by, reasons = (decisions[name].to_pylist() for name in ("candidate_id", "rejected_by", "reason"))
    assert len(ids) == len(set(ids)) == candidates, f"{candidates} candidates, {len(ids)} decisions on {len(set(ids))} of them"
    kept = {id_ for id_, by in zip(ids, rejected_by, strict=True) if by is None}
    drops: dict[str, tuple[str, str]] = {}
    if set_filters:
        table = joined(connection, [name for name, _ in filters], evidence=True)
        drops = _set_wise_drops(table, kept, set_filters, on_evidence)
    verdicts = [drops.get(id_, (by, reason)) for id_, by, reason in zip(ids, rejected_by, reasons, strict=True)]
    columns = {
        **{name: decisions[name] for name in ("candidate_id", "source_id", "sample")},
        "kept": pa.array([by is None for by, _ in verdicts], pa.bool_()),
        "rejected_by": pa.array([by for by, _ in verdicts], pa.string()),
        "reason": pa.array([reason for _, reason in verdicts], pa.string()),
    }
    return pa.table(columns).select(DECISIONS.names).cast(DECISIONS)


def _set_wise_drops(
    table: pa.Table,
    kept: set[str],
    set_filters: Sequence[SetFilter],
    on_evidence: Callable[[str, pa.Table], None] | None,
) -> dict[str, tuple[str, str]]:
    """Candidate → (filter, reason) for every row of the joined table in `kept` that a set-wise filter drops."""
    drops: dict[str, tuple[str, str]] = {}
    for filter_ in set_filters:
        table = table.filter(pa.array([id_ in kept for id_ in table["candidate_id"].to_pylist()], pa.bool_()))
        judged = filter_.select(table)
        ids = judged["candidate_id"].to_pylist()
        if len(set(ids)) != len(ids) or not kept.issuperset(ids):
            raise LimbeckError(f"filter {filter_.name} returned a duplicate or unknown candidate_id; fix its select()")
        unclear = judged["undecided"].to_pylist() if "undecided" in judged.column_names else [False] * len(ids)
        for id_, reason, undecided in zip(ids, judged["reason"].to_pylist(), unclear, strict=True):
            if undecided:
                drops[id_] = (UNDECIDED, f"{filter_.name} cannot judge it: {reason or 'a score that it needs is missing'}")
            elif reason is not None:
                drops[id_] = (filter_.name, reason)
        found = [name for name in judged.column_names if name not in ("candidate_id", "reason", "undecided")]
        if found and on_evidence is not None:
            on_evidence(filter_.name, judged.select(["candidate_id", *found]))
        kept = kept - drops.keys()
    return drops


def _decision_query(filters: FilterBounds, columns: Mapping[str, Collection[str]]) -> str:
    failed = _verdict(GENERATOR, "coalesce(c.error, 'the engine gave no reason')")
    cases = [f"when c.finish_reason = 'error' then {failed}"]
    cases += [f"when {rejects} then {_verdict(name, reason)}" for name, rejects, reason in _tests(filters, columns)]
    cases += [f"when {skipped} then {_verdict(UNDECIDED, reason)}" for skipped, reason in _skipped(filters, columns)]
    source = _from([name for name, _ in filters])
    return f"""
        select candidate_id, source_id, sample, verdict.rejected_by as rejected_by, verdict.reason as reason
        from (select c.candidate_id, c.source_id, c.sample, case {" ".join(cases)} end as verdict {source})
        order by source_id, sample"""


def _tests(filters: FilterBounds, columns: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield (filter, SQL condition that rejects, SQL text of the reason), in the order in which they are applied.

    `columns`: the score columns of each filter, with `error` (why a row has no score) and `skipped_by` (a filter).
    """
    for name, bounds in filters:
        for bound in bounds:
            score = _score(name, bound.column)
            why = f": {bound.reason}" if bound.reason else ""
            (missing, _), *limits = bound.sql(score)
            unscored = _text(f"{bound.column} could not be scored")
            if "error" in columns[name]:
                unscored += f" || coalesce(': ' || {_quoted(f's.{name}')}.error, '')"
            if "skipped_by" in columns[name]:
                missing += f" and {_quoted(f's.{name}')}.skipped_by is null"
            yield name, missing, unscored
            for condition, words in limits:
                yield name, condition, f"{_text(bound.column + ' ')} || printf('%.4g', {score}) || {_text(f' {words}{why}')}"


def _skipped(filters: FilterBounds, columns: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    """Yield (SQL condition that a bound score was skipped, SQL text of the reason)."""
    for name, bounds in filters:
        if bounds and "skipped_by" in columns[name]:
            who = f"{_quoted(f's.{name}')}.skipped_by"
            yield f"{who} is not null", f"{_text(f'{name} was not scored, since ')} || {who} || ' rejected the row then'"


def _verdict(name: str, reason: str) -> str:
    return f"{{'rejected_by': {_text(name)}, 'reason': {reason}}}"


def _from(names: Sequence[str]) -> str:
    joins = [f"left join {_quoted(scores_view(name))} as {_quoted(f's.{name}')} using (candidate_id)" for name in names]
    return f"from {_quoted(CANDIDATES_VIEW)} as c {' '.join(joins)}"


def _score(name: str, column: str) -> str:
    return f"{_quoted(f's.{name}')}.{_quoted(column)}::double"


def _columns(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[list[str], list[str]]:
    """A filter's score columns (numbers) and evidence columns (all others)."""
    relation = connection.sql(f"select * from {_quoted(scores_view(name))} limit 0")
    types = {column: str(type_) for column, type_ in zip(relation.columns, relation.types, strict=True)}
    found = [column for column in types if column not in NOT_SCORES]
    scores = [column for column in found if types[column] in _NUMBERS]
    return scores, [column for column in found if column not in scores]


def _arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return connection.sql(query).to_arrow_table()


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def to_target(decisions: pa.Table, order: Sequence[str], target: int) -> pa.Table:
    """Keep the first `target` kept rows, by their position in `order` (candidate ids by part and row); reject the others."""
    kept = set(decisions.filter(decisions["kept"])["candidate_id"].to_pylist())
    beyond = {id_ for position, id_ in enumerate(id_ for id_ in order if id_ in kept) if position >= target}
    reason = f"accepted, but the dataset has its {target} rows"
    rows = [
        {**row, "kept": False, "rejected_by": BEYOND_TARGET, "reason": reason} if row["candidate_id"] in beyond else row
        for row in decisions.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=DECISIONS)


def dataset_rows(sources: pa.Table, renderer: RowsConfig, kept: pa.Table) -> pa.Table:
    """The rows of a dataset, from all kept candidates at once."""
    by_id = {row["source_id"]: row for row in sources.to_pylist()}
    rows = kept.to_pylist()
    made = []
    for row in rows:
        said = turns(row.get("messages"))
        question = Question(row["source_id"], row["prompt"], by_id[row["source_id"]]["document"], row.get("input"), said)
        scores = {name: value for name, value in row.items() if "." in name}
        made.append(renderer.row(Answered(question, row["output"], said, scores)))
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])) if renderer.chat else pa.string()
    rendered = {name: pa.array([plain(getattr(row, name)) for row in made], kind) for name in ("prompt", "completion")}
    framed = not renderer.chat and rendered["prompt"].to_pylist() != [row["prompt"] for row in rows]
    references = [row["reference"] if row["reference"] is not None else by_id[row["source_id"]]["reference"] for row in rows]
    columns: dict[str, Any] = {
        "candidate_id": kept["candidate_id"],
        "source_id": kept["source_id"],
        **rendered,
        "document": pa.array([by_id[row["source_id"]]["document"] for row in rows], pa.string()),
        "output": kept["output"],
        "reference": pa.array(references, pa.string()),
        **({"instruction": kept["prompt"]} if framed else {}),
    }
    for name in ("input", "messages", "facts"):
        if any(row[name] is not None for row in rows):
            columns[name] = pa.array([row[name] for row in rows], CANDIDATES.field(name).type)
    known = {*CANDIDATES.names, *columns}
    scores = [name for name in kept.column_names if name not in known and pa.types.is_floating(kept.schema.field(name).type)]
    return pa.table({**columns, **{name: kept[name] for name in scores}})
