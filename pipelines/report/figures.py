"""The report's figures, and the yield curve of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from limbeck.pipelines.report.svg import Axis, IntervalSeries, Scale, Series, Shade, Shape, intervals, lines, stacked_bars, steps
from limbeck.pipelines.runs.report_model import Limits, RoundReport, Seconds
from limbeck.pipelines.runs.stopping import student, teacher
from limbeck.students.evaluation.measures import EvaluationRow

REJECTED_TONES = 8
BINS = 30
MOST_POINTS = 200  # of a curve


@dataclass(frozen=True)
class Histogram:
    """Shares of candidates by bar and round; the bars divide the axis from `low` to `high` evenly."""

    low: float
    high: float
    shares: dict[str, list[float]]


def pass_rates(rounds: Sequence[RoundReport]) -> Markup:
    """Pass rate of the first teacher, of each round's student, and of the controls, on dev and test, with intervals."""
    names = ["teacher, round 0", *(f"student, round {index}" for index in range(len(rounds)))]
    splits: tuple[tuple[str, str, Shape], ...] = (("dev", "grey", "ring"), ("test", "blue", "dot"))
    series = []
    for split, tone, shape in splits:
        found: dict[str, EvaluationRow] = {}
        for index, row in ((index, row) for index, round in enumerate(rounds) for row in round.evaluation if row.split == split):
            if row.model == "student" or (row.model == "teacher" and index == 0):
                found[f"{row.model}, round {index}"] = row
            elif row.model != "teacher":
                found[row.model] = row
        rates = {name: row.pass_rate for name, row in found.items() if row.pass_rate is not None}
        points = {name: (rate.mean, rate.low, rate.high) for name, rate in rates.items()}
        names += [name for name in points if name not in names]
        series.append(IntervalSeries(split, tone, shape, points))
    shown = [name for name in names if any(name in one.points for one in series)]
    return intervals("Pass rate by model", shown, series, Axis("pass rate", "share"))


def over_rounds(rounds: Sequence[RoundReport], measures: Mapping[str, str]) -> Markup:
    """Measures (name → heading) of the first teacher and of each round's student on dev, with intervals."""
    models = {"teacher, round 0": teacher(rounds)} | {f"student, round {index}": student(one) for index, one in enumerate(rounds)}
    shown = {name: row for name, row in models.items() if row is not None}
    styles: tuple[tuple[str, Shape], ...] = (("blue", "dot"), ("orange", "ring"), ("green", "box"), ("grey", "dot"))
    series = []
    for (measure, heading), (tone, shape) in zip(measures.items(), cycle(styles), strict=False):
        found = {name: value for name, row in shown.items() if (value := dict(row)[measure]) is not None}
        points = {name: (value.mean, value.low, value.high) for name, value in found.items()}
        series.append(IntervalSeries(heading, tone, shape, points))
    return intervals("Dev measures over the rounds", list(shown), series, Axis("dev"))


def funnel(rounds: Sequence[RoundReport]) -> Markup:
    """Where each round's candidates went: kept, or the first filter that rejected them."""
    filters = list(dict.fromkeys(name for round in rounds for name in round.rows.rejected_by))
    series = [Series("kept", "green", [round.rows.kept for round in rounds])]
    for index, name in enumerate(filters):
        counts = [round.rows.rejected_by.get(name, 0) for round in rounds]
        series.append(Series(f"rejected by {name}", f"rejected-{1 + index % REJECTED_TONES}", counts))
    names = [f"round {index}" for index in range(len(rounds))]
    return stacked_bars("Candidates kept and rejected, by round", names, series, Axis("candidates", "count"))


def seconds(found: Seconds) -> Markup:
    """Wall-clock seconds of each stage: inside models, and everything else."""
    stages = found.by_stage.values()
    series = [
        Series("in models", "blue", [stage.model for stage in stages]),
        Series("everything else", "orange", [max(0.0, stage.total - stage.model) for stage in stages]),
    ]
    axis = Axis("seconds", "seconds")
    totals = [axis.write(stage.total) for stage in stages]
    return stacked_bars("Seconds by stage", list(found.by_stage), series, axis, totals, pitch=32)


