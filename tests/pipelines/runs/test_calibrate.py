"""Calibration: the target is met within one candidate, all bounds share one level, and the result is stable."""

import json
import math

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Bound
from limbeck.pipelines.runs.calibrate import absolute, calibrate, freeze
from limbeck.pipelines.runs.select import passing

FILTERS = [
    ("length", [Bound("tokens", minimum=5.0, maximum=40.0)]),
    ("pmi", [Bound("faithfulness", calibrate="minimum"), Bound("risk", calibrate="maximum")]),
]


def table(faithfulness, risk, tokens=None, errors=None) -> pa.Table:
    rows = len(faithfulness)
    return pa.table(
        {
            "finish_reason": pa.array(["error" if failed else "stop" for failed in errors or [False] * rows], pa.string()),
            "length.tokens": pa.array(tokens or [10.0] * rows, pa.float64()),
            "pmi.faithfulness": pa.array(faithfulness, pa.float64()),
            "pmi.risk": pa.array(risk, pa.float64()),
        }
    )


def random_table(seed: int, rows: int, share_broken: float = 0.1) -> pa.Table:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=rows)
    faithfulness = common + generator.normal(size=rows)
    faithfulness[generator.random(rows) < share_broken] = math.nan
    return table(
        faithfulness.tolist(),
        (-common + generator.normal(size=rows)).tolist(),
        np.where(generator.random(rows) < share_broken, 3.0, 20.0).tolist(),
        (generator.random(rows) < share_broken).tolist(),
    )


@given(st.integers(0, 10_000), st.integers(20, 300), st.floats(0.02, 0.6))
@settings(max_examples=60, deadline=None)
def test_the_target_is_met_within_one_candidate(seed: int, rows: int, pass_rate: float) -> None:
    scores = random_table(seed, rows)
    calibration = calibrate(scores, FILTERS, pass_rate)
    passed = int(passing(scores, freeze(FILTERS, calibration)).sum())
    wanted = math.ceil(round(pass_rate * rows, 9))
    assert passed / rows == pytest.approx(calibration["pass_rate"])
    if calibration["note"]:
        assert passed < wanted
    else:
        assert wanted <= passed <= wanted + 1  # two bounds: one step of the level may take one row each


@given(st.integers(0, 10_000), st.integers(5, 100), st.floats(0.05, 0.5))
@settings(max_examples=40, deadline=None)
def test_no_stricter_common_level_meets_the_target(seed: int, rows: int, pass_rate: float) -> None:
    """The oracle: try every level."""
    scores = random_table(seed, rows)
    faithfulness, risk = (scores[name].to_numpy() for name in ("pmi.faithfulness", "pmi.risk"))
    usable = np.isfinite(faithfulness) & (scores["length.tokens"].to_numpy() == 20.0)
    usable &= np.array(scores["finish_reason"].to_pylist()) == "stop"
    if not usable.any():
        return
    wanted = math.ceil(round(pass_rate * rows, 9))
    levels = []
    for place in range(int(usable.sum())):
        minimum, maximum = np.sort(faithfulness[usable])[place], np.sort(risk[usable])[::-1][place]
        levels.append((int((usable & (faithfulness >= minimum) & (risk <= maximum)).sum()), minimum, maximum))
    assert [count for count, *_ in levels] == sorted((count for count, *_ in levels), reverse=True)
    _, minimum, maximum = [level for level in levels if level[0] >= min(wanted, int(usable.sum()))][-1]
    limits = calibrate(scores, FILTERS, pass_rate)["bounds"]["pmi"]
    assert (limits["faithfulness"]["minimum"], limits["risk"]["maximum"]) == (minimum, maximum)


