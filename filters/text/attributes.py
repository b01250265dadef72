"""Control attributes: how short, how extractive and how specific an output is, as numbers and as buckets to condition on.

Extractiveness follows Grusky et al. (2018): fragments are the runs of words that an output shares with its document. Specificity
is the share of named entities and numbers (a reconstruction of InfoSumm's attribute). Control codes (control_codes.py) pass the
buckets to a student: Referee's ten of compression (Sclar et al., 2022), three of each other attribute.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.corpus.salience import STOP_WORDS
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.control_codes import compression_bucket
from limbeck.corpus.text.words import SENTENCE_STOPS, WORD, Words, comparable, words_with_apostrophes
from limbeck.filters.columns import SHARE, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound
from limbeck.filters.text.fragments import fragments, runs_of

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

Edges = Annotated[list[float], Field(min_length=2, max_length=2)]
"""The lower edges of the second and third of three buckets."""

_GRAM_WORDS = 3
_TOKEN = Words(joint="[.,:'’/-]", also=rf"|[.!?]+(?=\s|$)|[{SENTENCE_STOPS}]+")
_STOPS = frozenset(".!?" + SENTENCE_STOPS)
_NUMBER = re.compile(r"[-+]?\d[\d.,:/]*(?:%|\w{0,3})")

COLUMNS = (
    *("compression", "specificity", "copied_3_grams", "rouge2_precision", "longest_fragment", "coverage", "density"),
    *("keyword_recall", "compression_bucket", "length_bucket", "extractiveness_bucket", "specificity_bucket"),
)
UNITS = {
    **{name: "bucket" if name.endswith("_bucket") else SHARE for name in COLUMNS},
    **{"compression": "output characters / document characters", "density": "words"},
}


class AttributesConfig(FilterConfig):
    """The bucket edges of each attribute, the number of keywords, and bounds on the attributes.

    The buckets are of `compression`, `rouge2_precision` and `specificity`. The default edges are near the terciles of the
    summaries of installed Python packages; use `quantile_edges` for other scores.
    """

    reasons: ClassVar[Mapping[str, str]] = {
        "min_compression": "the output is too short for its document",
        "max_compression": "the output is hardly shorter than the document",
        "min_specificity": "the output names hardly anything",
        "max_specificity": "the output is little but names and numbers",
        "min_coverage": "too few of the output's words come from the document",
        "max_coverage": "too many of the output's words come from the document",
        "max_density": "the output is copied from the document in long pieces",
        "max_longest_fragment": "one piece of the document makes up too much of the output",
        "max_copied_3_grams": "too many of the output's 3-grams stand in the document",
        "max_rouge2_precision": "too many of the output's 2-grams stand in the document",
        "min_keyword_recall": "the output holds too few of the document's keywords",
        "max_compression_bucket": "the output is too long for the wanted bucket",
    }

    also: ClassVar[tuple[str, ...]] = (*COLUMNS, "keywords")

    semantics: ClassVar[int] = 2

    kind: Literal["attributes"] = "attributes"
    name: Name = "attributes"
    keywords: int = Field(default=5, ge=1)
    length_edges: Edges = [0.025, 0.07]
    extractiveness_edges: Edges = [0.1, 0.35]
    specificity_edges: Edges = [0.08, 0.2]
    min_compression: Limit = None
    max_compression: Limit = None
    min_specificity: Limit = None
    max_specificity: Limit = None
    min_coverage: Limit = None
    max_coverage: Limit = None
    max_density: Limit = None
    max_longest_fragment: Limit = None
    max_copied_3_grams: Limit = None
    max_rouge2_precision: Limit = None
    min_keyword_recall: Limit = None
    max_compression_bucket: Limit = None

    @model_validator(mode="after")
    def _edges_ascend(self) -> "AttributesConfig":
        for key in ("length_edges", "extractiveness_edges", "specificity_edges"):
            first, second = getattr(self, key)
            if not first < second:
                raise ValueError(f"{key} are {first} and {second}; the second must be above the first")
        return self

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    @property
    def texts(self) -> Mapping[str, RowText]:
        """A document without text has no length, and no keywords."""
        return dict.fromkeys(("compression", "compression_bucket", "keyword_recall"), "document")

    def build(self, engines: "Engines") -> "AttributesFilter":
        """Return the filter; it needs no engine."""
        return AttributesFilter(self)


class AttributesFilter:
    """Compares every output with its document; no model is called."""

    def __init__(self, config: AttributesConfig) -> None:
        self.name = config.name
        self.bounds: tuple[Bound, ...] = config.bounds
        self._config = config

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `COLUMNS`, one row per candidate, and as evidence the `keywords` that the output contains.

        `compression` is output characters / document characters. Shares of the output: `specificity`, `copied_3_grams` and
        `rouge2_precision` of its n-grams, `longest_fragment` and `coverage` of its words; `density` is the mean length, in words,
        of the fragment that contains a word. `keyword_recall` is a share of the document's keywords. An empty output scores 0; an
        empty document gives NaN where it is the divisor. Buckets count from 0. O(words of output and document).
        """
        rows = candidates.select(["document", "output", "salient"]).to_pylist()
        scores = np.full((len(rows), len(COLUMNS)), np.nan)
        held: list[list[str]] = []
        for at, row in enumerate(rows):
            output, document = row["output"] or "", row["document"] or ""
            wanted = keywords(document, row["salient"] or (), self._config.keywords)
            words = set(words_with_apostrophes(output))
            held.append([word for word in wanted if word in words])
            values = self._measured(output, document)
            values["keyword_recall"] = len(held[-1]) / len(wanted) if wanted else np.nan
            scores[at] = [values[name] for name in COLUMNS]
        columns: dict[str, Any] = {name: scores[:, at] for at, name in enumerate(COLUMNS)}
        columns["keywords"] = pa.array(held, pa.list_(pa.string()))
        return score_table(candidates, columns, UNITS)

    def _measured(self, output: str, document: str) -> dict[str, float]:
        compression = len(output) / len(document) if document else np.nan
        values = {"compression": compression, "specificity": specificity(output), **extractiveness(output, document)}
        bucket = None if np.isnan(compression) else compression_bucket(compression)
        return {
            **values,
            "compression_bucket": np.nan if bucket is None else float(bucket),
            "length_bucket": _bucket(compression, self._config.length_edges),
            "extractiveness_bucket": _bucket(values["rouge2_precision"], self._config.extractiveness_edges),
            "specificity_bucket": _bucket(values["specificity"], self._config.specificity_edges),
        }


