"""Grades, against engines whose answers the test makes up, and against a naive oracle on a tiny model."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from pydantic import ValidationError

from helpers import tiny_engines
from helpers.scripted_engine import ScriptedEngine, completion
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import build
from limbeck.cluster.engines.protocol import Completion, Engine, Message, Pair, Request
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.filters.config import Cost
from limbeck.filters.contract import PROBED, Filter, ProbedFilter
from limbeck.filters.models.closed_questions import reading
from limbeck.filters.models.grade import GradeConfig, GradeFilter

DOCUMENT = "Quern reads weather files. It draws maps. It is free."
TWO: dict[str, Any] = {"complexity": {}, "quality": {}}


def inputs(
    outputs: Sequence[str | None], document: str | None = DOCUMENT, prompt: str | None = "Summarise the text."
) -> pa.Table:
    rows = [
        {"candidate_id": f"id{i}", "seed": 100 + i, "prompt": prompt, "document": document, "reference": None, "output": output}
        for i, output in enumerate(outputs)
    ]
    names = ["candidate_id", "seed", "prompt", "document", "reference", "output"]
    return pa.Table.from_pylist(rows, schema=pa.schema([SCORED_INPUT.field(name).with_nullable(True) for name in names]))


def score(engine: Engine, table: pa.Table, **config: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = GradeFilter(GradeConfig.model_validate(config), engine).score(table).to_pylist()
    return rows


def grade_of(pair: Pair) -> int:
    return int(pair.target)


def always(grade: int) -> ScriptedEngine:
    return ScriptedEngine(measure=lambda pair: [0.0 if grade_of(pair) == grade else -50.0])


@given(st.lists(st.floats(0.001, 1), min_size=5, max_size=5), st.floats(0.01, 1))
def test_the_expected_grade_is_that_of_the_normalised_probabilities(weights: list[float], answered: float) -> None:
    shares = np.array(weights) / sum(weights)

    def measure(pair: Pair) -> list[float]:
        logprob = math.log(shares[grade_of(pair) - 1] * answered)
        return [logprob / 3, logprob * 2 / 3]  # two tokens

    engine = ScriptedEngine(measure=measure)
    (row,) = score(engine, inputs(["A tool."]))
    mean = sum((i + 1) * share for i, share in enumerate(shares))
    assert row["score"] == row["summary"] == row["weakest"] == pytest.approx(mean, rel=1e-5)
    assert row["spread"] == pytest.approx(math.sqrt(sum((i + 1 - mean) ** 2 * share for i, share in enumerate(shares))), abs=1e-4)
    assert row["answered"] == pytest.approx(answered, rel=1e-5)
    assert [pair.target for pair in engine.pairs] == [" 1", " 2", " 3", " 4", " 5"]


@given(*[st.lists(st.floats(0.01, 1), min_size=5, max_size=5)] * 2)
def test_several_aspects_are_multiplied(one: list[float], other: list[float]) -> None:
    """Against the distribution of the product of two independent grades, counted out."""
    shares = [np.array(weights) / sum(weights) for weights in (one, other)]

    def measure(pair: Pair) -> list[float]:
        return [math.log(0.5 * shares["Response:" in pair.context][grade_of(pair) - 1])]

    (row,) = score(ScriptedEngine(measure=measure), inputs(["A tool."]), aspects=TWO)
    joint = [(a * b, shares[0][a - 1] * shares[1][b - 1]) for a in range(1, 6) for b in range(1, 6)]
    mean = sum(product * share for product, share in joint)
    means = [sum(grade * share for grade, share in enumerate(each, 1)) for each in shares]
    assert row["score"] == pytest.approx(mean, rel=1e-5)
    assert row["spread"] == pytest.approx(math.sqrt(sum((p - mean) ** 2 * share for p, share in joint)), abs=1e-3)
    assert (row["complexity"], row["quality"]) == (pytest.approx(means[0]), pytest.approx(means[1]))
    assert row["weakest"] == pytest.approx(min(means)) and row["answered"] == pytest.approx(0.5)


def test_grades_of_a_real_engine_are_the_softmax_over_the_logits_of_the_grade_tokens(tmp_path: Path) -> None:
    """Deita's form, from the full logits of the plain model after each prompt."""
    engine = build(TransformersConfig(model=str(tiny_engines.save(tmp_path / "m", "llama")), dtype="float32", device="cpu"))
    (tmp_path / "mine.jinja").write_text("{{ output }}. Grade:")  # the model has 256 positions, one per byte
    aspects = {"brief": {"rubric": "it is brief", "prompt": str(tmp_path / "mine.jinja")}}
    outputs = ["A tool", "It draws maps"]
    rows = score(engine, inputs(outputs), aspects=aspects, scale={"lowest": 0, "highest": 3})
    plain, tokenizer = tiny_engines.plain_model(engine.loaded.folder), engine.loaded.tokenizer
    for row, output in zip(rows, outputs, strict=True):
        ids = tokenizer(f"{output}. Grade: ")["input_ids"]  # bytes are tokens: the space is common to all grades
        with torch.no_grad():
            logits = plain(torch.tensor([ids])).logits[0, -1]
        weights = torch.softmax(logits[[tokenizer(str(grade))["input_ids"][-1] for grade in range(4)]], 0).tolist()
        assert row["score"] == pytest.approx(sum(grade * weight for grade, weight in enumerate(weights)), rel=1e-3)


