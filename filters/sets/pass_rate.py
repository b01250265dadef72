"""The share of a question's samples that are correct: bounds on it select problems by their difficulty, as open-r1 does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.corpus.config import MOST_SAMPLES
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.answers.reading import Answer
from limbeck.corpus.text.invisible import is_blank
from limbeck.filters.answers import CheckedAnswerKeys, Grouped, shown
from limbeck.filters.config import Name, SetFilterConfig

PASS_RATE = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("correct", pa.float64(), metadata={"unit": "0 or 1"}),
        pa.field("correct_samples", pa.int64(), nullable=False, metadata={"unit": "correct samples of the question"}),
        pa.field("samples", pa.int64(), nullable=False, metadata={"unit": "samples of the question with a reference"}),
    ]
)

NO_REFERENCE = "it has no reference to compare its answer with"
NO_EXPECTED = "its reference states no answer that can be compared"


class PassRateConfig(CheckedAnswerKeys, Grouped, SetFilterConfig):
    """Where outputs state their answers, and bounds on the share of a question's samples that are correct."""

    semantics: ClassVar[int] = 2
    also_rejected: ClassVar[bool] = True

    kind: Literal["pass_rate"] = "pass_rate"
    name: Name = "pass_rate"
    min_rate: float = Field(0.1, ge=0, le=1)
    max_rate: float = Field(0.6, ge=0, le=1)
    keep: Literal["correct", "all"] = Field("correct", description="of a question within the bounds, the correct samples or all")

    @model_validator(mode="after")
    def _in_order(self) -> "PassRateConfig":
        if self.min_rate > self.max_rate:
            raise ValueError(f"min_rate {self.min_rate} is above max_rate {self.max_rate}; lower it")
        return self

    @property
    def requires(self) -> Mapping[str, RowText]:
        """The reference."""
        return {self.kind: "reference"}

    @property
    def least_samples(self) -> int:
        """The fewest of which some number of correct ones is within the bounds; more than can be drawn if none is."""
        return next((size for size in range(1, MOST_SAMPLES + 1) if self._kept_of(size)), MOST_SAMPLES + 1)

    def _kept_of(self, size: int) -> bool:
        """Whether the bounds keep some number of correct samples of so many; the least above `min_rate` is as good as any."""
        near = int(self.min_rate * size)
        fewest = 0 if self.keep == "all" else 1
        return any(self.min_rate <= max(right, fewest) / size <= self.max_rate for right in (near, near + 1))

    @property
    def needs(self) -> frozenset[str]:
        """Output and reference, and what the samples of a question share."""
        return frozenset(("output", "reference", *self.grouping))

    def build(self) -> "PassRateFilter":
        """Return the filter."""
        return PassRateFilter(self)


class PassRateFilter:
    """Checks the answers of all samples of a question, also of those that other filters rejected."""

    def __init__(self, config: PassRateConfig) -> None:
        self.name = config.name
        self._config = config
        self._reader = config.reader()

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `PASS_RATE`, one row per survivor; rows with a null reason are kept.

        `survivors` also holds rejected rows (`rejected_by` is not null), which count as samples: a sample that was cut off is a
        failed one. A sample without an answer is not correct; a sample without a reference does not count.
        """
        names = ("candidate_id", "output", "reference", "rejected_by")
        ids, outputs, references, rejected_by = (survivors[name].to_pylist() for name in names)
        judged: list[dict[str, Any]] = []
        for places in self._config.groups(survivors):
            checks = [self._checked(outputs[place] or "", references[place] or "") for place in places]
            alive = [rejected_by[place] is None for place in places]
            judged += self._judged([ids[place] for place in places], checks, alive)
        return pa.Table.from_pylist(judged, schema=PASS_RATE)

    def _checked(self, output: str, reference: str) -> "_Checked":
        answer, expected = self._reader.read(output), self._reader.read_reference(reference)
        if expected is None:
            return _Checked(answer, None, NO_REFERENCE if is_blank(reference) else NO_EXPECTED)
        if answer is None:
            return _Checked(None, False, f"no answer was found in it, but {shown(expected)} is expected")
        if self._reader.equal(expected, answer):
            return _Checked(answer, True, None)
        return _Checked(answer, False, f"its answer {shown(answer)} is not the reference's, {shown(expected)}")

    def _judged(self, ids: Sequence[str], checks: Sequence["_Checked"], alive: Sequence[bool]) -> Iterator[dict[str, Any]]:
        """Yield the surviving rows of one question."""
        config = self._config
        known = [check.correct for check in checks if check.correct is not None]
        right, samples = sum(known), len(known)
        rate = right / max(samples, 1)  # correctly rounded, so 1 of 10 is not below 0.1
        told = f"the pass rate of its question is {rate:.4g} ({right} of {samples} samples are correct)"
        refused = None
        if rate < config.min_rate:
            refused = f"{told}, below min_rate {config.min_rate:.4g}"
        elif rate > config.max_rate:
            refused = f"{told}, above max_rate {config.max_rate:.4g}"
        for id_, check, is_alive in zip(ids, checks, alive, strict=True):
            if not is_alive:
                continue
            wrong = f"{check.reason}; {told}" if check.reason and config.keep == "correct" else None
            yield {
                "candidate_id": id_,
                "reason": check.reason if check.correct is None else refused or wrong,
                "answer": None if check.answer is None else check.answer.text,
                "correct": None if check.correct is None else float(check.correct),
                "correct_samples": right,
                "samples": samples,
            }


@dataclass(frozen=True)
class _Checked:
    """A sample's answer, whether it is correct (None: no reference tells), and why it is not."""

    answer: Answer | None
    correct: bool | None
    reason: str | None
