"""The PMI critic's arithmetic, against log-probabilities that the test makes up."""

import math
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.other_documents import NO_OTHER
from limbeck.filters.config import FalseAcceptance
from limbeck.filters.contract import Bound, Filter
from limbeck.filters.models.pmi import TERMS, PmiConfig, PmiFilter, drawn_others

DOCUMENT = "Quern reads weather files."
SALIENT = [0, 5, 12, 19]  # Quern, weather


def inputs(outputs: list[str], document: str = DOCUMENT, salient: list[int] = SALIENT) -> pa.Table:
    return pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(len(outputs))],
            "document": pa.array([document] * len(outputs), pa.string()),
            "output": pa.array(outputs, pa.string()),
            "salient": pa.array([salient] * len(outputs), pa.list_(pa.int32())),
        }
    )


def by_context(pair: Pair) -> list[float]:
    """-1 a token under a condition, -2 without one; a word is a token."""
    wanted = len(pair.spans) if pair.spans is not None else len(pair.target.split())
    return [-2.0 if pair.context in ("TL;DR:", "Article:") else -1.0] * wanted


def test_the_four_terms_and_what_follows_from_them() -> None:
    engine = ScriptedEngine(measure=by_context)
    (row,) = PmiFilter(engine).score(inputs(["It parses\n reports. "])).to_pylist()
    assert engine.pairs == [
        Pair("Quern reads weather files.\nTL;DR:", " It parses reports."),
        Pair("TL;DR:", " It parses reports."),
        Pair("Summary: It parses reports.\nArticle:", " Quern reads weather files.", ((1, 6), (13, 20))),
        Pair("Article:", " Quern reads weather files.", ((1, 6), (13, 20))),
    ]
    assert [pair.target[start:end] for pair in engine.pairs[2:] for start, end in pair.spans or ()] == ["Quern", "weather"] * 2
    assert row == {
        "candidate_id": "id0",
        "faithfulness": 0.5,
        "saliency": 0.5,
        "pmi": 0.5,
        "log_p_output_given_document": -3.0,
        "log_p_output": -6.0,
        "log_p_salient_given_output": -2.0,
        "log_p_salient": -4.0,
    }


def test_each_distinct_pair_is_asked_once_and_all_in_one_call() -> None:
    calls = []

    class Counting(ScriptedEngine):
        def logprobs(self, pairs):
            calls.append(list(pairs))
            return super().logprobs(pairs)

    scores = PmiFilter(Counting(measure=by_context)).score(inputs(["A.", "B.", "A.", ""]))
    (pairs,) = calls
    assert len(pairs) == len(set(pairs)) == 7  # two outputs: two and two conditioned, two alone, and one document alone
    assert scores["pmi"].to_pylist() == [0.5, 0.5, 0.5, 0.0]


@pytest.mark.parametrize("output", ["", " \n\t "])
def test_an_empty_output_scores_nothing_and_asks_nothing(output: str) -> None:
    engine = ScriptedEngine()
    (row,) = PmiFilter(engine).score(inputs([output])).to_pylist()
    assert not engine.pairs
    assert set(row.values()) == {"id0", 0.0}


def test_no_candidates_no_scores() -> None:
    scores = PmiFilter(ScriptedEngine()).score(inputs([]))
    assert scores.num_rows == 0
    assert "pmi" in scores.column_names


def test_one_candidate_that_cannot_be_scored_costs_one_row() -> None:
    """Too long for the context (one NaN), or other tokens under the other context: never a wrong number."""

    def measure(pair: Pair) -> list[float]:
        if "long" in pair.context or "long" in pair.target:
            return [math.nan]
        if "merged" in pair.target and pair.context != "TL;DR:":
            return by_context(pair)[:-1]
        return by_context(pair)

    scores = PmiFilter(ScriptedEngine(measure=measure)).score(inputs(["A good one.", "Too long.", "Two merged."])).to_pylist()
    assert scores[0]["pmi"] == 0.5
    assert math.isnan(scores[1]["faithfulness"]) and math.isnan(scores[1]["saliency"]) and math.isnan(scores[1]["pmi"])
    assert math.isnan(scores[2]["faithfulness"]) and math.isnan(scores[2]["log_p_output"])
    assert scores[2]["saliency"] == 0.5


def test_a_document_without_salient_words_has_no_saliency() -> None:
    (row,) = PmiFilter(ScriptedEngine(measure=by_context)).score(inputs(["A tool."], salient=[])).to_pylist()
    assert row["faithfulness"] == 0.5
    assert math.isnan(row["saliency"]) and math.isnan(row["pmi"])


