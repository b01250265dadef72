"""Texts as the invention measure compares them: one form for what looks alike, and words reduced to keys."""

import unicodedata
from collections import Counter
from functools import lru_cache

from limbeck.corpus.text.invisible import without_invisible
from limbeck.corpus.text.words import Words

_LATIN, _SHARE = "LATIN", 0.1
TOKENS = Words(joint="['’]")
"""Letters, digits and underscores, with apostrophes inside."""

_LIKE = str.maketrans(dict.fromkeys("’‘ʼ＇´", "'") | dict.fromkeys("‐‑‒–−", "-") | {"⁄": "/"})
_UNCOMPOSED = str.maketrans(dict(zip("øłđðıħςё", "olddihσе", strict=True)) | {"þ": "th", "æ": "ae", "œ": "oe"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})


def readable(text: str) -> str:
    """The text in Unicode NFKC, without invisible characters, with apostrophes and dashes of ASCII."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", without_invisible(text)).translate(_LIKE)


@lru_cache(maxsize=16_384)
def key_of(word: str) -> str:
    """The form in which words are equal: without case, accents and underscores."""
    folded = word.casefold().replace("_", "")
    if folded.isascii():
        return folded
    bare = "".join(c for c in unicodedata.normalize("NFKD", folded.translate(_UNCOMPOSED)) if not unicodedata.combining(c))
    return unicodedata.normalize("NFKC", bare.translate(_UNCOMPOSED)).casefold()


def other_key_of(word: str) -> str:
    """The key with umlauts written as two letters."""
    return key_of(unicodedata.normalize("NFC", word.casefold()).translate(_UMLAUTS))


def pieces(start: int, word: str) -> list[tuple[int, str]]:
    """The parts of a word at apostrophes, and between letters with and without case (a Korean particle after a Latin name)."""
    if "'" not in word and (word.isascii() or not any(map(_without_case, word))):
        return [(start, word)]
    found: list[tuple[int, str]] = []
    kind: bool | None = None
    for at, character in enumerate(word, start):
        if character == "'":
            kind = None
        elif kind is not None and (kind == _without_case(character) or unicodedata.category(character)[0] == "M"):
            found[-1] = (found[-1][0], found[-1][1] + character)
        else:
            kind = _without_case(character)
            found.append((at, character))
    return found


def parts_of(word: str) -> list[str]:
    """The parts of an identifier: at underscores, at capitals inside (`FooBar`, `HTTPServer`), between letters and digits."""
    if (word.islower() or word.istitle()) and word.isalpha():
        return [word]
    found: list[str] = []
    before = ""
    for at, character in enumerate(word):
        after = word[at + 1 : at + 2]
        if character == "_":
            before = ""
            continue
        begins = not before or before.isdecimal() != character.isdecimal()
        begins |= character.isupper() and (before.islower() or (before.isupper() and after.islower() and word[at + 1 :] != "s"))
        if begins:
            found.append(character)
        else:
            found[-1] += character
        before = character
    return found


def script_of(text: str) -> str:
    """The script of most letters of a text, "" without letters; Han, kana and Bopomofo count as one."""
    if text.isascii():
        return _LATIN if any(map(str.isalpha, text)) else ""
    counts = _scripts(text)
    return counts.most_common(1)[0][0] if counts else ""


def written_in(text: str, script: str) -> bool:
    """Whether a text has letters of the script that are not only a few foreign words; every text has those of "".

    A text without them is in another language than one whose script it is, and its names may be those of that text transcribed.
    """
    if not script or (script == _LATIN and text.isascii()):
        return True
    counts = _scripts(text)
    return counts[script] >= _SHARE * counts.total()


def _scripts(text: str) -> Counter[str]:
    return Counter(script for script in map(_script, text) if script)


@lru_cache(maxsize=16_384)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").partition(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "BOPOMOFO") else name


@lru_cache(maxsize=16_384)
def _without_case(character: str) -> bool:
    return unicodedata.category(character) == "Lo"
