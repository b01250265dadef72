"""Toxicity by a user-defined word list: which of its terms an output contains, and their share of the words.

A list is the user's choice; none ships with Limbeck. One term (a word or a phrase) per line, `#` starts a comment, and `*` at the
end of a word matches any ending (`damn*`: damn, damned, damnation). Whole words are compared, ignoring case, after Unicode NFKC
and without invisible characters.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.text.words import WORD
from limbeck.filters.columns import OCCURRENCES, SHARE, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

UNITS = {"terms": OCCURRENCES, "share": SHARE}
_BETWEEN_WORDS = frozenset(" '’-")
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


class ToxicityConfig(FilterConfig):
    """The word list and the bounds on the terms found and on their share of the words."""

    reasons: ClassVar[Mapping[str, str]] = {
        "max_terms": "the output holds terms of the word list",
        "max_share": "too many of the output's words are on the word list",
    }

    also: ClassVar[tuple[str, ...]] = ("matched",)

    semantics: ClassVar[int] = 2

    kind: Literal["toxicity"] = "toxicity"
    name: Name = "toxicity"
    words: str
    max_terms: Limit = 0.0
    max_share: Limit = None

    def problems(self) -> list[str]:
        """Reports a list that is missing, empty, or has a line that no words can match."""
        try:
            read_terms(Path(self.words))
        except LimbeckError as error:
            return [f"filter {self.name}: {error}"]
        return []

    def scoring(self) -> dict[str, Any]:
        """As for every filter, with the list's content in place of its path; raises LimbeckError if it cannot be read."""
        return {**super().scoring(), "words": hashlib.sha256(_read(Path(self.words)).encode()).hexdigest()}

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    def build(self, engines: "Engines") -> "ToxicityFilter":
        """Return the filter; raises LimbeckError if the list cannot be used."""
        return ToxicityFilter(Terms(read_terms(Path(self.words))), self.name, self.bounds)


@dataclass(frozen=True)
class Found:
    """A match in a text: the term as listed, and the number of words it covers."""

    term: str
    words: int


class Terms:
    """A word list, indexed for look-up. Memory O(terms)."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._whole: dict[tuple[str, ...], str] = {}  # words → term
        self._starts: dict[str, list[tuple[str, ...]]] = {}  # first word → patterns
        self._prefixes: dict[str, list[tuple[str, ...]]] = {}  # beginning of the first word → patterns
        for term in dict.fromkeys(terms):
            pattern = tuple(_pattern(term))
            assert pattern, term
            table = self._prefixes if pattern[0].endswith("*") else self._starts
            table.setdefault(pattern[0].rstrip("*"), []).append(pattern)
            self._whole.setdefault(pattern, term)
        self._prefix_sizes = sorted({len(prefix) for prefix in self._prefixes})

    def find(self, text: str) -> tuple[list[Found], int]:
        """The matched terms of a text, left to right (the longest at each word, without overlaps), and its number of words.

        O(words · distinct lengths of starred terms).
        """
        words = _words(text)
        found = []
        place = 0
        while place < len(words):
            pattern = max(self._at(words, place), key=len, default=None)
            if pattern is not None:
                found.append(Found(self._whole[pattern], len(pattern)))
            place += len(pattern) if pattern is not None else 1
        return found, len(words)

    def _at(self, words: Sequence[str], place: int) -> list[tuple[str, ...]]:
        word = words[place]
        candidates = list(self._starts.get(word, ()))
        for size in self._prefix_sizes:
            candidates += self._prefixes.get(word[:size], ()) if size <= len(word) else ()
        return [pattern for pattern in candidates if _fits(pattern, words, place)]


class ToxicityFilter:
    """Looks up every output in the list; no model is called."""

    def __init__(self, terms: Terms, name: str = "toxicity", bounds: Sequence[Bound] = ()) -> None:
        self.name = name
        self.bounds = tuple(bounds)
        self._terms = terms

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `terms` (occurrences), `share` (of the words; 0 without any) and, as evidence, which terms `matched`."""
        found = [self._terms.find(output or "") for output in candidates["output"].to_pylist()]
        return score_table(
            candidates,
            {
                "terms": pa.array([float(len(hits)) for hits, _ in found], pa.float64()),
                "share": pa.array([sum(hit.words for hit in hits) / max(1, words) for hits, words in found], pa.float64()),
                "matched": pa.array([list(dict.fromkeys(hit.term for hit in hits)) for hits, _ in found], pa.list_(pa.string())),
            },
            UNITS,
        )


def read_terms(path: Path) -> list[str]:
    """Read the terms of a word list; raises LimbeckError if it is missing, not UTF-8 or empty, or a line is not a term."""
    terms = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        term = line.split("#", 1)[0].strip()
        if not term:
            continue
        plain = " ".join(word[:-1] if len(word) > 1 and word.endswith("*") else word for word in normalised(term).split())
        if not _is_term(plain):
            raise LimbeckError(
                f"{path}:{number} {term!r} is not a term of whole words; use letters, digits, hyphens and apostrophes, "
                "and * only at the end of a word"
            )
        terms.append(term)
    if not terms:
        raise LimbeckError(f"the word list {path} is empty; write one term per line")
    return terms


def normalised(text: str) -> str:
    """The text in Unicode NFKC, case-folded, without invisible characters. O(characters)."""
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold())


def _is_term(text: str) -> bool:
    """Whether it has words and, beside them, nothing but spaces, hyphens and apostrophes."""
    rest, end = "", 0
    for word in WORD.finditer(text):
        rest, end = rest + text[end : word.start()], word.end()
    return end > 0 and _BETWEEN_WORDS.issuperset(rest + text[end:])


def _words(text: str) -> list[str]:
    return [word[0].replace("’", "'") for word in WORD.finditer(normalised(text))]


def _pattern(term: str) -> list[str]:
    """The words of a term; starred words keep the star."""
    pattern = []
    for piece in normalised(term).split():
        words = _words(piece)
        pattern += [*words[:-1], words[-1] + "*"] if piece.endswith("*") and words else words
    return pattern


def _fits(pattern: Sequence[str], words: Sequence[str], place: int) -> bool:
    if place + len(pattern) > len(words):
        return False
    return all(
        word.startswith(wanted[:-1]) if wanted.endswith("*") else word == wanted
        for wanted, word in zip(pattern, words[place : place + len(pattern)], strict=True)
    )


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise LimbeckError(f"the word list {path} does not exist; correct `words`, or write one term per line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LimbeckError(f"the word list {path} cannot be read ({error}); save it as a UTF-8 text file") from error
