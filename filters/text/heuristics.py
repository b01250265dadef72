"""Cheap checks of the text: empty, cut off, refusing, with a preamble, echoing the prompt, repeating itself, copied."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from limbeck.corpus.text.invisible import is_blank
from limbeck.corpus.text.words import CLOSERS, SENTENCE_STOPS, UNMARKED, words_with_apostrophes
from limbeck.filters.columns import FLAG, SHARE, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound
from limbeck.filters.text.assistant_phrases import has_preamble, is_refusal
from limbeck.filters.text.fragments import Runs, runs_of

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

REASONS = {
    "empty": "the output is empty",
    "cut_off": "the output is cut off before its sentence ends",
    "refusal": "the output refuses or speaks about itself",
    "preamble": "the output begins with a preamble",
    "echo_of_prompt": "the output repeats the instructions",
    "repeated": "the output repeats itself",
    "copied": "the output is copied from the document",
}

UNITS = {name: FLAG if name in ("empty", "cut_off", "refusal", "preamble") else SHARE for name in REASONS}

_SENTENCE_END = re.compile(
    rf"[.!?…{SENTENCE_STOPS}][{CLOSERS}]*(?:[ \u00a0\u202f][»›][{CLOSERS}]*)?$"  # French has a space before »
    rf"|[{UNMARKED}][{CLOSERS}]*$"
)
_GRAM_WORDS = 3


class HeuristicsConfig(FilterConfig):
    """The maximum of each column of `HeuristicsFilter.score`; null: measured, but rejects nothing."""

    semantics: ClassVar[int] = 2
    reasons: ClassVar[Mapping[str, str]] = {f"max_{column}": reason for column, reason in REASONS.items()}

    kind: Literal["heuristics"] = "heuristics"
    name: Name = "heuristics"
    max_empty: Limit = 0.0
    max_cut_off: Limit = 0.0
    max_refusal: Limit = 0.0
    max_preamble: Limit = 0.0
    max_echo_of_prompt: Limit = 0.5
    max_repeated: Limit = 0.2
    max_copied: Limit = 0.8

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    def build(self, engines: "Engines") -> "HeuristicsFilter":
        """Return the filter; it needs no engine."""
        return HeuristicsFilter(self.name, self.bounds)


class HeuristicsFilter:
    """Scores the text alone; no model is called."""

    def __init__(self, name: str = "heuristics", bounds: Sequence[Bound] = ()) -> None:
        self.name = name
        self.bounds = tuple(bounds)

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return seven columns in [0, 1], one row per candidate; an empty output scores 0 in all but `empty`.

        `empty`, `cut_off`, `refusal` and `preamble` are 0 or 1. `echo_of_prompt` and `copied` are the longest run of words that
        occurs verbatim in the prompt without its document, or in the document, as a share of the output's words. `repeated` is
        the share of word 3-grams that occurred earlier in the output. Words of any script are those of
        `corpus.text.words`. `cut_off` looks for the sentence ends of all scripts; Thai and Lao have none, so there only the token
        limit counts.
        """
        rows = candidates.select(["prompt", "document", "output", "finish_reason"]).to_pylist()
        scores = [_checks(row) for row in rows]
        columns = {name: np.array([score.get(name, 0.0) for score in scores], dtype=np.float64) for name in REASONS}
        return score_table(candidates, columns, UNITS)


def _checks(row: dict[str, Any]) -> dict[str, float]:
    output, document, prompt = ((row[name] or "") for name in ("output", "document", "prompt"))
    output = output.strip()
    if is_blank(output):
        return {"empty": 1.0}
    words = words_with_apostrophes(output)
    instructions = prompt.replace(document, " ") if document else prompt
    return {
        "cut_off": float(row["finish_reason"] == "length" or _SENTENCE_END.search(output) is None),
        "refusal": float(is_refusal(output)),
        "preamble": float(has_preamble(output)),
        "echo_of_prompt": copied_share(words, runs_of(instructions)),
        "repeated": repeated_share(words),
        "copied": copied_share(words, runs_of(document)),
    }


def copied_share(words: Sequence[str], text: Runs) -> float:
    """The longest run of `words` that occurs verbatim in `text`, as a share of `words`; 0 without words. O(words)."""
    return max(text.matches(words), default=0) / max(1, len(words))


def repeated_share(words: Sequence[str]) -> float:
    """The share of word 3-grams that occurred earlier; 0 if there are fewer than two."""
    grams = [tuple(words[start : start + _GRAM_WORDS]) for start in range(len(words) - _GRAM_WORDS + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
