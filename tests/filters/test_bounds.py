"""Whether a bound rejects a score: one rule, asked for one value, for an array, and in SQL."""

import math

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.filters.contract import Bound

LIMITS = st.none() | st.floats(-3, 3, width=16)
SCORES = st.none() | st.floats(-4, 4, width=16) | st.sampled_from([math.nan, math.inf, -math.inf])


@settings(deadline=None)
@given(LIMITS, LIMITS, st.lists(SCORES, max_size=8), st.booleans())
def test_values_arrays_and_sql_agree(
    minimum: float | None, maximum: float | None, scores: list[float | None], unscored: bool
) -> None:
    bound = Bound("x", minimum=minimum, maximum=maximum)
    one_by_one = [bound.rejects(score, unscored=unscored) for score in scores]
    array = np.array([math.nan if score is None else score for score in scores], np.float64)
    assert bound.mask(array, unscored=unscored).tolist() == one_by_one
    (missing, words), *limits = bound.sql("score")
    assert words == "" and len(limits) == (minimum is not None) + (maximum is not None)
    conditions = [missing, *(condition for condition, _ in limits)] if unscored else [condition for condition, _ in limits]
    with duckdb.connect() as connection:
        connection.execute("create table scores (place int, score double)")
        for place, score in enumerate(scores):
            connection.execute("insert into scores values (?, ?)", [place, score])
        # as in selection: a comparison is tried only after the score is known to be finite
        known = "isfinite(score) and " if unscored else "not isnan(score) and "
        tried = [condition if condition == missing else f"({known}{condition})" for condition in conditions]
        query = f"select coalesce({' or '.join(tried) or 'false'}, false) from scores order by place"
        assert [row[0] for row in connection.execute(query).fetchall()] == one_by_one


@pytest.mark.parametrize(
    ("score", "unscored", "rejected"),
    [(None, True, True), (None, False, False), (math.nan, True, True), (math.nan, False, False), (math.inf, False, True),
     (-math.inf, False, False), (-math.inf, True, True), (1.0, True, False), (1.5, False, True)],
)  # fmt: skip
def test_what_could_not_be_scored(score: float | None, unscored: bool, rejected: bool) -> None:
    assert Bound("x", maximum=1.0).rejects(score, unscored=unscored) is rejected
