"""`limbeck check` on recipes that could keep no row: filters on texts that no row has, and on more samples than are drawn."""

from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_run import recipe
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.check import find_problems

DRAWS = {"kind": "draws", "count": 40}
MAGPIE = {"kind": "magpie", "instruction": {"max_new_tokens": 20}, "response": {"max_new_tokens": 20}}
WITH_DOCUMENT = "use sources that have one (all kinds but draws; document_column names that of a table)"
WITH_REFERENCE = "use sources that have one (reference_column names that of a table)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


def problems(home: Path, **changes: Any) -> list[str]:
    given = {"filters": [{"kind": "heuristics"}], "student": None, "rounds": 1, "generator": MAGPIE, "sources": DRAWS, **changes}
    return find_problems(recipes.validate(recipe(home, **given), "x"), home / "run")


def documents(home: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "jsonl", "path": str(home / "documents.jsonl"), "max_source_tokens": 200, **more}


@pytest.mark.parametrize(
    ("filter_", "field"),
    [
        ({"kind": "length"}, "max_compression"),
        ({"kind": "question_pmi"}, "min_margin"),
        ({"kind": "pmi", "min_faithfulness": 0.1}, "min_saliency"),
        ({"kind": "attributes", "min_keyword_recall": 0.5}, "min_keyword_recall"),
        ({"kind": "fluency", "name": "flow", "max_fluency": {"false_acceptance": 0.1}}, "max_fluency"),
    ],
)
def test_a_bound_on_documents_that_are_not_there_is_one_problem(home: Path, filter_: dict[str, Any], field: str) -> None:
    name = filter_.get("name", filter_["kind"])
    expected = f"filters.{name}: {field} needs the document of a row, but no row has one, so it rejects every row; "
    assert f"{expected}{WITH_DOCUMENT}, or set it to null" in problems(home, filters=[filter_])
    assert problems(home, filters=[filter_ | {field: None, "min_saliency" if name == "pmi" else field: None}]) == []


def test_a_generator_may_add_the_documents_that_its_sources_lack(home: Path) -> None:
    alpaca = {"kind": "alpaca", "style": "plain", "max_new_tokens": 20}
    assert not any("needs the document" in problem for problem in problems(home, filters=[{"kind": "length"}], generator=alpaca))


def test_references_need_their_column(home: Path) -> None:
    (problem,) = problems(home, sources=documents(home), filters=[{"kind": "answer"}])
    start = "filters.answer: min_correct needs the reference of a row, but no row has one, so it rejects every row; "
    assert problem == f"{start}{WITH_REFERENCE}, or set it to null"
    assert problems(home, sources=documents(home), filters=[{"kind": "answer", "min_correct": None}]) == []
    assert problems(home, sources=documents(home, reference_column="summary"), filters=[{"kind": "answer"}]) == []
    judged = [{"kind": "judge", "compare": "reference", "min_preference": 0.5}]
    assert problems(home, sources=documents(home), filters=judged)[0].startswith(
        "filters.judge: min_preference needs the reference"
    )
    assert problems(home, sources=documents(home), filters=[judged[0] | {"compare": "lead"}]) == []


def test_a_set_filter_on_references_is_removed(home: Path) -> None:
    drawn = MAGPIE | {"responses": 4}
    (problem,) = problems(home, select=[{"kind": "pass_rate"}], generator=drawn)
    start = "select.pass_rate: pass_rate needs the reference of a row, but no row has one, so it rejects every row; "
    assert problem == f"{start}{WITH_REFERENCE}, or remove it"
    given = documents(home, reference_column="summary")
    assert problems(home, select=[{"kind": "pass_rate"}], sources=given, generator=drawn) == []


def test_questions_about_documents_need_documents(home: Path) -> None:
    asked = {"kind": "documents_qa", "style": "chat"}
    assert "generator: documents_qa needs the document of a source, but draws have none; use other sources" in problems(
        home, generator=asked
    )


@pytest.mark.parametrize(
    ("filter_", "needed", "enough"),
    [({"kind": "vote", "min_votes": 3}, 3, 3), ({"kind": "pass_rate"}, 2, 2), ({"kind": "pass_rate", "max_rate": 0.2}, 5, 6)],
)
def test_more_samples_than_are_drawn_are_one_problem(home: Path, filter_: dict[str, Any], needed: int, enough: int) -> None:
    given = documents(home, reference_column="summary")
    few = problems(home, select=[filter_], sources=given, generator=MAGPIE | {"responses": needed - 1})
    start = (
        f"select.{filter_['kind']}: its bounds need {needed} samples of a source, but the generator draws {needed - 1}, so it "
    )
    assert few == [f"{start}rejects every row; draw more, or change its bounds"]
    assert problems(home, select=[filter_], sources=given, generator=MAGPIE | {"responses": enough}) == []
