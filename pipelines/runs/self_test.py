"""What the self-test of a judge found: accuracy by corruption, whether both orders agree, and the warning that follows.

A filter whose judgement is a language model's is tested on the run's own data: for pairs of a true and a corrupted output of one
source it is asked which is better, in both orders, and which its own score prefers. One pair per source and corruption is drawn,
so the pairs of a corruption are independent, and intervals are Wilson's (1927). Over several corruptions, the pairs of one source
are not, so the number of sources counts as the sample.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, ValidationError

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_json
from limbeck.filters.contract import PROBED
from limbeck.filters.corruptions import CORRUPTIONS

Floats = npt.NDArray[np.float64]
Verdict = Literal["above chance", "not above chance", "not tested"]
Measured = Literal["answers", "scores"]

CHANCE, USEFUL = 0.5, 0.75
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
SUBTLE, EASY = "all subtle ones", "all easy ones"


class Share(Config):
    """A share of pairs with its 95 % interval; ties count half."""

    share: float = Field(ge=0, le=1)
    low: float
    high: float

    @property
    def above_chance(self) -> bool:
        """Whether the interval is above 0.5."""
        return self.low > CHANCE


class CorruptionResult(Config):
    """The pairs of one corruption, or of several together; a share is null if there are no pairs."""

    corruption: str
    subtle: bool
    pairs: int = Field(ge=0, description="pairs with an answer in both orders and both scores")
    unanswered: int = Field(ge=0, description="pairs that do not fit the engine's context, or whose answers could not be parsed")
    answers: Share | None = Field(description="right answers to the question which output is better, over both orders")
    orders_agree: float | None = Field(description="share of pairs for which both orders name the same output")
    answer_a: float | None = Field(description='share of answers "A", which is the output that is shown first')
    scores: Share | None = Field(description="pairs whose true output has the higher score")


class SelfTest(Config):
    """The self-test of one filter: `by` says whether its answers or its scores decide the verdict on subtle corruptions."""

    filter: str
    kind: str
    verdict: Verdict
    by: Measured
    reason: str | None = Field(None, description="why there is no verdict")
    sources: int = Field(0, ge=0)
    corruptions: list[CorruptionResult] = Field(default_factory=list)
    together: list[CorruptionResult] = Field(default_factory=list, description="all subtle and all easy corruptions")

    @property
    def subtle(self) -> CorruptionResult | None:
        """All subtle corruptions together."""
        return next((one for one in self.together if one.subtle), None)

    @property
    def deciding(self) -> Share | None:
        """The share that decides the verdict."""
        if self.subtle is None:
            return None
        return self.subtle.answers if self.by == "answers" else self.subtle.scores


def stored(file: Path) -> list[SelfTest]:
    """The self-tests in a file; empty if there is none. Raises LimbeckError if it has another format."""
    if not file.exists():
        return []
    try:
        return [SelfTest.model_validate(one) for one in read_json(file)]
    except (ValidationError, TypeError) as error:
        raise LimbeckError(f"{file} does not have the format of this version; delete it and rerun the command") from error


def evaluate(filter_: str, kind: str, by: Measured, probed: pa.Table) -> SelfTest:
    """The result of a filter's probes: a table of `source_id`, `corruption` and the columns `PROBED`; NaN or null: no answer."""
    owners, kinds = probed["source_id"].to_pylist(), np.array(probed["corruption"].to_pylist(), dtype=object)
    columns = {name: probed[name].cast(pa.float64()).to_numpy() for name in PROBED.names}
    each = {name: kinds == name for name in CORRUPTIONS}
    found = [_result(name, one.subtle, each[name], owners, columns) for name, one in CORRUPTIONS.items() if each[name].any()]
    together = []
    for name, subtle in ((SUBTLE, True), (EASY, False)):
        rows = np.logical_or.reduce([each[other] for other, one in CORRUPTIONS.items() if one.subtle == subtle])
        together.append(_result(name, subtle, rows, owners, columns))
    result = SelfTest(
        filter=filter_,
        kind=kind,
        verdict="not tested",
        by=by,
        sources=len(set(owners)),
        corruptions=found,
        together=together,
    )
    if result.deciding is None:
        reason = "no output could be corrupted subtly" if not _pairs(together[0]) else "it answered for no pair"
        return result.model_copy(update={"reason": reason})
    return result.model_copy(update={"verdict": "above chance" if result.deciding.above_chance else "not above chance"})


