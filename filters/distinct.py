"""Set-wise filters: what survived is judged together, and what adds nothing is dropped."""

from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from corpus.config import Config
from corpus.errors import LimbeckError
from filters.limits import Name

DROPPED = pa.schema([pa.field("candidate_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])


class DuplicatesConfig(Config):
    """Keep one of the survivors that say the same: by score where `by` names one (`filter.column`), else the first."""

    kind: Literal["duplicates"] = "duplicates"
    name: Name = "duplicates"
    by: str | None = None
    within_source: bool = False

    def build(self) -> "DuplicatesFilter":
        """Return the filter."""
        return DuplicatesFilter(self)


class BestConfig(Config):
    """Keep the `per_source` best survivors of each source by the score `by` (`filter.column`), the highest or the lowest."""

    kind: Literal["best"] = "best"
    name: Name = "best"
    per_source: int = Field(default=1, ge=1)
    by: str = "pmi.pmi"
    order: Literal["highest", "lowest"] = "highest"

    def build(self) -> "BestFilter":
        """Return the filter."""
        return BestFilter(self)


class DuplicatesFilter:
    """Drops outputs that equal a better one in all but case, white space and the final full stop."""

    def __init__(self, config: DuplicatesConfig) -> None:
        """Take the config."""
        self.name = config.name
        self._config = config

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id` and `reason` of each duplicate. Ties go to the lower (source_id, sample)."""
        kept: dict[tuple[str, str], str] = {}
        dropped = []
        for row in _ranked(survivors, self._config.by, self.name):
            scope = row["source_id"] if self._config.within_source else ""
            key = (scope, " ".join(row["output"].lower().split()).rstrip(".!"))
            if key in kept:
                dropped.append((row["candidate_id"], f"says the same as candidate {kept[key]}"))
            else:
                kept[key] = row["candidate_id"]
        return _dropped(dropped)


class BestFilter:
    """Drops all but the best survivors of each source."""

    def __init__(self, config: BestConfig) -> None:
        """Take the config."""
        self.name = config.name
        self._config = config

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id` and `reason` of each row beyond the best `per_source`. Ties go to the lower sample."""
        places: dict[str, int] = {}
        dropped = []
        for row in _ranked(survivors, self._config.by, self.name, lowest=self._config.order == "lowest"):
            place = places[row["source_id"]] = places.get(row["source_id"], 0) + 1
            if place > self._config.per_source:
                reason = (
                    f"number {place} of its source by {self._config.order} {self._config.by}; {self._config.per_source} are kept"
                )
                dropped.append((row["candidate_id"], reason))
        return _dropped(dropped)


def _ranked(survivors: pa.Table, by: str | None, name: str, *, lowest: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows, best score first; by (source_id, sample) alone where `by` is None. Missing scores come last."""
    if by is not None and by not in survivors.column_names:
        known = ", ".join(column for column in survivors.column_names if "." in column) or "none"
        raise LimbeckError(f"filter {name}: no score {by!r} to rank by; written filter.column, here are: {known}")
    columns = ["candidate_id", "source_id", "sample", "output"]
    rows = survivors.select(columns).append_column("score", _scores(survivors, by, -1.0 if lowest else 1.0)).to_pylist()
    rows.sort(key=lambda row: (-row["score"], row["source_id"], row["sample"]))
    yield from rows


def _scores(survivors: pa.Table, by: str | None, sign: float) -> pa.Array:
    """The column to rank by times `sign` as float64, with missing scores below all others."""
    if by is None:
        return pa.array([0.0] * survivors.num_rows, pa.float64())
    values = survivors[by].cast(pa.float64()).to_pylist()
    return pa.array([float("-inf") if value is None or value != value else sign * value for value in values], pa.float64())


def _dropped(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.table([[row[0] for row in rows], [row[1] for row in rows]], schema=DROPPED)
