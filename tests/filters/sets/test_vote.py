"""Self-consistency against a plain count: the most frequent answer of each question is kept, and every drop says the votes."""

from functools import partial
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

import helpers.samples
from helpers.samples import COLUMNS, samples
from limbeck.corpus import extras
from limbeck.filters.sets.vote import NO_ANSWER, VOTE, VoteConfig

told = partial(helpers.samples.judged, schema=VOTE)
reasons = partial(helpers.samples.reasons, schema=VOTE)


def test_the_majority_is_kept_and_others_say_the_votes() -> None:
    rows = samples("It is 42.", "It is 41", "42.0", "Who knows?", "\\frac{84}{2}")
    assert reasons(VoteConfig(), rows) == [None, "its answer '41' has 1, but '42' has 3 of 5 votes", None, NO_ANSWER, None]
    row = told(VoteConfig(), rows)["s2"]
    assert row == {"candidate_id": "s2", "reason": None, "answer": "42.0", "votes": 3, "samples": 5}
    assert told(VoteConfig(), rows)["s3"] == {"candidate_id": "s3", "reason": NO_ANSWER, "answer": None, "votes": 0, "samples": 5}


def test_one_may_be_kept_of_the_majority() -> None:
    rows = samples("1", "2", "2.0", "2")
    told_ = "'2' has 3 of 4 votes, and candidate s1 is kept for them"
    assert reasons(VoteConfig(keep="one"), rows) == ["its answer '1' has 1, but '2' has 3 of 4 votes", None, told_, told_]


def test_a_tie_goes_to_the_answer_that_comes_first_in_order_of_samples() -> None:
    rows = samples("none", "2", "1", "1", "2")
    tied = "its answer '1' has 2, but '2' has 2 of 5 votes and comes first"
    assert reasons(VoteConfig(), rows) == [NO_ANSWER, None, tied, tied, None]
    assert reasons(VoteConfig(), rows[::-1]) == [None, tied, tied, None, NO_ANSWER]  # the order of rows does not matter


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"min_votes": 2}, None),
        ({"min_votes": 3}, "the most frequent answer '1' has 2 of 4 votes, below min_votes 3"),
        ({"min_share": 0.5}, None),
        ({"min_share": 0.51}, "the most frequent answer '1' has 2 of 4 votes, below min_share 0.51"),
    ],
)
def test_too_few_votes_drop_the_question(keys: dict[str, Any], reason: str | None) -> None:
    found = reasons(VoteConfig(**keys), samples("1", "1", "2", "?"))
    assert found[0] == found[1] == reason and found[3] == NO_ANSWER
    assert found[2] == (reason or "its answer '2' has 1, but '1' has 2 of 4 votes")


def test_a_share_is_compared_exactly() -> None:
    rows = samples(*["1"] * 11, *map(str, range(2, 11)))
    assert reasons(VoteConfig(min_share=0.55), rows)[0] is None  # in floats 0.55 * 20 is above 11


def test_sources_vote_apart_and_so_may_questions_of_one_source() -> None:
    rows = [*samples("1", "1", "2", source_id="a"), *samples("2", source_id="b")]
    assert reasons(VoteConfig(), rows) == [None, None, "its answer '2' has 1, but '1' has 2 of 3 votes", None]
    rows = samples("1", "1", "2", "2")
    for place, (prompt, document) in enumerate([("p", None), ("p", None), ("q", None), ("p", "d")]):
        rows[place] |= {"prompt": prompt, "input": document}
    assert reasons(VoteConfig(within="question"), rows) == [None] * 4
    assert reasons(VoteConfig(), rows)[2:] == ["its answer '2' has 2, but '1' has 2 of 4 votes and comes first"] * 2
    assert VoteConfig().needs == {"source_id", "output"}
    assert VoteConfig(within="question").needs == {"source_id", "prompt", "input", "output"}


def test_older_runs_have_no_inputs() -> None:
    table = pa.Table.from_pylist(samples("1", "2"), schema=COLUMNS).drop_columns(["input"])
    assert VoteConfig(within="question").build().select(table)["reason"].to_pylist()[0] is None


def test_no_rows() -> None:
    assert told(VoteConfig(), []) == {}


def test_a_long_answer_is_cut_in_the_reason() -> None:
    rows = samples("A: " + "x" * 100, "A: y\nA: y", "A: y")
    config = VoteConfig(extract="pattern", pattern="A: (.*)")
    assert reasons(config, rows)[0] == f"its answer '{'x' * 59}…' has 1, but 'y' has 2 of 3 votes"


def test_mathematics_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "math_verify")
    (problem,) = VoteConfig(extract="boxed", compare="math").problems()
    assert "pip install 'limbeck[math]'" in problem and VoteConfig().problems() == []


def test_expressions_vote_together() -> None:
    pytest.importorskip("math_verify", reason="the extra `math` is not installed")
    rows = samples(*(rf"\boxed{{{text}}}" for text in ("x+1", r"\sqrt{2}", "1+x", "2^{1/2}", r"\frac{x^2-1}{x-1}", "x")))
    found = told(VoteConfig(extract="boxed", compare="math"), rows)
    assert [row["votes"] for row in found.values()] == [3, 2, 3, 2, 3, 1]


def naive(rows: list[dict[str, Any]], keep: str, least: int) -> set[str]:
    """The ids that are kept, by counting values."""
    kept = set()
    for source in {row["source_id"] for row in rows}:
        mine = sorted((row for row in rows if row["source_id"] == source), key=lambda row: (row["sample"], row["candidate_id"]))
        values = [float(row["output"]) if row["output"] != "?" else None for row in mine]
        best, most = None, 0
        for value in values:
            if value is not None and values.count(value) > most:
                best, most = value, values.count(value)
        agreeing = [row["candidate_id"] for row, value in zip(mine, values, strict=True) if value is not None and value == best]
        if most >= least:
            kept |= set(agreeing if keep == "all" else agreeing[:1])
    return kept


drawn = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.sampled_from(["1", "1.0", "2", "2.00", "3", "?"])), max_size=14
)


@given(drawn, st.sampled_from(["all", "one"]), st.integers(1, 3), st.randoms())
@settings(max_examples=150)
def test_votes_equal_a_plain_count(drawn: list[tuple[str, int, str]], keep: str, least: int, random: Any) -> None:
    rows = [
        {"candidate_id": f"c{place:02}", "source_id": source, "sample": sample, "output": output, "prompt": "p", "input": None}
        for place, (source, sample, output) in enumerate(drawn)
    ]
    expected = naive(rows, keep, least)
    random.shuffle(rows)
    judged = told(VoteConfig(keep=keep, min_votes=least), rows)
    assert {id_ for id_, row in judged.items() if row["reason"] is None} == expected
