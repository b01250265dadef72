"""What a text means as a vector: how near the output lies to its document, and the vectors that near duplicates are found by."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from limbeck.cluster.engines.scoring_models.encoder import Encoder, EncoderConfig
from limbeck.corpus.other_documents import other_rows
from limbeck.filters.config import Cost, FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

_COSINE = {"unit": "cosine, -1 to 1"}
_SCHEMA = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), metadata=_COSINE),
        pa.field("similarity_null", pa.float64(), metadata=_COSINE),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)


class EmbeddingConfig(FilterConfig):
    """A sentence encoder's view of each output: its vector, and its cosine with the document."""

    also: ClassVar[tuple[str, ...]] = ("similarity_null", "vector")

    kind: Literal["embedding"] = "embedding"
    name: Name = "embedding"
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    min_similarity: Limit = None
    max_similarity: Limit = None

    cost: ClassVar[Cost] = Cost.ENCODER
    nullable: ClassVar[bool] = True
    reasons: ClassVar[Mapping[str, str]] = {
        "min_similarity": "the output is about something else than the document",
        "max_similarity": "the output says no more and no less than the document",
    }

    @property
    def models(self) -> Mapping[str, str]:
        """The encoder."""
        return {"encoder": self.encoder.model}

    def build(self, engines: "Engines") -> "EmbeddingFilter":
        """Return the filter over the loaded encoder."""
        return EmbeddingFilter(engines.hold(self.encoder), self.name, self.bounds)


class EmbeddingFilter:
    """Encodes outputs and documents."""

    def __init__(self, encoder: Encoder, name: str = "embedding", bounds: Sequence[Bound] = ()) -> None:
        """Encode with `encoder`; `bounds` are what selection will apply."""
        self.name = name
        self.bounds = tuple(bounds)
        self._encoder = encoder

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `similarity`, `similarity_null` (cosines, -1 to 1) and `vector` (the output's, of length 1), a row a candidate.

        `similarity` is that of output and document, `similarity_null` that of the output and the next other document among the
        rows (NaN where there is none). Texts are cut at the encoder's limit; a blank one has similarity NaN and the vector zero.
        Each distinct text is encoded once, so a document costs its candidates one forward pass.
        """
        rows = candidates.num_rows
        texts = [text or "" for name in ("output", "document") for text in candidates[name].to_pylist()]
        filled = np.array([bool(text.strip()) for text in texts], bool)
        vectors = np.full((len(texts), self._encoder.dimensions), np.nan, np.float32)
        vectors[filled] = self._encoder.encode([text for text, has in zip(texts, filled, strict=True) if has])
        outputs, documents = vectors[:rows], vectors[rows:]
        others = other_rows(texts[rows:])
        null = np.where(others >= 0, _cosines(outputs, documents[others]), np.nan)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(np.nan_to_num(outputs).ravel()), self._encoder.dimensions)
        return pa.table(
            {
                "candidate_id": candidates["candidate_id"],
                "similarity": _cosines(outputs, documents),
                "similarity_null": null,
                "vector": lists.cast(pa.list_(pa.float32())),
            },
            schema=_SCHEMA,
        )


def _cosines(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Row by row, of unit vectors; NaN where one is NaN.  # [rows, dimensions] -> [rows]"""
    found: npt.NDArray[np.float64] = np.clip(np.einsum("ij,ij->i", first, second, dtype=np.float64), -1.0, 1.0)
    return found
