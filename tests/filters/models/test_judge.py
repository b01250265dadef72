"""The judge, against engines whose answers the test makes up."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from helpers import tiny_engines
from helpers.scripted_engine import ScriptedEngine, completion
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import build
from limbeck.cluster.engines.protocol import Completion, Engine, Message, Pair, Request
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.filters.config import Cost
from limbeck.filters.contract import Filter
from limbeck.filters.models.judge import JudgeConfig, JudgeFilter, lead
from limbeck.filters.models.judge_answers import exact, reading

DOCUMENT = "Quern reads weather files. It draws maps. It is free."


def inputs(outputs: Sequence[str | None], document: str | None = DOCUMENT, reference: str | None = "A weather tool.") -> pa.Table:
    rows = [
        {"candidate_id": f"id{i}", "seed": 100 + i, "document": document, "reference": reference, "output": output}
        for i, output in enumerate(outputs)
    ]
    names = ["candidate_id", "seed", "document", "reference", "output"]
    return pa.Table.from_pylist(rows, schema=pa.schema([SCORED_INPUT.field(name).with_nullable(True) for name in names]))


def score(engine: Engine, table: pa.Table, **config: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = JudgeFilter(JudgeConfig.model_validate(config), engine).score(table).to_pylist()
    return rows


def grade_of(pair: Pair) -> int:
    return int(pair.target)


@given(st.lists(st.floats(0.001, 1), min_size=5, max_size=5), st.floats(0.01, 1))
@settings(deadline=None)
def test_the_expected_grade_is_that_of_the_normalised_probabilities(weights: list[float], answered: float) -> None:
    shares = np.array(weights) / sum(weights)

    def measure(pair: Pair) -> list[float]:
        logprob = math.log(shares[grade_of(pair) - 1] * answered)
        return [logprob / 3, logprob * 2 / 3]  # two tokens

    engine = ScriptedEngine(measure=measure)
    (row,) = score(engine, inputs(["A tool."]))
    mean = sum((i + 1) * share for i, share in enumerate(shares))
    assert row["score"] == pytest.approx(mean, rel=1e-5)
    assert row["spread"] == pytest.approx(math.sqrt(sum((i + 1 - mean) ** 2 * share for i, share in enumerate(shares))), abs=1e-4)
    assert row["answered"] == pytest.approx(answered, rel=1e-5)
    assert [pair.target for pair in engine.pairs] == [" 1", " 2", " 3", " 4", " 5"]


def test_the_question_holds_the_document_the_output_and_the_rubric() -> None:
    engine = ScriptedEngine()
    score(engine, inputs([" A tool.\n"]), rubric="be brief.", scale={"lowest": 0, "highest": 3})
    (context,) = {pair.context for pair in engine.pairs}
    assert f"Text: {DOCUMENT}\n\nAnswer: A tool.\n\nGrade:" in context
    assert "criteria: be brief." in context and "from 0 (" in context and "to 3 (" in context
    assert context == context.strip()
    assert [pair.target for pair in engine.pairs] == [" 0", " 1", " 2", " 3"]


def test_equal_questions_are_asked_once_and_an_empty_output_has_the_lowest_grade() -> None:
    engine = ScriptedEngine(measure=lambda pair: [0.0 if grade_of(pair) == 4 else -50.0])
    rows = score(engine, inputs(["A tool.", "", "A tool.", None, "   "]))
    assert len(engine.pairs) == 5
    assert [row["score"] for row in rows] == pytest.approx([4, 1, 4, 1, 1])
    assert [row["answered"] for row in rows] == pytest.approx([1] * 5)


def test_what_does_not_fit_is_no_number() -> None:
    engine = ScriptedEngine(measure=lambda pair: [math.nan if "long" in pair.context else -1.0])
    rows = score(engine, inputs(["A tool.", "A long one."]))
    assert rows[0]["score"] == pytest.approx(3)
    assert all(math.isnan(rows[1][name]) for name in ("score", "spread", "answered"))
    (row,) = score(ScriptedEngine(measure=lambda pair: [-math.inf]), inputs(["A tool."]))
    assert math.isnan(row["score"]) and row["answered"] == 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4", "4"),
        (" 4.", "4"),
        ("**4**", "4"),
        ("4/5", "4"),
        ("4 out of 5", "4"),
        ("Grade: 4", "4"),
        ("Score is 4", "4"),
        ("4\nBecause it is brief.", "4"),
        ("4. It is brief.", "4"),
        ("4 ", "4"),
        ("4 (meets most)", "4"),
        ("4, since it is brief", "4"),
        ("4.5", None),
        ("45", None),
        ("6", None),
        ("4 apples", None),
        ("The answer has 4 words", None),
        ("", None),
        ("four", None),
        ("-" * 1000 + "grade" * 1000, None),
    ],
)
def test_what_can_be_read_as_a_grade(text: str, answer: str | None) -> None:
    match = reading(["1", "2", "3", "4", "5"]).match(text)
    assert (match[1] if match else None) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A", "A"),
        ("B.", "B"),
        ("Answer B", "B"),
        ("Better answer: A", "A"),
        ("(A)", "A"),
        ("A better one is B", None),
        ("a", None),
    ],
)
def test_what_can_be_read_as_a_choice(text: str, answer: str | None) -> None:
    match = reading(["A", "B"]).match(text)
    assert (match[1] if match else None) == answer


def test_sampled_grades_are_averaged_and_what_is_none_is_counted() -> None:
    texts = ["5", "4.", "Grade: 3", "no idea"]

    def answer(request: Request) -> Completion | None:
        place, draw = request.request_id.split("-")
        return completion(request, texts[int(draw)]) if place == "0" else None

    engine = ScriptedEngine(answer=answer)
    rows = score(engine, inputs(["A tool.", "Another."]), sampling={"samples": 4, "temperature": 0.5})
    assert rows[0] == {
        "candidate_id": "id0",
        "score": 4.0,
        "spread": pytest.approx(math.sqrt(2 / 3)),
        "answered": 0.75,
    }
    assert math.isnan(rows[1]["score"]) and math.isnan(rows[1]["spread"]) and rows[1]["answered"] == 0
    request = engine.requests[0]
    assert isinstance(request.prompt, tuple) and isinstance(request.prompt[0], Message)
    assert (request.sampling.temperature, request.sampling.max_new_tokens) == (0.5, 8)


def test_seeds_depend_on_the_candidate_and_the_draw_alone() -> None:
    first, second = ScriptedEngine(), ScriptedEngine()
    table = inputs(["A.", "B.", "C."])
    score(first, table, sampling={"samples": 2})
    score(second, table.slice(2, 1), sampling={"samples": 2, "style": "plain"})
    assert len({request.seed for request in first.requests}) == 6
    assert [request.seed for request in second.requests] == [request.seed for request in first.requests[4:]]
    assert isinstance(second.requests[0].prompt, str)


def test_an_engine_s_error_is_no_answer() -> None:
    failing = ScriptedEngine(answer=lambda request: Completion(request.request_id, "", (), "error", 9, "too long"))
    (row,) = score(failing, inputs(["A tool."]), sampling={})
    assert math.isnan(row["score"]) and row["answered"] == 0


def test_a_comparison_is_made_in_both_orders() -> None:
    """The judge says A with 0.9 where the output is A, and with 0.6 where it is B: 0.9 and 0.4 for the output."""

    def measure(pair: Pair) -> list[float]:
        first = 0.9 if "Answer A: A tool." in pair.context else 0.6
        return [math.log(0.5 * (first if pair.target == " A" else 1 - first))]

    engine = ScriptedEngine(measure=measure)
    (row,) = score(engine, inputs(["A tool."]), compare="reference")
    assert row == {
        "candidate_id": "id0",
        "preference": pytest.approx(0.65),
        "position_bias": pytest.approx(0.5),
        "answered": pytest.approx(0.5),
        "preference_first": pytest.approx(0.9),
        "preference_second": pytest.approx(0.4),
    }
    contexts = list(dict.fromkeys(pair.context for pair in engine.pairs))
    assert "Answer A: A tool.\n\nAnswer B: A weather tool.\n" in contexts[0]
    assert "Answer A: A weather tool.\n\nAnswer B: A tool.\n" in contexts[1]


def test_a_judge_that_looks_at_the_place_alone_prefers_neither() -> None:
    engine = ScriptedEngine(measure=lambda pair: [-0.1 if pair.target == " A" else -9.0])
    (row,) = score(engine, inputs(["A tool."]), compare="lead")
    assert row["preference"] == pytest.approx(0.5)
    assert row["position_bias"] > 0.99


def test_comparisons_that_cannot_be_made() -> None:
    engine = ScriptedEngine()
    rows = score(engine, inputs(["A tool.", ""], reference=None), compare="reference")
    assert not engine.pairs
    assert math.isnan(rows[0]["preference"]) and math.isnan(rows[0]["answered"])
    assert (rows[1]["preference"], rows[1]["position_bias"], rows[1]["answered"]) == (0.0, 0.0, 1.0)
    (row,) = score(engine, inputs(["A tool."], document=None), compare="lead")
    assert math.isnan(row["preference"])


def test_the_lead_has_as_many_sentences_as_the_output() -> None:
    assert lead(DOCUMENT, "One.") == "Quern reads weather files."
    assert lead(DOCUMENT, "One. Two.") == "Quern reads weather files. It draws maps."
    assert lead("", "One.") == ""


def test_sampled_comparisons_have_seeds_of_their_own() -> None:
    engine = ScriptedEngine(answer=lambda request: completion(request, "A"))
    (row,) = score(engine, inputs(["A tool."]), compare="lead", sampling={"samples": 3})
    assert len({request.seed for request in engine.requests}) == 6
    assert (row["preference_first"], row["preference_second"], row["position_bias"]) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("config", [{}, {"compare": "lead"}, {"sampling": {}}, {"compare": "reference", "sampling": {}}])
def test_no_candidates_no_scores_and_the_same_columns(config: dict[str, Any]) -> None:
    filter_ = JudgeFilter(JudgeConfig.model_validate(config), ScriptedEngine(answer=lambda request: completion(request, "A")))
    none = filter_.score(inputs([]))
    assert none.num_rows == 0
    assert none.schema == filter_.score(inputs(["A tool."])).schema
    assert tuple(none.column_names[1:]) == JudgeConfig.model_validate(config).columns
    assert all(field.metadata[b"unit"] for field in none.schema if field.type == pa.float64())


def test_config_and_limits() -> None:
    config = JudgeConfig(engine=TransformersConfig(model="some/model"), min_score=3.5, max_spread=1.0)
    assert [(bound.column, bound.minimum, bound.maximum) for bound in config.bounds] == [
        ("score", 3.5, None),
        ("spread", None, 1.0),
    ]
    assert set(config.reasons) == set(config.limit_fields())
    assert config.cost is Cost.GENERATION
    assert config.models == {"engine.model": "some/model"}
    assert config.scoring()["prompt_text"].startswith("You grade")
    assert config.problems() == []

    class Provider:
        def get(self, config: TransformersConfig) -> Engine:
            return ScriptedEngine()

    filter_ = config.build(Provider())  # type: ignore[arg-type]
    assert isinstance(filter_, Filter) and filter_.bounds == config.bounds
    with pytest.raises(LimbeckError, match="filter judge has no engine"):
        JudgeConfig().build(Provider())  # type: ignore[arg-type]
    for wrong, message in [
        ({"min_preference": 0.5}, "this score does not exist without compare"),
        ({"compare": "lead", "min_score": 3.0}, "this score does not exist with compare"),
        ({"compare": "lead", "scale": {"highest": 3}}, "a comparison has no grades"),
        ({"scale": {"lowest": 5, "highest": 5}}, "must be below"),
    ]:
        with pytest.raises(ValidationError, match=message):
            JudgeConfig.model_validate(wrong)


def test_a_prompt_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("Is {{ output }} in {{ document }}? {{ lowest }}-{{ highest }} \n")
    engine = ScriptedEngine()
    score(engine, inputs(["{{ evil }} {% x %}"]), prompt=str(path))
    assert engine.pairs[0].context == f"Is {{{{ evil }}}} {{% x %}} in {DOCUMENT}? 1-5"
    assert JudgeConfig(prompt=str(path)).scoring() != JudgeConfig().scoring()
    for text, message in [
        ("{{ summary }}", "does not render: 'summary' is undefined; it may use"),
        ("{% if", "is not a Jinja template"),
    ]:
        path.write_text(text)
        (problem,) = JudgeConfig(prompt=str(path)).problems()
        assert message in problem
    (problem,) = JudgeConfig(prompt="no_such").problems()
    assert "no prompt no_such" in problem and "judge_compare, judge_score" in problem
    assert JudgeConfig(prompt="no_such").scoring()["prompt_text"] is None


def test_exact_answers_of_a_real_engine_are_those_of_the_plain_model(tmp_path: Path) -> None:
    engine = build(TransformersConfig(model=str(tiny_engines.save(tmp_path / "m", "llama")), dtype="float32", device="cpu"))
    prompts, allowed = ["Grade:", "Grade this text:", "x" * 300], ["1", "2", "3"]
    answers = exact(engine, prompts, allowed)
    sums = np.array([[tiny_engines.naive_logprobs(engine, Pair(p, f" {a}")).sum() for a in allowed] for p in prompts[:2]])
    np.testing.assert_allclose(answers.shares[:2], np.exp(sums) / np.exp(sums).sum(axis=1, keepdims=True), rtol=1e-3)
    np.testing.assert_allclose(answers.answered[:2], np.exp(sums).sum(axis=1), rtol=1e-3)
    assert np.isnan(answers.shares[2]).all()
    np.testing.assert_allclose(answers.shares[:2].sum(axis=1), 1)


TEXTS = st.text(max_size=30) | st.sampled_from(["\u202eאבג", "word " * 20000, "\x00", "{{ x }}", "4", "Grade: 5"])


@given(st.lists(TEXTS, max_size=4), TEXTS, st.sampled_from([None, "reference", "lead"]))
@settings(deadline=None, max_examples=50)
def test_any_row_has_its_place_and_its_own_scores(outputs: list[str], document: str, compare: str | None) -> None:
    table = inputs(["A tool.", *outputs], document, document or None)

    def measure(pair: Pair) -> list[float]:
        return [-float(len(pair.context) % 7) - (pair.target in (" A", " 2"))]

    whole = score(ScriptedEngine(measure=measure), table, compare=compare)
    alone = [score(ScriptedEngine(measure=measure), table.slice(i, 1), compare=compare)[0] for i in range(table.num_rows)]
    for row, single in zip(whole, alone, strict=True):
        assert row.keys() == single.keys()
        assert all(row[name] == pytest.approx(single[name], nan_ok=True) for name in row if name != "candidate_id")
