"""Sentence embeddings: the similarity of output and document, and the vectors used to find near-duplicates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from limbeck.cluster.engines.scoring_models.encoder import Encoder, EncoderConfig
from limbeck.corpus.other_documents import crossed, groups_of, other_rows
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.invisible import is_blank
from limbeck.filters.columns import COSINE, Range
from limbeck.filters.config import Cost, FilterConfig, Limit, Name, Nulls
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

_COSINE = {"unit": COSINE}
_SCHEMA = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), metadata=_COSINE),
        pa.field("similarity_null", pa.float64(), metadata=_COSINE),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)


class EmbeddingConfig(FilterConfig):
    """A sentence embedding of each output, and its cosine with the document."""

    also: ClassVar[tuple[str, ...]] = ("similarity_null", "vector")

    kind: Literal["embedding"] = "embedding"
    name: Name = "embedding"
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    min_similarity: Limit = None
    max_similarity: Limit = None

    semantics: ClassVar[int] = 3
    cost: ClassVar[Cost] = Cost.ENCODER
    nullable: ClassVar[bool] = True
    unrelated: ClassVar[tuple[str, ...]] = ("min_similarity",)
    reasons: ClassVar[Mapping[str, str]] = {
        "min_similarity": "the output is about something else than the document",
        "max_similarity": "the output says no more and no less than the document",
    }

    @property
    def models(self) -> Mapping[str, str]:
        """The encoder."""
        return {"encoder": self.encoder.model}

    @property
    def nulls(self) -> Nulls:
        """All: `similarity_null` is one of its columns."""
        return "all"

    @property
    def ranges(self) -> Mapping[str, Range]:
        """A cosine."""
        return {"similarity": (-1.0, 1.0)}

    @property
    def texts(self) -> Mapping[str, RowText]:
        """Nothing is compared with an empty text."""
        return {"similarity": "document"}

    def build(self, engines: "Engines") -> "EmbeddingFilter":
        """Return the filter with a loaded encoder."""
        return EmbeddingFilter(engines.hold(self.encoder), self.name, self.bounds)


class EmbeddingFilter:
    """Encodes outputs and documents."""

    def __init__(self, encoder: Encoder, name: str = "embedding", bounds: Sequence[Bound] = ()) -> None:
        """Encode with `encoder`; selection applies `bounds`."""
        self.name = name
        self.bounds = tuple(bounds)
        self._encoder = encoder

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return the cosines `similarity` and `similarity_null`, and the output's unit `vector`, one row per candidate.

        `similarity` compares output and document; `similarity_null` compares the output with its other document
        (`corpus.other_documents`; NaN if there is none). Texts are truncated at the encoder's limit; a blank text has similarity
        NaN and a zero vector. Each distinct text is encoded once, so all candidates of a document share one forward pass over it.
        """
        rows = candidates.num_rows
        own = [text or "" for text in candidates["document"].to_pylist()]
        others = crossed(candidates, lambda: other_rows(own, groups_of(candidates)))["other_document"]
        texts = [text or "" for texts in (candidates["output"].to_pylist(), own, others.to_pylist()) for text in texts]
        filled = np.array([not is_blank(text) for text in texts], bool)
        vectors = np.full((len(texts), self._encoder.dimensions), np.nan, np.float32)
        vectors[filled] = self._encoder.encode([text for text, has in zip(texts, filled, strict=True) if has])
        outputs, documents, crossed_with = vectors[:rows], vectors[rows : 2 * rows], vectors[2 * rows :]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(np.nan_to_num(outputs).ravel()), self._encoder.dimensions)
        return pa.table(
            {
                "candidate_id": candidates["candidate_id"],
                "similarity": _cosines(outputs, documents),
                "similarity_null": _cosines(outputs, crossed_with),
                "vector": lists.cast(pa.list_(pa.float32())),
            },
            schema=_SCHEMA,
        )


def _cosines(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Row-wise cosines of unit vectors; NaN if either is NaN.  # [rows, dimensions] -> [rows]"""
    found: npt.NDArray[np.float64] = np.clip(np.einsum("ij,ij->i", first, second, dtype=np.float64), -1.0, 1.0)
    return found
