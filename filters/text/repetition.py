"""Repetition and form, by the rules used to clean web corpora: Gopher's (Rae et al., 2021, table A1) and C4's.

Gopher: shares of repeated lines, paragraphs and word n-grams, and properties of a page of prose. C4 (Raffel et al., 2020,
section 2.2): lines without terminal punctuation, "lorem ipsum", curly brackets. Published bounds are the defaults if they also
suit an output of one sentence; the others are null and listed in `GOPHER_PAGE_LIMITS`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from limbeck.corpus.text.words import SENTENCE_STOPS, UNMARKED, comparable, spaced_words
from limbeck.filters.columns import FLAG, SHARE, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
"""Gopher requires two of these in a page of English."""

GOPHER_PAGE_LIMITS: Mapping[str, float] = {
    "min_words": 50.0,
    "max_words": 100_000.0,
    "min_stop_words": 2.0,
    "min_mean_word_characters": 3.0,
    "max_mean_word_characters": 10.0,
    "max_top_2_gram": 0.20,
    "max_top_3_gram": 0.18,
    "max_top_4_gram": 0.16,
}
"""Gopher's bounds that a good output of one sentence can violate: set them in a recipe for page-long outputs."""

_TOP_SIZES = (2, 3, 4)
_DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)
_PARAGRAPH = re.compile(r"\n\s*\n")
_ELLIPSIS = re.compile(r"\.\.\.|…")
_BULLETS = ("•", "‣", "▪", "●", "◦", "-", "*", "–", "·", "・")
_ELLIPSES = ("...", "…")
_TERMINAL = (".", "!", "?", '"', "”", *SENTENCE_STOPS, "」", "』")
_UNMARKED_END = re.compile(f"[{UNMARKED}]$")
_STRIPPED = ".,;:!?\"'“”‘’()[]{}<>…" + SENTENCE_STOPS + "，、；：､「」『』（）【】《》〈〉［］｛｝・،؛၊៖፣፤፥"

COLUMNS = (
    *("words", "stop_words", "mean_word_characters", "symbols_per_word", "alphabetic_words"),
    *("bullet_lines", "ellipsis_lines", "unterminated_lines", "lorem_ipsum", "curly_brackets"),
    *("duplicate_lines", "duplicate_line_characters", "duplicate_paragraphs", "duplicate_paragraph_characters"),
    *(f"top_{size}_gram" for size in _TOP_SIZES),
    *(f"duplicate_{size}_grams" for size in _DUPLICATE_SIZES),
)
UNITS = {
    **dict.fromkeys(COLUMNS, SHARE),
    **{
        "words": "words",
        "stop_words": "distinct words",
        "mean_word_characters": "characters",
        "symbols_per_word": "symbols / word",
    },
    **{"lorem_ipsum": FLAG, "curly_brackets": FLAG},
}


class RepetitionConfig(FilterConfig):
    """A bound per rule. Values are Gopher's, except `max_lorem_ipsum`, which is C4's; null: measured, but rejects nothing."""

    semantics: ClassVar[int] = 2
    reasons: ClassVar[Mapping[str, str]] = {
        "min_words": "the output has too few words",
        "max_words": "the output has too many words",
        "min_stop_words": "the output has hardly any stop word, so it is no prose",
        "min_mean_word_characters": "the words are too short on average",
        "max_mean_word_characters": "the words are too long on average",
        "max_symbols_per_word": "too many number signs or ellipses",
        "min_alphabetic_words": "too many words without a letter",
        "max_bullet_lines": "nearly every line is an item of a list",
        "max_ellipsis_lines": "too many lines end in an ellipsis",
        "max_unterminated_lines": "too many lines end without punctuation",
        "max_lorem_ipsum": "the output holds filler text",
        "max_curly_brackets": "the output holds curly brackets, so it is code",
        "max_duplicate_lines": "too many lines stood before",
        "max_duplicate_line_characters": "too much of the output is repeated lines",
        "max_duplicate_paragraphs": "too many paragraphs stood before",
        "max_duplicate_paragraph_characters": "too much of the output is repeated paragraphs",
        **{f"max_top_{size}_gram": f"one run of {size} words makes up too much of the output" for size in _TOP_SIZES},
        **{
            f"max_duplicate_{size}_grams": f"too much of the output is repeated runs of {size} words" for size in _DUPLICATE_SIZES
        },
    }

    also: ClassVar[tuple[str, ...]] = COLUMNS

    kind: Literal["repetition"] = "repetition"
    name: Name = "repetition"
    min_words: Limit = None
    max_words: Limit = None
    min_stop_words: Limit = None
    min_mean_word_characters: Limit = None
    max_mean_word_characters: Limit = None
    max_symbols_per_word: Limit = 0.1
    min_alphabetic_words: Limit = 0.8
    max_bullet_lines: Limit = 0.9
    max_ellipsis_lines: Limit = 0.3
    max_unterminated_lines: Limit = None
    max_lorem_ipsum: Limit = 0.0
    max_curly_brackets: Limit = None
    max_duplicate_lines: Limit = 0.30
    max_duplicate_line_characters: Limit = 0.20
    max_duplicate_paragraphs: Limit = 0.30
    max_duplicate_paragraph_characters: Limit = 0.20
    max_top_2_gram: Limit = None
    max_top_3_gram: Limit = None
    max_top_4_gram: Limit = None
    max_duplicate_5_grams: Limit = 0.15
    max_duplicate_6_grams: Limit = 0.14
    max_duplicate_7_grams: Limit = 0.13
    max_duplicate_8_grams: Limit = 0.12
    max_duplicate_9_grams: Limit = 0.11
    max_duplicate_10_grams: Limit = 0.10

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    def build(self, engines: "Engines") -> "RepetitionFilter":
        """Return the filter; it needs no engine."""
        return RepetitionFilter(self.name, self.bounds)


