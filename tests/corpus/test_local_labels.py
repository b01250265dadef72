"""Labelled tables without a hub: right answers, labels as the authors stated them, and WordNet's file format."""

import re
from importlib import metadata
from itertools import islice
from pathlib import Path

import pytest

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.local_labels import read_local_labels
from limbeck.corpus.readers import RawRow

NOUNS = """  1 This software and database is being provided to you
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~ 00002137 n 0000 | that which is known to have its own existence
00004258 03 n 02 living_thing 0 animate_thing 0 001 ~ 00004475 n 0000 | a living (or once living) entity
02084071 05 n 03 dog 0 domestic_dog 0 hound 0 000 | a member of the genus Canis (descended from wolves); "the dog barked"
00099999 03 n 01 rex 0 000 | a king
"""
SIGNS = {"plus": "+", "minus": "-", "times": "*"}
FILES = {
    "noun": NOUNS,
    "verb": '01234567 29 v 02 breathe 0 respire 0 000 | draw air into, and expel out of, the lungs; "I can breathe"\n',
    "adj": "00001740 00 a 01 able 0 000 | (usually followed by `to') having the necessary means\n",
    "adv": "00011093 02 r 01 gently 0 000 | in a gradual manner; slowly\n",
}


def rows(**tables: int) -> list[RawRow]:
    return list(read_local_labels(tables, "/nowhere"))  # type: ignore[arg-type]


def records(found: list[RawRow]) -> list[dict[str, object]]:
    assert all(row.text == "" and row.reason is None and row.record is not None for row in found)
    return [dict(row.record or {}) for row in found]


def test_arithmetic_is_right_and_no_problem_occurs_twice() -> None:
    found = records(rows(arithmetic=3000))
    assert len(found) == 3000 and {row["table"] for row in found} == {"arithmetic"}
    asked = {(row["operation"], frozenset((row["a"], row["b"]))) for row in found}
    assert len(asked) == 3000
    for row in found:
        assert eval(str(row["expression"]).replace("×", "*")) == row["answer"] >= 0
        assert {int(number) for number in re.findall(r"\d+", str(row["problem"]))} == {row["a"], row["b"]}
        for left, word, right, result in re.findall(r"(\d+) (plus|minus|times) (\d+) is (\d+)", str(row["rationale"])):
            assert eval(f"{left} {SIGNS[word]} {right}") == int(result)
        assert re.findall(r"\d+", str(row["rationale"]))[-1] == str(row["answer"])
    assert all(int(str(row["a"])) <= 99 for row in found[:9])


def test_the_same_rows_come_first_whatever_the_number() -> None:
    assert rows(arithmetic=5) == rows(arithmetic=50)[:5]


def test_packages_have_the_topics_that_their_authors_state() -> None:
    found = records(rows(packages=1000))
    assert found
    for row in islice(found, 5):
        stated = metadata.metadata(str(row["name"])).get_all("Classifier") or []
        assert row["topics"] == sorted({one.split(" :: ")[1] for one in stated if one.startswith("Topic :: ")})
        assert row.get("topic") == (row["topics"][0] if len(row["topics"]) == 1 else None)  # type: ignore[arg-type,index]


def test_wordnet_gives_words_with_one_sense_each(tmp_path: Path) -> None:
    for suffix, text in FILES.items():
        (tmp_path / f"data.{suffix}").write_text(text)
    found = {row["word"]: row for row in records(list(read_local_labels({"wordnet": 100}, str(tmp_path))))}
    assert set(found) == {"entity", "dog", "breathe", "able", "gently"}  # no phrases, and no definition of two words
    assert found["dog"] | {} == {
        "table": "wordnet", "word": "dog", "part": "noun", "definition": "a member of the genus Canis", "synonyms": ["hound"],
    }  # fmt: skip
    assert found["able"]["definition"] == "having the necessary means" and found["able"]["part"] == "adjective"
    assert found["gently"]["definition"] == "in a gradual manner"
    assert len(list(read_local_labels({"wordnet": 3}, str(tmp_path)))) == 3


def test_wordnet_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match=r"there is no WordNet at .*data.noun.*install Debian's package wordnet-base, set"):
        list(read_local_labels({"wordnet": 3}, str(tmp_path)))
