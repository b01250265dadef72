"""What a filter is: it scores every candidate and owns the bounds that reject some. It never deletes a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa


@dataclass(frozen=True)
class Bound:
    """A limit on one score column, applied by selection without the filter.

    A candidate is rejected where its score lies below `minimum`, above `maximum`, or is not a number. `calibrate` says that
    the limit of that side is found once, on the train candidates of round 0, and then frozen. `reason` is the sentence a
    rejected row carries.
    """

    column: str
    minimum: float | None = None
    maximum: float | None = None
    calibrate: Literal["minimum", "maximum"] | None = None
    reason: str = ""


@runtime_checkable
class Filter(Protocol):
    """Scores candidates. Anything with these three can be passed to `pipelines.run.run(..., filters=[...])`."""

    @property
    def name(self) -> str:
        """Unique within a recipe; names the score folder."""
        ...

    @property
    def bounds(self) -> Sequence[Bound]:
        """The limits, in the order in which they are tried."""
        ...

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return one row per candidate, in order, of named numeric columns.

        `candidates` has the columns of `corpus.schemas.SCORED_INPUT`. A score that cannot be computed is NaN.
        """
        ...


@runtime_checkable
class SetFilter(Protocol):
    """Judges survivors together (duplicates, the best of each source)."""

    @property
    def name(self) -> str:
        """Unique within a recipe."""
        ...

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id` and `reason` of each row to drop. `survivors`: candidates joined with all their scores."""
        ...
