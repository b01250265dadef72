"""The PMI critic's arithmetic, against log-probabilities that the test makes up."""

import math

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from cluster.engines.config import TransformersConfig
from cluster.engines.protocol import Engine, Pair
from corpus.errors import LimbeckError
from filters.contract import Bound, Filter
from filters.pmi import PmiConfig, PmiFilter
from tests.scripted_engine import ScriptedEngine

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
