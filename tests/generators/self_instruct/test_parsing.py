"""The rules of Self-Instruct and Alpaca, one by one, on texts whose result is known."""

import random
import string

import hypothesis.strategies as st
import pytest
from hypothesis import given

from limbeck.corpus.text.instruction_rules import FORBIDDEN_TERMS, tidy
from limbeck.generators.instruction_tasks import REASONS, broken_rule
from limbeck.generators.self_instruct.parsing import Instance, Sifted, instances, instructions, says_yes, sift

BLACK_LIST = "image images graph graphs picture pictures file files map maps draw plot".split()


def test_the_black_lists_are_those_published() -> None:
    assert FORBIDDEN_TERMS["self-instruct"] == (*BLACK_LIST, "go to")
    assert FORBIDDEN_TERMS["alpaca"] == (*BLACK_LIST, "go to", *"video audio music flowchart diagram".split())


@pytest.mark.parametrize("term", FORBIDDEN_TERMS["alpaca"])
def test_a_term_of_the_black_list_is_found_as_a_whole_word_in_any_case(term: str) -> None:
    both = term in FORBIDDEN_TERMS["self-instruct"]
    for text in (f"Please {term} the old town", f"Please {term.upper()}, then the town", f"The old town has a {term}"):
        assert broken_rule(tidy(text), "self-instruct") == ("forbidden_terms" if both else None)
        assert broken_rule(text, "alpaca") == "forbidden_terms"
    assert broken_rule(f"Please re{term}ing the old town", "alpaca") is None


@pytest.mark.parametrize(
    ("text", "self_instruct", "alpaca"),
    [
        ("Name three rivers", "few_words", "few_words"),
        ("Name three long rivers", None, None),
        ("word " * 150, None, None),
        ("word " * 151, "many_words", "many_words"),
        ("Write a program that sorts words", "write_a_program", "write_a_program"),
        ("write a program that sorts words", "write_a_program", None),  # Alpaca does not capitalise
        ("Please write a program that sorts", None, None),
        ("écrivez une lettre au voisin", "starts_non_ascii", "starts_non_ascii"),
        ("Translate écrivez une lettre", None, None),
        ("1 plus 1 is what", None, None),
        ("(Optional) an image", "few_words", "few_words"),  # the first rule in the published order
        ("(Optional) describe an image", "forbidden_terms", "forbidden_terms"),
    ],
)
def test_the_rules_for_instructions(text: str, self_instruct: str | None, alpaca: str | None) -> None:
    assert broken_rule(tidy(text), "self-instruct") == self_instruct
    assert broken_rule(tidy(text, "alpaca"), "alpaca") == alpaca


@pytest.mark.parametrize("first", string.punctuation)
def test_no_instruction_begins_with_punctuation(first: str) -> None:
    assert broken_rule(f"{first}a text of some words", "self-instruct") == "starts_with_punctuation"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (" Name a river.\n10. list  THREE\ttowns\n11 . Say\nwhy. \n12. ", ["Name a river.", "List three towns", "Say why."]),
        (" one\n2.5 metres are long\n3.\nno space after the number", ["One 2.5 metres are long 3. no space after the number"]),
        (" A 10. is no border in a line", ["A 10. is no border in a line"]),
        (" \n10. \n11.  ", []),
        ("", []),
    ],
)
def test_step_1_continues_a_numbered_list(response: str, expected: list[str]) -> None:
    assert instructions(response) == expected


def test_a_chat_model_begins_with_the_number_itself() -> None:
    response = "Sure, here are eight tasks:\n\n9. Name a river.\n10. List towns.\n"
    assert instructions(response, numbered=True) == ["Name a river.", "List towns."]
    assert instructions("9. Name a river.\n\n10. List towns.", numbered=True) == ["Name a river.", "List towns."]
    assert instructions("I cannot do that.", numbered=True) == []


@pytest.mark.parametrize("text", [" Yes", "yes ", "\tYES"])
def test_step_2_says_yes(text: str) -> None:
    assert says_yes(text)


