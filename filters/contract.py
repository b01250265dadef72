"""The filter interface: a filter scores every candidate and has bounds that reject some of them. It never deletes a row.

A filter scores each row independently. A set-wise filter chooses among the rows that pass the bounds; it never calls a model, so
its settings can be changed without scoring again.
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
    """A bound on one score column; selection applies it without loading the filter.

    A candidate is rejected if its score is below `minimum`, above `maximum`, or not a number. With `calibrate`, that side is
    fitted once on the train candidates of round 0 and then fixed: with `false_acceptance`, so that at most this share of the
    mismatched pairs (column `<column>_null`) passes; otherwise so that all calibrated bounds together reach the recipe's pass
    rate. `reason` is recorded for a rejected row.
    """

    column: str
    minimum: float | None = None
    maximum: float | None = None
    calibrate: Literal["minimum", "maximum"] | None = None
    reason: str = ""
    false_acceptance: float | None = None

    def rejects(self, score: float | None, *, unscored: bool) -> bool:
        """Whether the known bounds reject a score; `unscored` is returned for a score that is missing or not finite.

        Selection rejects unscored rows. A filter that skips rows does not reject them itself.
        """
        if score is None or (unscored and not math.isfinite(score)):
            return unscored
        return (self.minimum is not None and score < self.minimum) or (self.maximum is not None and score > self.maximum)

    def mask(self, scores: npt.NDArray[np.float64], *, unscored: bool) -> npt.NDArray[np.bool_]:
        """Vectorised `rejects`; NaN means missing. An infinite score outside the bounds is always rejected.  # [scores]"""
        rejected = np.full(len(scores), False) if not unscored else ~np.isfinite(scores)
        if self.minimum is not None:
            rejected |= scores < self.minimum
        if self.maximum is not None:
            rejected |= scores > self.maximum
        return rejected

    def sql(self, score: str) -> Iterator[tuple[str, str]]:
        """Yield the SQL conditions that reject a score, in the order in which they are tried: (condition, wording of the reason).

        `score` is an SQL expression of type double. The first condition is a missing or non-finite score; its wording is empty.
        """
        yield f"not coalesce(isfinite({score}), false)", ""
        for limit, comparison, words in ((self.minimum, "<", "is below"), (self.maximum, ">", "is above")):
            if limit is not None:
                assert math.isfinite(limit), f"{self.column} has the limit {limit}"
                yield f"{score} {comparison} {float(limit)!r}::double", f"{words} {limit:.4g}"


@runtime_checkable
class Filter(Protocol):
    """Scores candidates. Any object with these members can be passed to `limbeck.pipelines.run.run(..., filters=[...])`."""

    @property
    def name(self) -> str:
        """Unique within a recipe; names the score folder."""
        ...

    @property
    def bounds(self) -> Sequence[Bound]:
        """The bounds, in the order in which they are applied."""
        ...

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return one row per candidate, in input order: `candidate_id`, numeric score columns, and evidence columns.

        `candidates` has the columns of `corpus.schemas.SCORED_INPUT` and may be empty. A score that cannot be computed is NaN.
        Evidence (text, lists) is stored and shown, but cannot have a bound.
        """
        ...


PROBED = pa.schema(
    [
        pa.field("preference_first", pa.float64()),  # how much it prefers the true output, which is shown first
        pa.field("preference_second", pa.float64()),  # the same if the true output is shown second
        pa.field("score_true", pa.float64()),  # the filter's own score of the true output
        pa.field("score_corrupted", pa.float64()),  # the filter's own score of the corrupted one
    ]
)
"""What a filter that tests itself returns for each pair of a true and a corrupted output; preferences are from 0 to 1."""


@runtime_checkable
class ProbedFilter(Filter, Protocol):
    """A filter that can be tested on pairs of which one output is certainly better (`filters.corruptions`)."""

    def probe(self, pairs: pa.Table) -> pa.Table:
        """Return the columns `PROBED`, one row per pair, in input order; NaN: no answer.

        `pairs` has the columns of `corpus.schemas.SCORED_INPUT`, whose `output` is the true one, and the text `corrupted`.
        """
        ...


@runtime_checkable
class SetFilter(Protocol):
    """Selects among survivors (for example duplicates, or the best of each source) without calling a model."""

    @property
    def name(self) -> str:
        """Unique within a recipe."""
        ...

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id` and `reason` of each row to drop; the result must not depend on the order of `survivors`.

        `survivors`: candidates with their `document`, their `reference` (the source's if they have none of their own) and every
        score and evidence column as `filter.column`. Rows with a null reason and rows that are not returned are kept. A boolean
        column `undecided` marks rows that cannot be decided because a score they need is missing. Further columns are stored as
        evidence. If the filter's config sets `also_rejected`, candidates that earlier filters rejected are among the rows, with
        that filter's name in the column `rejected_by` (null: a survivor); only survivors may be returned. Candidates that the
        generator could not make are never given.
        """
        ...
