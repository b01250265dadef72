"""The length filter: how long the output is, and how long relative to its document, in the teacher's tokens."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from limbeck.corpus.source_kinds import RowText
from limbeck.filters.columns import AT_LEAST_ZERO, Range
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines


class LengthConfig(FilterConfig):
    """Bounds on the output's tokens and on their ratio to the document's."""

    reasons: ClassVar[Mapping[str, str]] = {
        "min_output_tokens": "the output is too short",
        "max_output_tokens": "the output is too long",
        "max_compression": "the output is hardly shorter than the document",
    }

    kind: Literal["length"] = "length"
    name: Name = "length"
    min_output_tokens: Limit = 5.0
    max_output_tokens: Limit = None
    max_compression: Limit = 0.5

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Counts, and their quotient."""
        return {"output_tokens": AT_LEAST_ZERO, "compression": AT_LEAST_ZERO}

    @property
    def texts(self) -> Mapping[str, RowText]:
        """A document without tokens cannot be shortened."""
        return {"compression": "document"}

    def build(self, engines: "Engines") -> "LengthFilter":
        """Return the filter; it needs no engine."""
        return LengthFilter(self.name, self.bounds)


class LengthFilter:
    """Scores length from the token counts of sources and candidates; no text is tokenised again."""

    def __init__(self, name: str = "length", bounds: Sequence[Bound] = ()) -> None:
        self.name = name
        self.bounds = tuple(bounds)

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `output_tokens` and `compression` (output tokens / document tokens; NaN for a document without tokens)."""
        output_tokens = candidates["output_tokens"].to_numpy().astype(np.float64)
        document_tokens = candidates["document_tokens"].to_numpy().astype(np.float64)
        compression = output_tokens / np.where(document_tokens > 0, document_tokens, np.nan)
        return pa.table({"candidate_id": candidates["candidate_id"], "output_tokens": output_tokens, "compression": compression})
