"""Pairs of vectors with a cosine of at least a threshold, found exactly in time that grows with the square of the rows.

The vectors are turned so that their variance gathers in the first coordinates (principal axes). Of u = (u1, u2) and
v = (v1, v2), cut behind those, u1 v1 + |u2| |v2| is an upper bound of u v (Cauchy and Schwarz): one product of short vectors,
with the two norms as one more coordinate, rules out nearly all pairs, and the rest are multiplied out in float64. So the answer
is exact, and depends neither on the order of the rows nor on how a matrix product rounds.
"""

import numpy as np
import numpy.typing as npt

from limbeck.corpus.near_duplicates.groups import Components, Places

_BLOCK_ROWS = 2048
_HEAD = 4  # a 4th of the dimensions goes into the bound
_SAMPLE_ROWS = 20_000
_ROUNDING = 1e-3  # of a product of float32 unit vectors; the length of what is left is off by the root of its rounding, 3e-4
_PAIRS = 1 << 14

Vectors = npt.NDArray[np.float32]


def unit(vectors: Vectors) -> Vectors:
    """Return the rows divided by their lengths; a row of zeros, or with a value that is not finite, becomes all zeros."""
    rows = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, np.float32(0))
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    scaled: Vectors = (rows / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
    return scaled


def cosine(vectors: Vectors, first: Places, second: Places) -> npt.NDArray[np.float64]:
    """Return the cosines of rows first[k] and second[k], of unit vectors or zeros, summed in float64.  # [pairs]"""
    found = np.empty(len(first))
    for start in range(0, len(first), _PAIRS):
        one, other = (vectors[rows[start : start + _PAIRS]].astype(np.float64) for rows in (first, second))
        norms = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
        found[start : start + _PAIRS] = (one * other).sum(axis=1) / np.where(norms > 0, norms, 1.0)
    return found


def similar_vectors(vectors: Vectors, scopes: Places, threshold: float) -> Places:
    """Return the component of each row, named by its smallest row, where edges join rows of one scope with cosine >= threshold.

    `vectors` are unit vectors, or zeros, which are joined with none.  # [rows, dimensions] -> [rows]
    Time: rows^2 / 2 products of a quarter of the dimensions. Memory: the vectors, a third of them again, and some 100 MiB.
    """
    assert threshold > 0
    components = Components(len(vectors))
    bounding = _bounding(vectors)

    def similar(first: Places, second: Places) -> npt.NDArray[np.bool_]:
        return cosine(vectors, first, second) >= threshold

    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = bounding[start : start + _BLOCK_ROWS]
        for other in range(start, len(vectors), _BLOCK_ROWS):
            bounds = block @ bounding[other : other + _BLOCK_ROWS].T  # [block, block]
            first, second = np.divmod(np.flatnonzero(bounds >= threshold - _ROUNDING), bounds.shape[1])
            first, second = first + start, second + other
            wanted = (first < second) & (scopes[first] == scopes[second])
            components.join_similar(first[wanted], second[wanted], similar)
    return components.labels


def _bounding(vectors: Vectors) -> Vectors:
    """The leading principal coordinates of each row and the length of what is left, so that products bound cosines above."""
    dimensions = vectors.shape[1]
    head = max(1, dimensions // _HEAD)
    sample = vectors[:: max(1, len(vectors) // _SAMPLE_ROWS)].astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)  # ascending
    leading = vectors @ axes[:, -head:].astype(np.float32)
    left = np.einsum("ij,ij->i", vectors, vectors) - np.einsum("ij,ij->i", leading, leading)
    return np.concatenate((leading, np.sqrt(np.maximum(left, 0.0))[:, None].astype(np.float32)), axis=1)
