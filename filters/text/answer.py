"""Whether an output states the known answer of its row: the answer is extracted from the output and compared with the reference.

The checks are those with which answers to mathematical problems are verified (open-r1; math-verify for expressions), in four ways
to extract and four to compare.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa

from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.answers.reading import Answer
from limbeck.filters.answers import CheckedAnswerKeys
from limbeck.filters.columns import FLAG, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

UNITS = {"extracted": FLAG, "correct": FLAG, "number": "the value of the answer"}


class AnswerConfig(CheckedAnswerKeys, FilterConfig):
    """Where an output states its answer, how it is compared with the reference, and bounds on both."""

    semantics: ClassVar[int] = 2
    reasons: ClassVar[Mapping[str, str]] = {
        "min_extracted": "no answer was found in the output",
        "min_correct": "the answer is not that of the reference",
    }
    also: ClassVar[tuple[str, ...]] = ("number", "answer", "expected")

    kind: Literal["answer"] = "answer"
    name: Name = "answer"
    min_extracted: Limit = 1.0
    min_correct: Limit = 1.0

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    @property
    def texts(self) -> Mapping[str, RowText]:
        """Without a reference nothing tells whether an answer is correct."""
        return {"correct": "reference"}

    def build(self, engines: "Engines") -> "AnswerFilter":
        """Return the filter; it needs no engine."""
        return AnswerFilter(self)


class AnswerFilter:
    """Reads the answer of each output and of its reference."""

    def __init__(self, config: AnswerConfig) -> None:
        self.name = config.name
        self.bounds: tuple[Bound, ...] = config.bounds
        self._reader = config.reader()

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `extracted` and `correct` (0 or 1), `number`, and the texts `answer` and `expected`, one row per candidate.

        `correct` is NaN, and `expected` null, if the row has no reference or its reference has no answer of the compared kind;
        it is 0 if the output has none. `number` is NaN if the answer is not a number. O(characters), except for compare: math.
        """
        reader = self._reader
        outputs, references = (candidates[name].to_pylist() for name in ("output", "reference"))
        answers = [reader.read(output or "") for output in outputs]
        expected = [reader.read_reference(reference or "") for reference in references]
        columns = {
            "extracted": [float(answer is not None) for answer in answers],
            "correct": [self._correct(*pair) for pair in zip(expected, answers, strict=True)],
            "number": [_as_float(answer) for answer in answers],
        }
        texts = {"answer": answers, "expected": expected}
        arrays = {name: pa.array(values, pa.float64()) for name, values in columns.items()}
        arrays |= {name: pa.array([found and found.text for found in values], pa.string()) for name, values in texts.items()}
        return score_table(candidates, arrays, UNITS)

    def _correct(self, expected: Answer | None, answer: Answer | None) -> float:
        if expected is None:
            return math.nan
        return float(answer is not None and self._reader.equal(expected, answer))


def _as_float(answer: Answer | None) -> float:
    """The value of an answer as a float; NaN if it is not a number or too large."""
    try:
        return math.nan if answer is None or answer.value is None else float(answer.value)
    except OverflowError:
        return math.nan
