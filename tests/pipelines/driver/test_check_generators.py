"""`limbeck check` on generators that need more of a teacher: a chat template that can be cut, or completions held to a schema."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_run import recipe
from limbeck.generators.summaries import SummariesConfig
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.check import find_problems

MOVED = "{{ messages[-1].content | length }}{{ messages[-1].content }}<|im_end|>"
SCHEMA = {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    recipe(tmp_path)
    return tmp_path


def made(home: Path, generator: dict[str, Any], teacher: dict[str, Any] | None = None, **sources: Any) -> recipes.Recipe:
    changes: dict[str, Any] = {
        "filters": [{"kind": "length", "max_compression": None}],
        "student": None,
        "rounds": 1,
        "generator": generator,
    }
    if generator["kind"] == "magpie":
        changes["sources"] = {"kind": "draws", "count": 40, **sources}
    if teacher is not None:
        changes["teacher"] = {"model": str(home / "model"), **teacher}
    return recipes.validate(recipe(home, **changes), "x")


def with_template(home: Path, template: str | None) -> None:
    """Replace the chat template of the tiny model."""
    (home / "model/chat_template.jinja").unlink(missing_ok=True)
    settings = home / "model/tokenizer_config.json"
    said = json.loads(settings.read_text())
    said.pop("chat_template", None)
    settings.write_text(json.dumps(said if template is None else {**said, "chat_template": template}))


SHORT = {"kind": "magpie", "instruction": {"max_new_tokens": 20}, "response": {"max_new_tokens": 20}}


def test_a_teacher_whose_template_can_be_cut_has_no_problem(home: Path) -> None:
    assert find_problems(made(home, SHORT), home / "run") == []
    varied = made(home, {**SHORT, "turns": 2, "system": "You talk to {{ who }}."}, vary={"who": ["a cook"]})
    assert find_problems(varied, home / "run") == []


def test_a_template_that_cannot_be_cut_is_one_problem(home: Path) -> None:
    with_template(home, MOVED)
    (problem,) = find_problems(made(home, {**SHORT, "turns": 2}), home / "run")
    assert problem.startswith("teacher: the chat template of ")
    assert problem.endswith("use another model, or a generator that asks for instructions")


def test_a_base_model_is_one_problem_and_its_hint_has_no_style(home: Path) -> None:
    with_template(home, None)
    (problem,) = find_problems(made(home, SHORT), home / "run")
    assert problem == f"teacher.model {home / 'model'} has no chat template; use an instruct model"
    (problem,) = find_problems(made(home, {"kind": "documents_qa", "style": "chat"}), home / "run")
    assert "set generator.style: plain, or use an instruct model" in problem


def test_a_system_text_that_does_not_render_is_one_problem(home: Path) -> None:
    (problem,) = find_problems(made(home, {**SHORT, "system": "{{ who }}"}), home / "run")
    assert problem.startswith("generator: generator.system does not render: 'who' is undefined")


def test_a_schema_needs_an_engine_that_holds_to_it(home: Path) -> None:
    generator = {"kind": "documents_qa", "question": {"json_schema": SCHEMA}}
    expected = (
        "generator.question.json_schema: an engine of kind transformers does not hold completions to a schema; use vllm or "
        "endpoint, or remove it"
    )
    assert find_problems(made(home, generator), home / "run") == [expected]
    assert expected in find_problems(made(home, generator, {"kind": "auto"}), home / "run")
    for kind in ("vllm", "endpoint"):
        found = find_problems(made(home, generator, {"kind": kind}), home / "run")
        assert not any("json_schema" in problem for problem in found)


def test_a_constraint_needs_an_engine_that_searches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SummariesConfig, "constrained", ("summary",))
    sentence = "generator.summary.constraint: an engine of kind {} does not support constraints; use transformers, or remove it"
    assert find_problems(made(home, {"kind": "summaries"}), home / "run") == []
    for kind in ("vllm", "endpoint"):
        assert sentence.format(kind) in find_problems(made(home, {"kind": "summaries"}, {"kind": kind}), home / "run")


def test_the_yield_ladder_needs_an_engine_that_searches(home: Path) -> None:
    def found(teacher: dict[str, Any] | None, **changes: Any) -> list[str]:
        sources = {"kind": "draws", "count": 40}
        recipe_ = recipe(home, filters=[{"kind": "heuristics"}], student=None, rounds=1, sources=sources)
        recipe_["generator"] = {"kind": "yield_ladder", **changes}
        recipe_["teacher"] = {"kind": "transformers", "model": str(home / "model"), **(teacher or {})}
        return find_problems(recipes.validate(recipe_, "x"), home / "run")

    sentence = "generator.search.constraint: an engine of kind {} does not support constraints; use transformers, or remove it"
    for kind in ("vllm", "endpoint"):
        assert sentence.format(kind) in found({"kind": kind})
        assert sentence.format(kind) not in found({"kind": kind}, search=None), "the other ways need no search"
    assert not any("search" in problem for problem in found(None))


def test_pmi_decoding_needs_an_engine_that_has_it(home: Path) -> None:
    generator = {"kind": "summaries", "contrast": {"weight": 0.0625}}
    assert find_problems(made(home, generator), home / "run") == []
    assert find_problems(made(home, generator, {"kind": "auto"}), home / "run") == []
    for kind in ("vllm", "endpoint"):
        found = find_problems(made(home, generator, {"kind": kind}), home / "run")
        expected = f"generator.contrast: an engine of kind {kind} has no PMI decoding; use transformers, or remove the section"
        assert expected in found
        assert not any("contrast" in problem for problem in find_problems(made(home, {"kind": "summaries"}), home / "run"))
