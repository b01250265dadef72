"""Pairs of similar vectors, against brute force."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from helpers.components import components
from limbeck.filters.sets import cosine as module
from limbeck.filters.sets.cosine import cosine, similar_vectors, unit


def clustered(rows: int, dimensions: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, rows // 4), dimensions))
    noise = rng.normal(size=(rows, dimensions)) * rng.random((rows, 1))
    return unit((centres[rng.integers(len(centres), size=rows)] + noise).astype(np.float32))


@pytest.mark.parametrize("block_rows", [7, 2048])
@pytest.mark.parametrize(("dimensions", "threshold"), [(384, 0.9), (384, 0.5), (8, 0.95), (1, 0.9), (3, 1.0)])
def test_components_equal_brute_force(
    monkeypatch: pytest.MonkeyPatch, block_rows: int, dimensions: int, threshold: float
) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", block_rows)
    vectors = clustered(200, dimensions, 1)
    scopes = np.random.default_rng(2).integers(0, 3, 200)
    pairs = np.array(list(itertools.combinations(range(200), 2)))
    near = cosine(vectors, pairs[:, 0], pairs[:, 1]) >= threshold
    edges = [(i, j) for i, j in pairs[near].tolist() if scopes[i] == scopes[j]]
    assert similar_vectors(vectors, scopes, threshold).tolist() == components(200, edges)


def test_cosine_is_that_of_numpy_in_float64() -> None:
    vectors = clustered(60, 20, 3)
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    first, second = np.triu_indices(60)
    assert cosine(vectors, first, second) == pytest.approx((wide @ wide.T)[first, second], abs=1e-12)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 1 << 30), st.floats(0.05, 1.0))
@settings(max_examples=80, deadline=None)
def test_the_bound_loses_no_pair(rows: int, dimensions: int, seed: int, threshold: float) -> None:
    """Few values, so that many rows are equal, opposite or zero."""
    vectors = unit(np.random.default_rng(seed).integers(-1, 2, (rows, dimensions)).astype(np.float32))
    first, second = np.triu_indices(rows, 1)
    near = cosine(vectors, first, second) >= threshold
    edges = list(zip(first[near].tolist(), second[near].tolist(), strict=True))
    assert similar_vectors(vectors, np.zeros(rows, np.int64), threshold).tolist() == components(rows, edges)


def test_equal_rows_are_one_group_without_a_pair_each() -> None:
    vectors = np.repeat(clustered(2, 64, 4), 3000, axis=0)
    assert set(similar_vectors(vectors, np.zeros(6000, np.int64), 0.99).tolist()) == {0, 3000}
