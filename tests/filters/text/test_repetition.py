"""Gopher's and C4's rules, each on a text made to break it, and the n-gram shares against counting every character."""

import math
from collections import Counter

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.filters.contract import Filter
from limbeck.filters.text.repetition import COLUMNS, GOPHER_PAGE_LIMITS, RepetitionConfig, measures, n_gram_shares

GOOD = "The library reads the reports of weather stations, checks their units, and returns plain tables to the caller."


def column(name: str, text: str) -> float:
    return measures(text)[COLUMNS.index(name)]


def broken(text: str, config: RepetitionConfig) -> set[str]:
    """The columns whose bound a text breaks."""
    candidates = pa.table({"candidate_id": ["a"], "output": [text]})
    (row,) = config.build(engines=None).score(candidates).to_pylist()
    found = set()
    for bound in config.bounds:
        low = bound.minimum is not None and not row[bound.column] >= bound.minimum
        high = bound.maximum is not None and not row[bound.column] <= bound.maximum
        found |= {bound.column} if low or high else set()
    return found


PAGE = RepetitionConfig(**GOPHER_PAGE_LIMITS)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (GOOD, set()),
        ("A dependency-free parser of weather reports.", set()),
        ("- one more thing to do\n- another thing to do\n* a third thing as well\n• a fourth thing at last", {"bullet_lines"}),
        ("It goes on...\nand on…\nand stops.", {"ellipsis_lines", "symbols_per_word"}),
        ("#a or #b ... and here … two of each kind in more than the twenty words of which a tenth may be one.", set()),
        ("#one #two #three four", {"symbols_per_word"}),
        ("1 2 3 four 5.6 -", {"alphabetic_words"}),
        ("Lorem ipsum dolor sit amet consectetur.", {"lorem_ipsum"}),
        ("The same line.\nThe same line.\nThe same line.", {"duplicate_lines", "duplicate_line_characters"}),
        (
            "One line.\nTwo lines.\n\nOther words.\n\nOne line.\nTwo lines.",
            {"duplicate_lines", "duplicate_line_characters", "duplicate_paragraphs", "duplicate_paragraph_characters"},
        ),
        ("", {"alphabetic_words"}),
    ],
)
def test_a_rule_is_broken_by_the_text_made_for_it(text: str, columns: set[str]) -> None:
    assert broken(text, RepetitionConfig()) - {f"duplicate_{size}_grams" for size in range(5, 11)} == columns


def test_repeated_words_break_the_rules_of_n_grams() -> None:
    text = "it reads the files and checks them " * 5
    assert {f"duplicate_{size}_grams" for size in range(5, 11)} <= broken(text, RepetitionConfig())
    assert {"top_2_gram", "top_3_gram", "top_4_gram"} <= broken(text, PAGE)
    assert broken(GOOD, PAGE) == {"words"}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("words", "one two  three\nfour", 4),
        ("stop_words", "To be, or not to be: that is it.", 3),  # to, be, that
        ("mean_word_characters", "ab abcd", 3),
        ("alphabetic_words", "a 1 b2 -", 0.5),
        ("unterminated_lines", 'A line.\nAnother\n"A third."', 1 / 3),
        ("unterminated_lines", 'It ends...\nIt ends…\nIt ends.\nIt ends?\n"It ends..."', 2 / 5),  # C4: an ellipsis is no end
        ("symbols_per_word", "#one #two three... four", 2 / 4),  # Gopher: hash marks or ellipses, not their sum
        ("symbols_per_word", "#one two... three… four", 2 / 4),
        ("curly_brackets", "f() { }", 1),
        ("duplicate_lines", "a\nb\na\n\na", 0.5),
        ("duplicate_line_characters", "aaa\nb\naaa", 3 / 7),
        ("top_2_gram", "New York is not New York", 14 / 19),
        ("top_2_gram", "one two three four", 0),  # nothing repeats
        ("duplicate_5_grams", "a b c d e x a b c d e", 10 / 11),
    ],
)
def test_values_by_hand(name: str, text: str, value: float) -> None:
    assert column(name, text) == pytest.approx(value)


words = st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=24)


@settings(deadline=None)
@given(words)
def test_n_gram_shares_equal_marking_every_character(some: list[str]) -> None:
    total = sum(map(len, some))
    for size, share in zip(range(2, 11), n_gram_shares(some), strict=True):
        places: dict[tuple[str, ...], list[int]] = {}
        for at in range(len(some) - size + 1):
            places.setdefault(tuple(some[at : at + size]), []).append(at)
        repeated = {gram: at for gram, at in places.items() if len(at) > 1}
        if size <= 4 and repeated:
            most = max((len(at), sum(map(len, gram))) for gram, at in repeated.items())
            repeated = dict([next(item for item in repeated.items() if (len(item[1]), sum(map(len, item[0]))) == most)])
        marked = {place + step for at in repeated.values() for place in at for step in range(size)}
        assert share == pytest.approx(sum(len(some[place]) for place in marked) / total if total else 0.0)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "three", ""]), max_size=8))
def test_repeated_lines_equal_looking_back(lines: list[str]) -> None:
    said = [line for line in lines if line]
    again = [line for at, line in enumerate(said) if line in said[:at]]
    assert column("duplicate_lines", "\n".join(lines)) == pytest.approx(len(again) / len(said) if said else 0.0)
    assert Counter(again).total() == len(again)


def test_limits_are_the_published_ones_and_have_reasons() -> None:
    gopher = {f"duplicate_{size}_grams": 0.20 - size / 100 for size in range(5, 11)}
    limits = {bound.column: bound.maximum for bound in RepetitionConfig().bounds if bound.column in gopher}
    assert limits == pytest.approx(gopher)
    assert set(RepetitionConfig.reasons) == set(RepetitionConfig.limit_fields())
    assert {key.split("_", 1)[1] for key in RepetitionConfig.limit_fields()} == set(COLUMNS)
    assert set(GOPHER_PAGE_LIMITS) <= set(RepetitionConfig.limit_fields())
    assert isinstance(RepetitionConfig().build(engines=None), Filter)


def test_null_and_hostile_rows_are_scored() -> None:
    hostile = [None, "", "a " * 50_000, "x" * 100_000, "\n" * 100_000, "#" * 100_000, "\u202eمرحبا", "\n \n" * 30_000, "\0"]
    candidates = pa.table({"candidate_id": [str(at) for at in range(len(hostile))], "output": pa.array(hostile, pa.string())})
    filter_ = RepetitionConfig().build(engines=None)
    rows = filter_.score(candidates).to_pylist()
    assert all(0 <= row["duplicate_10_grams"] <= 1 for row in rows)
    assert math.isnan(rows[0]["mean_word_characters"]) and rows[2]["duplicate_5_grams"] == 1.0
    assert filter_.score(candidates.slice(0, 0)).num_rows == 0
