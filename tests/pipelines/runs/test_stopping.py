"""When rounds stop, which is the best, and the alarm about collapse: tables of figures, and a naive reading of `patience`."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from limbeck.pipelines.runs.report_model import RoundReport, Rows
from limbeck.pipelines.runs.stopping import StopConfig, best, collapse, decide, ended_words
from limbeck.students.evaluation.measures import SCALARS, EvaluationRow, Measure, OutputForm

FORM = {"words": 10.0, "distinct": 0.9, "commonest": 0.1, "empty": 0.0}


def row(model: Any, split: Any = "dev", documents: int = 10, candidates: int | None = 20, **values: Any) -> EvaluationRow:
    """A model's figures: a measure is its mean, or (mean, low, high); `form` changes FORM, `change` is to the first teacher."""
    form, change = values.pop("form", {}), values.pop("change", None)
    named: dict[str, Any] = {
        **dict.fromkeys(SCALARS),
        **{"pass_rate": 0.5, "salient_recall": 0.4, "distinct_2": 0.6},
        **values,
    }
    return EvaluationRow(
        model=model,
        split=split,
        documents=documents,
        candidates=candidates,
        passing=None,
        pass_rate_by_filter={},
        form=None if form is None else OutputForm(**{**FORM, **form}),
        difference_to_round_0_teacher=None if change is None else {name: measure(value) for name, value in change.items()},
        **{name: measure(value) for name, value in named.items()},
    )


def measure(value: Any) -> Measure | None:
    if value is None:
        return None
    mean, low, high = value if isinstance(value, tuple) else (value, value - 0.01, value + 0.01)
    return Measure(mean=mean, low=low, high=high)


def rounds(students: Sequence[dict[str, Any]], teacher: dict[str, Any] | None = None, **counts: Any) -> list[RoundReport]:
    """One round per student; in round 0 the teacher comes first. Test figures that would fire every rule are beside them."""
    made = []
    for number, values in enumerate(students):
        rows = Rows(**{"sources": 10, "candidates": 100, "kept": 50, "rejected_by": {"pmi": 50}, **counts})
        first = [row("teacher", **(teacher or {}))] if number == 0 else []
        on_test = row("student", "test", pass_rate=0.0, salient_recall=0.0, distinct_2=0.0, form={"empty": 1.0})
        made.append(RoundReport(rows=rows, evaluation=[*first, row("student", **values), on_test]))
    return made


@pytest.mark.parametrize(
    ("stop", "students", "counts", "words"),
    [
        ({"patience": 1}, [{"pass_rate": 0.5}], {}, "is 0.500, not above the 0.500 of the round-0 teacher, for 1 round"),
        ({"patience": 1}, [{"pass_rate": 0.501}], {}, None),
        ({"patience": 1, "min_delta": 0.01}, [{"pass_rate": 0.505}], {}, "no gain of more than 0.01 over the 0.500"),
        ({"patience": 1}, [{"pass_rate": 0.6}, {"pass_rate": 0.58}], {}, "not above the 0.600 of round 0, for 1 round"),
        ({"patience": 2}, [{"pass_rate": 0.6}, {"pass_rate": 0.58}], {}, None),
        ({"patience": 2}, [{"pass_rate": 0.6}, {"pass_rate": 0.5}, {"pass_rate": 0.6}], {}, "for 2 rounds in a row (stop"),
        ({"patience": 2}, [{"pass_rate": 0.4}, {"pass_rate": 0.6}, {"pass_rate": 0.5}], {}, None),
        ({"patience": 1, "by": "salient_recall"}, [{"salient_recall": 0.3}], {}, "salient recall on dev is 0.300"),
        ({"max_independent_fall": 0.05}, [{"salient_recall": 0.36}], {}, None),
        ({"max_independent_fall": 0.05}, [{"salient_recall": 0.34}], {}, "salient recall on dev is 0.340, 0.060 below the 0.400"),
        ({"min_diversity": 0.8}, [{"distinct_2": 0.49}], {}, None),
        ({"min_diversity": 0.8}, [{"distinct_2": 0.45}], {}, "distinct-2 on dev is 0.450, 0.75 times the 0.600"),
        ({"min_yield": 0.5}, [{}], {}, None),
        ({"min_yield": 0.51}, [{}], {}, "0.500 rows accepted per candidate, of 100 candidates (stop.min_yield: 0.51)"),
        ({"min_yield": 0.51}, [{}], {"kept": 40, "rejected_by": {"pmi": 45, "target": 15}}, None),  # beyond a target: accepted
        ({"on_collapse": True}, [{"form": {"empty": 0.5}}], {}, "50 % of the student's dev outputs are empty (stop.on_collapse)"),
        ({"on_collapse": True}, [{}], {}, None),
    ],
)  # fmt: skip
def test_a_rule_fires_beyond_its_bound(stop: Any, students: Any, counts: Any, words: str | None) -> None:
    decision = decide(rounds(students, **counts), StopConfig(**stop))
    if words is None:
        assert decision.stops == []
    else:
        (said,) = decision.stops
        assert words in said and said.startswith(f"round {len(students) - 1}: ")
        kept = f"; the best round is {decision.best}"
        assert ended_words(len(students) - 1, 9, decision).endswith(f"of 9: {said}{kept}")
    assert decision.rules == StopConfig(**stop).model_dump(mode="json")


