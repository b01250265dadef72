"""Diversity by embedding: the best rows first, skipping what is too near to a row that is taken (Deita; Liu et al., 2024)."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from limbeck.filters.columns import COSINE
from limbeck.filters.config import Name, SetFilterConfig
from limbeck.filters.sets.cosine import cosine, spread, vectors_of
from limbeck.filters.sets.ranking import ranks, shown_above

SPREAD = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("undecided", pa.bool_(), nullable=False),
        pa.field("near_id", pa.string()),
        pa.field("cosine", pa.float64(), metadata={"unit": COSINE}),
    ]
)


class SpreadConfig(SetFilterConfig):
    """The score that ranks, the vectors, the highest cosine of two kept rows, and how many are kept."""

    kind: Literal["spread"] = "spread"
    name: Name = "spread"
    by: str = Field(description="the score (`filter.column`) by which the best rows are taken first")
    order: Literal["highest", "lowest"] = Field("highest", description="which score of `by` is the best")
    max_cosine: float = Field(0.9, ge=0, lt=1, description="a row is skipped if its cosine with one taken before is above this")
    vectors: str = "embedding.vector"
    keep: int | None = Field(None, ge=1, description="the largest number of rows taken; null: all that are far enough apart")

    @property
    def reads(self) -> Mapping[str, str]:
        """The score that it ranks by, and the vectors."""
        return {"by": self.by, "vectors": self.vectors}

    @property
    def needs(self) -> frozenset[str]:
        """What it reads, and nothing else."""
        return frozenset(self.reads.values())

    def build(self) -> "SpreadFilter":
        """Return the filter."""
        return SpreadFilter(self)


class SpreadFilter:
    """Takes survivors one after another, the best first."""

    def __init__(self, config: SpreadConfig) -> None:
        self.name = config.name
        self._config = config

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `SPREAD`, one row per dropped or undecided row.

        `near_id` is the best taken row that a skipped row is too near to, with their `cosine`; both are null for a row beyond
        `keep`. Ties of `by` go to the lower (source_id, sample, candidate_id); NaN ranks last. A row whose score or vector is
        null is undecided, and skips nothing; a zero vector (of a blank text) is near to nothing. Time: rows times kept rows.
        """
        config = self._config
        order = np.argsort(ranks(survivors, config.by, self.name, lowest=config.order == "lowest"))
        survivors = survivors.take(order)
        vectors = vectors_of(survivors, config.vectors, self.name)
        unclear = survivors[config.by].is_null().to_numpy() | survivors[config.vectors].is_null().to_numpy()
        decided = np.flatnonzero(~unclear)
        vectors = vectors[decided]
        near = spread(vectors, config.max_cosine, config.keep)
        dropped = np.flatnonzero(near != np.arange(len(near)))
        skipped = dropped[near[dropped] >= 0]
        cosines = dict(zip(skipped.tolist(), cosine(vectors, skipped, near[skipped]).tolist(), strict=True))
        ids = survivors["candidate_id"].to_pylist()
        rows = [{"candidate_id": ids[row], "undecided": True} for row in np.flatnonzero(unclear).tolist()]
        for row in dropped.tolist():
            found = {"candidate_id": ids[decided[row]], "reason": self._beyond(), "undecided": False}
            if row in cosines:
                near_id = ids[decided[near[row]]]
                found |= {"reason": self._skipped(near_id, cosines[row]), "near_id": near_id, "cosine": cosines[row]}
            rows.append(found)
        return pa.Table.from_pylist(rows, schema=SPREAD)

    def _skipped(self, near_id: str, found: float) -> str:
        limit = self._config.max_cosine
        shown = shown_above(found, limit)
        return f"cosine {shown} with candidate {near_id}, which ranks before it by {self._config.by}, is above {limit:.4g}"

    def _beyond(self) -> str:
        return f"{self._config.keep} rows that rank before it by {self._config.by} are kept"
