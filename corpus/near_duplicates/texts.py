"""Equal and near-duplicate texts: the one implementation for the split and for the filter `duplicates`.

Texts are normalised (Unicode NFC, letter case) for comparison only.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from limbeck.corpus.near_duplicates.groups import Places
from limbeck.corpus.near_duplicates.minhash import bands_for, near_duplicates, sketch
from limbeck.corpus.near_duplicates.shingles import Shingles, Texts, Unit
from limbeck.corpus.text.words import comparable

_FINAL_STOPS = ".!。！．｡।॥۔።။។"


def equal_texts(texts: pa.ChunkedArray, scopes: Places) -> Places:
    """The first row that equals each row in its scope, up to case, whitespace and the final stop; null: "".  # [rows]"""
    keys = [" ".join(comparable(text or "").split()).rstrip(_FINAL_STOPS) for text in texts.to_pylist()]
    same = codes(pa.chunked_array([pa.array(keys, pa.large_string())])) * (scopes.max(initial=0) + 1) + scopes
    _, firsts, inverse = np.unique(same, return_index=True, return_inverse=True)
    labels: Places = firsts[inverse]
    return labels


def similar_texts(
    texts: Texts,
    scopes: Places,
    threshold: float,
    unit: Unit,
    size: int,
    *,
    permutations: int,
    recall: float,
    folder: Path | None = None,
) -> tuple[Places, Shingles]:
    """The component of each row, labelled by its smallest row, and the shingles (`unit`, `size`) that were compared.

    Edges join rows of one scope with a Jaccard similarity of at least `threshold`; texts without words are joined if
    they are equal. A pair at the threshold is found with probability `recall` or more, and no pair below it is joined. Raises
    LimbeckError if `permutations` are too few. `folder` as for `sketch`.
    """
    sketches = sketch(texts, unit, size, bands_for(threshold, permutations, recall), folder=folder)
    labels = near_duplicates(sketches, scopes, threshold)
    wordless = np.flatnonzero(sketches.shingles.counts == 0)
    labels[wordless] = wordless[equal_texts(texts.take(wordless), scopes[wordless])]
    return labels, sketches.shingles


def codes(values: pa.ChunkedArray) -> Places:
    """Return equal integers for equal values.  # [rows]"""
    found: Places = values.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return found
