"""Written schemata: every line is complete, slots are filled alike in both texts, and held-out schemata stay apart."""

import re
from collections import Counter
from random import Random

import pytest

from limbeck.filters.nli_model.pairs import LABELS
from limbeck.filters.nli_model.schemata import (
    Schema,
    expanded,
    held_out_schemata,
    in_words,
    schemata,
    trained_schemata,
    written_pairs,
)


def schema(premise: str, hypothesis: str, **slots: list[object]) -> Schema:
    return Schema("x", premise, {"entailment": (hypothesis,)}, slots)


def test_every_schema_can_be_filled_and_has_every_label() -> None:
    assert len(schemata()) >= 300
    for one in schemata():
        assert all(len(set(one.hypotheses[label])) == len(one.hypotheses[label]) >= 2 for label in LABELS), one
        for seed in range(5):
            for pair in expanded(one, Random(seed)):
                for text in (pair.premise, pair.hypothesis):
                    assert not re.search(r"[{}]|\[[^\]]*\||  | [,.;:?!](?:\s|$)|\(\s|['\"]None", text), text
                    assert text[0].upper() == text[0] and text[-1] in ".!?\"'”)", text


def test_labels_of_the_written_pairs_are_balanced() -> None:
    """No label can be told from a negation, or from the share of words of the premise, alone."""
    pairs = written_pairs(schemata(), 8_000, seed=0)
    by_label = Counter(pair.label for pair in pairs)
    assert all(0.25 < by_label[label] / len(pairs) < 0.42 for label in LABELS)
    denied = Counter(pair.label for pair in pairs if re.search(r"\b(?:not|no|never|none|nobody|neither)\b|n't", pair.hypothesis))
    assert all(0.05 < denied[label] / by_label[label] < 0.5 for label in LABELS)


def test_slots_have_one_filling_and_alternatives_are_drawn_for_each_text() -> None:
    one = schema("{person} [sold|gave away] {n} {thing} to {person2}.", "{person2} got {n} {thing}.", thing=["hats", "maps"])
    seen = set()
    for seed in range(20):
        (pair,) = expanded(one, Random(seed))
        found = re.fullmatch(r"(.+) (?:sold|gave away) (\S+) (hats|maps) to (.+)\.", pair.premise)
        assert found is not None and found[1] != found[4]
        assert pair.hypothesis == f"{found[4]} got {found[2]} {found[3]}."
        seen.add(pair.premise)
    assert len(seen) > 10


def test_parallel_fillings_belong_together() -> None:
    one = schema("It is a {animal.0}.", "It is a {animal.1}.", animal=[["spaniel", "dog"], ["tabby", "cat"]])
    found = {(pair.premise, pair.hypothesis) for seed in range(20) for pair in expanded(one, Random(seed))}
    assert found == {("It is a spaniel.", "It is a dog."), ("It is a tabby.", "It is a cat.")}


def test_numbers_are_ordered() -> None:
    words = {in_words(number): number for number in range(1, 100)}
    assert len(words) == 99 and words["ninety-nine"] == 99 and words["thirteen"] == 13 and words["forty"] == 40
    one = schema("{n-} {n} {n+} {n++}", "{month} {month2} {year} {year2}")
    spelt = 0
    for seed in range(50):
        (pair,) = expanded(one, Random(seed))
        texts = pair.premise.lower().split()
        spelt += texts[0] in words
        values = [words.get(text) or int(text) for text in texts]
        assert values == sorted(set(values))
        assert int(pair.hypothesis.split()[2]) < int(pair.hypothesis.split()[3])
    assert 0 < spelt < 50


def test_pairs_are_distinct_and_the_same_for_the_same_seed() -> None:
    found = written_pairs(trained_schemata(), 3_000, seed=1)
    assert found == written_pairs(trained_schemata(), 3_000, seed=1) != written_pairs(trained_schemata(), 3_000, seed=2)
    assert len(found) == len(set(found)) == 3_000
    assert written_pairs([schema("A.", "B.")], 10, seed=0) == list(expanded(schema("A.", "B."), Random(0)))
    assert written_pairs([], 10, seed=0) == []


def test_held_out_schemata_are_not_trained_on() -> None:
    assert not {one.premise for one in trained_schemata()} & {one.premise for one in held_out_schemata()}
    assert len(trained_schemata()) + len(held_out_schemata()) == len(schemata())


@pytest.mark.parametrize("name", ["independent", "test"])
def test_no_schema_is_a_test_pair(name: str) -> None:
    from limbeck.filters.nli_model.evaluation import test_pairs

    tested = {text for pair in test_pairs(name) for text in (pair.premise, pair.hypothesis)}
    written = {text for pair in written_pairs(schemata(), 5_000, seed=0) for text in (pair.premise, pair.hypothesis)}
    assert not tested & written
