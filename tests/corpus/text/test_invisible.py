"""A text is blank if nothing of it is visible: against Unicode's own categories, and where sources are read."""

import sys
import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from limbeck.corpus.markup.cleaning import clean_text
from limbeck.corpus.readers import text_row
from limbeck.corpus.text.invisible import is_blank, stripped, without_invisible
from limbeck.corpus.text.words import one_line

PRINTED = {  # format characters that are drawn: signs that enclose or precede a number, and an abbreviation mark
    *("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"),
}
FILLERS = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800"}
UNPRINTED_MARKS = {"\u034f", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", "\u180f", *map(chr, range(0xFE00, 0xFE10))}
RESERVED = {0x2065, *range(0xFFF0, 0xFFF9), *range(0x13439, 0x13440), *range(0xE0000, 0xE1000)}  # for further such characters


def test_what_is_invisible_is_what_unicode_says() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        silent = unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp") and character not in PRINTED
        expected = silent or character in FILLERS or character in UNPRINTED_MARKS or code in RESERVED
        assert is_blank(character) == expected, f"U+{code:04X}"


invisible = st.text(alphabet="\u200b\u2060\ufeff\u00ad\u202e \n\t\u3164", max_size=8)


@settings(deadline=None)
@given(invisible, st.text(alphabet="aб中\u200b ", max_size=5))
def test_a_text_is_blank_if_all_its_characters_are(blank: str, text: str) -> None:
    assert is_blank(blank) and stripped(blank) == one_line(blank) == clean_text(blank) == ""
    assert is_blank(text) == all(map(is_blank, text))
    assert stripped(text) == ("" if is_blank(text) else text.strip())
    assert without_invisible(text) == text.replace("\u200b", "")


@pytest.mark.parametrize("blank", ["", " ", "\u200b", "\ufeff\u2060", "\u00ad\n\u202e", "\U000e0041"])
def test_a_blank_document_or_reference_is_none(blank: str) -> None:
    assert text_row("here", blank, None).reason == "empty"
    assert text_row("here", "A document.", blank).reference is None
