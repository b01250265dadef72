"""Selection: one decision per candidate, from scores and bounds, in SQL and without a model.

It works on the table of candidates with their scores (`runs.scored`), whose texts stay on disk: only the survivors are read, for
set-wise filters, and only the columns that these need.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import DECISIONS
from limbeck.filters.config import SetFilterConfig
from limbeck.filters.contract import Bound, SetFilter
from limbeck.pipelines.runs.report_model import BEYOND_TARGET
from limbeck.pipelines.runs.scored import IDS, SOURCE_REFERENCE, Columns, Scored, quoted, text

GENERATOR = "generator"
"""`rejected_by` of a candidate that the generator could not make."""

UNDECIDED = "undecided"
"""`rejected_by` of a row that cannot be decided, because a score needed by a bound was never computed."""

_GIVEN = frozenset(("document", "reference", "rejected_by"))
"""Columns that a set-wise filter may need which are neither in the candidates nor scores."""

FilterBounds = Sequence[tuple[str, Sequence[Bound]]]
"""Filters in recipe order, each with its name and its bounds in the order in which they are applied."""

OnEvidence = Callable[[str, pa.Table], None]
"""Receives the name and the evidence of a set-wise filter."""


class ScoreTable(Protocol):
    """What calibration reads of a joined table: `pa.Table`, or `Numbers`, which reads one column at a time."""

    @property
    def num_rows(self) -> int:
        """The number of candidates."""
        ...

    @property
    def column_names(self) -> list[str]:
        """The names of its columns; scores are named `filter.column`."""
        ...

    def __getitem__(self, name: str) -> Any:
        """A column, as a `pa.ChunkedArray`."""
        ...


@dataclass(frozen=True)
class Numbers:
    """The scores of all candidates, in order of source and sample, one column at a time."""

    scored: Scored

    @property
    def num_rows(self) -> int:
        """The number of candidates."""
        return self.scored.num_rows

    @property
    def column_names(self) -> list[str]:
        """`finish_reason` and every score, as `filter.column`."""
        return ["finish_reason", *all_numbers(self.scored)]

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """Read a column."""
        return self.scored.connection.sql(f"select {quoted(name)} from scored order by position").to_arrow_table()[name]


def all_numbers(scored: Scored) -> list[str]:
    """The names of all scores, as `filter.column`."""
    return [f"{name}.{column}" for name, found in scored.columns.items() for column in found.numbers]


def all_columns(scored: Scored) -> list[str]:
    """The names of all scores and evidence, as `filter.column`."""
    return [f"{name}.{column}" for name, found in scored.columns.items() for column in (*found.numbers, *found.evidence)]


def joined(scored: Scored, names: Sequence[str], *, evidence: bool = False) -> pa.Table:
    """Return the candidates with every score of the named filters as `filter.column`, sorted by (source_id, sample).

    `evidence`: include non-numeric columns (findings, vectors, graphs), and, if the sources are known, their `document`, and
    their `reference` for candidates without one. The whole table is in memory: for few candidates.
    """
    return _rows(scored, "scored", names, evidence=evidence)


def _rows(scored: Scored, chosen: str, names: Sequence[str], *, evidence: bool, needs: frozenset[str] | None = None) -> pa.Table:
    """The joined rows whose position is in the table `chosen`; `needs`: only these columns, beside the ids (None: all)."""

    def needed(columns: Sequence[str]) -> list[str]:
        return [column for column in columns if needs is None or column in needs]

    if needs is not None and not needs <= {*scored.reader.candidates.names, *_GIVEN, *all_columns(scored)}:
        needs |= frozenset(all_numbers(scored))  # the filter's error lists the scores that exist
    own = [name for name in scored.reader.candidates.names if name in IDS or needs is None or name in needs]
    of_sources = needed(["document", "reference"]) if evidence and scored.reader.has_sources else []
    documents = [name for name in of_sources if name == "document"]
    numbers = {name: needed([f"{name}.{column}" for column in scored.columns[name].numbers]) for name in names}
    others = {name: needed([f"{name}.{column}" for column in scored.columns[name].evidence if evidence]) for name in names}
    found = scored.fetch(
        chosen,
        own,
        {SOURCE_REFERENCE if name == "reference" else name: name for name in of_sources},
        [column for name in names for column in numbers[name]],
        [column for name in names for column in others[name]],
    )
    scores = [column for name in names for column in (*numbers[name], *others[name])]
    table = pa.concat_tables(found)
    if not needed(["reference"]) or not evidence:
        return table.select([*own, *documents, *scores])
    nulls = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    known = [table[name].cast(pa.string()) for name in ("reference", SOURCE_REFERENCE) if name in table.column_names]
    return table.select([*(name for name in own if name != "reference"), *documents, *scores]).append_column(
        "reference", pc.coalesce(*known, nulls)
    )


def passing(table: ScoreTable, filters: FilterBounds) -> npt.NDArray[np.bool_]:
    """Return which rows of a joined table pass every bound; rows with a generator error do not.  # [candidates]"""
    passed: npt.NDArray[np.bool_] = pc.fill_null(pc.not_equal(table["finish_reason"], "error"), True).to_numpy().copy()
    for name, bounds in filters:
        for bound in bounds:
            passed &= ~bound.mask(scores_of(table, name, bound.column), unscored=True)
    return passed