@given(st.integers(0, 10_000), st.floats(0.05, 0.5))
@settings(max_examples=20, deadline=None)
def test_calibrating_again_and_in_another_order_finds_the_same(seed: int, pass_rate: float) -> None:
    scores = random_table(seed, 50)
    shuffled = scores.take(np.random.default_rng(seed).permutation(50))
    calibration = calibrate(scores, FILTERS, pass_rate)
    assert calibrate(shuffled, FILTERS, pass_rate) == calibration
    frozen = freeze(FILTERS, calibration)
    assert calibrate(scores, frozen, pass_rate)["bounds"] == calibration["bounds"]
    assert freeze(FILTERS, json.loads(json.dumps(calibration))) == frozen
    assert all(bound.calibrate is None for _, bounds in frozen for bound in bounds)


def test_ties_stay_together_on_the_side_of_keeping() -> None:
    scores = table([0.0, 0.5, 0.5, 0.5, 1.0], [0.0] * 5)
    calibration = calibrate(scores, FILTERS, 0.4)
    assert calibration["bounds"]["pmi"]["faithfulness"]["minimum"] == 0.5
    assert calibration["pass_rate"] == pytest.approx(0.8)
    assert calibration["note"] == ""


def test_absolute_bounds_that_keep_too_little_are_named_in_the_note() -> None:
    scores = table([0.1, 0.2, 0.3, 0.4], [0.0] * 4, tokens=[3.0, 3.0, 3.0, 10.0])
    calibration = calibrate(scores, FILTERS, 0.5)
    assert calibration["pass_rate"] == pytest.approx(0.25)
    assert calibration["note"].startswith("the absolute bounds alone keep 1 of 4 candidates")
    assert calibration["bounds"]["pmi"]["faithfulness"]["minimum"] == 0.4


def test_nothing_to_calibrate_on_says_what_to_loosen() -> None:
    with pytest.raises(LimbeckError, match=r"0 of 2 candidates .* length\.tokens, passes 0"):
        calibrate(table([0.1, 0.2], [0.0, 0.0], tokens=[3.0, 3.0]), FILTERS, 0.5)


def test_without_open_bounds_nothing_is_found_and_the_pass_rate_is_told() -> None:
    filters = [("pmi", [Bound("faithfulness", minimum=0.15)])]
    calibration = calibrate(table([0.1, 0.2], [0.0, 0.0]), filters, 0.5)
    assert calibration == {
        "pass_rate_target": 0.5,
        "pass_rate": 0.5,
        "candidates": 2,
        "level": None,
        "bounds": {"pmi": {"faithfulness": {"minimum": 0.15, "maximum": None}}},
        "note": "",
    }


def test_a_calibration_of_another_recipe_is_refused() -> None:
    with pytest.raises(LimbeckError, match=r"no minimum for pmi\.faithfulness"):
        freeze(FILTERS, {"bounds": {"pmi": {"saliency": {"minimum": 0.1, "maximum": None}}}})


@given(st.integers(0, 10_000), st.integers(1, 200), st.floats(0.001, 0.5), st.sampled_from(["minimum", "maximum"]))
@settings(max_examples=60, deadline=None)
def test_a_false_acceptance_rate_is_kept_and_is_no_stricter_than_need_be(seed: int, rows: int, rate: float, side: str) -> None:
    null = np.random.default_rng(seed).normal(size=rows).round(1)  # rounded: ties must not let more through
    scores = table([0.0] * rows, [0.0] * rows).append_column("pmi.faithfulness_null", pa.array(null))
    bound = Bound("faithfulness", calibrate=side, false_acceptance=rate)
    limit = calibrate(scores, [("pmi", [bound])], 0.5)["bounds"]["pmi"]["faithfulness"][side]
    passes = (lambda value: value >= limit) if side == "minimum" else (lambda value: value <= limit)
    assert sum(passes(value) for value in null) <= math.floor(rate * rows)
    refused = [value for value in null if not passes(value)]
    nearest = max(refused) if side == "minimum" else min(refused)  # with that bound, too many would pass
    assert sum((value >= nearest) if side == "minimum" else (value <= nearest) for value in null) > math.floor(rate * rows)


