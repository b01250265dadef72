"""The judge, against engines whose answers the test makes up."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from pydantic import ValidationError

from helpers import tiny_engines
from helpers.scripted_engine import ScriptedEngine, completion
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import build
from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.filters.config import Cost
from limbeck.filters.contract import PROBED, Filter, ProbedFilter
from limbeck.filters.models.closed_questions import exact, reading
from limbeck.filters.models.judge import JudgeConfig, JudgeFilter, lead

DOCUMENT = "Quern reads weather files. It draws maps. It is free."


def inputs(outputs: Sequence[str | None], document: str | None = DOCUMENT, reference: str | None = "A weather tool.") -> pa.Table:
    given = {"prompt": "Summarise the text.", "document": document, "reference": reference}
    rows = [{"candidate_id": f"id{i}", "seed": 100 + i, "output": output, **given} for i, output in enumerate(outputs)]
    names = ["candidate_id", "seed", "prompt", "document", "reference", "output"]
    return pa.Table.from_pylist(rows, schema=pa.schema([SCORED_INPUT.field(name).with_nullable(True) for name in names]))


def score(engine: Engine, table: pa.Table, **config: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = JudgeFilter(JudgeConfig.model_validate(config), engine).score(table).to_pylist()
    return rows


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


def test_exact_answers_of_a_real_engine_are_those_of_the_plain_model(tmp_path: Path) -> None:
    engine = build(TransformersConfig(model=str(tiny_engines.save(tmp_path / "m", "llama")), dtype="float32", device="cpu"))
    prompts, allowed = ["Grade:", "Grade this text:", "x" * 300], ["1", "2", "3"]
    answers = exact(engine, prompts, allowed)
    sums = np.array([[tiny_engines.naive_logprobs(engine, Pair(p, f" {a}")).sum() for a in allowed] for p in prompts[:2]])
    np.testing.assert_allclose(answers.shares[:2], np.exp(sums) / np.exp(sums).sum(axis=1, keepdims=True), rtol=1e-3)
    np.testing.assert_allclose(answers.answered[:2], np.exp(sums).sum(axis=1), rtol=1e-3)
    assert np.isnan(answers.shares[2]).all()
    np.testing.assert_allclose(answers.shares[:2].sum(axis=1), 1)


@pytest.mark.parametrize("config", [{}, {"sampling": {}}, {"compare": "reference"}, {"compare": "reference", "sampling": {}}])
def test_no_candidates_no_scores_and_the_same_columns(config: dict[str, Any]) -> None:
    made = JudgeConfig.model_validate({"compare": "lead", **config})
    filter_ = JudgeFilter(made, ScriptedEngine(answer=lambda request: completion(request, "A")))
    none = filter_.score(inputs([]))
    assert none.num_rows == 0
    assert none.schema == filter_.score(inputs(["A tool."])).schema
    assert set(none.column_names[1:]) == set(made.columns or ())
    assert all(field.metadata[b"unit"] for field in none.schema if field.type == pa.float64())


def test_config_and_limits() -> None:
    config = JudgeConfig(compare="lead", engine=TransformersConfig(model="some/model"), min_preference=0.5, max_position_bias=0.4)
    assert [(bound.column, bound.minimum, bound.maximum) for bound in config.bounds] == [
        ("preference", 0.5, None),
        ("position_bias", None, 0.4),
    ]
    assert set(config.reasons) == set(config.limit_fields())
    assert config.cost is Cost.GENERATION
    assert config.models == {"engine.model": "some/model"}
    assert config.scoring()["prompt_text"].startswith("You compare") and "self_test" not in config.scoring()
    assert config.problems() == []

    class Provider:
        def get(self, config: TransformersConfig) -> Engine:
            return ScriptedEngine()

    filter_ = config.build(Provider())  # type: ignore[arg-type]
    assert isinstance(filter_, Filter) and isinstance(filter_, ProbedFilter) and filter_.bounds == config.bounds
    with pytest.raises(LimbeckError, match="filter judge has no engine"):
        JudgeConfig(compare="lead").build(Provider())  # type: ignore[arg-type]
    for wrong, message in [({}, "Field required"), ({"compare": "lead", "min_score": 3.0}, "unknown key 'min_score'")]:
        with pytest.raises(ValidationError, match=message):
            JudgeConfig.model_validate(wrong)


def test_responses_are_compared_with_their_task(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    score(engine, inputs(["A tool."], document=""), compare="reference", of="response")
    first = engine.pairs[0].context
    assert "Task: Summarise the text.\n\nResponse A: A tool.\n\nResponse B: A weather tool.\n\nBetter response:" in first
    assert "does what the task asks" in first
    (tmp_path / "mine.jinja").write_text("{{ instruction }} {{ first }} or {{ second }}? {{ rubric }}")
    engine = ScriptedEngine()
    score(engine, inputs(["A tool."]), compare="reference", rubric="Brief!", prompt=str(tmp_path / "mine.jinja"))
    assert engine.pairs[0].context == "Summarise the text. A tool. or A weather tool.? Brief!"
    (problem,) = JudgeConfig(compare="lead", prompt="no_such").problems()
    assert "no prompt no_such" in problem and "judge_output, judge_response" in problem


def test_a_probe_compares_with_the_corrupted_output_in_both_orders() -> None:
    """A judge that says A with 0.9 if the true output is first and with 0.6 if it is second."""

    def measure(pair: Pair) -> list[float]:
        first = 0.9 if "Answer A: TRUE" in pair.context else 0.6
        return [math.log(first if pair.target == " A" else 1 - first)]

    pairs = inputs(["TRUE 1", "TRUE 2"]).append_column("corrupted", pa.array(["other 1", "other 2"]))
    found = JudgeFilter(JudgeConfig(compare="reference"), ScriptedEngine(measure=measure)).probe(pairs)
    assert found.schema == PROBED
    for row in found.to_pylist():
        assert (row["preference_first"], row["preference_second"]) == (pytest.approx(0.9), pytest.approx(0.4))
        assert (row["score_true"], row["score_corrupted"]) == (pytest.approx(0.65), pytest.approx(0.35))
    probing = JudgeConfig(compare="lead", self_test=7).probing
    assert (probing.pairs, probing.by, probing.off) == (7, "answers", None)
    assert JudgeConfig(compare="lead", self_test=0).probing.off == "its self_test is 0"


TEXTS = st.text(max_size=30) | st.sampled_from(["\u202eאבג", "word " * 20000, "\x00", "{{ x }}", "A", "Better answer: A"])


@given(st.lists(TEXTS, max_size=4), TEXTS, st.sampled_from(["reference", "lead"]))
def test_any_row_has_its_place_and_its_own_scores(outputs: list[str], document: str, compare: str) -> None:
    table = inputs(["A tool.", *outputs], document, document or None)

    def measure(pair: Pair) -> list[float]:
        return [-float(len(pair.context) % 7) - (pair.target == " A")]

    whole = score(ScriptedEngine(measure=measure), table, compare=compare)
    alone = [score(ScriptedEngine(measure=measure), table.slice(i, 1), compare=compare)[0] for i in range(table.num_rows)]
    for row, single in zip(whole, alone, strict=True):
        assert row.keys() == single.keys()
        assert all(row[name] == pytest.approx(single[name], nan_ok=True) for name in row if name != "candidate_id")
