"""The end of a round, after its candidates are scored: calibrate once, decide, publish the dataset, train the student."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from limbeck.cluster.engines.models import resolve
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import count_rows, part_names, read_json, read_table, write_json, write_table
from limbeck.corpus.schemas import DECISIONS
from limbeck.corpus.seeds import derive_seed
from limbeck.pipelines.driver.context import Context
from limbeck.pipelines.runs.calibrate import calibrate, freeze
from limbeck.pipelines.runs.card import write_dataset
from limbeck.pipelines.runs.dataset import dataset_facts, dataset_rows
from limbeck.pipelines.runs.funnel import funnel
from limbeck.pipelines.runs.select import connect_parts, decide, in_order, joined, to_target
from limbeck.pipelines.runs.separation import Separation, separations, unclear, warning
from limbeck.students.contract import StudentConfig

if TYPE_CHECKING:
    from limbeck.cluster.training import Placement


def select(context: Context, number: int) -> None:
    """Write `decisions.parquet`, `rows.json` and `dataset/` from the scores; round 0 calibrates the bounds first.

    Raises LimbeckError if no candidate was kept, naming the filter that rejected most.
    """
    started, folder = time.monotonic(), context.folder
    parts = part_names(folder.sources("train") if context.recipe.target is None else folder.candidates(number))
    scores = {name: folder.scores(number, name) for name in context.filter_names}
    for path, stage in [(folder.candidates(number), "candidates"), *((path, "scores") for path in scores.values())]:
        assert part_names(path) == parts, f"{path} lacks parts"
        context.finish(path, stage, number, rows=count_rows(path))
    if not folder.decisions(number).exists():
        evidence: dict[str, pa.Table] = {}
        found = judged(context, number, None, evidence)
        if context.recipe.target is not None:
            found = to_target(found, in_order(folder.candidates(number)), context.recipe.target.rows)
        for name, rows_found in evidence.items():
            write_table(folder.choices(number, name), rows_found)
        write_table(folder.decisions(number), found, DECISIONS)
    decisions = read_table(folder.decisions(number))
    rows = funnel(decisions, [*context.filter_names, *(filter_.name for filter_ in context.set_filters)])
    write_json(folder.round(number) / "rows.json", rows.model_dump())
    with connect_parts(folder.candidates(number), scores) as connection:
        table = joined(connection, context.filter_names, evidence=True)
    kept = table.filter(pa.array(decisions["kept"].to_pylist(), pa.bool_()))
    assert table["candidate_id"].equals(decisions["candidate_id"]), "decisions and candidates must be in the same order"
    context.events.emit("selected", round=number, **rows.model_dump())
    if not rows.kept:
        most = max(rows.rejected_by, key=lambda name: rows.rejected_by[name], default="nothing")
        raise LimbeckError(
            f"round {number} kept 0 of {rows.candidates} candidates ({most} rejected {rows.rejected_by.get(most, 0)}); see "
            f"`limbeck inspect {folder.path} --round {number} --rejected-by {most}`, then relax that filter or improve the "
            "prompt, in a new run"
        )
    facts = dataset_facts(folder, context.recipe, number, rows, read_json(folder.calibration))
    write_dataset(folder.dataset(number), dataset_rows(folder, context.recipe, kept), facts)
    context.finish(folder.dataset(number), "decisions", number, rows_in=rows.candidates, rows_out=rows.kept)
    seconds = round(time.monotonic() - started, 3)
    context.events.emit("stage_done", stage=f"round-{number}/selection", seconds=seconds, model_seconds=0.0)


def judged(
    context: Context, number: int, parts: Sequence[str] | None = None, evidence: dict[str, pa.Table] | None = None
) -> pa.Table:
    """Decide on a round's candidates in these parts (None: all), after calibrating bounds that are not calibrated yet.

    Evidence of set-wise filters is added to `evidence`.
    """
    folder = context.folder
    scores = {name: folder.scores(number, name) for name in context.filter_names}
    built = [filter_.build() for filter_ in context.set_filters]
    with connect_parts(folder.candidates(number), scores, folder.sources("train"), parts) as connection:
        bounds = freeze(context.filter_bounds, calibration(context, joined(connection, context.filter_names), parts))
        return decide(connection, bounds, built, evidence.__setitem__ if evidence is not None else None)


def calibration(context: Context, round_0: pa.Table, parts: Sequence[str] | None = None) -> dict[str, Any]:
    """The frozen bounds: read from disk, or computed now from the train candidates of round 0 in these parts (None: all)."""
    path = context.folder.calibration
    if not path.exists():
        found = calibrate(round_0, context.filter_bounds, context.recipe.calibration.pass_rate)
        checked = separations_of(context, found, parts)
        write_json(path, {**found, "separation": [one.model_dump() for one in checked]})
        if (words := warning(checked)) is not None:
            context.events.emit("warning", words=words)
        if (words := unclear(checked)) is not None:
            context.events.emit("note", words=words)
        context.events.emit("calibrated", pass_rate=found["pass_rate"], candidates=found["candidates"])
        if found["note"]:
            context.events.emit("note", words=found["note"])
    return dict(read_json(path))


def separations_of(context: Context, found: dict[str, Any], parts: Sequence[str] | None) -> list[Separation]:
    """Whether the frozen bounds separate the candidates of round 0 from mismatched pairs."""
    folder = context.folder
    scores = {name: folder.scores(0, name) for name in context.filter_names}
    return separations(folder.candidates(0), scores, context.filters, dict(freeze(context.filter_bounds, found)), parts)


def train_student(context: Context, number: int, student: StudentConfig, placement: "Placement") -> None:
    """Train the round's student on its dataset, unless it is already published."""
    folder, recipe = context.folder, context.recipe
    if folder.student(number).exists():
        return
    started = time.monotonic()
    rows, progress = (
        read_json(folder.round(number) / "rows.json")["kept"],
        folder.student(number).parent / "training" / "progress.json",
    )
    context.events.emit("training_started", round=number, rows=rows, progress=str(progress))
    metrics = student.train(
        dataset=folder.dataset(number),
        teacher=resolve(context.teacher(number).model),
        out=folder.student(number),
        seed=derive_seed(recipe.seed, number, "student") % 2**31,
        documents=folder.sources("train"),
        placement=placement,
    )
    facts = {name: metrics[name] for name in ("steps", "loss_first", "loss_last") if name in metrics}
    context.events.emit("trained", round=number, **facts)
    for words in metrics.get("warnings", ()):
        context.events.emit("note", words=words)
    seconds, model_seconds = round(time.monotonic() - started, 3), round(metrics.get("train_seconds", 0.0), 3)
    context.events.emit("stage_done", stage=f"round-{number}/student", seconds=seconds, model_seconds=model_seconds)
