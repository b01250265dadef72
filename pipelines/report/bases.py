"""What the students of a run started from, if a model was made or healed for them: one row and one curve per round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from limbeck.corpus.files import has_types
from limbeck.pipelines.report.svg import Axis, Series, lines
from limbeck.pipelines.runs.report_model import Report

NONE = "–"


@dataclass(frozen=True)
class BaseRow:
    """The cells of a round's row; losses are per token and per byte of the sample, of teacher, start and healed model."""

    round: int
    layers: str
    parameters: str
    vocabulary: str
    text: str
    per_token: tuple[str, ...]
    per_byte: tuple[str, ...]
    stopped: str | None


def base_rows(report: Report) -> list[BaseRow]:
    """One row for each round whose student's base was made."""
    return [_row(number, base) for number, base in _bases(report)]


def healing_curves(report: Report) -> list[Markup]:
    """The loss on the sample by the tokens of text, for each round that healed."""
    drawn = []
    for number, base in _bases(report):
        healing = base.get("healing")
        points = [point for point in _points(healing) if has_types(point, {"tokens": int, "nats_per_token": int | float})]
        if len(points) > 1:
            series = [Series("held-out documents", "orange", [point["nats_per_token"] for point in points])]
            axes = Axis("tokens of text", "count"), Axis("nats per token")
            drawn.append(lines(f"Round {number}: loss while healing", [point["tokens"] for point in points], series, axes))
    return drawn


def _bases(report: Report) -> list[tuple[int, Mapping[str, Any]]]:
    found = [(number, (one.training or {}).get("base")) for number, one in enumerate(report.rounds)]
    return [(number, base) for number, base in found if isinstance(base, dict)]


def _points(healing: Any) -> list[Any]:
    curve = healing.get("curve") if isinstance(healing, dict) else None
    return curve if isinstance(curve, list) else []


def _row(number: int, base: Mapping[str, Any]) -> BaseRow:
    kept, dropped = base.get("kept"), base.get("dropped")
    layers = f"{len(kept)} of {len(kept) + len(dropped)}" if isinstance(kept, list) and isinstance(dropped, list) else NONE
    vocabulary, healing = base.get("vocabulary"), base.get("healing")
    counted = has_types(vocabulary, {"tokens": int, "of": int})
    text = healing.get("text") if isinstance(healing, dict) else None
    stopped = healing.get("stopped") if isinstance(healing, dict) else None
    losses = [
        tuple(_number(base.get(f"nats_per_{unit}_{model}")) for model in ("teacher", "start", "healed"))
        for unit in ("token", "byte")
    ]
    return BaseRow(
        round=number,
        layers=layers,
        parameters=f"{base['parameters']:,}" if has_types(base, {"parameters": int}) else NONE,
        vocabulary=f"{vocabulary['tokens']:,} of {vocabulary['of']:,}" if counted and vocabulary is not None else "all",
        text=f"{text['tokens']:,}" if text is not None and has_types(text, {"tokens": int}) else NONE,
        per_token=losses[0],
        per_byte=losses[1],
        stopped=stopped if isinstance(stopped, str) else None,
    )


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else NONE
