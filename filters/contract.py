"""What a filter is: it scores every candidate and owns the bounds that reject some. It never deletes a row.

Filters measure, one row at a time; set-wise filters choose among what the bounds let through, and never ask a model, so that
another choice can be tried at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa


@dataclass(frozen=True)
class Bound:
    """A limit on one score column, applied by selection without the filter.

    A candidate is rejected where its score lies below `minimum`, above `maximum`, or is not a number. `calibrate` says that
    the limit of that side is found once, on the train candidates of round 0, and then frozen: with `false_acceptance`, as the
    limit that this share of the mismatched pairs (column `<column>_null`) passes at most; else so that all calibrated bounds
    together reach the recipe's pass rate. `reason` is the sentence a rejected row carries.
    """

    column: str
    minimum: float | None = None
    maximum: float | None = None
    calibrate: Literal["minimum", "maximum"] | None = None
    reason: str = ""
    false_acceptance: float | None = None


@runtime_checkable
class Filter(Protocol):
    """Scores candidates. Anything with these three can be passed to `limbeck.pipelines.run.run(..., filters=[...])`."""

    @property
    def name(self) -> str:
        """Unique within a recipe; names the score folder."""
        ...

    @property
    def bounds(self) -> Sequence[Bound]:
        """The limits, in the order in which they are tried."""
        ...

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return one row per candidate, in order: `candidate_id`, numeric score columns, and columns of evidence.

        `candidates` has the columns of `limbeck.corpus.schemas.SCORED_INPUT`, and may have no rows. A score that cannot be computed is
        NaN. Evidence (text, lists) is kept and shown; no bound can be on it.
        """
        ...


@runtime_checkable
class SetFilter(Protocol):
    """Judges survivors together (duplicates, the best of each source), without any model."""

    @property
    def name(self) -> str:
        """Unique within a recipe."""
        ...

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id` and `reason` of each row to drop; the answer does not depend on the order of `survivors`.

        `survivors`: candidates with their `document` and every score and evidence column as `filter.column`. A row with a null
        reason is kept, as are rows that are left out. A boolean column `undecided` says that a row cannot be judged because what
        it takes was never scored. Further columns are kept as evidence.
        """
        ...
