"""Pairs of vectors with a cosine of at least a threshold, found exactly in time quadratic in the number of rows.

The vectors are rotated so that their variance concentrates in the first coordinates (principal axes). Split u = (u1, u2) and
v = (v1, v2) there: u1 v1 + |u2| |v2| is an upper bound of u v (Cauchy-Schwarz). One product of short vectors, with the two norms
as an extra coordinate, rules out nearly all pairs, and the rest are computed in float64. So the result is exact, and depends
neither on the order of the rows nor on rounding in a matrix product.
"""

import numpy as np
import numpy.typing as npt

from limbeck.corpus.near_duplicates.groups import Components, Places

_BLOCK_ROWS = 2048
_HEAD = 4  # a quarter of the dimensions is used for the bound
_SAMPLE_ROWS = 20_000
_ROUNDING = 1e-3  # of a product of float32 unit vectors; the remainder's length has the root of its rounding error, 3e-4
_PAIRS = 1 << 14

Vectors = npt.NDArray[np.float32]


def unit(vectors: Vectors) -> Vectors:
    """Normalise each row; a row of zeros, or with a value that is not finite, becomes all zeros."""
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
    """Return the component of each row, named by its smallest row; edges join rows of one scope with cosine >= threshold.

    `vectors` are unit vectors, or zeros, which are never joined.  # [rows, dimensions] -> [rows]
    Time: rows^2 / 2 products of a quarter of the dimensions. Memory: 1.3 times the vectors and about 100 MiB.
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
    """The leading principal coordinates of each row and the length of the remainder, whose products bound cosines from above."""
    dimensions = vectors.shape[1]
    head = max(1, dimensions // _HEAD)
    sample = vectors[:: max(1, len(vectors) // _SAMPLE_ROWS)].astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)  # ascending
    leading = vectors @ axes[:, -head:].astype(np.float32)
    left = np.einsum("ij,ij->i", vectors, vectors) - np.einsum("ij,ij->i", leading, leading)
    return np.concatenate((leading, np.sqrt(np.maximum(left, 0.0))[:, None].astype(np.float32)), axis=1)
