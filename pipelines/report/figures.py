"""The report's figures, as Plotly JSON; colours that read on light and on dark paper."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from limbeck.pipelines.runs.report_model import Limits, RoundReport, Seconds
from limbeck.students.evaluation.measures import EvaluationRow

BLUE, ORANGE, GREEN, GREY = "#4a86c5", "#d98b3a", "#4f9d69", "#9098a1"
REJECTED = ("#c8553d", "#d98b3a", "#a77bb5", "#c9a227", "#7a8b99", "#b5657f", "#6d9dc5", "#8c7a5b")
BINS = 30


def pass_rates(rounds: Sequence[RoundReport]) -> go.Figure:
    """Pass rate of the first teacher, of each round's student, and of the controls, on dev and test, with intervals."""
    figure = go.Figure()
    order = ["teacher, round 0", *(f"student, round {index}" for index in range(len(rounds)))]
    controls: list[str] = []
    for split, colour, symbol in (("dev", GREY, "circle-open"), ("test", BLUE, "circle")):
        found: dict[str, EvaluationRow] = {}
        for index, row in ((index, row) for index, round in enumerate(rounds) for row in round.evaluation if row.split == split):
            if row.model == "student" or (row.model == "teacher" and index == 0):
                found[f"{row.model}, round {index}"] = row
            elif row.model != "teacher":
                found[row.model] = row
                controls += [row.model] if row.model not in controls else []
        points = [(name, row.pass_rate) for name, row in found.items() if row.pass_rate is not None]
        if points:
            error = {
                "array": [measure.high - measure.mean for _, measure in points],
                "arrayminus": [measure.mean - measure.low for _, measure in points],
                "thickness": 1.5,
            }
            x, y = [name for name, _ in points], [measure.mean for _, measure in points]
            marker = {"color": colour, "symbol": symbol, "size": 10}
            figure.add_scatter(x=x, y=y, error_y=error, mode="markers", name=split, marker=marker)
    figure.update_layout(scattermode="group", scattergap=0.8)  # dev beside test, not on top of it
    figure.update_xaxes(categoryorder="array", categoryarray=[*order, *controls])
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", title="pass rate")
    return _styled(figure, 340)


def funnel(rounds: Sequence[RoundReport]) -> go.Figure:
    """Where each round's candidates went: kept, or the first filter that rejected them."""
    figure = go.Figure()
    names = [f"round {index}" for index in range(len(rounds))]
    filters = list(dict.fromkeys(name for round in rounds for name in round.rows.rejected_by))
    bars = [("kept", [round.rows.kept for round in rounds], GREEN)]
    for index, name in enumerate(filters):
        bars.append(
            (f"rejected by {name}", [round.rows.rejected_by.get(name, 0) for round in rounds], REJECTED[index % len(REJECTED)])
        )
    for label, counts, colour in bars:
        texts = [str(count) if count else "" for count in counts]
        figure.add_bar(y=names, x=counts, name=label, orientation="h", marker_color=colour, text=texts, textposition="inside")
    figure.update_layout(barmode="stack")
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="candidates")
    return _styled(figure, 130 + 56 * len(rounds))


def seconds(found: Seconds) -> go.Figure:
    """Wall-clock seconds of each stage: inside models, and everything else."""
    stages = list(found.by_stage)
    inside = [found.by_stage[stage].model for stage in stages]
    outside = [max(0.0, found.by_stage[stage].total - found.by_stage[stage].model) for stage in stages]
    figure = go.Figure()
    figure.add_bar(y=stages, x=inside, name="in models", orientation="h", marker_color=BLUE)
    figure.add_bar(y=stages, x=outside, name="everything else", orientation="h", marker_color=ORANGE)
    figure.update_layout(barmode="stack")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="seconds")
    return _styled(figure, 120 + 26 * len(stages))


def histogram(by_round: Sequence[npt.NDArray[np.float64]], limit: Limits, column: str) -> go.Figure:
    """Distribution of one score in the first and the last round, what the bounds reject shaded.

    The axis spans the middle 99 % of the values and the bounds; values beyond are counted in the outermost bars.
    """
    shown = [(index, values) for index, values in enumerate(by_round) if len(values)]
    shown = [shown[0], shown[-1]] if len(shown) > 1 else shown
    every = np.concatenate([values for _, values in shown])
    ends = [*np.quantile(every, [0.005, 0.995]), *(value for value in (limit.minimum, limit.maximum) if value is not None)]
    margin = 0.04 * (max(ends) - min(ends)) or 0.5
    low, high = float(min(ends) - margin), float(max(ends) + margin)
    edges = np.linspace(low, high, BINS + 1)
    figure = go.Figure()
    for (index, values), colour in zip(shown, (GREY, BLUE) if len(shown) > 1 else (BLUE,), strict=True):
        shares = np.histogram(np.clip(values, low, high), edges)[0] / len(values)
        centres = (edges[:-1] + edges[1:]) / 2
        fill = "tozeroy" if colour == GREY else "none"
        line = {"shape": "hvh", "color": colour, "width": 2}
        figure.add_scatter(x=centres.tolist(), y=shares.tolist(), name=f"round {index}", mode="lines", line=line, fill=fill)
    for start, end, bound in ((low, limit.minimum, limit.minimum), (limit.maximum, high, limit.maximum)):
        if bound is not None and start is not None and end is not None:
            figure.add_vrect(x0=start, x1=end, fillcolor=REJECTED[0], opacity=0.14, line_width=0, layer="below")
            figure.add_vline(x=bound, line={"color": REJECTED[0], "dash": "dash", "width": 1.5}, annotation_text=f"{bound:.3g}")
    figure.update_xaxes(title=column, range=[low, high])
    figure.update_yaxes(tickformat=".0%", title="share of candidates")
    return _styled(figure, 280)


def _styled(figure: go.Figure, height: int) -> go.Figure:
    """Transparent paper, and no template: the page's script sets the colours of text and grid by its theme."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 12, "t": 34, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#808890"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        showlegend=True,
    )
    figure.update_xaxes(gridcolor="rgba(128,136,144,.22)", zerolinecolor="rgba(128,136,144,.4)", automargin=True)
    figure.update_yaxes(gridcolor="rgba(128,136,144,.22)", zerolinecolor="rgba(128,136,144,.4)", automargin=True)
    return figure