@given(st.lists(st.tuples(*[st.floats(-20, -0.01)] * 4), min_size=1, max_size=5))
@settings(deadline=None)
def test_scores_follow_from_the_stored_terms(terms: list[tuple[float, float, float, float]]) -> None:
    """At most 1, 0 without help, and recomputable from the columns beside them."""
    table = inputs([f"Output {index}." for index in range(len(terms))])

    def measure(pair: Pair) -> list[float]:
        index = next((i for i in range(len(terms)) if f"Output {i}." in pair.context + pair.target), 0)
        given_document, output, given_output, salient = terms[index]
        if pair.spans is None:
            return [output if pair.context == "TL;DR:" else given_document]
        return [salient if pair.context == "Article:" else given_output]

    for row in PmiFilter(ScriptedEngine(measure=measure)).score(table).to_pylist():
        explained = row["log_p_output_given_document"] - row["log_p_output"]
        assert row["faithfulness"] == pytest.approx(explained / -row["log_p_output"])
        assert row["faithfulness"] <= 1 and row["saliency"] <= 1
        assert np.sign(row["saliency"]) == np.sign(row["log_p_salient_given_output"] - row["log_p_salient"])
        assert row["pmi"] == pytest.approx((row["faithfulness"] + row["saliency"]) / 2)


def test_the_config_builds_with_the_engine_it_names() -> None:
    class Provider:
        def get(self, config: TransformersConfig) -> Engine:
            assert config == TransformersConfig(model="some/model")
            return ScriptedEngine(measure=by_context)

    config = PmiConfig(engine=TransformersConfig(model="some/model"), min_faithfulness=0.3, min_saliency="calibrated")
    filter_ = config.build(Provider())
    assert isinstance(filter_, Filter)
    assert filter_.name == "pmi"
    assert [(b.column, b.minimum, b.calibrate) for b in filter_.bounds] == [
        ("faithfulness", 0.3, None),
        ("saliency", None, "minimum"),
    ]
    assert all(bound.reason for bound in filter_.bounds)
    assert PmiConfig(min_faithfulness=None, min_saliency=None).bounds == ()


def test_without_an_engine_it_says_so() -> None:
    with pytest.raises(LimbeckError, match="filter pmi has no engine"):
        PmiConfig().build(engines=None)


def test_bounds_are_what_selection_takes() -> None:
    assert PmiConfig().bounds == (
        Bound("faithfulness", calibrate="minimum", reason="too little of the output follows from the document"),
        Bound("saliency", calibrate="minimum", reason="the output tells too little of what the document says"),
    )


def with_groups(rows: list[tuple[str, str, str]]) -> pa.Table:
    """(source, group, output) → a table whose documents name their source."""
    return pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(len(rows))],
            "source_id": [source for source, _, _ in rows],
            "group": [group for _, group, _ in rows],
            "document": [f"Document {source} reads." for source, _, _ in rows],
            "output": [output for _, _, output in rows],
            "salient": pa.array([[9, 10]] * len(rows), pa.list_(pa.int32())),
        }
    )


ROWS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["One.", "Two.", ""])), max_size=12)
GROUP_OF = {"a": "g", "b": "g", "c": "h", "d": "d", "e": "h", "f": "f"}


@given(ROWS, st.randoms())
def test_the_other_document_is_another_of_another_group_whatever_the_order(rows: list[tuple[str, str]], random: Any) -> None:
    table = with_groups([(source, GROUP_OF[source], output) for source, output in rows])
    found = drawn_others(table)
    chosen = {}
    for row, other in zip(table.to_pylist(), found, strict=True):
        has_other = any(GROUP_OF[source] != row["group"] for source, _ in rows)
        assert (other == NO_OTHER) == (not has_other)
        if has_other:
            assert GROUP_OF[rows[other][0]] != row["group"]
            chosen[row["candidate_id"]] = rows[other][0]
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = table.take(pa.array(order, pa.int64()))
    again = shuffled["source_id"].to_pylist()
    pairs = zip(shuffled["candidate_id"].to_pylist(), drawn_others(shuffled), strict=True)
    assert {id_: again[other] for id_, other in pairs if other != NO_OTHER} == chosen


def test_the_draw_of_another_document_is_even() -> None:
    table = with_groups([(f"s{i % 5}", f"s{i % 5}", "One.") for i in range(2000)])
    sources = table["source_id"].to_pylist()
    counts = Counter((source, sources[other]) for source, other in zip(sources, drawn_others(table), strict=True))
    assert len(counts) == 20 and min(counts.values()) > 60 and max(counts.values()) < 140


