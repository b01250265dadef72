"""Splitting text into words: one rule for all scripts, which every filter uses.

A word is a maximal run of letters, digits and underscores (`\\w`), with two additions that `\\w` lacks. Combining marks belong to
the character before them, so that Devanagari, vocalised Arabic and decomposed Latin are not split in the middle of a word. In
scripts that are written without spaces (`ALONE`: Chinese, Japanese, Thai, Lao, Khmer, Burmese, ...), each character with its
marks is a word of its own. Text of other scripts without combining marks has exactly the words of the plain regular expressions.

Words are compared in lower case and Unicode NFC; that affects only the returned words, never the text. A text without any letter
or digit has its symbols (emoji) as words, so that copies of it can be found too.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from limbeck.corpus.text.invisible import is_blank

ALONE = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x3005, 0x3007),  # iteration mark and zero of Han
    (0x3021, 0x3029),
    (0x3031, 0x303C),
    (0x3040, 0x312F),  # kana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA980, 0xA9DF),  # Javanese
    (0xA9E0, 0xA9FF),  # Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9D),  # half-width kana
    (0x16FE0, 0x18DFF),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # kana, Nüshu
    (0x20000, 0x3FFFF),  # Han
)
"""First and last code points of the blocks whose letters and digits are words of their own."""

SENTENCE_STOPS = (
    "。！？｡．︒﹒﹖﹗"  # Chinese, Japanese
    "।॥꣎꣏"  # Devanagari and its neighbours
    "؟۔؝؞"  # Arabic, Urdu
    "።፧፨"  # Ethiopic
    "။"  # Burmese
    "។៕៚"  # Khmer
    "։"  # Armenian
    "།༎༏༐༑"  # Tibetan
    "᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿꓿꘎꘏꛳꛷꡶꡷꤯꧈꧉꩝꩞꩟꫰꫱꯫"  # Canadian, Philippine, Mongolian, Limbu, Tai Tham, Balinese, Lepcha, Vai, ...
    "܀܁܂߹࠷࠹࠽࠾๚๛"  # Syriac, N'Ko, Samaritan, Thai
)
"""Characters other than `.!?…` that end a sentence; no whitespace need follow."""

CLOSERS = "\"'”’)\\]`*_" + "»›«“‘」』】）〕〉》｝］｣〗〙〛＂＇"
"""Closing quotation marks and brackets that may follow the end of a sentence, for a class of a regular expression."""

UNMARKED = "\u0e00-\u0eff\u1950-\u19df\uaa80-\uaadf"
"""Thai, Lao and Tai, which have no mark for the end of a sentence, for a class of a regular expression."""

JOINERS = "\u200c\u200d"
"""Invisible characters that continue a word after a combining mark, and otherwise separate words."""

_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))  # choose a glyph, often of an emoji, and are in no word
_WITH_MARKS = ((0x0300, 0x30FF), (0xA66F, 0xABFF), (0xFB1D, 0xFE2F))  # no other block of the basic plane has marks
_HANGUL_PARTS = "\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff"


def is_mark(character: str) -> bool:
    """Whether it is a combining mark that continues a word; variation selectors and enclosing marks (keycaps) are not."""
    if unicodedata.category(character) not in ("Mn", "Mc"):
        return False
    return not any(first <= ord(character) <= last for first, last in _SELECTORS)


@dataclass(frozen=True)
class Words:
    """A rule for words: runs of the characters of `\\w` except those in `without`, which one character of `joint` may join.

    `also` is an alternative that is found beside words. For text without marks and without scripts of `ALONE` the rule is the
    regular expression `[^\\W without]+(?:joint[^\\W without]+)*`, which is fast.
    """

    without: str = ""
    joint: str = ""
    also: str = ""

    def finditer(self, text: str) -> Iterable[re.Match[str]]:
        """The words of a text as matches, left to right. O(characters)."""
        return (self._plain if is_plain(text) else self._full).finditer(text)

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """Start, end and comparable form (lower case, NFC) of each word. O(characters)."""
        if is_plain(text):
            return [(match.start(), match.end(), match[0].lower()) for match in self._plain.finditer(text)]
        return [(match.start(), match.end(), comparable(match[0])) for match in self._full.finditer(text)]

    def lowered(self, text: str) -> list[str]:
        """The words of a text in comparable form, or its symbols if it has none. O(characters)."""
        text = text.lower()
        if is_plain(text):
            found = self._plain.findall(text)
        else:
            found = self._full.findall(normal(text))
        return found or symbols(text)

    @cached_property
    def _plain(self) -> re.Pattern[str]:
        return re.compile(self._joined(rf"[^\W{self.without}]+" if self.without else r"\w+") + self.also)

    @cached_property
    def _full(self) -> re.Pattern[str]:
        return re.compile(f"{self._joined(run_of(self.without))}|{alone()}{self.also}")

    def _joined(self, run: str) -> str:
        return f"{run}(?:{self.joint}{run})*" if self.joint else run


_APOSTROPHE = "['’]"

WORD = Words(without="_", joint=_APOSTROPHE)
"""Letters and digits, with apostrophes inside: salient words, the words that masked PMI hides, terms of a word list."""

_PLAIN = Words()
_WITH_APOSTROPHES = Words(joint=_APOSTROPHE)


def plain_words(text: str) -> list[str]:
    """The words of a text, in comparable form: distinct n-grams, salient recall."""
    return _PLAIN.lowered(text)


def words_with_apostrophes(text: str) -> list[str]:
    """The words of a text with inner apostrophes, in comparable form: what two texts share verbatim."""
    return _WITH_APOSTROPHES.lowered(text)


def spaced_words(text: str) -> list[str]:
    """The pieces of a text between whitespace; in scripts without spaces, each character with the punctuation after it."""
    pieces = text.split()
    if is_plain(text):
        return pieces
    return [part for piece in pieces for part in _unspaced().findall(piece)]


def ends_of_characters(text: str) -> list[int]:
    """Offsets directly after each character (and its marks) of a script written without spaces, ascending."""
    return [] if is_plain(text) else [match.end() for match in _alone().finditer(text)]


def one_line(text: str) -> str:
    """The text with every run of whitespace as one space, and none at its ends; "" if it has no visible character."""
    return "" if is_blank(text) else " ".join(text.split())


def comparable(text: str) -> str:
    """The text in lower case and Unicode NFC, in which canonically equivalent texts are equal."""
    return normal(text.lower())


def normal(text: str) -> str:
    """The text in Unicode NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_plain(text: str) -> bool:
    """Whether the text is in NFC, with neither combining marks nor a script of `ALONE`; some texts of rare scripts give False."""
    rest = without_typography(text)
    return rest.isascii() or _special().search(rest) is None


