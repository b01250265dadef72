"""When rounds stop, which of them is the best, and the alarm about collapse: functions of dev figures, never of test figures.

Early stopping with `patience` and a least gain is that of neural networks (Prechelt 1998, "Early Stopping - But When?"). That
models trained on their own outputs lose the variety of the first one: Shumailov et al. 2024, "AI models collapse when trained on
recursively generated data". The thresholds of the alarm are ours (DECISIONS.md).
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from limbeck.corpus.config import Config
from limbeck.pipelines.runs.report_model import BEYOND_TARGET, Best, RoundDecision, RoundReport
from limbeck.students.evaluation.measures import HEADINGS, EvaluationRow, Measure

By = Literal["pass_rate", "rouge_1", "rouge_2", "rouge_l", "faithfulness", "saliency", "pmi", "salient_recall", "distinct_2"]
"""Measures of which a higher value is better."""
Independent = Literal["salient_recall", "rouge_1", "rouge_2", "rouge_l"]
"""Measures that filters do not use."""

UNUSED_BY_FILTERS: tuple[Independent, ...] = ("salient_recall", "rouge_l")
"""The independent measures that the alarm and the report look at."""

COLLAPSED_RATIO = 0.5  # of the highest earlier value
COLLAPSED_SHARE = 0.5  # of the outputs: empty, or the same text
LEAST_OUTPUTS, LEAST_DOCUMENTS = 8, 4  # of fewer, shares and intervals say nothing


class StopConfig(Config):
    """Rules that end a run before `rounds`: each looks at the dev figures after a round. At least one must be set."""

    by: By = Field("pass_rate", description="the dev measure of `patience`, and of the best round")
    patience: int | None = Field(None, ge=1, description="rounds in a row without a gain of `by` after which the run ends")
    min_delta: float = Field(0.0, ge=0, description="a gain is more than this above the first teacher and all earlier students")
    independent: Independent = Field("salient_recall", description="the measure of max_independent_fall; no filter may use it")
    max_independent_fall: float | None = Field(
        None, ge=0, description="largest fall of `independent` below the first teacher's value"
    )
    min_diversity: float | None = Field(None, ge=0, description="least distinct-2, as a ratio to the first teacher's value")
    min_yield: float | None = Field(None, ge=0, le=1, description="least accepted rows per candidate of a round")
    on_collapse: bool = Field(False, description="also end the run if outputs collapse; without it, that is only a warning")

    @model_validator(mode="after")
    def _has_a_rule(self) -> "StopConfig":
        rules = (self.patience, self.max_independent_fall, self.min_diversity, self.min_yield)
        if not self.on_collapse and all(rule is None for rule in rules):
            raise ValueError(
                "it has no rule; set patience, max_independent_fall, min_diversity, min_yield or on_collapse, or remove it"
            )
        if self.min_delta and self.patience is None:
            raise ValueError("min_delta belongs to patience; set patience, or remove min_delta")
        return self

    @property
    def measures(self) -> dict[str, str]:
        """The dev measures that its rules need: key → measure."""
        needed: dict[str, str] = {"by": self.by}
        if self.max_independent_fall is not None:
            needed["independent"] = self.independent
        if self.min_diversity is not None:
            needed["min_diversity"] = "distinct_2"
        return needed


def decide(rounds: Sequence[RoundReport], stop: StopConfig | None) -> RoundDecision:
    """Whether a run ends after the last of these rounds, and why: a pure function of their figures; `rounds` are all so far."""
    alarms, untested = collapse(rounds), list[str]()
    stops = [] if stop is None else _fired(rounds, stop, alarms, untested)
    found = best(rounds, stop)
    return RoundDecision(
        stops=stops,
        warnings=[*alarms, *untested],
        best=None if found is None else found.round,
        rules=None if stop is None else stop.model_dump(mode="json"),
    )


def best(rounds: Sequence[RoundReport], stop: StopConfig | None = None) -> Best | None:
    """The round whose student has the highest dev value of `stop.by` (the pass rate if there are no rules); the first of equals.

    None if no student has been measured on dev.
    """
    by: By = "pass_rate" if stop is None else stop.by
    values = {number: value for number in range(len(rounds)) if (value := _mean(student(rounds[number]), by)) is not None}
    if not values:
        return None
    chosen = max(values, key=lambda number: (values[number], -number))
    return Best(round=chosen, by=by, value=values[chosen], teacher=_mean(teacher(rounds), by))


def ended_words(number: int, planned: int, decision: RoundDecision) -> str:
    """Why a run ended after a round, as a sentence."""
    kept = "" if decision.best is None else f"; the best round is {decision.best}"
    made = "1 round" if number == 0 else f"{number + 1} rounds"
    return f"the run ended after {made} of {planned}: {'; '.join(decision.stops)}{kept}"


def as_sentence(words: str) -> str:
    """Words with a capital letter and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."