def test_null_scores_are_those_of_the_crossed_pair() -> None:
    """The crossed pair scored as a pair of its own gives the same, and only two terms a candidate are new."""

    def measure(pair: Pair) -> list[float]:
        return [-1.0 - len(pair.context) / (1 + len(pair.target))] * (len(pair.spans) if pair.spans else len(pair.target.split()))

    table = with_groups([("a", "g", "One two."), ("b", "g", "Three."), ("c", "h", "Four five six."), ("d", "d", "")])
    plain, engine = ScriptedEngine(measure=measure), ScriptedEngine(measure=measure)
    own = PmiFilter(plain).score(table)
    scores = PmiFilter(engine, null=True).score(table)
    assert scores.select(own.column_names) == own
    assert len(engine.pairs) - len(plain.pairs) <= 2 * 3 + 1  # two terms a candidate, and the document that has no output
    rows, others = table.to_pylist(), drawn_others(table)
    for row, other, score in zip(rows, others, scores.to_pylist(), strict=True):
        if not row["output"]:
            assert math.isnan(score["faithfulness_null"]) and math.isnan(score["saliency_null"])
            continue
        crossed = pa.Table.from_pylist([{**rows[other], "output": row["output"]}], schema=table.schema)
        (expected,) = PmiFilter(ScriptedEngine(measure=measure)).score(crossed).to_pylist()
        assert score["faithfulness_null"] == expected["faithfulness"]
        assert score["saliency_null"] == expected["saliency"]


def test_without_another_document_the_null_is_unknown() -> None:
    (row,) = PmiFilter(ScriptedEngine(measure=by_context), null=True).score(with_groups([("a", "g", "One.")])).to_pylist()
    assert row["faithfulness"] == 0.5 and math.isnan(row["faithfulness_null"]) and math.isnan(row["saliency_null"])


def test_the_null_is_there_wherever_a_limit_asks() -> None:
    rate = FalseAcceptance(false_acceptance=0.01)
    assert not PmiConfig().needs_null
    assert PmiConfig(null=True).needs_null
    assert PmiConfig(min_saliency=rate).needs_null
    assert PmiConfig(min_saliency=rate).scoring() == PmiConfig(null=True, min_saliency=0.2).scoring() != PmiConfig().scoring()
    assert PmiConfig.model_validate({"min_saliency": {"false_acceptance": 0.01}}).min_saliency == rate


def test_columns_say_their_unit() -> None:
    schema = PmiFilter(ScriptedEngine(measure=by_context), null=True).score(with_groups([("a", "g", "One.")])).schema
    units = {field.name: (field.metadata or {}).get(b"unit") for field in schema}
    assert units.pop("candidate_id") is None
    assert set(units.values()) == {b"nats", b"share of self-information"}


@given(
    st.lists(st.tuples(*[st.floats(-20, -0.01)] * 4), min_size=1, max_size=5),
    st.sampled_from(["self_information", "length", "none"]),
)
@settings(deadline=None)
def test_every_normalisation_follows_from_the_stored_terms(terms: list[tuple[float, ...]], normalise: Any) -> None:
    """With the same terms for all; the default is the one that there was before."""
    table = inputs([" ".join(["Output", *["more"] * index]) + f" {index}." for index in range(len(terms))])
    known: dict[str, tuple[float, ...]] = dict(zip(table["output"].to_pylist(), terms, strict=True))

    def measure(pair: Pair) -> list[float]:
        if pair.context == "Article:":
            return [-3.0]
        output = pair.target.strip() if pair.spans is None else pair.context[len("Summary: ") : -len("\nArticle:")]
        given, alone, salient, _ = known[output]
        return [salient if pair.spans is not None else alone if pair.context == "TL;DR:" else given]

    filter_ = PmiFilter(ScriptedEngine(measure=measure), normalise=normalise)
    usual = PmiFilter(ScriptedEngine(measure=measure)).score(table).to_pylist()
    for index, (row, before) in enumerate(zip(filter_.score(table).to_pylist(), usual, strict=True)):
        given, alone, salient, unread = (row[name] for name in TERMS)
        assert [row[name] for name in TERMS] == [before[name] for name in TERMS]
        words = (2 + index) / 4
        expected = {
            "self_information": ((given - alone) / -alone, (salient - unread) / -unread),
            "length": (given - alone, (salient - unread) / words),
            "none": (given - alone, salient - unread),
        }[normalise]
        assert (row["faithfulness"], row["saliency"]) == pytest.approx(expected)
        assert row["pmi"] == pytest.approx(sum(expected) / 2)
        if normalise == "self_information":
            assert row == before


def test_every_normalisation_says_its_unit_and_scores_an_empty_output_zero() -> None:
    units = {"self_information": "share of self-information", "none": "nats", "length": "nats · document words / output words"}
    for normalise, unit in units.items():
        config = PmiConfig.model_validate({"normalise": normalise, "null": True})
        filter_ = PmiFilter(ScriptedEngine(measure=by_context), null=True, normalise=config.normalise)
        table = filter_.score(with_groups([("a", "g", "One two."), ("b", "h", ""), ("c", "i", "Three.")]))
        assert {table.schema.field(name).metadata[b"unit"].decode() for name in ("saliency", "saliency_null", "pmi")} == {unit}
        rows = table.to_pylist()
        assert rows[1]["faithfulness"] == rows[1]["saliency"] == 0.0
        assert rows[0]["faithfulness_null"] == (rows[0]["faithfulness"] if normalise != "length" else 2.0)
        assert config.ranges["saliency"][1] == (1.0 if normalise == "self_information" else math.inf)