def scores_of(table: ScoreTable, name: str, column: str) -> npt.NDArray[np.float64]:
    """Return a score column of a joined table, null as NaN; raises LimbeckError if it is missing.  # [candidates]"""
    if f"{name}.{column}" not in table.column_names:
        known = [known.removeprefix(f"{name}.") for known in table.column_names if known.startswith(f"{name}.")]
        raise LimbeckError(_no_column(name, column, known))
    scores: npt.NDArray[np.float64] = table[f"{name}.{column}"].cast(pa.float64()).to_numpy()
    return scores


def decide(
    scored: Scored,
    filters: FilterBounds,
    set_filters: Sequence[SetFilter] = (),
    on_evidence: OnEvidence | None = None,
    target: int | None = None,
) -> pa.Table:
    """Return `limbeck.corpus.schemas.DECISIONS`: exactly one row per candidate, sorted by (source_id, sample).

    A row is rejected by the first filter in recipe order that rejects it, with the first of its bounds that fails; then each
    set-wise filter selects from the survivors of the previous one; then those after the first `target` survivors, by part and
    row, are rejected. A bounded score that is missing or not finite rejects the row, unless it was skipped because another
    filter rejects the row: then that filter decides, and if it no longer rejects, the row is `UNDECIDED`. `on_evidence` receives
    the evidence of each set-wise filter. Raises LimbeckError if a bound names an unknown score column, or if a set-wise filter
    returns a duplicate or unknown candidate.
    """
    decided = _decided(scored, filters, [_SetWise(filter_) for filter_ in set_filters], on_evidence, target)
    found = scored.connection.sql(_decisions_of(decided)).to_arrow_table().cast(DECISIONS)
    scored.connection.execute(f"drop table {decided}")
    return found


def write_decisions(
    scored: Scored,
    file: Path,
    filters: FilterBounds,
    set_filters: Sequence[SetFilterConfig] = (),
    on_evidence: OnEvidence | None = None,
    target: int | None = None,
) -> None:
    """Write the decisions (`decide`) as a Parquet file; memory does not grow with the number of candidates.

    A set-wise filter is given the columns that it needs of the survivors, in memory.
    """
    decided = _decided(scored, filters, _built(set_filters), on_evidence, target)
    scored.write(_decisions_of(decided), file, schema=DECISIONS)
    scored.connection.execute(f"drop table {decided}")


def accepted(scored: Scored, filters: FilterBounds, set_filters: Sequence[SetFilterConfig] = ()) -> "Accepted":
    """Which candidates the filters keep, as `write_decisions` would decide."""
    decided = _decided(scored, filters, _built(set_filters), None, None)
    kept = scored.connection.sql(f"select candidate_id from {decided} where rejected_by is null").to_arrow_table()
    scored.connection.execute(f"drop table {decided}")
    return Accepted(scored.num_rows, kept["candidate_id"])


@dataclass(frozen=True)
class Accepted:
    """How many candidates were decided, and the ids of those that are kept."""

    candidates: int
    ids: pa.ChunkedArray


@dataclass(frozen=True)
class _SetWise:
    """A set-wise filter, the columns that it needs (None: all), and whether it is also given rejected rows."""

    filter: SetFilter
    needs: frozenset[str] | None = None
    also_rejected: bool = False

    def rows(self, scored: Scored, decided: str, names: Sequence[str]) -> pa.Table:
        """What the filter is given."""
        others = f" or rejected_by != {text(GENERATOR)}" if self.also_rejected else ""
        given = scored.new_name()
        scored.connection.execute(f"create table {given} as select position from {decided} where rejected_by is null{others}")
        table = _rows(scored, given, names, evidence=True, needs=self.needs)
        if self.also_rejected:
            query = f"select rejected_by from {decided} where position in (select position from {given}) order by position"
            table = table.append_column("rejected_by", scored.connection.sql(query).to_arrow_table()["rejected_by"])
        scored.connection.execute(f"drop table {given}")
        return table


def _built(set_filters: Sequence[SetFilterConfig]) -> list[_SetWise]:
    return [_SetWise(filter_.build(), filter_.needs, filter_.also_rejected) for filter_ in set_filters]


