"""Corruptions: each changes exactly what it names, and nothing else."""

import json
import re
from collections.abc import Sequence
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from helpers.paths import ROOT
from limbeck.corpus.packages import read_packages
from limbeck.corpus.seed_texts import read_seed_tasks
from limbeck.corpus.sentences import split_sentences
from limbeck.filters.corruptions import CORRUPTIONS, names
from limbeck.filters.nli_model import words

OTHERS = (
    "The mill grinds barley for the brewery in Oslo. It was restored by students, which took nine summers.",
    "Quern reads 40 weather files, because its author needed them.",
    "Anna sells bread. The shop is closed on Mondays.",
)
SUBTLE = [name for name, corruption in CORRUPTIONS.items() if corruption.subtle]
FIGURE = re.compile(rf"\d[\d,.]*|\b{words.one_of(tuple(words.NUMBERS.values()))}\b", re.IGNORECASE)


def corrupt(name: str, text: str, seed: int = 0, others: Sequence[str] = OTHERS) -> str | None:
    return CORRUPTIONS[name].apply(text, others, Random(seed))


def all_of(name: str, text: str, others: Sequence[str] = OTHERS) -> set[str | None]:
    return {corrupt(name, text, seed, others) for seed in range(60)}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Answers of the seed tasks, and the first sentences of package descriptions."""
    seeds = [row["output"] for row in read_seed_tasks(str(ROOT / "generators/self_instruct/seed_tasks.jsonl"))]
    return seeds + [" ".join(split_sentences(row.text)[:3]) for row in read_packages() if len(row.text or "") > 200][:80]


@pytest.fixture(scope="module")
def corrupted(texts: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Every text with each of its corruptions: name → (text, corrupted)."""
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in CORRUPTIONS}
    for place, text in enumerate(texts):
        for name in CORRUPTIONS:
            draw = Random(place)
            others = draw.sample([other for other in texts if other != text], 16)
            if (changed := CORRUPTIONS[name].apply(text, others, draw)) is not None:
                found[name].append((text, changed))
    return found


def test_one_is_easy_and_five_are_subtle() -> None:
    assert {name: corruption.subtle for name, corruption in CORRUPTIONS.items()} == {
        "other_output": False,
        **dict.fromkeys(("number", "name", "negation", "clause_added", "clause_dropped"), True),
    }


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("It has 12 doors.", r"It has (?!12 )\d+ doors\."),
        ("It has two doors.", r"It has (?!two )(three|four|five|six|seven|eight|nine|ten|eleven|twelve) doors\."),
        ("It costs $1,500 now.", r"It costs \$(?!1,500)[\d,]+ now\."),
        ("Released in 1998.", r"Released in (?!1998)(19[6789]\d|200\d)\."),
        ("Pi is 3.14.", r"Pi is 3\.(?!14)\d\d\."),
        ("It needs Python 3.11.2 here.", r"It needs Python 3\.11\.(?!2 )\d here\."),
        ("1. Boil it.\n2. Wait 5 minutes.", r"1\. Boil it\.\n2\. Wait (?!5 )\d+ minutes\."),
    ],
)
def test_one_number_is_changed(text: str, pattern: str) -> None:
    for changed in all_of("number", text):
        assert changed is not None and re.fullmatch(pattern, changed), changed


@pytest.mark.parametrize("text", ["It has doors.", "Use utf-8 and Python3.", "1. Boil.\n2. Wait.", "See example.org/404.", ""])
def test_no_number_no_change(text: str) -> None:
    assert all_of("number", text) == {None}


def test_one_name_is_changed_wherever_it_is() -> None:
    found = all_of("name", "Maria met a friend in Paris. Paris was full.")
    assert found and None not in found
    for changed in found:
        assert changed is not None
        match = re.fullmatch(r"(\w+) met a friend in (\w+)\. (\w+) was full\.", changed)
        assert match and match[2] == match[3] and (match[1] == "Maria") != (match[2] == "Paris"), changed
        assert match[1] in ("Maria", *words.NAMES[7]) and match[2] in ("Paris", *words.NAMES[6])
    # a name of no known kind is exchanged for one from another output that the text does not have
    assert all_of("name", "The tool uses Zephyrine daily.") == {
        f"The tool uses {name} daily." for name in ("Oslo", "Quern", "Anna", "Mondays")
    } - {"The tool uses Quern daily."}


def test_what_is_a_name() -> None:
    assert names("The mill of Oslo. It was I. Python is easy.") == ["Oslo", "Python"]
    assert names("- Frozen peas\n- New York style\nDairy from West Cork") == ["York", "West Cork"]
    assert names("no names here") == [] == names("It is. So it was! But why?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The mill is old.", {"The mill is not old.", "The mill isn't old."}),
        ("The mill is not old.", {"The mill is old."}),
        ("The shop doesn't sell bread.", {"The shop does sell bread."}),
        ("You can't swim here.", {"You can swim here."}),
        ("They won't come.", {"They will come."}),
        ("He cannot read.", {"He can read."}),
        ("Without a key, the doors of the tower would be open.", {None}),  # negated by another word: left alone
        ("Is it old?", {None}),
        ("For years, the tool uses its cache.", {"For years, the tool does not use its cache."}),
        ("A list of uses and the runs.", {None}),
    ],
)
def test_one_negation_is_added_or_removed(text: str, expected: set[str | None]) -> None:
    assert all_of("negation", text) == expected


