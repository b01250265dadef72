"""Which numbers a text says."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from limbeck.corpus.text.numbers import missing, numbers

UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen".split()
UNITS += ["eighteen", "nineteen"]
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(value: int) -> str:
    """The oracle: how English says a number below 10**12."""
    if value < 20:
        return UNITS[value]
    if value < 100:
        return TENS[value // 10] + (f"-{UNITS[value % 10]}" if value % 10 else "")
    for scale, word in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if value >= scale:
            rest = value % scale
            return f"{in_words(value // scale)} {word}" + (f"{' and' if rest < 100 else ''} {in_words(rest)}" if rest else "")
    raise AssertionError


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("1,000 users", {"1000"}),
        ("1\u202f000 users", {"1000"}),
        ("a thousand users", {"1000"}),
        ("3.5 and 3.50", {"3.5"}),
        (".5", {"0.5"}),
        ("50 %, 50% and fifty per cent", {"50%"}),
        ("twenty-one", {"21"}),
        ("the 21st century", {"21"}),
        ("the twenty-first century", {"21"}),
        ("Two thousand and twenty-four", {"2024"}),
        ("between two and three", {"2", "3"}),
        ("3.5 million, 2bn", {"3500000", "2000000000"}),
        ("12,345,678.90", {"12345678.9"}),
        ("1,2,3", {"1", "2", "3"}),
        ("-5 degrees, from 2019-2020", {"-5", "2019", "2020"}),
        ("GPT-3 on x86_64", {"3", "x86_64"}),
        ("version 3.11.2", {"3.11.2"}),
        ("5kg at 10am in the 1990s", {"5", "10", "1990"}),
        ("٣٤", {"34"}),
        ("twelve hundred", {"1200"}),
        ("one hundred", {"100"}),
        ("one percent", {"1%"}),
        ("one by one, at first, for ten-odd seconds", {"10"}),
        ("", set()),
        ("no numbers: noone, tension, seventh-grader", {"7"}),
    ],
)
def test_what_a_text_states(text: str, stated: set[str]) -> None:
    assert numbers(text).stated == stated


@given(st.integers(0, 10**12 - 1))
@settings(deadline=None, max_examples=300)
def test_words_and_digits_say_the_same(value: int) -> None:
    said = numbers(f"They counted {in_words(value)} of them.")
    assert said.stated | (said.possible if value == 1 else set()) == {str(value)}
    assert not missing(said, numbers(f"{value:,} were counted")) and not missing(numbers(f"{value}"), said)


@pytest.mark.parametrize(
    ("x", "y", "x_lacks", "y_lacks"),
    [
        ("3 cats", "3 dogs", [], []),
        ("3 cats and 4 dogs", "3 cats", [], ["4"]),
        ("3 cats", "3 cats and 4 dogs", ["4"], []),  # the side that the released code does not look at
        ("one goal", "1 goal", [], []),
        ("one of them", "some of them", [], []),
        ("1 of them", "some of them", [], ["1"]),
        ("half of them", "50 % of them", [], []),
        ("50 of them", "50 % of them", ["50%"], ["50"]),
        ("the 3rd try", "the third try", [], []),
    ],
)
def test_numbers_that_one_side_lacks(x: str, y: str, x_lacks: list[str], y_lacks: list[str]) -> None:
    assert missing(numbers(y), numbers(x)) == x_lacks
    assert missing(numbers(x), numbers(y)) == y_lacks


@given(st.text(alphabet=st.sampled_from(list("0123456789.,%- ahundret million-twtyoe\u00a0²٣")), max_size=60) | st.text())
@settings(deadline=None, max_examples=400)
def test_any_text_can_be_read_and_agrees_with_itself(text: str) -> None:
    said = numbers(text)
    assert not missing(said, said)


@pytest.mark.parametrize("text", ["a", "1", "111,", "1.1", "twenty ", "one hundred ", "a1", "- ", "1.2."])
def test_a_long_text_is_read_in_one_pass(text: str) -> None:
    """100,000 characters: a pattern that goes back and forth would not end."""
    assert len(numbers(text * (100_000 // len(text))).stated) <= 100_000
