"""Words of every script: against the plain regular expressions that they extend, and by hand."""

import re
import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from limbeck.corpus.near_duplicates.shingles import shingles_of
from limbeck.corpus.text import words as module
from limbeck.corpus.text.words import (
    ALONE,
    WORD,
    Words,
    comparable,
    ends_of_characters,
    is_mark,
    is_plain,
    plain_words,
    spaced_words,
    words_with_apostrophes,
)

# What the functions were before they read other scripts.
OLD: dict[str, tuple[re.Pattern[str], Callable[[str], list[str]]]] = {
    "plain": (re.compile(r"\w+"), plain_words),
    "apostrophes": (re.compile(r"\w+(?:['’]\w+)*"), words_with_apostrophes),
}
OLD_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
PROSE = st.text(st.sampled_from("aBz9_'’-.,! \néßЖя√©→日αΣς⚡️\u200d🎉"), max_size=30)


def as_before(text: str) -> bool:
    """Whether the plain expressions read it well: no marks, none of the scripts without spaces, in normal form, with a word."""
    plain = not any(unicodedata.category(c) in ("Mn", "Mc") and not 0xFE00 <= ord(c) <= 0xFE0F for c in text.lower())
    alone = any(first <= ord(c) <= last for c in text for first, last in ALONE)
    return plain and not alone and unicodedata.is_normalized("NFC", text) and re.search(r"\w", text) is not None


@given(st.one_of(st.text(), PROSE, st.text(st.characters(max_codepoint=0x2FFF))))
@example("It can’t, CAN'T; don't-do x_1 Ünïcode №5 ⅷ ½")
@example("⚡️ Fast 1️⃣ tools ❤️ می‌خواهم 한국어 문장")
def test_text_of_scripts_with_spaces_and_without_marks_has_the_words_it_always_had(text: str) -> None:
    text = "".join(character for character in text if as_before(f"a{character}"))
    for pattern, words in OLD.values():
        assert words(f"a {text}") == pattern.findall(f"a {text}".lower())
    assert [match.span() for match in WORD.finditer(text)] == [match.span() for match in OLD_WORD.finditer(text)]
    assert WORD.spans(text) == [(*match.span(), match[0].lower()) for match in OLD_WORD.finditer(text)]
    assert spaced_words(text) == text.split()
    assert ends_of_characters(text) == []


@given(st.one_of(st.text(), PROSE))
def test_the_rule_for_all_scripts_is_the_plain_one_where_that_is_used(text: str) -> None:
    for rule in (Words(), WORD, Words(joint="[.,]", also=r"|[!?]+(?=\s|$)")):
        if is_plain(text):
            spans = [match.span() for match in rule.finditer(text)]
            assert spans == [match.span() for match in rule._full.finditer(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("中文Python3是语言。", "中 文 python3 是 语 言"),
        ("カタカナとｶﾅ、人々", "カ タ カ ナ と ｶ ﾅ 人 々"),
        ("ภาษาไทยเป็น", "ภ า ษ า ไ ท ย เ ป็ น"),
        ("ພາສາລາວ", "ພ າ ສ າ ລ າ ວ"),
        ("ភាសាខ្មែរ", "ភា សា ខ្ មែ រ"),
        ("ဗမာစကား", "ဗ မာ စ ကား"),
        ("हिन्दी की भाषा।", "हिन्दी की भाषा"),
        ("क्‍षेत्र", "क्‍षेत्र"),
        ("مُحَمَّدٌ رسول", "مُحَمَّدٌ رسول"),
        ("שָׁלוֹם עולם", "שָׁלוֹם עולם"),
        ("cafe\u0301 Σ́ΑΣ x_1", "café σ́ας x_1"),
        ("한국어 문장", "한국어 문장"),
        ("İstanbul", "i̇stanbul"),
        ("🎉🎊 👍🏽", "🎉 🎊 👍"),
        ("Great 🎉", "great"),
        ("... --- ''", ""),
        ("", ""),
        ("\u0301 ๋ \u200d", ""),
    ],
)
def test_words_by_hand(text: str, expected: str) -> None:
    for form in ("NFC", "NFD"):
        assert plain_words(unicodedata.normalize(form, text)) == [comparable(word) for word in expected.split()]
    assert words_with_apostrophes(text) == plain_words(text)


def test_an_apostrophe_joins_words_of_scripts_with_marks_but_no_characters_that_are_words() -> None:
    assert words_with_apostrophes("l'e\u0301te\u0301 中'文") == ["l'été", "中", "文"]


def test_punctuation_belongs_to_the_character_before_it() -> None:
    assert spaced_words("“你好，”Python说。 हिन्दी में") == ["“你", "好，”", "Python", "说。", "हिन्दी", "में"]
    assert spaced_words("…… 「中」a-b") == ["……", "「中」", "a-b"]


@given(st.text(st.sampled_from("中文ภ็aé\u0301'’_ -。🎉\u200dक्षम्"), max_size=40))
def test_every_character_of_a_piece_is_in_one_word(text: str) -> None:
    assert "".join(spaced_words(text)) == "".join(text.split())


MANY = st.text(
    st.one_of(st.sampled_from("aB1_ .\n中文ภ็ับก्षcé\u0301\u0308\u200d\u200c🎉️👍🏽עּ가ᄀ"), st.characters(exclude_categories=["Cs"])),
    max_size=25,
)


@given(st.lists(MANY, max_size=4))
@example(["\u0301a", "a", "\u0301"])
@example(["क्", "\u200dष"])
@example(["🎉", "a🎉"])
def test_near_duplicates_read_the_same_words(texts: list[str]) -> None:
    """The reader in arrays finds the same words (its case folding goes further than lower case)."""
    found = shingles_of(pa.array(texts, pa.string()), "word", 1)
    folded = [[fold(word) for word in as_read(text)] for text in texts]
    assert found.counts.tolist() == [len(set(words)) for words in folded]
    names = dict(zip(found.texts.tolist(), folded, strict=True))
    assert all(names[name] == words for name, words in zip(found.texts.tolist(), folded, strict=True))


def as_read(text: str) -> list[str]:
    text = unicodedata.normalize("NFC", text)
    found = [match[0] for match in Words().finditer(text)]
    return found or module.symbols(text)


def fold(word: str) -> str:
    return "".join(character.casefold() if len(character.casefold()) == 1 else character for character in word)


def test_the_tables_hold_what_unicode_says() -> None:
    """Ranges are shortened for speed; none may lose a character."""
    every = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    letters = [c for c in every if unicodedata.category(c)[0] in "LN" or c == "_"]
    assert letters == [c for c in every if re.match(r"\w", c)]
    marks = [c for c in every if is_mark(c)]
    assert not [c for c in marks if ord(c) >= 0x20000]
    unread = [c for c in marks if is_plain(c)]
    assert not unread, np.unique([unicodedata.name(c) for c in unread])
    changed = [c for c in every if not unicodedata.is_normalized("NFC", c) and re.match(r"\w", c)]
    assert not [c for c in changed if is_plain(c) and comparable(c) != c.lower()]
    assert all(is_plain(c) for c in "’“”—–…•→√©✓⚡🎉🚀éßñøÿчΩ한")
    assert not any(is_plain(chr(point)) for first, last in ALONE for point in (first, last))