def student(round: RoundReport) -> EvaluationRow | None:
    """The round's student on dev."""
    return next((row for row in round.evaluation if row.model == "student" and row.split == "dev"), None)


def teacher(rounds: Sequence[RoundReport]) -> EvaluationRow | None:
    """The round-0 teacher on dev."""
    found = rounds[0].evaluation if rounds else []
    return next((row for row in found if row.model == "teacher" and row.split == "dev"), None)


def accepted_per_candidate(round: RoundReport) -> float | None:
    """Accepted rows per candidate, those beyond a target included; None without candidates."""
    rows = round.rows
    return (rows.kept + rows.rejected_by.get(BEYOND_TARGET, 0)) / rows.candidates if rows.candidates else None


def _fired(rounds: Sequence[RoundReport], stop: StopConfig, alarms: Sequence[str], untested: list[str]) -> list[str]:
    """One sentence per rule that fires; a rule whose measure has no value is added to `untested`."""
    number = len(rounds) - 1
    here, first = student(rounds[-1]), teacher(rounds)
    fired = [] if stop.patience is None else _out_of_patience(rounds, stop.patience, stop, untested)
    if stop.max_independent_fall is not None:
        now, then = _mean(here, stop.independent), _mean(first, stop.independent)
        if now is None or then is None:
            untested.append(_no_value(number, "max_independent_fall", stop.independent))
        elif then - now > stop.max_independent_fall:
            fired.append(
                f"round {number}: {HEADINGS[stop.independent]} on dev is {now:.3f}, {then - now:.3f} below the {then:.3f} of the "
                f"round-0 teacher (stop.max_independent_fall: {stop.max_independent_fall:g})"
            )
    if stop.min_diversity is not None:
        now, then = _mean(here, "distinct_2"), _mean(first, "distinct_2")
        if now is None or not then:
            untested.append(_no_value(number, "min_diversity", "distinct_2"))
        elif now / then < stop.min_diversity:
            fired.append(
                f"round {number}: distinct-2 on dev is {now:.3f}, {now / then:.2f} times the {then:.3f} of the round-0 teacher "
                f"(stop.min_diversity: {stop.min_diversity:g})"
            )
    share = accepted_per_candidate(rounds[-1])
    if stop.min_yield is not None and share is not None and share < stop.min_yield:
        fired.append(
            f"round {number}: {share:.3f} rows accepted per candidate, of {rounds[-1].rows.candidates} candidates "
            f"(stop.min_yield: {stop.min_yield:g})"
        )
    return [*fired, *(f"{words} (stop.on_collapse)" for words in alarms if stop.on_collapse)]


def _out_of_patience(rounds: Sequence[RoundReport], patience: int, stop: StopConfig, untested: list[str]) -> list[str]:
    """The sentence of `patience`, if it fires after the last of the rounds."""
    highest, owner, without, value = _mean(teacher(rounds), stop.by), "the round-0 teacher", 0, None
    for number, round in enumerate(rounds):
        value = _mean(student(round), stop.by)
        if value is None:
            continue
        if highest is None or value > highest + stop.min_delta:
            highest, owner, without = value, f"round {number}", 0
        else:
            without += 1
    if value is None:
        untested.append(_no_value(len(rounds) - 1, "patience", stop.by))
        return []
    if without < patience or highest is None:
        return []
    least = f"no gain of more than {stop.min_delta:g} over" if stop.min_delta else "not above"
    times = "1 round" if without == 1 else f"{without} rounds in a row"
    return [
        f"round {len(rounds) - 1}: {HEADINGS[stop.by]} on dev is {value:.3f}, {least} the {highest:.3f} of {owner}, for {times} "
        f"(stop.patience: {patience})"
    ]