def test_mismatched_pairs_without_a_score_leave_no_limit() -> None:
    scores = table([0.1], [0.0]).append_column("pmi.faithfulness_null", pa.array([math.nan]))
    with pytest.raises(
        LimbeckError, match=r"pmi\.faithfulness has false_acceptance 0\.01, but no mismatched pairs could be scored"
    ):
        calibrate(scores, [("pmi", [Bound("faithfulness", calibrate="minimum", false_acceptance=0.01)])], 0.5)


def test_a_false_acceptance_limit_stands_beside_one_by_pass_rate() -> None:
    rng = np.random.default_rng(0)
    scores = table(rng.normal(1, 1, 200).tolist(), rng.normal(size=200).tolist())
    scores = scores.append_column("pmi.faithfulness_null", pa.array(rng.normal(-1, 1, 200)))
    filters = [
        ("pmi", [Bound("faithfulness", calibrate="minimum", false_acceptance=0.05), Bound("risk", calibrate="maximum")]),
    ]
    found = calibrate(scores, filters, 0.2)
    assert found["pass_rate"] == pytest.approx(0.2) and set(found["bounds"]["pmi"]) == {"faithfulness", "risk"}
    frozen = freeze(filters, found)
    assert all(bound.calibrate is None and bound.false_acceptance is None for _, bounds in frozen for bound in bounds)


@pytest.mark.parametrize(("pass_rate", "limit", "level"), [(1.0, 0.1, 0.0), (0.8, 0.2, 0.2), (0.41, 0.3, 0.4), (0.2, 0.5, 0.8)])
def test_the_level_is_the_share_that_a_limit_rejects(pass_rate: float, limit: float, level: float) -> None:
    scores = table([0.3, 0.1, 0.5, 0.2, 0.4], [0.0] * 5)
    found = calibrate(scores, [("pmi", [Bound("faithfulness", calibrate="minimum")])], pass_rate)
    assert found["bounds"]["pmi"]["faithfulness"] == {"minimum": limit, "maximum": None}
    assert found["level"] == pytest.approx(level) and found["pass_rate"] == pytest.approx(1 - level) and found["note"] == ""
    found = calibrate(scores, [("pmi", [Bound("faithfulness", calibrate="maximum")])], pass_rate)
    assert found["bounds"]["pmi"]["faithfulness"] == {"minimum": None, "maximum": pytest.approx(0.6 - limit)}
    assert found["level"] == pytest.approx(level)


@pytest.mark.parametrize("pass_rate", [0.0, -0.5, 1.01])
def test_a_share_that_is_none_is_our_own_mistake(pass_rate: float) -> None:
    with pytest.raises(AssertionError):
        calibrate(table([0.1], [0.0]), FILTERS, pass_rate)


def test_a_calibrated_limit_of_zero_has_no_sign() -> None:
    """-0.0 in calibration.json would equal 0.0 and yet differ in its text."""
    found = calibrate(table([0.0, -0.0], [-0.0, 0.0]), FILTERS, 1.0)
    assert "-0.0" not in json.dumps(found)


def test_a_false_acceptance_limit_of_a_maximum_is_frozen_as_a_plain_bound() -> None:
    bound = Bound("risk", minimum=-5.0, calibrate="maximum", reason="risky", false_acceptance=0.5)
    scores = table([0.0] * 2, [0.0, 9.0]).append_column("pmi.risk_null", pa.array([1.0, 3.0]))
    found = calibrate(scores, [("pmi", [bound])], 0.5)
    ((_, (frozen,)),) = freeze([("pmi", [bound])], found)
    limit = frozen.maximum
    assert limit is not None and 1.0 <= limit < 3.0  # one of two mismatched pairs passes
    assert frozen == Bound("risk", minimum=-5.0, maximum=limit, reason="risky")
    assert found["pass_rate"] == 0.5 and found["level"] is None


