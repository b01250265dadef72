"""Pass rates against a plain count: which questions are kept, which of their samples, and what each drop says."""

from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import helpers.samples
from helpers.samples import samples
from limbeck.corpus import extras
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.sets.pass_rate import NO_EXPECTED, NO_REFERENCE, PASS_RATE, PassRateConfig
from limbeck.pipelines import recipe

told = partial(helpers.samples.judged, schema=PASS_RATE)
reasons = partial(helpers.samples.reasons, schema=PASS_RATE)


def test_correct_samples_of_a_question_within_the_bounds_are_kept() -> None:
    rows = samples("42", "It is 41.", "Who knows?", "42.0")
    rate = "the pass rate of its question is 0.5 (2 of 4 samples are correct)"
    assert reasons(PassRateConfig(), rows) == [
        None,
        f"its answer '41' is not the reference's, '42'; {rate}",
        f"no answer was found in it, but '42' is expected; {rate}",
        None,
    ]
    assert reasons(PassRateConfig(keep="all"), rows) == [None] * 4
    expected = {"candidate_id": "s1", "answer": "41", "correct": 0.0, "correct_samples": 2, "samples": 4}
    assert {**told(PassRateConfig(), rows)["s1"], **expected} == told(PassRateConfig(), rows)["s1"]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"min_rate": 0.25, "max_rate": 0.25}, None),
        ({"min_rate": 0.26}, "the pass rate of its question is 0.25 (1 of 4 samples are correct), below min_rate 0.26"),
        ({"max_rate": 0.24}, "the pass rate of its question is 0.25 (1 of 4 samples are correct), above max_rate 0.24"),
    ],
)
def test_a_question_out_of_the_bounds_is_dropped_with_the_counts(keys: dict[str, Any], reason: str | None) -> None:
    found = reasons(PassRateConfig(keep="all", **keys), samples("42", "1", "2", "3"))
    assert found == [reason] * 4


def test_bounds_are_compared_exactly_and_are_those_of_open_r1() -> None:
    assert (PassRateConfig().min_rate, PassRateConfig().max_rate) == (0.1, 0.6)
    assert reasons(PassRateConfig(), samples("42", *["1"] * 9))[0] is None
    assert reasons(PassRateConfig(), samples(*["42"] * 6, *["1"] * 4))[0] is None


def test_rejected_samples_count_but_are_not_returned() -> None:
    rows = samples("42", "42", "42", "1")
    rows[1]["rejected_by"] = rows[2]["rejected_by"] = "length"
    assert reasons(PassRateConfig(keep="all"), rows)[0] == (
        "the pass rate of its question is 0.75 (3 of 4 samples are correct), above max_rate 0.6"
    )
    rows[3]["rejected_by"] = "answer"
    assert list(told(PassRateConfig(), rows)) == ["s0"]


def test_without_a_reference_a_sample_has_a_reason_of_its_own_and_does_not_count() -> None:
    rows = samples("42", "42", "1", "1")
    rows[0]["reference"], rows[1]["reference"] = None, "forty-two"
    found = told(PassRateConfig(max_rate=1.0, min_rate=0.0, keep="all"), rows)
    assert [row["reason"] for row in found.values()] == [NO_REFERENCE, NO_EXPECTED, None, None]
    assert [row["correct"] for row in found.values()] == [None, None, 0.0, 0.0]
    assert {(row["correct_samples"], row["samples"]) for row in found.values()} == {(0, 2)}
    assert reasons(PassRateConfig(), samples("42", reference=" ")) == [NO_REFERENCE]


def test_questions_of_one_source_may_count_apart() -> None:
    rows = samples("42", "1", "42", "42")
    rows[2]["prompt"] = rows[3]["prompt"] = "another"
    assert [reason is None for reason in reasons(PassRateConfig(), rows)] == [False] * 4
    assert [reason is None for reason in reasons(PassRateConfig(within="question"), rows)] == [True, False, False, False]
    assert PassRateConfig(within="question").needs == {"source_id", "prompt", "input", "output", "reference"}


def test_tolerances_and_choices() -> None:
    assert reasons(PassRateConfig(tolerance=0.5, max_rate=1.0), samples("42.5", "43"))[0] is None
    rows = samples("The answer is (b).", "C", reference="B")
    assert [reason is None for reason in reasons(PassRateConfig(extract="choice"), rows)] == [True, False]


def test_wrong_bounds_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"name": "x", "sources": {"kind": "text", "path": "x"}, "teacher": {"kind": "transformers", "model": "x"}}
    data = {**section, "generator": {"kind": "summaries"}, "filters": [{"kind": "length"}]}
    with pytest.raises(LimbeckError, match=r"select.pass_rate: min_rate 0.7 is above max_rate 0.6; lower it"):
        recipe.validate({**data, "select": [{"kind": "pass_rate", "min_rate": 0.7}]}, "here")
    monkeypatch.setattr(extras, "installed", lambda module: module != "math_verify")
    assert "pip install 'limbeck[math]'" in PassRateConfig(compare="math").problems()[0]


def test_no_rows() -> None:
    assert told(PassRateConfig(), []) == {}


drawn = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["42", "42.0", "1", "?"]),
        st.sampled_from(["42", "42", "42", None]),
        st.sampled_from([None, None, "length"]),
    ),
    max_size=16,
)


@given(drawn, st.sampled_from([0.0, 0.1, 0.25, 0.5]), st.sampled_from([0.5, 0.75, 1.0]), st.booleans(), st.randoms())
@settings(max_examples=150)
def test_pass_rates_equal_a_plain_count(drawn: list[Any], least: float, most: float, only_correct: bool, random: Any) -> None:
    rows = [
        {**samples(output, source_id=source, reference=reference, rejected_by=by)[0], "candidate_id": f"c{place:02}"}
        for place, (source, output, reference, by) in enumerate(drawn)
    ]
    expected = set()
    for row in rows:
        known = [other for other in rows if other["source_id"] == row["source_id"] and other["reference"]]
        right = sum(other["output"].startswith("42") for other in known)
        if row["rejected_by"] is None and row["reference"] and least * len(known) <= right <= most * len(known):
            if row["output"].startswith("42") or not only_correct:
                expected.add(row["candidate_id"])
    random.shuffle(rows)
    config = PassRateConfig(min_rate=least, max_rate=most, keep="correct" if only_correct else "all")
    assert {id_ for id_, row in told(config, rows).items() if row["reason"] is None} == expected