def collapse(rounds: Sequence[RoundReport]) -> list[str]:
    """The alarm after the last of these rounds: one sentence per sign that its student's outputs collapse.

    Signs: most outputs are empty or the same text; distinct-2 or the share of distinct outputs is less than half of the highest
    earlier value; outputs are less than half as long as an earlier student's; the pass rate rises while a measure that no filter
    uses falls by more than its interval. Too few outputs give no alarm.
    """
    number, here, first = len(rounds) - 1, student(rounds[-1]), teacher(rounds)
    if here is None or here.documents < LEAST_DOCUMENTS or (here.candidates or 0) < LEAST_OUTPUTS:
        return []
    students = [(f"round {index}", row) for index, round in enumerate(rounds[:-1]) if (row := student(round)) is not None]
    earlier = [*([("the round-0 teacher", first)] if first is not None else []), *students]
    found = [*_degenerate(number, here, first), *_less_diverse(number, here, earlier)]
    if here.form is not None:
        lengths = [(row.form.words, who) for who, row in students if row.form is not None]
        found += _halved(number, "mean words per output on dev", "z.1f", here.form.words, lengths)
    return [*found, *_rewarded(number, here)]


def _degenerate(number: int, here: EvaluationRow, first: EvaluationRow | None) -> list[str]:
    """Empty or equal outputs, unless the first teacher's are so too: answers to closed questions repeat."""
    form, before = here.form, None if first is None else first.form
    if form is None:
        return []
    if form.empty >= COLLAPSED_SHARE > (0.0 if before is None else before.empty):
        return [f"round {number}: {100 * form.empty:.0f} % of the student's dev outputs are empty"]
    if form.commonest >= COLLAPSED_SHARE > (0.0 if before is None else before.commonest):
        return [f"round {number}: {100 * form.commonest:.0f} % of the student's dev outputs are the same text"]
    return []


def _less_diverse(number: int, here: EvaluationRow, earlier: Sequence[tuple[str, EvaluationRow]]) -> list[str]:
    found = []
    measured = [(row.distinct_2, who) for who, row in earlier if row.distinct_2 is not None]
    if here.distinct_2 is not None and measured:
        highest, _ = max(measured, key=lambda one: one[0].mean)
        if here.distinct_2.high < highest.low:
            values = [(value.mean, who) for value, who in measured]
            found += _halved(number, "distinct-2 on dev", "z.3f", here.distinct_2.mean, values)
    if here.form is not None:
        shares = [(row.form.distinct, who) for who, row in earlier if row.form is not None]
        found += _halved(number, "the share of distinct dev outputs", "z.3f", here.form.distinct, shares)
    return found


def _halved(number: int, what: str, form: str, now: float, earlier: Sequence[tuple[float, str]]) -> list[str]:
    """The sentence about a value that is less than `COLLAPSED_RATIO` of the highest earlier one ((value, whose) pairs)."""
    if not earlier:
        return []
    highest, who = max(earlier, key=lambda one: one[0])
    if now >= COLLAPSED_RATIO * highest:
        return []
    return [f"round {number}: {what} is {now:{form}}, less than half of the {highest:{form}} of {who}"]


def _rewarded(number: int, here: EvaluationRow) -> list[str]:
    """A pass rate above the first teacher's, with an independent measure below it by more than its interval."""
    differences = here.difference_to_round_0_teacher or {}
    passing = differences.get("pass_rate")
    for name in UNUSED_BY_FILTERS:
        change: Measure | None = differences.get(name)
        if passing is not None and change is not None and passing.mean > 0 > change.high:
            return [
                f"round {number}: the pass rate on dev rose by {passing.mean:.3f} over the round-0 teacher, while "
                f"{HEADINGS[name]}, which no filter uses, fell by {-change.mean:.3f} (95 % interval {-change.high:.3f} to "
                f"{-change.low:.3f})"
            ]
    return []


def _mean(row: EvaluationRow | None, name: str) -> float | None:
    measure: Measure | None = None if row is None else dict(row)[name]
    return None if measure is None else measure.mean


def _no_value(number: int, rule: str, measure: str) -> str:
    return f"round {number}: stop.{rule} could not be tested, because {HEADINGS[measure]} has no value on dev"
