"""The invention filter: how many names and numbers of the output its document does not contain."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa

from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.invention.invented import invented
from limbeck.corpus.text.invisible import is_blank
from limbeck.filters.columns import OCCURRENCES, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

UNITS = {"invented": OCCURRENCES}


class InventionConfig(FilterConfig):
    """A bound on the invented names and numbers; none by default, so that the measure of evaluation stays independent."""

    reasons: ClassVar[Mapping[str, str]] = {"max_invented": "the output has names or numbers that the document lacks"}
    also: ClassVar[tuple[str, ...]] = ("absent",)

    kind: Literal["invention"] = "invention"
    name: Name = "invention"
    max_invented: Limit = None

    @property
    def ranges(self) -> Mapping[str, Range]:
        """A count."""
        return ranges_of(UNITS)

    @property
    def texts(self) -> Mapping[str, RowText]:
        """Without a document nothing can be absent from it."""
        return {"invented": "document"}

    def build(self, engines: "Engines") -> "InventionFilter":
        """Return the filter; it needs no engine."""
        return InventionFilter(self.name, self.bounds)


class InventionFilter:
    """Scores the text alone; no model is called."""

    def __init__(self, name: str = "invention", bounds: Sequence[Bound] = ()) -> None:
        self.name = name
        self.bounds = tuple(bounds)

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `invented`, the number of distinct absent names and numbers, and `absent`, their list, one row per candidate.

        NaN and null if there is no document; 0 for an empty output. O(characters).
        """
        documents, outputs = (candidates[name].to_pylist() for name in ("document", "output"))
        found = [
            None if document is None or is_blank(document) else invented(document, output or "")
            for document, output in zip(documents, outputs, strict=True)
        ]
        counts = pa.array([math.nan if names is None else float(len(names)) for names in found], pa.float64())
        return score_table(candidates, {"invented": counts, "absent": pa.array(found, pa.list_(pa.string()))}, UNITS)