def test_a_clause_of_another_output_is_added() -> None:
    found = all_of("clause_added", "Lena paints boats.")
    assert found == {
        "Lena paints boats, which took nine summers.",
        "Lena paints boats because its author needed them.",
        "Lena paints boats by students, which took nine summers.",
    } or all(changed and changed.startswith("Lena paints boats") and changed.endswith(".") for changed in found)
    assert all_of("clause_added", "Lena paints boats.", others=()) == {None}
    assert all_of("clause_added", "boats") == {None}, "there is no sentence"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The mill, which is old, is open.", {"The mill is open."}),
        ("It runs on Linux, because nobody ported it.", {"It runs on Linux."}),
        ("However, the mill is open.", {None}),  # one word is no clause
        ("It is free, and it has a licence.", {"It is free.", "It has a licence."}),
        ("It sleeps.", {None}),
    ],
)
def test_a_clause_is_dropped(text: str, expected: set[str | None]) -> None:
    assert all_of("clause_dropped", text) <= expected and all_of("clause_dropped", text)


def test_the_easy_one_is_another_output() -> None:
    assert all_of("other_output", "A text.") == set(OTHERS)
    assert all_of("other_output", "A text.", others=("A text.",)) == {None} == all_of("other_output", "A text.", others=())


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", text)


def middle(one: str, other: str) -> tuple[str, str]:
    """What is left of two texts without what they have in common at both ends."""
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    end = next((i for i, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), min(len(one), len(other)))
    return one[: len(one) - end], other[: len(other) - end]


def test_numbers_differ_in_one_number_only(corrupted: dict[str, list[tuple[str, str]]]) -> None:
    for text, changed in corrupted["number"]:
        before, after = FIGURE.findall(text), FIGURE.findall(changed)
        assert len(before) == len(after) and sum(a != b for a, b in zip(before, after, strict=True)) == 1, (text, changed)
        assert FIGURE.sub("#", text) == FIGURE.sub("#", changed)


def test_names_differ_in_one_name_only(corrupted: dict[str, list[tuple[str, str]]]) -> None:
    for text, changed in corrupted["name"]:
        old, new = _names_swapped(text, changed)
        assert old[:1].isupper() and new[:1].isupper() and new not in text, (text, changed)
        assert re.sub(rf"(?<!\w){re.escape(new)}(?!\w)", lambda _, old=old: old, changed) == text


def _names_swapped(text: str, changed: str) -> tuple[str, str]:
    """The only name whose replacement turns one text into the other."""
    for old in names(text):
        pieces = re.split(rf"(?<!\w){re.escape(old)}(?!\w)", text)
        first, second, *rest = map(re.escape, pieces)
        match = re.fullmatch(first + "(.+?)" + r"\1".join([second, *rest]), changed, re.DOTALL)
        if match:
            return old, match[1]
    raise AssertionError((text, changed))


def test_negations_differ_in_one_negator(corrupted: dict[str, list[tuple[str, str]]]) -> None:
    negator = re.compile(r"\b(?:not|no|never|cannot)\b|n['’]t\b")
    for text, changed in corrupted["negation"]:
        assert abs(len(negator.findall(text)) - len(negator.findall(changed))) == 1, (text, changed)
        assert abs(len(text.split()) - len(changed.split())) <= 2
        before, after = middle(text, changed)
        assert len(before.split()) <= 2 and len(after.split()) <= 3, (before, after)


def test_clauses_are_added_in_one_place(corrupted: dict[str, list[tuple[str, str]]]) -> None:
    for text, changed in corrupted["clause_added"]:
        before, after = middle(text, changed)
        assert before == "" and len(after.split()) >= 4, (text, changed)


def test_clauses_are_dropped_and_nothing_is_added(corrupted: dict[str, list[tuple[str, str]]]) -> None:
    for text, changed in corrupted["clause_dropped"]:
        left = iter(word.lower() for word in tokens(text) if word.isalnum())
        kept = [word.lower() for word in tokens(changed) if word.isalnum()]
        assert all(word in left or word in ("a", "an") for word in kept), (text, changed)  # a subsequence
        assert len(changed.split()) <= len(text.split()) - 2


def test_most_outputs_can_be_corrupted(texts: list[str], corrupted: dict[str, list[tuple[str, str]]]) -> None:
    """The least shares are half of what was found when this was written."""
    least = {"other_output": 1.0, "number": 0.15, "name": 0.3, "negation": 0.3, "clause_added": 0.3, "clause_dropped": 0.3}
    for name, share in least.items():
        assert len(corrupted[name]) >= share * len(texts), (name, len(corrupted[name]), len(texts))


@given(
    st.text(max_size=60) | st.sampled_from(["A\x00b is c.", "Σ is 3.", "\u202e12", "..."]),
    st.lists(st.text(max_size=40)),
    st.integers(),
)
@settings(max_examples=150)
def test_any_text_is_corrupted_or_left_alone_and_the_draw_decides(text: str, others: list[str], seed: int) -> None:
    for name in CORRUPTIONS:
        changed = corrupt(name, text, seed, others)
        assert changed is None or changed != text
        assert changed == corrupt(name, text, seed, others)


def test_labels_of_the_page_are_json() -> None:
    json.dumps({name: corruption.words for name, corruption in CORRUPTIONS.items()})