def test_the_questions_hold_what_their_aspects_are_about() -> None:
    engine = ScriptedEngine()
    score(
        engine,
        inputs([" A tool.\n"]),
        aspects={"brevity": {"of": "output", "rubric": "be brief."}},
        scale={"lowest": 0, "highest": 3},
    )
    (context,) = {pair.context for pair in engine.pairs}
    assert f"Text: {DOCUMENT}\n\nAnswer: A tool.\n\nGrade:" in context
    assert "criteria: be brief." in context and "from 0 (" in context and "to 3 (" in context
    assert context == context.strip()
    assert [pair.target for pair in engine.pairs] == [" 0", " 1", " 2", " 3"]
    engine = ScriptedEngine()
    score(engine, inputs(["A tool."]), aspects=TWO)
    complexity, quality = list(dict.fromkeys(pair.context for pair in engine.pairs))
    assert complexity.endswith(f"Task: Summarise the text.\n\nInput: {DOCUMENT}\n\nGrade:") and "A tool." not in complexity
    assert quality.endswith(f"Task: Summarise the text.\n\nInput: {DOCUMENT}\n\nResponse: A tool.\n\nGrade:")
    assert "several steps" in complexity and "does what the task asks" in quality


@pytest.mark.parametrize("document", ["", None, "the text"])
def test_an_input_is_shown_if_there_is_one_and_the_instruction_does_not_have_it(document: str | None) -> None:
    engine = ScriptedEngine()
    score(engine, inputs(["A tool."], document), aspects={"quality": {}})
    assert {pair.context.partition("fully)")[2] for pair in engine.pairs} == {
        ". Reply with the grade alone.\n\nTask: Summarise the text.\n\nResponse: A tool.\n\nGrade:"
    }


def test_new_instructions_are_graded_in_the_column_of_the_output() -> None:
    engine = ScriptedEngine()
    score(engine, inputs(["List three rivers."], ""), aspects={"clarity": {}}, instruction="output")
    assert {pair.context.partition("Task: ")[2] for pair in engine.pairs} == {"List three rivers.\n\nGrade:"}


def test_equal_questions_are_asked_once_and_an_empty_text_has_the_lowest_grade() -> None:
    engine = always(4)
    rows = score(engine, inputs(["A tool.", "", "A tool.", None, "   "]))
    assert len(engine.pairs) == 5
    assert [row["score"] for row in rows] == pytest.approx([4, 1, 4, 1, 1])
    assert [row["answered"] for row in rows] == pytest.approx([1] * 5)
    (row,) = score(always(4), inputs(["A tool."], prompt=None), aspects=TWO)
    assert (row["complexity"], row["quality"], row["score"]) == (1, pytest.approx(4), pytest.approx(4))


def test_what_does_not_fit_is_no_number() -> None:
    engine = ScriptedEngine(measure=lambda pair: [math.nan if "long" in pair.context else -1.0])
    rows = score(engine, inputs(["A tool.", "A long one."]))
    assert rows[0]["score"] == pytest.approx(3)
    assert all(math.isnan(rows[1][name]) for name in ("score", "summary", "weakest", "spread", "answered"))
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
        "summary": 4.0,
        "weakest": 4.0,
        "spread": pytest.approx(math.sqrt(2 / 3)),
        "answered": 0.75,
    }
    assert math.isnan(rows[1]["score"]) and math.isnan(rows[1]["spread"]) and rows[1]["answered"] == 0
    request = engine.requests[0]
    assert isinstance(request.prompt, tuple) and isinstance(request.prompt[0], Message)
    assert (request.sampling.temperature, request.sampling.max_new_tokens) == (0.5, 8)