def test_patience_counts_as_a_naive_reader_does() -> None:
    rng = random.Random(5)
    for _ in range(300):
        patience, delta = rng.randint(1, 3), rng.choice([0.0, 0.1])
        values = [rng.randint(0, 10) / 10 for _ in range(rng.randint(1, 6))]
        found = rounds([{"pass_rate": value} for value in values])
        fired = bool(decide(found, StopConfig(patience=patience, min_delta=delta)).stops)
        records, highest = list[bool](), 0.5
        for value in values:
            records.append(value > highest + delta)
            highest = value if records[-1] else highest
        assert fired == (len(values) >= patience and not any(records[-patience:]))
        chosen = best(found)
        assert chosen is not None and chosen.round == values.index(max(values)) and chosen.value == max(values)


@pytest.mark.parametrize(
    ("teacher", "students", "words"),
    [
        ({}, [{}], None),
        ({}, [{"form": {"commonest": 0.6}}], "60 % of the student's dev outputs are the same text"),
        ({"form": {"commonest": 0.5}}, [{"form": {"commonest": 0.6}}], None),  # answers to closed questions
        ({"form": None}, [{"form": {"empty": 0.8}}], "80 % of the student's dev outputs are empty"),  # an older version's teacher
        ({}, [{"distinct_2": 0.35}], None),
        ({}, [{"distinct_2": 0.29}], "distinct-2 on dev is 0.290, less than half of the 0.600 of the round-0 teacher"),
        ({}, [{"distinct_2": (0.29, 0.1, 0.6)}], None),  # its interval reaches the teacher's
        ({"distinct_2": 0.4}, [{"distinct_2": 0.7}, {"distinct_2": 0.3}], "less than half of the 0.700 of round 0"),
        ({}, [{"distinct_2": 0.45}, {"distinct_2": 0.31}, {"distinct_2": 0.25}], "of the round-0 teacher"),  # a slow one
        ({}, [{"form": {"distinct": 0.4}}], "the share of distinct dev outputs is 0.400, less than half of the 0.900"),
        ({}, [{"form": {"words": 3.0}}], None),  # a student may be taught to be brief
        ({}, [{"form": {"words": 8.0}}, {"form": {"words": 3.0}}], "words per output on dev is 3.0, less than half of the 8.0"),
        ({}, [{"change": {"pass_rate": 0.1, "salient_recall": (-0.1, -0.15, -0.05)}}], "by 0.100 (95 % interval 0.050 to 0.150)"),
        ({}, [{"change": {"pass_rate": 0.1, "salient_recall": (-0.1, -0.25, 0.05)}}], None),
        ({}, [{"change": {"pass_rate": -0.1, "salient_recall": (-0.1, -0.15, -0.05)}}], None),
        ({}, [{"change": {"pass_rate": 0.1, "rouge_l": (-0.1, -0.15, -0.05)}}], "while ROUGE-L, which no filter uses, fell"),
        ({}, [{"form": {"empty": 1.0}, "candidates": 7}], None),  # too few to say
        ({}, [{"form": {"empty": 1.0}, "documents": 3}], None),
        ({}, [{"form": None}], None),
    ],
)  # fmt: skip
def test_the_alarm_about_collapse(teacher: Any, students: Any, words: str | None) -> None:
    found = collapse(rounds(students, teacher))
    if words is None:
        assert found == []
    else:
        (said,) = found
        assert words in said and said.startswith(f"round {len(students) - 1}: ")
        decision = decide(rounds(students, teacher), None)
        assert decision.warnings == found and decision.stops == [] and decision.rules is None


def test_a_rule_without_a_value_warns_and_does_not_fire() -> None:
    stop = StopConfig(patience=1, max_independent_fall=0.1, min_diversity=0.9)
    empty = {"pass_rate": None, "salient_recall": None, "distinct_2": None}
    decision = decide(rounds([empty]), stop)
    assert decision.stops == [] and decision.best is None
    assert [words.split("stop.")[1].split(" ")[0] for words in decision.warnings] == [
        "patience",
        "max_independent_fall",
        "min_diversity",
    ]


def test_without_dev_figures_nothing_is_decided() -> None:
    nothing = [RoundReport(rows=Rows(sources=1, candidates=2, kept=1, rejected_by={"pmi": 1}), evaluation=[])]
    decision = decide(nothing, None)
    assert (decision.stops, decision.warnings, decision.best) == ([], [], None)


@pytest.mark.parametrize(
    ("section", "words"),
    [({}, "it has no rule"), ({"min_delta": 0.1, "min_yield": 0.1}, "belongs to patience"), ({"patience": 0}, "greater than")],
)
def test_sections_that_mean_nothing_are_refused(section: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        StopConfig(**section)
