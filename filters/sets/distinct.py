"""The best survivors of each source."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from limbeck.corpus.near_duplicates.texts import codes
from limbeck.filters.config import Name, SetFilterConfig
from limbeck.filters.sets.ranking import ranks

DROPPED = pa.schema([pa.field("candidate_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)])


class BestConfig(SetFilterConfig):
    """Keep the `per_source` best survivors of each source by the score `by` (`filter.column`), the highest or the lowest."""

    kind: Literal["best"] = "best"
    name: Name = "best"
    per_source: int = Field(default=1, ge=1)
    by: str = "pmi.pmi"
    order: Literal["highest", "lowest"] = "highest"

    @property
    def reads(self) -> Mapping[str, str]:
        """The score that it ranks by."""
        return {"by": self.by}

    @property
    def needs(self) -> frozenset[str]:
        """What it reads, and nothing else."""
        return frozenset(self.reads.values())

    def build(self) -> "BestFilter":
        """Return the filter."""
        return BestFilter(self)


class BestFilter:
    """Drops all but the best survivors of each source."""

    def __init__(self, config: BestConfig) -> None:
        self.name = config.name
        self._config = config

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id` and `reason` of each row beyond the best `per_source`. Ties go to the lower sample."""
        places = ranks(survivors, self._config.by, self.name, lowest=self._config.order == "lowest")
        sources = codes(survivors["source_id"])
        order = np.lexsort((places, sources))
        sizes = np.bincount(sources)
        number = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[sources[order]] + 1  # rank within the source, from 1
        beyond = number > self._config.per_source
        behind = f"of its source by {self._config.order} {self._config.by}; {self._config.per_source} are kept"
        reasons = [f"number {place} {behind}" for place in number[beyond].tolist()]
        return pa.table([survivors["candidate_id"].take(order[beyond]), reasons], schema=DROPPED)
