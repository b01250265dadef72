"""A filter of one score, and a set-wise filter."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa

from limbeck.filters.config import FilterConfig, Limit, Name, SetFilterConfig

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines


class VowelsConfig(FilterConfig):
    """Bounds on the share of vowels among an output's letters."""

    reasons: ClassVar[Mapping[str, str]] = {"min_share": "the output has too few vowels"}

    kind: Literal["vowels"] = "vowels"
    name: Name = "vowels"
    min_share: Limit = 0.2
    max_share: Limit = None

    def build(self, engines: "Engines") -> "Vowels":
        return Vowels(self)


class Vowels:
    def __init__(self, config: VowelsConfig) -> None:
        self.name, self.bounds = config.name, config.bounds

    def score(self, candidates: pa.Table) -> pa.Table:
        texts = ["".join(filter(str.isalpha, text.lower())) for text in candidates["output"].to_pylist()]
        shares = [sum(map(text.count, "aeiou")) / max(1, len(text)) for text in texts]
        return pa.table({"candidate_id": candidates["candidate_id"], "share": pa.array(shares, pa.float64())})


class ShortestConfig(SetFilterConfig):
    """Keep the shortest survivor of each source."""

    kind: Literal["shortest"] = "shortest"
    name: Name = "shortest"

    def build(self) -> "Shortest":
        return Shortest(self.name)


class Shortest:
    def __init__(self, name: str) -> None:
        self.name = name

    def select(self, survivors: pa.Table) -> pa.Table:
        best: dict[str, tuple[int, int, str]] = {}
        rows = survivors.select(["candidate_id", "source_id", "sample", "output"]).to_pylist()
        for row in rows:
            key = (len(row["output"]), row["sample"], row["candidate_id"])
            best[row["source_id"]] = min(best.get(row["source_id"], key), key)
        dropped = [row["candidate_id"] for row in rows if row["candidate_id"] != best[row["source_id"]][2]]
        return pa.table({"candidate_id": dropped, "reason": ["a shorter one is kept"] * len(dropped)})
