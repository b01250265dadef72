"""Copies of a text, whatever hides them: every character of every case, and what is no copy."""

import sys

import pytest

from limbeck.corpus.text.copies import same_text

CASES = (str.upper, str.lower, str.title, str.swapcase, str.casefold)


def test_every_character_is_the_same_in_every_case() -> None:
    characters = (chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    cased = [character for character in characters if any(case(character) != character for case in CASES)]
    assert len(cased) > 2000
    assert [f"{ord(c):x}" for c in cased for case in CASES if not same_text(f"a{c}b", case(f"a{c}b"))] == []


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Straße 7!", "STRASSE 7"),
        ("no where", "«Nowhere…»"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "Full-Width."),
        ("soft\u00adware\u200b", "Software"),
        ("🎉🚀", "🎉 🚀\ufe0f!"),
        ("...", "?!"),
        ("", " "),
    ],
)
def test_what_hides_no_copy(a: str, b: str) -> None:
    assert same_text(a, b) and same_text(b, a)


@pytest.mark.parametrize(("a", "b"), [("cat", "cats"), ("1.5", "25"), ("बाप", "बप"), ("🎉", "🚀"), ("🎉", "!"), ("a", "")])
def test_other_texts_are_other_texts(a: str, b: str) -> None:
    assert not same_text(a, b) and not same_text(b, a)