class RepetitionFilter:
    """Scores the text alone; no model is called."""

    def __init__(self, name: str = "repetition", bounds: Sequence[Bound] = ()) -> None:
        self.name = name
        self.bounds = tuple(bounds)

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `COLUMNS`, one row per candidate, as computed by `measures`."""
        scores = np.array([measures(output or "") for output in candidates["output"].to_pylist()]).reshape(-1, len(COLUMNS))
        columns = {name: scores[:, at] for at, name in enumerate(COLUMNS)}
        return score_table(candidates, columns, UNITS)


def measures(text: str) -> list[float]:
    """The values of `COLUMNS` for one text: counts of words, characters per word, and shares in [0, 1]. O(characters).

    Words are separated by whitespace, as in Gopher; in scripts written without spaces, each character is a word. A text without
    words has means of NaN and shares of 0.
    """
    words = spaced_words(text)
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    paragraphs = [stripped for paragraph in _PARAGRAPH.split(text) if (stripped := paragraph.strip())]
    plain = [stripped for word in words if (stripped := comparable(word).strip(_STRIPPED))]
    number = len(words) or np.nan
    return [
        float(len(words)),
        float(len(STOP_WORDS.intersection(plain))),
        sum(map(len, words)) / number,
        max(text.count("#"), len(_ELLIPSIS.findall(text))) / max(1, len(words)),
        sum(any(map(str.isalpha, word)) for word in words) / number,
        _share(sum(line.startswith(_BULLETS) for line in lines), len(lines)),
        _share(sum(line.endswith(_ELLIPSES) for line in lines), len(lines)),
        _share(sum(_unterminated(line) for line in lines), len(lines)),
        float("lorem ipsum" in text.lower()),
        float("{" in text or "}" in text),
        *_repeated(lines),
        *_repeated(paragraphs),
        *n_gram_shares(plain),
    ]


def _unterminated(line: str) -> bool:
    """Whether a line lacks terminal punctuation; an ellipsis is none, and Thai and Lao have none."""
    return line.endswith(_ELLIPSES) or (not line.endswith(_TERMINAL) and _UNMARKED_END.search(line) is None)


def n_gram_shares(words: Sequence[str]) -> list[float]:
    """Shares of the characters of `words`: in the most common 2-, 3- and 4-gram, then in all repeated 5- to 10-grams.

    An n-gram that occurs once is not a repeat and counts 0; of equally common ones the longest in characters counts, then the
    first. A character covered by several occurrences counts once. O(words) per size; sizes above the longest repeated one are
    skipped.
    """
    shares = dict.fromkeys((*_TOP_SIZES, *_DUPLICATE_SIZES), 0.0)
    characters = np.array([len(word) for word in words], dtype=np.float64)
    for size in shares:
        counts = Counter(zip(*(words[start:] for start in range(size)), strict=False))
        repeated = {gram: count for gram, count in counts.items() if count > 1}
        if not repeated:
            break
        if size in _TOP_SIZES:
            top = max(repeated, key=lambda gram: (repeated[gram], sum(map(len, gram))))
            repeated = {top: repeated[top]}
        covered = np.zeros(len(words) + 1, dtype=np.int64)
        for start in range(len(words) - size + 1):
            if tuple(words[start : start + size]) in repeated:
                covered[start] += 1
                covered[start + size] -= 1
        shares[size] = float(characters[np.cumsum(covered[:-1]) > 0].sum() / characters.sum())
    return list(shares.values())


def _repeated(pieces: Sequence[str]) -> tuple[float, float]:
    """The share of lines or paragraphs that repeat an earlier one, and their share of the characters."""
    counts = Counter(pieces)
    again = [piece for piece, count in counts.items() for _ in range(count - 1)]
    return _share(len(again), len(pieces)), _share(sum(map(len, again)), sum(map(len, pieces)))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