def extractiveness(output: str, document: str) -> dict[str, float]:
    """How much of an output's wording comes from its document; all 0 for an output without words. O(words).

    `coverage` and `density` as in Grusky et al. (2018): the sum of the fragments' lengths, and of their squares, divided by the
    output's words (`corpus.text.words`). `rouge2_precision` is that of `rouge_score` on these words, without stemming.
    """
    words, text = words_with_apostrophes(output), words_with_apostrophes(document)
    number = len(words)
    matches = runs_of(document).matches(words)
    pieces = fragments(matches)
    return {
        "copied_3_grams": _copied(matches, _GRAM_WORDS),
        "rouge2_precision": _precision(words, text),
        "longest_fragment": max(pieces, default=0) / max(1, number),
        "coverage": sum(pieces) / max(1, number),
        "density": sum(length * length for length in pieces) / max(1, number),
    }


def specificity(text: str) -> float:
    """Named entities and numbers as a share of the words; 0 for a text without words. O(characters).

    An entity is a run of capitalised words. A sentence's first word counts only if it has a second capital or a digit, or if a
    capitalised word follows and it is not a stop word; the pronoun I never counts.
    """
    found = 0
    words = 0
    within = False  # a run of capitalised words
    begins = True
    tokens = [match[0] for match in _TOKEN.finditer(text)]
    for at, token in enumerate(tokens):
        if token[0] in _STOPS:
            begins, within = True, False
            continue
        words += 1
        capital = _is_capital(token, tokens[at + 1] if at + 1 < len(tokens) else "", begins)
        found += bool(_NUMBER.fullmatch(token)) or (capital and not within)
        within, begins = capital, False
    return found / words if words else 0.0


def keywords(document: str, salient: Sequence[int], most: int) -> list[str]:
    """Up to `most` distinct salient words of a document in lower case: the most frequent first, ties by position.

    `salient`: character spans start0, end0, ..., chosen by TF-IDF (`limbeck.corpus.salience`). O(words).
    """
    counts = Counter(word for _, _, word in WORD.spans(document))
    chosen = dict.fromkeys(comparable(document[start:end]) for start, end in zip(salient[::2], salient[1::2], strict=True))
    return sorted(chosen, key=lambda word: -counts[word])[:most]


def quantile_edges(scores: Iterable[float]) -> tuple[float, float]:
    """The terciles of the finite scores: edges of three buckets of equal size. NaN if there are none."""
    finite = np.array([score for score in scores if np.isfinite(score)])
    if not len(finite):
        return float("nan"), float("nan")
    first, second = np.quantile(finite, [1 / 3, 2 / 3])
    return float(first), float(second)


def _bucket(score: float, edges: Sequence[float]) -> float:
    return float(bisect_right(edges, score)) if np.isfinite(score) else float("nan")


def _copied(matches: Sequence[int], size: int) -> float:
    grams = matches[: len(matches) - size + 1]
    return sum(length >= size for length in grams) / len(grams) if len(matches) >= size else 0.0


def _precision(words: Sequence[str], text: Sequence[str]) -> float:
    mine, theirs = (Counter(zip(some, some[1:], strict=False)) for some in (words, text))
    return sum((mine & theirs).values()) / max(1, len(words) - 1)


def _is_capital(token: str, following: str, begins: bool) -> bool:
    if not token[0].isupper() or token in ("I", "I'm", "I'd", "I'll", "I've"):
        return bool(re.match(r"[a-z]+[A-Z]", token))  # iPhone, macOS
    if not begins:
        return True
    second = any(character.isupper() or character.isdigit() for character in token[1:])
    return second or (following[:1].isupper() and token.lower().replace("’", "'") not in STOP_WORDS)
