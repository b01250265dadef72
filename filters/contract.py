"""What a filter is: it scores every candidate and owns the bounds that reject some. It never deletes a row.

Filters measure, one row at a time; set-wise filters choose among what the bounds let through, and never ask a model, so that
another choice can be tried at any time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
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

    def rejects(self, score: float | None, *, unscored: bool) -> bool:
        """Whether the known limits reject a score; `unscored` is the answer for one that is missing or not a finite number.

        Selection rejects what could not be scored. A filter that may skip rows does not: it leaves them to selection.
        """
        if score is None or (unscored and not math.isfinite(score)):
            return unscored
        return (self.minimum is not None and score < self.minimum) or (self.maximum is not None and score > self.maximum)

    def mask(self, scores: npt.NDArray[np.float64], *, unscored: bool) -> npt.NDArray[np.bool_]:
        """As `rejects`, for many scores; NaN: missing. An infinite score that a limit excludes is always rejected.  # [scores]"""
        rejected = np.full(len(scores), False) if not unscored else ~np.isfinite(scores)
        if self.minimum is not None:
            rejected |= scores < self.minimum
        if self.maximum is not None:
            rejected |= scores > self.maximum
        return rejected

    def sql(self, score: str) -> Iterator[tuple[str, str]]:
        """Yield what rejects a score in SQL, in the order in which it is tried: (condition, words for the reason).

        The first condition is that the score, an SQL expression of type double, is missing or not finite; its words are empty.
        """
        yield f"not coalesce(isfinite({score}), false)", ""
        for limit, comparison, words in ((self.minimum, "<", "is below"), (self.maximum, ">", "is above")):
            if limit is not None:
                assert math.isfinite(limit), f"{self.column} has the limit {limit}"
                yield f"{score} {comparison} {float(limit)!r}::double", f"{words} {limit:.4g}"


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

        `candidates` has the columns of `corpus.schemas.SCORED_INPUT`, and may have no rows. A score that cannot be computed is
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