def not_tested(filter_: str, kind: str, by: Measured, reason: str) -> SelfTest:
    """The entry of a filter that was not tested."""
    return SelfTest(filter=filter_, kind=kind, verdict="not tested", by=by, reason=reason)


def _pairs(result: CorruptionResult) -> int:
    return result.pairs + result.unanswered


def _result(
    name: str, subtle: bool, rows: npt.NDArray[np.bool_], owners: Sequence[str], columns: Mapping[str, Floats]
) -> CorruptionResult:
    """The figures of some rows."""
    answered = rows & np.logical_and.reduce([np.isfinite(values) for values in columns.values()])
    first, second, true, corrupted = (columns[name][answered] for name in PROBED.names)
    sources = len({owners[row] for row in np.flatnonzero(answered).tolist()})
    facts: dict[str, Any] = dict.fromkeys(("answers", "orders_agree", "answer_a", "scores"))
    if sources:
        right = (_more(first, CHANCE) + _more(second, CHANCE)) / 2
        says_first = (_more(first, CHANCE) + _more(CHANCE, second)) / 2
        agree = ((first > CHANCE) & (second > CHANCE)) | ((first < CHANCE) & (second < CHANCE))
        facts = {
            "answers": wilson(float(right.mean()), sources),
            "orders_agree": float(agree.mean()),
            "answer_a": float(says_first.mean()),
            "scores": wilson(float(_more(true, corrupted).mean()), sources),
        }
    unanswered = int(rows.sum() - answered.sum())
    return CorruptionResult(corruption=name, subtle=subtle, pairs=int(answered.sum()), unanswered=unanswered, **facts)


def _more(one: Floats | float, other: Floats | float) -> Floats:
    """1 where `one` is larger, 0.5 where both are equal, else 0."""
    return np.where(np.greater(one, other), 1.0, np.where(np.equal(one, other), 0.5, 0.0))


def wilson(share: float, number: int) -> Share:
    """Wilson's 95 % interval of a share of `number` independent trials; with ties that count half, it is too wide."""
    assert number > 0, number
    centre = (share + Z**2 / (2 * number)) / (1 + Z**2 / number)
    reach = Z / (1 + Z**2 / number) * math.sqrt(share * (1 - share) / number + Z**2 / (4 * number**2))
    return Share(share=share, low=max(0.0, centre - reach), high=min(1.0, centre + reach))


def warning(found: Sequence[SelfTest]) -> str | None:
    """One sentence per filter that is not above chance on subtle corruptions, with its figures and the way out; or None."""
    sentences = [_warning(one) for one in found if one.verdict == "not above chance"]
    return " ".join(sentences) or None


def note(found: Sequence[SelfTest]) -> str | None:
    """One sentence per filter that was not tested, and why; or None."""
    sentences = [f"The {one.kind} {one.filter} was not tested on corrupted outputs: {one.reason}." for one in found if one.reason]
    return " ".join(sentences) or None


def beside(one: SelfTest) -> str:
    """The result in a few words, for a place beside a score."""
    if one.deciding is None or one.subtle is None:
        return "not tested on corrupted outputs"
    words = "" if one.verdict == "above chance" else "not above chance: "
    agree = f"orders agree on {100 * (one.subtle.orders_agree or 0):.0f} %"
    return f"{words}right on {percent(one.deciding)} of subtle corruptions, {agree}"


def _warning(one: SelfTest) -> str:
    share, subtle = one.deciding, one.subtle
    assert share is not None and subtle is not None and subtle.orders_agree is not None and subtle.answer_a is not None
    does = "its scores prefer" if one.by == "scores" else "it answers for"
    of = f"{counted(subtle.pairs, 'pair')} of {counted(one.sources, 'source')}"
    few = "; use more sources to be certain" if share.share > CHANCE and share.high >= USEFUL else ""
    return (
        f"The {one.kind} {one.filter} does not tell outputs from subtly corrupted ones better than chance: {does} the true "
        f"output in {percent(share)} of {of}; asked in both orders, it names the same output for "
        f'{100 * subtle.orders_agree:.0f} % of the pairs, and {100 * subtle.answer_a:.0f} % of its answers are "A". '
        f"So its scores say little: give filters.{one.filter} a better engine or another rubric, in a new run{few}."
    )


def counted(number: int, thing: str) -> str:
    """A number with its noun."""
    return f"{number} {thing}{'s' * (number != 1)}"


def percent(share: Share) -> str:
    """A share with its interval."""
    return f"{100 * share.share:.0f} % (95 % interval {100 * share.low:.0f} to {100 * share.high:.0f})"
