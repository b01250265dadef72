"""Constraints as data: when a phrase occurs, inflections, and what is refused."""

import random
import re

import pytest

from limbeck.cluster.engines.constraint import Clause, Constraint, inflections, occurs
from limbeck.corpus import extras

ALPHABET = "abA _-.é"


def test_a_phrase_occurs_between_word_boundaries() -> None:
    """Against a regular expression, on random texts."""
    rng = random.Random(0)
    found = 0
    for _ in range(4000):
        phrase = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 3))).strip() or "a"
        text = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, 12)))
        forms = {phrase, phrase[0].upper() + phrase[1:], phrase.upper()}
        whole = "|".join(
            (r"(?<!\w)" if re.match(r"\w", form) else "") + re.escape(form) + (r"(?!\w)" if re.search(r"\w$", form) else "")
            for form in forms
        )
        assert occurs(phrase, text) == bool(re.search(whole, text)), (phrase, text)
        assert occurs(phrase, text, whole_words=False) == any(form in text for form in forms)
        found += occurs(phrase, text)
    assert found > 400


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("run", "He is running", False),
        ("run", "a run-up", True),
        ("dog", "the dog's bone", True),
        ("dog", "DOG!", True),
        ("us", "the US", True),
        ("US", "us", False),
        ("हिन्द", "हिन्दी", False),
        ("dog", "“dog”", True),
        ("C++", "C++20", True),
    ],
)
def test_examples(phrase: str, text: str, expected: bool) -> None:
    assert occurs(phrase, text) is expected


def test_unmet_names_clauses_of_both_polarities() -> None:
    constraint = Constraint.of([["dog", "dogs"], "ball"], ["cat", "cats"])
    assert constraint.clauses[2] == Clause(("cat", "cats"), positive=False)
    assert constraint.unmet("Dogs, a ball") == ()
    assert constraint.unmet("A cat has a ball.") == (0, 2)
    assert Constraint().unmet("anything") == ()


def test_inflections() -> None:
    assert inflections("run") == ("run", "ran", "running", "runs")
    assert inflections("knife")[0] == "knife" and "knives" in inflections("knife")
    assert set(inflections("child")) >= {"child", "children"}
    assert inflections("repaired") == ("repaired", "repair", "repairing", "repairs")
    assert inflections("children") == ("children", "child") and {"seen", "sawed"} < set(inflections("saw"))
    assert inflections("zorbifrax") == ("zorbifrax", "zorbifraxes")
    constraint = Constraint.of([inflections("run")])
    assert constraint.unmet("He was running.") == () and constraint.unmet("A runner.") == (0,)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "lemminflect")
    with pytest.raises(extras.MissingExtra, match=r"^inflecting words needs lemminflect.*pip install 'limbeck\[inflections\]'$"):
        inflections("dog")
