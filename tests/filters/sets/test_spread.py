"""Greedy selection by score and cosine, against a loop over pairs."""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import SetFilter
from limbeck.filters.sets import cosine as module
from limbeck.filters.sets.cosine import cosine, spread, unit
from limbeck.filters.sets.spread import SPREAD, SpreadConfig


def naive(vectors: np.ndarray, limit: float, most: int | None) -> list[int]:
    """What `spread` returns, one pair at a time."""
    taken: list[int] = []
    near = []
    for row in range(len(vectors)):
        if most is not None and len(taken) == most:
            near.append(-1)
            continue
        above = [other for other in taken if cosine(vectors, np.array([row]), np.array([other]))[0] > limit]
        near.append(above[0] if above else row)
        taken += [] if above else [row]
    return near


@given(
    st.integers(0, 40),
    st.integers(1, 6),
    st.integers(0, 1 << 30),
    st.sampled_from([0.0, 0.3, 0.5, 1 / math.sqrt(2), 0.9, 0.999999]),
    st.one_of(st.none(), st.integers(1, 12)),
    st.sampled_from([1, 3, 2048]),
)
@settings(max_examples=200)
def test_the_selection_equals_a_loop_over_pairs(
    rows: int, dimensions: int, seed: int, limit: float, most: int | None, block_rows: int
) -> None:
    """Few values, so that many vectors are equal, opposite, zero or exactly at the limit."""
    vectors = unit(np.random.default_rng(seed).integers(-1, 2, (rows, dimensions)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_BLOCK_ROWS", block_rows)
        assert spread(vectors, limit, most).tolist() == naive(vectors, limit, most)


@pytest.mark.parametrize("limit", [0.0, 0.2, 0.5, 0.9])
def test_many_vectors_in_many_blocks(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 64)
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(60, 48))
    vectors = unit((centres[rng.integers(60, size=700)] + rng.normal(size=(700, 48)) * rng.random((700, 1))).astype(np.float32))
    found = spread(vectors, limit)
    taken = np.flatnonzero(found == np.arange(700))
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = wide @ wide.T
    for row in range(700):
        earlier = taken[taken < row]
        above = earlier[cosines[row, earlier] > limit]
        assert found[row] == (above[0] if len(above) else row)
    assert 1 < len(taken) < 700


def test_equal_vectors_and_vectors_at_the_limit() -> None:
    vectors = unit(np.array([[1, 0], [1, 0], [1, 1], [0, 1], [0, 0], [0, 0]], np.float32))
    assert spread(vectors, 0.999).tolist() == [0, 0, 2, 3, 4, 5]
    at = float(cosine(vectors, np.array([0]), np.array([2]))[0])
    assert spread(vectors, at).tolist() == [0, 0, 2, 3, 4, 5]  # not above it
    assert spread(vectors, math.nextafter(at, 0)).tolist() == [0, 0, 0, 3, 4, 5]
    assert spread(vectors, 0.999, 2).tolist() == [0, 0, 2, -1, -1, -1]
    assert spread(vectors[:0], 0.9).tolist() == []


def survivors(rows: list[tuple[float | None, list[float] | None]]) -> pa.Table:
    return pa.table(
        {
            "candidate_id": pa.array([f"c{place}" for place in range(len(rows))], pa.string()),
            "source_id": pa.array(["s"] * len(rows), pa.string()),
            "sample": pa.array(range(len(rows)), pa.int32()),
            "judge.score": pa.array([score for score, _ in rows], pa.float64()),
            "embedding.vector": pa.array([vector for _, vector in rows], pa.list_(pa.float32())),
        }
    )


def told(config: SpreadConfig, table: pa.Table) -> dict[str, dict[str, Any]]:
    filter_ = config.build()
    assert isinstance(filter_, SetFilter)
    found = filter_.select(table)
    assert found.schema.equals(SPREAD)
    return {row["candidate_id"]: row for row in found.to_pylist()}


def test_the_best_row_is_taken_first_and_a_skipped_one_names_it() -> None:
    table = survivors([(0.1, [1.0, 0.0]), (0.9, [0.96, 0.28]), (0.5, [0.0, 1.0]), (0.9, [0.96, 0.28])])
    found = told(SpreadConfig(by="judge.score"), table)
    assert found.keys() == {"c0", "c3"}
    assert found["c0"]["near_id"] == found["c3"]["near_id"] == "c1"
    assert found["c0"]["cosine"] == pytest.approx(0.96) and found["c3"]["cosine"] == pytest.approx(1)
    assert found["c0"]["reason"] == "cosine 0.96 with candidate c1, which ranks before it by judge.score, is above 0.9"
    lowest = told(SpreadConfig(by="judge.score", order="lowest"), table)
    assert lowest.keys() == {"c1", "c3"} and lowest["c1"]["near_id"] == "c0"


def test_at_most_so_many_rows_are_kept() -> None:
    table = survivors([(0.1, [1.0, 0.0]), (0.2, [0.0, 1.0]), (0.3, [-1.0, 0.0])])
    found = told(SpreadConfig(by="judge.score", keep=2), table)
    assert found == {
        "c0": {
            "candidate_id": "c0",
            "reason": "2 rows that rank before it by judge.score are kept",
            "undecided": False,
            "near_id": None,
            "cosine": None,
        }
    }


def test_a_missing_score_or_vector_leaves_a_row_undecided_and_nan_ranks_last() -> None:
    one, other = [1.0, 0.0], [0.0, 1.0]
    table = survivors([(None, one), (0.9, None), (math.nan, one), (0.1, one), (0.2, other), (0.3, [0.0, 0.0]), (0.3, [0.0, 0.0])])
    found = told(SpreadConfig(by="judge.score"), table)
    assert {id_ for id_, row in found.items() if row["undecided"]} == {"c0", "c1"}
    assert {id_ for id_, row in found.items() if not row["undecided"]} == {"c2"} and found["c2"]["near_id"] == "c3"


def test_no_rows_and_missing_columns() -> None:
    assert told(SpreadConfig(by="judge.score"), survivors([])) == {}
    with pytest.raises(LimbeckError, match=r"filter spread: no score 'judge.grade' to rank by"):
        SpreadConfig(by="judge.grade").build().select(survivors([(0.1, [1.0])]))
    with pytest.raises(LimbeckError, match=r"filter spread: there is no vector column 'other.vector'"):
        SpreadConfig(by="judge.score", vectors="other.vector").build().select(survivors([(0.1, [1.0])]))
    assert SpreadConfig(by="judge.score").reads == {"by": "judge.score", "vectors": "embedding.vector"}
    assert SpreadConfig(by="judge.score").needs == {"judge.score", "embedding.vector"}


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, math.nan]), st.integers(0, 7)), max_size=12), st.randoms())
@settings(max_examples=80)
def test_the_order_of_the_rows_does_not_matter(drawn: list[tuple[float, int]], random: Any) -> None:
    directions = [[math.cos(turn * math.pi / 12), math.sin(turn * math.pi / 12)] for turn in range(8)]
    table = survivors([(score, directions[turn]) for score, turn in drawn])
    order = [*range(len(drawn))]
    random.shuffle(order)
    config = SpreadConfig(by="judge.score")
    assert told(config, table) == told(config, table.take(pa.array(order, pa.int64())))
