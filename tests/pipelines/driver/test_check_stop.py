"""Rules that end a run: refused where the recipe cannot measure what they look at."""

from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_run import recipe
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.driver.check import find_problems
from limbeck.pipelines.recipe import validate

NO_MODEL = [{"kind": "length", "min_output_tokens": 1, "max_compression": 5.0}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stop")
    recipe(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 1}, "rounds is 1; raise rounds, or remove stop"),
        ({"student": None, "next_teacher": "teacher"}, "the recipe trains none; add a student, or remove stop"),
        ({"stop": {"by": "compression", "patience": 1}}, "stop.by"),
        ({"stop": {"patience": 1, "pateince": 2}}, "did you mean 'patience'"),
        (
            {"generator": {"kind": "documents_qa"}, "stop": {"max_independent_fall": 0.1}},
            r"stop.independent needs salient recall \(salient_recall\), which the task documents_qa does not measure",
        ),
    ],
)
def test_contradictions_are_refused_when_the_recipe_is_read(home: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LimbeckError, match=words):
        validate(recipe(home, **{"stop": {"patience": 1}, **changes}), "here")


def test_without_dev_sources_it_is_refused(home: Path) -> None:
    data = recipe(home, stop={"patience": 1})
    data["sources"]["split"] = {"train": 12, "dev": 0, "test": 6}
    with pytest.raises(LimbeckError, match="sources.split.dev is 0; raise it, or remove stop"):
        validate(data, "here")


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (
            {"patience": 1, "by": "rouge_l"},
            "stop.by needs ROUGE-L (rouge_l), but no row has a reference; use sources that have one",
        ),
        ({"patience": 1, "by": "faithfulness"}, "stop.by needs faithfulness (faithfulness), but no filter scores it; add one"),
        ({"patience": 1, "max_independent_fall": 0.1, "min_diversity": 0.5}, None),
    ],
)
def test_a_measure_that_has_no_values_is_a_problem(home: Path, stop: dict[str, Any], words: str | None) -> None:
    data = recipe(home, stop=stop, filters=NO_MODEL)
    data["sources"]["reference_column"] = None
    found = [problem for problem in find_problems(validate(data, "here"), home / "run") if problem.startswith("stop")]
    assert (words is None and not found) or (len(found) == 1 and words is not None and words in found[0])