@pytest.mark.parametrize("text", [" No", "", "Yes.", "yEs", "Yes it", "Classification"])
def test_step_2_says_anything_else(text: str) -> None:
    assert not says_yes(text)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d", [("a", "b"), ("c", "d")]),
        ("Example 1.\nText: a: 1\nLines\nOutput 1: b\n\nExample2 \nOutput: d", [("Text: a: 1\nLines", "b"), ("", "d")]),
        ("Output: only one", [("", "only one")]),
        ("Input 1: a\nOutput 1 : b", [("a", "b")]),
        ("Input: a\nOutput: b\nInput: c\nOutput: d", [("a", "b")]),  # a second input ends the output
        ("Example 1\nno such word", [("", "no such word")]),  # all is output
        ("Example 1\nInput: a\nOutput:", [("a", "")]),
        ("neither word", []),
        ("", []),
    ],
)
def test_step_3_input_first(response: str, expected: list[tuple[str, str]]) -> None:
    assert instances(response, False) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Class label: Yes\nText: a\nMore: b\nClass label:  No \nText: c\n", [("Text: a\nMore: b", "Yes"), ("Text: c", "No")]),
        ("An introduction. Class label: Yes", [("", "Yes")]),
        ("Class label:\nText: a", [("", "Text: a")]),  # the first line that is not blank is the label, as published
        ("Example 1\nOutput: a", []),
    ],
)
def test_step_3_output_first(response: str, expected: list[tuple[str, str]]) -> None:
    assert instances(response, True) == expected


def sifted(*pairs: tuple[str, str], cut_off: bool = False, at_most: int = 5) -> list[str | None]:
    return [row.rule for row in sift([Instance(*pair) for pair in pairs], cut_off=cut_off, at_most=at_most, rng=random.Random(1))]


def test_the_rules_for_instances() -> None:
    assert sifted(("a", "a"), ("a", ""), ("a:", "b"), ("a", "b: "), ("c", "d")) == [
        "input_is_output", "empty_output", "ends_with_colon", "ends_with_colon", None,
    ]  # fmt: skip
    assert sifted(("", ""), ("", ":")) == ["input_is_output", "ends_with_colon"]


def test_one_input_with_two_outputs_costs_all_instances() -> None:
    assert sifted(("a", "b"), ("c", "d"), ("a", "e"), ("f", "")) == ["contradicted"] * 3 + ["empty_output"]
    assert sifted(("", "b"), ("", "e"), ("a", "b")) == [None] * 3, "without an input there is no contradiction"
    assert sifted(("a", "b"), ("a", "")) == [None, "empty_output"], "what is invalid alone contradicts nothing"
    assert sifted(("a", "b"), ("a", "c"), cut_off=True) == [None, "cut_off"]


def test_equal_instances_and_more_than_five() -> None:
    assert sifted(("a", "b"), ("a", "b"), ("", "b"), ("", "b")) == [None, "duplicate", None, "duplicate"]
    rules = sifted(*[(str(number), "x") for number in range(9)])
    assert rules.count(None) == 5 and rules.count("too_many_instances") == 4
    assert sifted(("a", "b"), ("c", "d"), at_most=1).count(None) == 1
    assert sifted(cut_off=True) == []


@given(st.lists(st.tuples(*[st.sampled_from(["", "a", "b", "c:", "Ç", "Ç"])] * 2), max_size=9), st.booleans(), st.integers(1, 5))
def test_no_instance_vanishes(pairs: list[tuple[str, str]], cut_off: bool, at_most: int) -> None:
    found = [Instance(*pair) for pair in pairs]
    result = sift(found, cut_off=cut_off, at_most=at_most, rng=random.Random(0))
    assert [row.instance for row in result] == found
    kept = [row for row in result if row.rule is None]
    assert len(kept) <= at_most and len({row.instance for row in kept}) == len(kept)
    assert all(isinstance(row, Sifted) and (row.rule is None or row.rule in REASONS) for row in result)
    outputs: dict[str, set[str]] = {}
    for row in kept:
        outputs.setdefault(row.instance.input, set()).add(row.instance.output)
    assert all(len(several) == 1 for given_input, several in outputs.items() if given_input)