def test_both_sides_of_one_column_are_calibrated_beside_absolute_bounds() -> None:
    """Two bounds on one column, one side each: 9 scores, of which the middle seven should pass."""
    filters = [
        ("pmi", [Bound("faithfulness", calibrate="minimum"), Bound("faithfulness", calibrate="maximum")]),
        ("length", [Bound("tokens", minimum=5.0), Bound("tokens", maximum=40.0)]),
    ]
    found = calibrate(table([float(n) for n in range(9)], [0.0] * 9), filters, 7 / 9)
    assert found["bounds"] == {
        "pmi": {"faithfulness": {"minimum": 1.0, "maximum": 7.0}},
        "length": {"tokens": {"minimum": 5.0, "maximum": 40.0}},
    }
    assert found["pass_rate"] == pytest.approx(7 / 9) and found["candidates"] == 9 and found["pass_rate_target"] == 7 / 9


def test_of_absolute_bounds_the_strictest_is_advised_on() -> None:
    filters = [("length", [Bound("tokens", minimum=15.0)]), ("pmi", [Bound("risk", maximum=-1.0, calibrate="minimum")])]
    scores = table([0.0] * 4, [-2.0, 0.0, 0.0, 0.0], tokens=[10.0, 20.0, 20.0, 20.0])
    with pytest.raises(LimbeckError, match=r"0 of 4 candidates .* pmi\.risk, passes 1"):
        calibrate(scores, filters, 0.5)


@pytest.mark.parametrize(("pass_rate", "rows", "wanted"), [(0.07, 100, 7), (0.071, 100, 8), (0.001, 10, 1), (1.0, 3, 3)])
def test_the_wanted_share_is_rounded_up_but_for_noise(pass_rate: float, rows: int, wanted: int) -> None:
    """0.07 × 100 is slightly above 7 in floating point, and at least one row is always wanted."""
    found = calibrate(table([float(n) for n in range(rows)], [0.0] * rows), FILTERS, pass_rate)
    assert found["pass_rate"] == pytest.approx(wanted / rows)


def test_no_candidates_and_nothing_to_calibrate_is_no_pass_rate() -> None:
    found = calibrate(table([], []), [("length", [Bound("tokens", minimum=1.0)])], 0.5)
    assert (found["pass_rate"], found["candidates"], found["level"]) == (0.0, 0, None)


def test_a_note_is_due_exactly_where_absolute_bounds_leave_less_than_wanted() -> None:
    scores = table([0.1, 0.2, 0.3, 0.4], [0.0] * 4, tokens=[3.0, 3.0, 10.0, 10.0])
    assert calibrate(scores, FILTERS, 0.5)["note"] == "" and calibrate(scores, FILTERS, 0.51)["note"] != ""


@pytest.mark.parametrize("side", ["minimum", "maximum"])
def test_what_an_open_bound_says_on_its_other_side_holds(side: str) -> None:
    """A bound with a calibrated minimum may have a maximum, which is absolute and rejects first."""
    sign = 1.0 if side == "minimum" else -1.0
    other = "maximum" if side == "minimum" else "minimum"
    bound = Bound("faithfulness", calibrate=side, **{other: sign * 3.5})  # type: ignore[arg-type]
    values = [sign * value for value in (1.0, 2.0, 3.0, 4.0)]
    found = calibrate(table(values, [0.0] * 4), [("pmi", [bound])], 0.5)
    assert found["bounds"]["pmi"]["faithfulness"] == {side: sign * 2.0, other: sign * 3.5}
    assert found["pass_rate"] == 0.5


def test_absolute_bounds_are_what_can_be_applied_before_anything_is_calibrated() -> None:
    """Calibrated sides are dropped; the rest of the bound applies, and the score must be a number."""
    open_ = [
        Bound("a", minimum=0.9, maximum=2.0, calibrate="minimum", reason="low"),
        Bound("a", minimum=0.1, maximum=0.2, calibrate="maximum", reason="high"),
        Bound("b", minimum=0.1, maximum=0.2),
    ]
    left = [Bound("a", maximum=2.0, reason="low"), Bound("a", minimum=0.1, reason="high"), Bound("b", minimum=0.1, maximum=0.2)]
    assert absolute([("x", open_), ("y", [])]) == (("x", tuple(left)), ("y", ()))