def histogram(by_round: Sequence[npt.NDArray[np.float64]], limit: Limits, filter_name: str, column: str) -> Markup:
    """Distribution of one score in the first and the last round; the rejected range is shaded."""
    binned = bins(by_round, limit)
    tones = ("grey", "blue") if len(binned.shares) > 1 else ("blue",)
    series = [Series(name, tone, shares) for (name, shares), tone in zip(binned.shares.items(), tones, strict=True)]
    shades = []
    if limit.minimum is not None:
        shades.append(Shade(binned.low, limit.minimum, limit.minimum, f"{limit.minimum:z.3g}"))
    if limit.maximum is not None:
        shades.append(Shade(limit.maximum, binned.high, limit.maximum, f"{limit.maximum:z.3g}"))
    axes = Axis(column), Axis("share of candidates", "share")
    return steps(f"{filter_name}: {column}", Scale(binned.low, binned.high), series, shades, axes)


def bins(by_round: Sequence[npt.NDArray[np.float64]], limit: Limits) -> Histogram:
    """Count the values of the first and of the last round that have any; at least one has.

    The axis spans the middle 99 % of the values and the bounds; values beyond are counted in the outermost bars.
    """
    shown = [(index, values) for index, values in enumerate(by_round) if len(values)]
    shown = [shown[0], shown[-1]] if len(shown) > 1 else shown
    every = np.concatenate([values for _, values in shown])
    ends = [*np.quantile(every, [0.005, 0.995]), *(value for value in (limit.minimum, limit.maximum) if value is not None)]
    margin = 0.04 * (max(ends) - min(ends)) or 0.5
    low, high = float(min(ends) - margin), float(max(ends) + margin)
    edges = np.linspace(low, high, BINS + 1)
    shares = {}
    for index, values in shown:
        shares[f"round {index}"] = (np.histogram(np.clip(values, low, high), edges)[0] / len(values)).tolist()
    return Histogram(low, high, shares)


def yield_curve(key: str, points: Sequence[Mapping[str, Any]]) -> Markup:
    """Number of candidates that each value of a swept bound keeps."""
    names = {"kept": ("kept candidates", "blue"), "sources_kept": ("sources with a kept candidate", "orange")}
    names["undecided"] = ("undecided", "grey")
    series = [
        Series(label, tone, [point[name] for point in points])
        for name, (label, tone) in names.items()
        if name == "kept" or any(point[name] for point in points)
    ]
    axes = Axis(key), Axis("rows", "count")
    return lines(f"kept by {key}", [point["value"] for point in points], series, axes)


def training(name: str, found: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """The curves of a training by its steps: loss, held-out loss if it was measured, and learning rate.

    Neighbouring steps are averaged if there are many. Beside each held-out loss is the mean training loss since the one before.
    """
    losses, rates = _averaged(found, "loss"), _averaged(found, "learning_rate")
    step = Axis("step", "count")
    drawn = []
    if losses:
        loss = Series("training loss", "blue", [value for _, value in losses])
        drawn.append(lines(f"{name}: training loss", [at for at, _ in losses], [loss], (step, Axis("loss"))))
    measured = [int(line["step"]) for line in found if _number(line, "held_out_loss") is not None]
    if len(measured) > 1:
        held_out = [_number(line, "held_out_loss") for line in found if int(line["step"]) in set(measured)]
        since = [
            _mean([value for line in found if low < line["step"] <= high and (value := _number(line, "loss")) is not None])
            for low, high in zip([-1, *measured], measured, strict=False)
        ]
        series = [Series("held-out loss", "orange", held_out), Series("training loss since the point before", "blue", since)]
        drawn.append(lines(f"{name}: held-out loss", measured, series, (step, Axis("loss"))))
    if rates:
        rate = Series("learning rate", "green", [value for _, value in rates])
        drawn.append(lines(f"{name}: learning rate", [at for at, _ in rates], [rate], (step, Axis("learning rate"))))
    return drawn


def _averaged(found: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Steps and values of a metric, averaged over neighbours so that there are `MOST_POINTS` at most."""
    points = [(float(line["step"]), value) for line in found if (value := _number(line, key)) is not None]
    size = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _number(line: Mapping[str, Any], key: str) -> float | None:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