def without_typography(text: str) -> str:
    """The text without the quotation marks and dashes of English prose, which often are all that is not ASCII in it.

    Removing them takes much less time than searching the text for characters of a class.
    """
    if not text.isascii():
        for character in "’—–“”‘…":
            text = text.replace(character, "")
    return text


def symbols(text: str) -> list[str]:
    """The symbols (emoji, pictographs) of a text, without skin tones and joiners."""
    return [] if text.isascii() else [character for character in text if unicodedata.category(character) == "So"]


def run_of(without: str = "") -> str:
    """A regular expression: characters of `\\w` outside `without` and `ALONE`, with their marks.

    A joiner after a mark, as in Indic conjuncts, continues the word.
    """
    one = spaced(without)
    return rf"{one}+(?:[{_marks()}]+(?:[{JOINERS}](?={one}))?{one}*)*"


def spaced(without: str = "") -> str:
    """A regular expression: one letter, digit or underscore outside `without` and `ALONE`."""
    return rf"[^\W{without}{_class(ALONE)}]"


def alone() -> str:
    """A regular expression: one character of a script written without spaces, with its marks."""
    return rf"(?:(?=\w)[{_class(ALONE)}][{_marks()}]*)"


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    """The inside of a class of a regular expression."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def _where(holds: Callable[[str], bool], ranges: Iterable[tuple[int, int]]) -> str:
    """The characters of the ranges of code points for which `holds`, as the inside of a class."""
    found: list[tuple[int, int]] = []
    for point in (point for first, last in ranges for point in range(first, last + 1)):
        if holds(chr(point)):
            joined = bool(found) and found[-1][1] == point - 1
            found[-1:] = [(found[-1][0], point)] if joined else [*found[-1:], (point, point)]
    return _class(found)


def _changes(character: str) -> bool:
    return not unicodedata.is_normalized("NFC", character)


@cache
def _marks() -> str:
    return _where(is_mark, (*_WITH_MARKS, (0x10000, 0x1FFFF)))


@cache
def _special() -> re.Pattern[str]:
    """Characters that the plain expressions read wrongly, or that NFC may change.

    Beyond the basic plane, a class is searched range by range; there, all characters except emoji count, to have few ranges.
    """
    changed = _where(_changes, ((0x0300, 0x2AFF), (0xFB1D, 0xFB4F)))
    unspaced = _class((first, last) for first, last in ALONE if last <= 0xFFFF)
    others = "\U00010000-\U0001efff\U00020000-\U000e00ff"
    return re.compile(f"[{_where(is_mark, _WITH_MARKS)}{changed}{_HANGUL_PARTS}{unspaced}{others}]")


@cache
def _alone() -> re.Pattern[str]:
    return re.compile(alone())


@cache
def _unspaced() -> re.Pattern[str]:
    alone_there = rf"(?=\w)[{_class(ALONE)}]"
    return re.compile(rf"(?:(?!\w)\S)*{alone_there}(?:(?!\w)\S)*|(?:(?!{alone_there})\S)+")