def _decided(
    scored: Scored,
    filters: FilterBounds,
    set_filters: Sequence["_SetWise"],
    on_evidence: OnEvidence | None,
    target: int | None,
) -> str:
    """The name of a new table with a verdict per candidate: ids, `position`, `part`, `row`, `rejected_by` and `reason`."""
    for name, bounds in filters:
        known = scored.columns[name].numbers
        for bound in bounds:
            assert bound.calibrate is None, f"{name}.{bound.column} is to be calibrated first"
            if bound.column not in known:
                raise LimbeckError(_no_column(name, bound.column, known))
    decided, connection = scored.new_name(), scored.connection
    connection.execute(f"create table {decided} as {_verdict_query(filters, scored.columns)}")
    names = [name for name, _ in filters]
    for set_wise in set_filters:
        filter_ = set_wise.filter
        judged = filter_.select(set_wise.rows(scored, decided, names))
        _drop(scored, decided, filter_.name, judged)
        found = [name for name in judged.column_names if name not in ("candidate_id", "reason", "undecided")]
        if found and on_evidence is not None:
            on_evidence(filter_.name, judged.select(["candidate_id", *found]))
    if target is not None:
        beyond = f"select position from {decided} where rejected_by is null order by part, row offset {target}"
        reason = f"accepted, but the dataset has its {target} rows"
        connection.execute(
            f"update {decided} set rejected_by = {text(BEYOND_TARGET)}, reason = {text(reason)} where position in ({beyond})"
        )
    return decided


def _drop(scored: Scored, decided: str, name: str, judged: pa.Table) -> None:
    """Reject the survivors that a set-wise filter drops; raises LimbeckError if it was not given one of them."""
    undecided = judged["undecided"] if "undecided" in judged.column_names else pa.repeat(False, judged.num_rows)
    drops = pa.table(
        {
            "candidate_id": judged["candidate_id"].cast(pa.string()),
            "why": judged["reason"].cast(pa.string()),
            "undecided": undecided.cast(pa.bool_()),
        }
    )
    scored.connection.register("drops", drops)
    (distinct, given) = scored.connection.execute(
        "select count(distinct d.candidate_id), count(given.candidate_id) from drops d "
        f"left join (select candidate_id from {decided} where rejected_by is null) given using (candidate_id)"
    ).fetchall()[0]
    if not distinct == given == drops.num_rows:
        raise LimbeckError(f"filter {name} returned a duplicate or unknown candidate_id; fix its select()")
    unclear = f"{text(f'{name} cannot judge it: ')} || coalesce(nullif(why, ''), 'a score that it needs is missing')"
    scored.connection.execute(
        f"update {decided} set rejected_by = case when undecided then {text(UNDECIDED)} else {text(name)} end, "
        f"reason = case when undecided then {unclear} else why end "
        f"from drops where drops.candidate_id = {decided}.candidate_id and (undecided or why is not null)"
    )
    scored.connection.unregister("drops")


def _decisions_of(decided: str) -> str:
    columns = "candidate_id, source_id, sample, rejected_by is null as kept, rejected_by, reason"
    return f"select {columns} from {decided} order by position"


def _verdict_query(filters: FilterBounds, columns: Mapping[str, Columns]) -> str:
    failed = _verdict(GENERATOR, "coalesce(error, 'the engine gave no reason')")
    cases = [f"when finish_reason = 'error' then {failed}"]
    cases += [f"when {rejects} then {_verdict(name, reason)}" for name, rejects, reason in _tests(filters, columns)]
    cases += [f"when {skipped} then {_verdict(UNDECIDED, reason)}" for skipped, reason in _skipped(filters, columns)]
    places = f"{', '.join(IDS)}, position, part, row"
    return f"""
        select {places}, verdict.rejected_by as rejected_by, verdict.reason as reason
        from (select {places}, case {" ".join(cases)} end as verdict from scored)"""


def _tests(filters: FilterBounds, columns: Mapping[str, Columns]) -> Iterator[tuple[str, str, str]]:
    """Yield (filter, SQL condition that rejects, SQL text of the reason), in the order in which they are applied.

    Of the columns of each filter, `error` says why a row has no score, and `skipped_by` names the filter that rejected it.
    """
    for name, bounds in filters:
        for bound in bounds:
            score = quoted(f"{name}.{bound.column}")
            why = f": {bound.reason}" if bound.reason else ""
            (missing, _), *limits = bound.sql(score)
            unscored = text(f"{bound.column} could not be scored")
            if "error" in columns[name].notes:
                unscored += f" || coalesce(': ' || {quoted(f'{name}.error')}, '')"
            if "skipped_by" in columns[name].notes:
                missing += f" and {quoted(f'{name}.skipped_by')} is null"
            yield name, missing, unscored
            for condition, words in limits:
                yield name, condition, f"{text(bound.column + ' ')} || printf('%.4g', {score}) || {text(f' {words}{why}')}"


def _skipped(filters: FilterBounds, columns: Mapping[str, Columns]) -> Iterator[tuple[str, str]]:
    """Yield (SQL condition that a bound score was skipped, SQL text of the reason)."""
    for name, bounds in filters:
        if bounds and "skipped_by" in columns[name].notes:
            who = quoted(f"{name}.skipped_by")
            yield f"{who} is not null", f"{text(f'{name} was not scored, since ')} || {who} || ' rejected the row then'"


def _verdict(name: str, reason: str) -> str:
    return f"{{'rejected_by': {text(name)}, 'reason': {reason}}}"


def _no_column(name: str, column: str, known: Sequence[str]) -> str:
    return f"filter {name} has a bound on {column!r}, but its columns are {', '.join(known) or 'none'}"
