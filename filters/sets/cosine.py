"""Similar vectors by cosine, exactly: in components, and in a greedy selection. Time is quadratic in the number of rows.

Components: the vectors are rotated so that their variance concentrates in the first coordinates (principal axes). Split
u = (u1, u2) and v = (v1, v2) there: u1 v1 + |u2| |v2| is an upper bound of u v (Cauchy-Schwarz). One product of short vectors,
with the two norms as an extra coordinate, rules out nearly all pairs, and the rest are computed in float64. Greedy selection: a
product of whole vectors decides all pairs that are not close to the limit, and those are computed in float64. So the results are
exact, and do not depend on rounding in a matrix product.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.errors import LimbeckError
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


def vectors_of(survivors: pa.Table, column: str, name: str) -> Vectors:
    """The unit vectors of a list column, zeros if null or not finite.  # [rows, dimensions]

    Raises LimbeckError, naming the filter `name`, if it is not a column of vectors.
    """
    if column not in survivors.column_names:
        raise LimbeckError(f"filter {name}: there is no vector column {column!r}; add the filter embedding, or name its column")
    lists = survivors[column].combine_chunks()
    if not (pa.types.is_list(lists.type) or pa.types.is_fixed_size_list(lists.type) or pa.types.is_large_list(lists.type)):
        raise LimbeckError(
            f"filter {name}: the column {column!r} holds {lists.type}, not vectors; name the `vector` column of embedding"
        )
    lengths = set(pc.unique(pc.list_value_length(lists)).drop_null().to_pylist())
    if len(lengths) > 1:
        raise LimbeckError(f"filter {name}: the vectors of {column!r} have {len(lengths)} different lengths; score them again")
    vectors = np.zeros((len(lists), max(lengths, default=1)), np.float32)
    vectors[lists.is_valid().to_numpy(zero_copy_only=False)] = (
        lists.drop_null().flatten().cast(pa.float32()).to_numpy(zero_copy_only=False).reshape(-1, vectors.shape[1])
    )
    return unit(vectors)


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


def spread(vectors: Vectors, limit: float, most: int | None = None) -> Places:
    """Take rows in their order, skipping each whose cosine with a taken row is above `limit`, until `most` rows are taken.

    Returns for each row the first taken row that it is too near to; itself if it is taken; -1 if it comes after the last row that
    may be taken. `vectors` are unit vectors, or zeros, which are near to nothing.  # [rows, dimensions] -> [rows]
    Time: rows * taken products of all dimensions. Memory: about 100 MiB beside the vectors.
    """
    assert 0 <= limit < 1 and (most is None or most > 0)
    near = np.full(len(vectors), -1, np.int64)
    taken = np.empty(0, np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(vectors)))
        for block in range(0, len(taken), _BLOCK_ROWS):
            others = taken[block : block + _BLOCK_ROWS]
            above = _above(vectors, rows, others, limit)
            skipped = above.any(axis=1)
            near[rows[skipped]] = others[above[skipped].argmax(axis=1)]
            rows = rows[~skipped]
        taken = np.concatenate((taken, _greedy(_above(vectors, rows, rows, limit), rows, near)))
        if most is not None and len(taken) >= most:
            near[taken[most - 1] + 1 :] = -1
            break
    return near


def _greedy(above: npt.NDArray[np.bool_], rows: Places, near: Places) -> Places:
    """The rows of a block that are taken, with `above` for each pair of them; writes `near` of all."""
    is_open = np.full(len(rows), True)
    for place, row in enumerate(rows.tolist()):
        if is_open[place]:
            skipped = is_open & above[place]
            skipped[: place + 1] = False
            near[rows[skipped]] = row
            near[row] = row
            is_open &= ~skipped
    taken: Places = rows[is_open]
    return taken


def _above(vectors: Vectors, first: Places, second: Places, limit: float) -> npt.NDArray[np.bool_]:
    """Whether the cosine of two rows is above the limit, as `cosine` computes it.  # [first, second]"""
    products = vectors[first] @ vectors[second].T
    products -= np.float32(limit)
    found: npt.NDArray[np.bool_] = products > 0
    unsure = np.flatnonzero(np.abs(products, out=products) <= _ROUNDING)
    one, other = np.divmod(unsure, max(len(second), 1))
    found.reshape(-1)[unsure] = cosine(vectors, first[one], second[other]) > limit
    return found
