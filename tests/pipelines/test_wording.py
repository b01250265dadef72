"""Wrong values of a recipe: one sentence per key with what it may be, and no text of the validation library."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines import recipe as recipes

LIBRARY = re.compile(r"Input |should |Tuple|instance of|valid dictionary|pydantic|\[type=")


def refused(*settings: str) -> str:
    """The error for the quickstart with these settings."""
    with pytest.raises(LimbeckError) as caught:
        recipes.load("quickstart", settings)
    assert not LIBRARY.search(str(caught.value)), caught.value
    return str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seed=1.5", "seed: expected an integer (it is 1.5)"),
        ("calibration.pass_rate=2", "calibration.pass_rate: must be at most 1.0 (it is 2)"),
        ("student.learning_rate=.inf", "student.learning_rate: expected a finite number (it is inf)"),
        (
            "filters.pmi.min_faithfulness=nan",
            "filters.pmi.min_faithfulness: expected a number, 'calibrated' or a mapping (it is 'nan')",
        ),
        (
            "filters.pmi.min_faithfulness={false_acceptance: x}",
            "filters.pmi.min_faithfulness.false_acceptance: expected a number",
        ),
        ("filters.pmi.min_faithfulness={false_acceptanc: 1}", "unknown key 'false_acceptanc'; did you mean 'false_acceptance'?"),
        ("sources.split={train: a}", "sources.split.train: expected a number (it is 'a')"),
        ("sources.kind=jsn", "sources: unknown kind 'jsn'; did you mean 'jsonl'?"),
        ("sources={path: texts}", "sources: kind is missing"),
        ("sources={kind: text}", "sources.path: is missing"),
        ("rows.kind=alpca", "rows: unknown kind 'alpca'; did you mean 'alpaca'? known are chat, plain, alpaca,"),
        ("next_teacher=studnet", "next_teacher: expected 'student' or 'teacher' (it is 'studnet'); did you mean 'student'?"),
        ("filters=3", "filters: expected a list (it is 3)"),
        ("filters=[]", "filters: needs at least 1 entry"),
        ("select=[1]", "select.0: expected a mapping with the settings of one set filter (it is 1)"),
        ("name=../x", "name: must match"),
        ("rounds=0", "rounds: must be at least 1 (it is 0)"),
        (f"generator.samples={10**28}", f"generator.samples: must be at most 10000 (it is {10**28})"),
        ("generator.samples=10001", "generator.samples: must be at most 10000 (it is 10001)"),
        ("generator.max_new_tokens=1000001", "generator.max_new_tokens: must be at most 1000000"),
        ("evaluation.dev_samples=10001", "evaluation.dev_samples: must be at most 10000"),
        ("rounds=1001", "rounds: must be at most 1000 (it is 1001)"),
        (f"seed={2**63}", f"seed: must be at most {2**63 - 1}"),
        ("target=1000000001", "target: must be at most 1000000000"),
        (f"calibration.parts={10**28}", f"calibration.parts: must be at most {2**63 - 1}"),
        ("sources.split={train: 1000000001, dev: 1, test: 1}", "the counts of a split must be at most 1000000000"),
        (f"cluster.rows_per_part={10**28}", f"cluster.rows_per_part: must be at most {2**63 - 1}"),
        ("student.epochs=10001", "student.epochs: must be at most 10000"),
        ("cluster.workers=10001", "cluster.workers: must be at most 10000"),
        ("filters=[", "--set filters=[ is not YAML"),
        ("cluster={nodes: 1, nodes: 2}", "the key 'nodes' occurs twice"),
    ],
)
def test_one_sentence_with_the_key_and_what_it_may_be(setting: str, words: str) -> None:
    assert words in refused(setting)


def test_an_entry_that_is_wrong_does_not_also_make_its_list_wrong() -> None:
    assert refused("filters=[{kind: pmy}]").count(": ") == 2  # the recipe, the key


def test_every_wrong_key_is_named() -> None:
    said = refused("seed=-1", "rounds=x", "filters.0.max_copied=y")
    assert all(words in said for words in ("seed: must", "rounds: expected", "filters.heuristics.max_copied: expected"))


def test_two_entries_of_one_kind_are_named_by_position() -> None:
    said = refused("filters=[{kind: length, max_compression: x}, {kind: length, name: other}, {kind: length}]")
    assert "filters.0.max_compression" in said


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("2E-5", 2e-5), ("+.5e1", 5.0), ("1.e0", 1.0)])
def test_a_number_with_an_exponent_is_a_number(text: str, value: float) -> None:
    assert recipes.load("quickstart", [f"generator.temperature={text}"]).generator.temperature == value  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["e3", "1e", "1e3x", "v1e3"])
def test_text_that_resembles_one_stays_text(text: str) -> None:
    assert recipes.load("quickstart", [f"name=n{text}"]).name == f"n{text}"
    assert f"(it is {text!r})" in refused(f"generator.temperature={text}")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "samples", "train", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(recipes.Recipe.model_fields)), values)
def test_whatever_the_value_it_is_taken_or_refused_in_our_words(section: str, value: object) -> None:
    data = recipes.recipe_files.read(recipes.recipe_files.find("quickstart"))
    try:
        recipes.validate({**data, section: value}, "recipe")
    except LimbeckError as error:
        assert not LIBRARY.search(str(error).replace(repr(value), "")), error
