"""Whether a text is an instruction at all: a few rules, and the list of texts that it continues best.

A language model reads four short lists: complete instructions, plain sentences, words in random order, and instructions that were
cut off. The text with the end of its line has a probability as the next entry of each. Their ratio is a likelihood ratio of a
generative classifier with few shots, so nothing is fitted: log-odds = log p(text | instructions) − log mean p(text | each other
list). The end of the line is what tells a whole instruction from one that was cut off.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.text.words import one_line, plain_words
from limbeck.filters.columns import Range, ranges_of, score_table
from limbeck.filters.config import EngineFilterConfig, Limit, Name

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

LISTS = ("instructions", "sentences", "shuffled", "cut_off")
"""The lists, instructions first; `nearest` names one of them."""

UNITS = {"log_odds": "nats", "broken_rules": "rules"}
FEWEST_WORDS = 3

_FOLDER = Path(__file__).parent / "instruction_lists"
_OPEN_END = re.compile(
    r"(?:[,;(\[{\-–—“‘«]|\b(?:the|an?|and|or|but|than|which|whose|because|if|when|while|its|their|your|my|our|into|between|very))$",
    re.IGNORECASE,
)
_BRACKETS = ("()", "[]", "{}", "“”", "«»")


class InstructionLikenessConfig(EngineFilterConfig):
    """The engine (null: the round-0 teacher), the column of the text, and the bounds.

    `instruction` is the column: `prompt`, or `output` if the candidates themselves are new instructions. The rules are: at least
    three words, an end that can end a text, and brackets and quotation marks in pairs.
    """

    reasons: ClassVar[Mapping[str, str]] = {
        "max_broken_rules": "the text has not the form of an instruction",
        "min_log_odds": "the text is hardly an instruction",
    }
    also: ClassVar[tuple[str, ...]] = ("nearest",)

    kind: Literal["instruction_likeness"] = "instruction_likeness"
    name: Name = "instruction_likeness"
    instruction: Literal["prompt", "output"] = "prompt"
    max_broken_rules: Limit = 0.0
    min_log_odds: Limit = -2.0

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    def build(self, engines: "Engines") -> "InstructionLikenessFilter":
        """Return the filter with a loaded engine; raises LimbeckError if none is set."""
        return InstructionLikenessFilter(self, self.loaded(engines))


class InstructionLikenessFilter:
    """Measures how much more likely a text is among instructions than among other texts."""

    def __init__(self, config: InstructionLikenessConfig, engine: Engine) -> None:
        """Measure with `engine`."""
        self.name = config.name
        self.bounds = config.bounds
        self._column = config.instruction
        self._engine = engine

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `log_odds`, `broken_rules` and `nearest`, one row per candidate.

        `log_odds` (nats) is above 0 if the text is likelier as the next of the instructions than, on average, as the next of the
        other lists; `nearest` is the list in which it is likeliest. NaN and null: the text is empty, or does not fit the engine's
        context. Whitespace counts as one space. Cost: one forward pass over each distinct text after each of the four lists.
        """
        texts = [one_line(text or "") for text in candidates[self._column].to_pylist()]
        sums = self._logprobs(list(dict.fromkeys(filter(None, texts))))
        rows = np.array([sums.get(text, np.full(len(LISTS), np.nan)) for text in texts]).reshape(-1, len(LISTS))
        with np.errstate(invalid="ignore"):  # NaN
            others = np.logaddexp.reduce(rows[:, 1:], axis=1) - np.log(len(LISTS) - 1)
        columns = {
            "log_odds": rows[:, 0] - others,
            "broken_rules": np.array([broken_rules(text) for text in texts], np.float64),
            "nearest": pa.array([LISTS[int(row.argmax())] if np.isfinite(row).all() else None for row in rows], pa.string()),
        }
        return score_table(candidates, columns, UNITS)

    def _logprobs(self, texts: Sequence[str]) -> Mapping[str, Any]:
        """Text → its log-probability as the next entry of each list, in nats.  # [lists]"""
        pairs = [Pair(context(name), f" {text}\n") for text in texts for name in LISTS]
        arrays = self._engine.logprobs(pairs) if pairs else []
        found = np.array([float(array.sum(dtype=np.float64)) for array in arrays]).reshape(-1, len(LISTS))
        return dict(zip(texts, found, strict=True))


@cache
def context(name: str) -> str:
    """A list as the prompt whose next entry is measured."""
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8") + "-"


def broken_rules(text: str) -> int:
    """The number of rules that a text in one line breaks.

    >>> broken_rules("Name three rivers."), broken_rules("Rivers"), broken_rules("Name the longest river in the (second")
    (0, 1, 1)
    """
    unpaired = any(text.count(pair[0]) != text.count(pair[1]) for pair in _BRACKETS) or text.count('"') % 2 == 1
    return (len(plain_words(text)) < FEWEST_WORDS) + bool(_OPEN_END.search(text)) + unpaired