def test_seeds_depend_on_the_candidate_the_aspect_and_the_draw_alone() -> None:
    first, second = ScriptedEngine(), ScriptedEngine()
    table = inputs(["A.", "B.", "C."])
    score(first, table, sampling={"samples": 2}, aspects=TWO)
    score(second, table.slice(2, 1), sampling={"samples": 2, "style": "plain"}, aspects=TWO)
    seeds = [request.seed for request in first.requests]
    assert len(set(seeds)) == 12  # three candidates, two aspects, two samples
    assert [request.seed for request in second.requests] == seeds[4:6] + seeds[10:12]
    assert isinstance(second.requests[0].prompt, str)


def test_an_engine_s_error_is_no_answer() -> None:
    failing = ScriptedEngine(answer=lambda request: Completion(request.request_id, "", (), "error", 9, "too long"))
    (row,) = score(failing, inputs(["A tool."]), sampling={})
    assert math.isnan(row["score"]) and row["answered"] == 0


@pytest.mark.parametrize("config", [{}, {"aspects": TWO}, {"sampling": {}}, {"aspects": TWO, "sampling": {}}])
def test_no_candidates_no_scores_and_the_same_columns(config: dict[str, Any]) -> None:
    filter_ = GradeFilter(GradeConfig.model_validate(config), ScriptedEngine(answer=lambda request: completion(request, "4")))
    none = filter_.score(inputs([]))
    assert none.num_rows == 0
    assert none.schema == filter_.score(inputs(["A tool."])).schema
    assert tuple(none.column_names[1:]) == GradeConfig.model_validate(config).columns
    assert all(field.metadata[b"unit"] for field in none.schema if field.type == pa.float64())


def test_config_and_limits() -> None:
    config = GradeConfig(engine=TransformersConfig(model="some/model"), min_score=3.5, max_spread=1.0)
    assert [(bound.column, bound.minimum, bound.maximum) for bound in config.bounds] == [
        ("score", 3.5, None),
        ("spread", None, 1.0),
    ]
    assert set(config.reasons) == set(config.limit_fields())
    assert config.cost is Cost.GENERATION
    assert config.models == {"engine.model": "some/model"}
    assert config.scoring()["asked"]["summary"][2].startswith("You grade answers")
    assert "self_test" not in config.scoring() and "min_score" not in config.scoring()
    assert config.problems() == []

    class Provider:
        def get(self, config: TransformersConfig) -> Engine:
            return ScriptedEngine()

    filter_ = config.build(Provider())  # type: ignore[arg-type]
    assert isinstance(filter_, Filter) and isinstance(filter_, ProbedFilter) and filter_.bounds == config.bounds
    with pytest.raises(LimbeckError, match="filter grade has no engine"):
        GradeConfig().build(Provider())  # type: ignore[arg-type]
    for wrong, message in [
        ({"scale": {"lowest": 5, "highest": 5}}, "must be below"),
        ({"aspects": {}}, "at least 1 item"),
        ({"aspects": {"wit": {}}}, "aspects.wit: set its rubric, or use one of the built-in aspects summary"),
        ({"aspects": {"score": {"rubric": "x"}}}, "'score' cannot be the name of an aspect"),
        ({"aspects": {"two words": {"rubric": "x"}}}, "cannot be the name"),
        ({"compare": "lead"}, "unknown key 'compare'"),
    ]:
        with pytest.raises(ValidationError, match=message):
            GradeConfig.model_validate(wrong)


def test_an_aspect_with_a_built_in_name_keeps_what_it_is_about() -> None:
    config = GradeConfig.model_validate({"aspects": {"complexity": {"rubric": "it is long"}, "wit": {"rubric": "it is witty"}}})
    assert (config.subject("complexity"), config.subject("wit")) == ("instruction", "response")
    assert config.rubric("complexity") == "it is long" and config.of_outputs == ("wit",)


