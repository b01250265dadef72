"""Duplicates among survivors: exact, near by shingles (MinHash), near by meaning (vectors); one row per group is kept."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from limbeck.corpus.near_duplicates.groups import Places, representatives
from limbeck.corpus.near_duplicates.minhash import bands_for, jaccard
from limbeck.corpus.near_duplicates.texts import codes, equal_texts, similar_texts
from limbeck.filters.config import Name, SetFilterConfig
from limbeck.filters.sets.cosine import cosine, similar_vectors, vectors_of
from limbeck.filters.sets.ranking import ranks

DUPLICATES = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("undecided", pa.bool_(), nullable=False),
        pa.field("duplicate_of", pa.string()),
        pa.field("similarity", pa.float64(), metadata={"unit": "Jaccard similarity or cosine, 0 to 1"}),
    ]
)

Similarity = Callable[[Places, Places], npt.NDArray[np.float64]]

_THRESHOLDS = {"exact": 1.0, "minhash": 0.7, "embedding": 0.9}
_USED_BY = {
    "text": ("exact", "minhash"),
    "min_similarity": ("minhash", "embedding"),
    **dict.fromkeys(("shingle", "shingle_size", "permutations", "recall"), ("minhash",)),
    "vectors": ("embedding",),
}


class DuplicatesConfig(SetFilterConfig):
    """Keep one of the survivors with the same content: the one with the best score `by` (`filter.column`), else the first.

    `exact`: equal up to case, whitespace, Unicode normal form and the final stop. `minhash`: Jaccard similarity of word or
    character n-grams of at least `min_similarity` (null: 0.7); pairs are found with probability `recall` or more, and verified
    exactly. `embedding`: cosine of the vectors in the column `vectors` of at least `min_similarity` (null: 0.9). Rows joined by a
    chain of similar pairs are one group. `text` is the compared column; `within_source`: only rows of the same source can be
    duplicates.
    """

    semantics: ClassVar[int] = 2

    kind: Literal["duplicates"] = "duplicates"
    name: Name = "duplicates"
    method: Literal["exact", "minhash", "embedding"] = "exact"
    by: str | None = None
    within_source: bool = False
    text: Literal["output", "prompt", "document"] = "output"
    min_similarity: float | None = Field(default=None, gt=0, le=1)
    shingle: Literal["word", "character"] = "word"
    shingle_size: int = Field(default=2, ge=1, le=50)
    permutations: int = Field(default=256, ge=1, le=4096)
    recall: float = Field(default=0.99, gt=0, lt=1)
    vectors: str = "embedding.vector"

    @model_validator(mode="after")
    def _refuse_what_the_method_ignores(self) -> "DuplicatesConfig":
        for key, methods in _USED_BY.items():
            if self.method not in methods and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} does not apply to method {self.method}, only to {' and '.join(methods)}; remove it")
        if self.method == "minhash":
            bands_for(self.threshold, self.permutations, self.recall)
        return self

    @property
    def threshold(self) -> float:
        """The minimum similarity of near-duplicates."""
        return self.min_similarity if self.min_similarity is not None else _THRESHOLDS[self.method]

    @property
    def reads(self) -> Mapping[str, str]:
        """The score that it ranks by, if any, and the vectors for method embedding."""
        vectors = {"vectors": self.vectors} if self.method == "embedding" else {}
        return {**({"by": self.by} if self.by else {}), **vectors}

    @property
    def needs(self) -> frozenset[str]:
        """What it reads, and nothing else."""
        return frozenset((*self.reads.values(), self.text))

    def build(self) -> "DuplicatesFilter":
        """Return the filter."""
        return DuplicatesFilter(self)


class DuplicatesFilter:
    """Drops duplicates of a better row; which row is kept depends only on the rows."""

    def __init__(self, config: DuplicatesConfig) -> None:
        self.name = config.name
        self._config = config

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id`, `reason`, `duplicate_of` and `similarity` (to that row, 0 to 1) of each duplicate.

        The row with the highest `by` of each group is kept; missing scores rank last, ties go to the lower (source_id, sample).
        `undecided` is true, and the reason null, if a row's vector is null, or its `by` is null and its group has other rows.
        """
        if not survivors.num_rows:
            return DUPLICATES.empty_table()
        places = ranks(survivors, self._config.by, self.name)
        labels, similarity, undecided = self._groups(survivors)
        kept = representatives(labels, places)
        if self._config.by is not None:
            alone = np.bincount(labels, minlength=len(labels))[labels] == 1
            undecided |= survivors[self._config.by].is_null().to_numpy() & ~alone
        told = np.flatnonzero((kept != np.arange(len(kept))) | undecided)
        ids = survivors["candidate_id"]
        others = ids.take(kept[told]).combine_chunks()
        unclear = pa.array(undecided[told])
        similarities = similarity(told, kept[told])
        columns = {
            "candidate_id": ids.take(told),
            "reason": pc.if_else(unclear, None, self._reasons(others, similarities)),
            "undecided": unclear,
            "duplicate_of": pc.if_else(unclear, None, others),
            "similarity": pc.if_else(unclear, None, pa.array(similarities)),
        }
        return pa.table(columns).cast(DUPLICATES)

    def _groups(self, survivors: pa.Table) -> tuple[Places, Similarity, npt.NDArray[np.bool_]]:
        """The group of each row, the similarity of two rows of a group, and which rows cannot be decided."""
        config = self._config
        rows = survivors.num_rows
        scopes = codes(survivors["source_id"]) if config.within_source else np.zeros(rows, np.int64)
        if config.method == "embedding":
            vectors = vectors_of(survivors, config.vectors, self.name)
            missing = survivors[config.vectors].is_null().to_numpy()
            return similar_vectors(vectors, scopes, config.threshold), partial(cosine, vectors), missing
        judged = np.zeros(rows, bool)
        if config.method == "exact":
            return equal_texts(survivors[config.text], scopes), _all_alike, judged
        labels, shingles = similar_texts(
            survivors[config.text],
            scopes,
            config.threshold,
            config.shingle,
            config.shingle_size,
            permutations=config.permutations,
            recall=config.recall,
        )
        return labels, partial(jaccard, shingles), judged

    def _reasons(self, others: pa.Array, similarities: npt.NDArray[np.float64]) -> pa.Array:
        """One sentence per row with the id of the kept row."""
        if self._config.method == "exact":
            return pc.binary_join_element_wise("says the same as candidate", others, " ")
        chain = pa.array(similarities < self._config.threshold)
        starts = pc.if_else(chain, "joined by a chain of near duplicates to candidate", "a near duplicate of candidate")
        shown = pa.array([f"(similarity {value:.2f})" for value in similarities.tolist()], pa.string())
        return pc.binary_join_element_wise(starts, others, shown, " ")


def _all_alike(first: Places, _: Places) -> npt.NDArray[np.float64]:
    return np.ones(len(first))
