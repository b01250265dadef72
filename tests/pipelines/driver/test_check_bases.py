"""`limbeck check` on what students start from: sizes, families, vocabularies and text, before any model is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_run import recipe
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.check import estimate, find_problems

DRAWS = {"kind": "draws", "count": 40}
MAGPIE = {"kind": "magpie", "instruction": {"max_new_tokens": 20}, "response": {"max_new_tokens": 20}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def problems(home: Path, *bases: dict[str, Any], **changes: Any) -> list[str]:
    students = [{"kind": "sft", "base": base} for base in bases]
    given = {"student": students if len(students) > 1 else students[0], "rounds": len(students), **changes}
    return find_problems(recipes.validate(recipe(home, **given), "x"), home / "run")


def test_layers_are_compared_with_the_teacher_of_the_round(home: Path) -> None:
    assert problems(home, {"kind": "layers", "layers": 2}, {"kind": "layers", "layers": 1}) == []
    assert problems(home, {"kind": "layers", "layers": 5}) == [
        "student: the teacher has 2 layers, fewer than the 5 to keep; lower base.layers"
    ]
    growing = {"kind": "layers", "layers": 1}, {"kind": "layers", "layers": 2}
    assert problems(home, *growing) == ["student.1: the teacher has 1 layers, fewer than the 2 to keep; lower base.layers"]
    assert problems(home, *growing, next_teacher="teacher") == []
    scratch = {"kind": "scratch", "layers": 4, "width": 16, "heads": 2}
    assert problems(home, scratch, {"kind": "layers", "layers": 3}) == []


def test_a_teacher_of_another_family_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = home / "model" / "config.json"
    before = settings.read_text() if settings.exists() else recipe(home) and settings.read_text()
    try:
        settings.write_text(json.dumps({**json.loads(str(before)), "model_type": "falcon"}))
        for base in ({"kind": "layers", "layers": 1}, {"kind": "scratch", "layers": 1, "width": 16, "heads": 2}):
            (problem,) = problems(home, base)
            assert (
                problem.startswith(f"student.base: kind: {base['kind']} knows the families arcee, ")
                and "family falcon" in problem
            )
    finally:
        settings.write_text(str(before))


def test_bases_need_documents_or_a_text(home: Path) -> None:
    given = {"sources": DRAWS, "generator": MAGPIE, "filters": [{"kind": "heuristics"}]}
    (problem,) = problems(home, {"kind": "layers", "layers": 1}, **given)
    assert problem.startswith("student: a base that is cut") and problem.endswith("or set base.healing.text")
    own = {"text": {"kind": "installed-packages"}}
    assert problems(home, {"kind": "layers", "layers": 1, "healing": own}, **given) == []
    assert problems(home, {"kind": "teacher"}, **given) == []


def test_a_text_that_is_not_there_is_refused(home: Path) -> None:
    base = {"kind": "teacher", "healing": {"text": {"kind": "text", "path": str(home / "none")}}}
    (problem,) = problems(home, base)
    assert problem.startswith("student.base.healing.text: ") and str(home / "none") in problem


def test_a_vocabulary_that_cannot_be_trimmed_is_refused(home: Path) -> None:
    assert problems(home, {"kind": "teacher", "vocabulary": {"keep": 0.9}}) == []
    file = home / "model" / "tokenizer.json"
    before = file.read_text()
    try:
        content = json.loads(before)
        content["model"]["end_of_word_suffix"] = "</w>"
        file.write_text(json.dumps(content))
        (problem,) = problems(home, {"kind": "teacher", "vocabulary": {}})
        assert problem.startswith("student.base.vocabulary: the tokenizer of") and "end_of_word_suffix" in problem
    finally:
        file.write_text(before)


def test_the_estimate_counts_the_text(home: Path) -> None:
    documents = {"used": 12, "train": 12, "dev": 4, "test": 6, "document_tokens": 400}

    def tokens(**base: Any) -> int:
        given = recipes.validate(recipe(home, student={"kind": "sft", "base": base}, rounds=2), "x")
        return int(estimate(given, documents, 1000)["tokens"]["train"])

    assert tokens(kind="layers", layers=1) - tokens(kind="teacher") == 2 * 200_000