def test_a_prompt_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("Is {{ output }} in {{ document }}? {{ lowest }}-{{ highest }} \n")
    engine, mine = ScriptedEngine(), {"summary": {"prompt": str(path)}}
    score(engine, inputs(["{{ evil }} {% x %}"]), aspects=mine)
    assert engine.pairs[0].context == f"Is {{{{ evil }}}} {{% x %}} in {DOCUMENT}? 1-5"
    assert GradeConfig.model_validate({"aspects": mine}).scoring() != GradeConfig().scoring()
    for text, message in [
        ("{{ summary }}", "aspects.summary: the prompt .* does not render: 'summary' is undefined; it may use `document`"),
        ("{% if", "is not a Jinja template"),
    ]:
        path.write_text(text)
        (problem,) = GradeConfig.model_validate({"aspects": mine}).problems()
        assert re.search(message, problem), problem
    (problem,) = GradeConfig.model_validate({"aspects": {"summary": {"prompt": "no_such"}}}).problems()
    assert "no prompt no_such" in problem and "grade_instruction, grade_output, grade_response" in problem


def pairs_of(outputs: Sequence[str], corrupted: Sequence[str]) -> pa.Table:
    return inputs(outputs).append_column("corrupted", pa.array(corrupted, pa.string()))


def test_a_probe_grades_both_outputs_and_compares_them_in_both_orders() -> None:
    """The engine likes what is true: grade 5 against 2, and it names the true one in both orders with 0.8."""

    def measure(pair: Pair) -> list[float]:
        if pair.target.strip() in "AB":
            true_first = pair.context.index("TRUE") < pair.context.index("FALSE")
            return [math.log(0.8 if (pair.target == " A") == true_first else 0.2)]
        return [0.0 if grade_of(pair) == (5 if "TRUE" in pair.context else 2) else -50.0]

    engine = ScriptedEngine(measure=measure)
    filter_ = GradeFilter(GradeConfig.model_validate({"aspects": {"complexity": {}, "quality": {}, "summary": {}}}), engine)
    found = filter_.probe(pairs_of(["TRUE 1", "TRUE 2"], ["FALSE 1", "FALSE 2"]))
    assert found.schema == PROBED
    for row in found.to_pylist():
        assert (row["preference_first"], row["preference_second"]) == (pytest.approx(0.8), pytest.approx(0.8))
        assert (row["score_true"], row["score_corrupted"]) == (
            pytest.approx(25),
            pytest.approx(4),
        )  # of two aspects: not complexity
    assert not any("several steps" in pair.context for pair in engine.pairs)
    compared = [pair.context for pair in engine.pairs if pair.target == " A"]
    assert all(text.startswith("You compare two responses") and "does what the task asks" in text for text in compared)


def test_what_a_self_test_can_test() -> None:
    both, one, none = (GradeConfig.model_validate({"aspects": a}).probing for a in (TWO, {"summary": {}}, {"complexity": {}}))
    assert (both.pairs, both.by, both.texts, both.off) == (50, "scores", 4, None) and one.texts == 4
    assert none.pairs == 0 and none.off is not None and "instructions alone" in none.off
    off = GradeConfig(self_test=0).probing
    assert (off.pairs, off.off) == (0, "its self_test is 0")
    with pytest.raises(ValidationError):
        GradeConfig(self_test=-1)


TEXTS = st.text(max_size=30) | st.sampled_from(["\u202eאבג", "word " * 20000, "\x00", "{{ x }}", "4", "Grade: 5"])


@given(st.lists(TEXTS, max_size=4), TEXTS, st.sampled_from([{"summary": {}}, TWO]))
def test_any_row_has_its_place_and_its_own_scores(outputs: list[str], document: str, aspects: dict[str, Any]) -> None:
    table = inputs(["A tool.", *outputs], document)

    def measure(pair: Pair) -> list[float]:
        return [-float(len(pair.context) % 7) - (pair.target == " 2")]

    whole = score(ScriptedEngine(measure=measure), table, aspects=aspects)
    alone = [score(ScriptedEngine(measure=measure), table.slice(i, 1), aspects=aspects)[0] for i in range(table.num_rows)]
    for row, single in zip(whole, alone, strict=True):
        assert row.keys() == single.keys()
        assert all(row[name] == pytest.approx(single[name], nan_ok=True) for name in row if name != "candidate_id")
