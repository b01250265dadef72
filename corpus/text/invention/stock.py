"""What a document offers for the names and numbers of an output: its words in every form that is forgiven, and its numbers."""

import re
from collections.abc import Iterable
from functools import cached_property, lru_cache

from limbeck.corpus.salience import STOP_WORDS
from limbeck.corpus.text.invention.amounts import offered
from limbeck.corpus.text.invention.ordinary import MONTHS, PEOPLES, WEEKDAYS
from limbeck.corpus.text.invention.readable import TOKENS, key_of, other_key_of, parts_of, pieces, readable, script_of

LEAST_STEM = 4
"""Shorter names have no inflected forms."""

_JOINED = 4  # words that one name may be written as: "Django REST framework" and djangorestframework
_ENDING, _CONTAINED, _LONG = 3, 5, 6  # characters of an ending; of a name inside a longer word; of a long name
_NUMERIC_DATE = re.compile(r"(?<!\d)(?:\d{4}[-/.](\d{1,2})(?:[-/.]\d{1,2})?|(\d{1,2})[-/.](\d{1,2})[-/.]\d{2,4})(?!\d)")


class Stock:
    """The names and numbers of a document. O(characters) to make, about 20 kB per 1,000 characters."""

    def __init__(self, document: str) -> None:
        self.text = readable(document)
        self.script = script_of(self.text)
        self.numbers = offered(self.text)
        self.acronyms: set[str] = set()
        self._keys: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        self._initials: list[str] = []  # of all words, "|" between sentences
        self._bare_initials: list[str] = []  # the same without stop words
        self._read()
        for key in self._keys:
            if len(key) >= LEAST_STEM:
                self._by_stem.setdefault(key[:LEAST_STEM], []).append(key)

    def has(self, word: str) -> bool:
        """Whether the document has the word or one of its parts' ways of writing, in any case."""
        return key_of(word) in self._keys or (not word.isascii() and other_key_of(word) in self._keys)

    def has_form(self, word: str) -> bool:
        """Whether the document has an inflected form of a name, a word derived from it, or a longer word around it."""
        key = key_of(word)
        if self.has_plural(word) or key in PEOPLES and PEOPLES[key] in self._peoples:
            return True
        if len(key) < LEAST_STEM:
            return False
        return any(_same_stem(key, other) for other in self._by_stem.get(key[:LEAST_STEM], ())) or self._contains(key)

    def has_long_form(self, word: str) -> bool:
        """As `has_form`, for a word with capitals inside: OpenMP is not a form of "open", Postgres is one of PostgreSQL."""
        key = key_of(word)
        return len(key) >= _LONG and any(
            _same_stem(key, other) for other in self._by_stem.get(key[:LEAST_STEM], ()) if len(other) >= _LONG
        )

    def begins(self, word: str) -> bool:
        """Whether a word that a token limit may have cut off begins a longer one of the document."""
        key = key_of(word)
        last = key.rpartition(".")[2]
        if last != key:
            return key in self._squashed_text
        return any(other.startswith(key) and other != key for other in self._keys)

    def has_plural(self, word: str) -> bool:
        """Whether the document has the word with or without an English plural."""
        key = key_of(word)
        found = f"{key}s" in self._keys or f"{key}es" in self._keys
        return found or (key.endswith("s") and key[:-1] in self._keys) or (key.endswith("es") and key[:-2] in self._keys)

    def has_date(self, word: str) -> bool:
        """Whether it is a month that the document gives by another name or by number, or a day's name in another form."""
        key = key_of(word)
        return MONTHS.get(key, 0) in self._months or WEEKDAYS.get(key, -1) in self._weekdays

    def spells(self, acronym: str) -> bool:
        """Whether consecutive words of the document have the letters of the acronym as initials, without stop words or with them.

        With them only if it has at least three letters: two often meet by chance.
        """
        key = key_of(acronym)
        if not key.isalpha() or len(key) < 2:
            return False
        return key in self._initials_bare or (len(key) >= 3 and key in self._initials_all)

    def quotes(self, text: str) -> bool:
        """Whether the document has the text, whatever its case and whitespace."""
        return _squashed(text) in self._squashed_text

    @cached_property
    def _squashed_text(self) -> str:
        return _squashed(self.text)

    @cached_property
    def _initials_all(self) -> str:
        return "".join(self._initials)

    @cached_property
    def _initials_bare(self) -> str:
        return "".join(self._bare_initials)

    @cached_property
    def _peoples(self) -> set[int]:
        return {PEOPLES[key] for key in PEOPLES.keys() & self._keys}

    @cached_property
    def _months(self) -> set[int]:
        named = {MONTHS[key] for key in MONTHS.keys() & self._keys}
        return named | {int(group) for match in _NUMERIC_DATE.finditer(self.text) for group in match.groups() if group}

    @cached_property
    def _weekdays(self) -> set[int]:
        return {WEEKDAYS[key] for key in WEEKDAYS.keys() & self._keys}

    def _contains(self, key: str) -> bool:
        return len(key) >= _CONTAINED and any(other.startswith(key) or other.endswith(key) for other in self._keys)

    def _read(self) -> None:
        run: list[str] = []  # the last words that nothing but a joint separates
        end = 0
        for match in TOKENS.finditer(self.text):
            gap = self.text[end : match.start()]
            end = match.end()
            if gap not in ("", " ", "-", "_", ".", "/", ":", "&", "+", "~"):
                run.clear()
                if gap.strip(" -_*`/'\"“”"):
                    self._initials.append("|")
                    self._bare_initials.append("|")
            if "'" in match[0]:
                self._keys.add(key_of(match[0].replace("'", "")))
            for _, word in pieces(match.start(), match[0]):
                self._add(word, run)

    def _add(self, word: str, run: list[str]) -> None:
        parts = parts_of(word)
        keys = [key_of(part) for part in parts]
        whole = key_of(word)
        self._keys.update((whole, *keys))
        if not word.isascii():
            self._keys.add(other_key_of(word))
        if len(parts) > 1:
            self._keys.update(_joins(keys))
        if len(whole) > 1 and word.isupper() and whole.isalpha():
            self.acronyms.add(whole)
        run.append(whole)
        del run[:-_JOINED]
        for at in range(len(run) - 1):
            self._keys.add("".join(run[at:]))
        letters = [key[0] for key in keys if key]
        self._initials += letters
        if whole not in STOP_WORDS:
            self._bare_initials += letters


@lru_cache(maxsize=32)
def stock_of(document: str) -> Stock:
    """The stock of a document, cached for a few documents because the candidates of a source come one after another."""
    return Stock(document)


def _joins(keys: list[str]) -> Iterable[str]:
    """Two or more consecutive parts of a word, joined."""
    return ("".join(keys[at:end]) for at in range(len(keys)) for end in range(at + 2, min(len(keys), at + _JOINED) + 1))


def _same_stem(key: str, other: str) -> bool:
    """Whether two words with the same first letters are forms of one: what differs is a short ending."""
    shared = 0
    for ours, theirs in zip(key, other, strict=False):
        if ours != theirs:
            break
        shared += 1
    shorter, longer = sorted((len(key) - shared, len(other) - shared))
    if not (key[shared:] + other[shared:]).isalpha():
        return key == other
    if longer > _ENDING:
        return False
    return shorter == 0 or (shorter == 1 if shared == LEAST_STEM else shorter < _ENDING)


def _squashed(text: str) -> str:
    return "".join(text.casefold().split())
