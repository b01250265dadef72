"""`limbeck check` on a filter whose model is an installed Python package."""

from pathlib import Path

import pytest

from helpers.tiny_classifier import make_classifier
from helpers.tiny_run import recipe
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.check import find_problems


def test_a_parser_is_found_by_import_and_in_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a model hub nor its cache knows a spaCy pipeline, even if it exists."""
    classifier = {"model": str(make_classifier(tmp_path / "classifier")), "dtype": "float32"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def problems(parser: dict[str, str]) -> list[str]:
        filters = [{"kind": "equivalence", "classifier": classifier, "parser": parser}]
        given = recipes.validate(recipe(tmp_path, filters=filters, student=None, rounds=1), "x")
        assert not any("parser" in key for filter_ in given.filters for key in filter_.models)
        return find_problems(given, tmp_path)

    pytest.importorskip("spacy")
    assert problems({}) == []
    (tmp_path / "my_pipeline").mkdir()
    (tmp_path / "my_pipeline/__init__.py").write_text("")
    (found,) = problems({"model": "my_pipeline"})
    assert found.endswith("the parser my_pipeline is not installed; run: pip install my-pipeline")
    monkeypatch.syspath_prepend(tmp_path)
    assert problems({"model": "my_pipeline"}) == []
