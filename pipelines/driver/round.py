"""The end of a round, after its candidates are scored: calibrate once, decide, publish the dataset, train the student."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from limbeck.cluster.engines.models import resolve
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import count_rows, part_names, publishing, read_object, write_json, write_table
from limbeck.corpus.seeds import derive_seed
from limbeck.pipelines.driver.context import Context
from limbeck.pipelines.driver.teacher_logprobs import draw_teacher_logprobs
from limbeck.pipelines.runs import preference_pairs
from limbeck.pipelines.runs.calibrate import calibrate, freeze
from limbeck.pipelines.runs.dataset import dataset_facts
from limbeck.pipelines.runs.funnel import funnel
from limbeck.pipelines.runs.mixture.components import Wanted, opened
from limbeck.pipelines.runs.mixture.mixing import planned, write_mixture
from limbeck.pipelines.runs.mixture.reading import read_mixture, refuse_changed
from limbeck.pipelines.runs.preferences import publish_dataset, refuse_untested
from limbeck.pipelines.runs.records import read_calibration
from limbeck.pipelines.runs.report_model import Rows
from limbeck.pipelines.runs.scored import Scored, connect_parts
from limbeck.pipelines.runs.select import Accepted, Numbers, ScoreTable, accepted, write_decisions
from limbeck.pipelines.runs.self_test import stored
from limbeck.pipelines.runs.separation import Separation, separations, unclear, warning
from limbeck.pipelines.runs.training import progress_file
from limbeck.students.contract import StudentConfig

if TYPE_CHECKING:
    from limbeck.cluster.training import Placement
    from limbeck.cluster.workers.pool import WorkerPool


def select(context: Context, number: int) -> None:
    """Write `decisions.parquet`, `rows.json` and `dataset/` from the scores; round 0 calibrates the bounds first.

    Raises LimbeckError if no candidate was kept, naming the filter that rejected most.
    """
    context.compact_round(number)
    started, folder = time.monotonic(), context.folder
    parts = part_names(folder.sources("train") if context.recipe.target is None else folder.candidates(number))
    scores = {name: folder.scores(number, name) for name in context.filter_names}
    for path, stage in [(folder.candidates(number), "candidates"), *((path, "scores") for path in scores.values())]:
        assert part_names(path) == parts, f"{path} lacks parts"
        context.finish(path, stage, number, rows=count_rows(path))
    with connect_parts(folder.candidates(number), scores, folder.sources("train")) as scored:
        if not folder.decisions(number).exists():
            if (pairs := context.recipe.preferences) is not None:  # before the first decision, `rows` may still be changed
                refuse_untested(pairs, context.recipe, stored(folder.self_test))
            _decide(context, number, scored)
        rows = funnel(
            folder.decisions(number), [*context.filter_names, *(filter_.name for filter_ in context.set_filters_of(number))]
        )
        write_json(folder.round(number) / "rows.json", rows.model_dump())
        context.events.emit("selected", round=number, **rows.model_dump())
        _write_dataset(context, number, scored, rows)
    context.finish(folder.dataset(number), "decisions", number, rows_in=rows.candidates, rows_out=rows.kept)
    seconds = round(time.monotonic() - started, 3)
    context.events.emit("stage_done", stage=f"round-{number}/selection", seconds=seconds, model_seconds=0.0)


def _decide(context: Context, number: int, scored: Scored) -> None:
    """Write the evidence of set-wise filters and the decisions of a round."""
    folder, target = context.folder, context.recipe.target
    bounds = freeze(context.filter_bounds, calibration(context, Numbers(scored)))

    def keep(name: str, evidence: pa.Table) -> None:
        write_table(folder.choices(number, name), evidence)

    with publishing(folder.decisions(number)) as file:
        write_decisions(scored, file, bounds, context.set_filters_of(number), keep, target.rows if target is not None else None)


def _write_dataset(context: Context, number: int, scored: Scored, rows: Rows) -> None:
    """Write the dataset; raises LimbeckError if no candidate was kept, or no two of them are a pair."""
    folder = context.folder
    if not rows.kept:
        most = max(rows.rejected_by, key=lambda name: rows.rejected_by[name], default="nothing")
        raise LimbeckError(
            f"round {number} kept 0 of {rows.candidates} candidates ({most} rejected {rows.rejected_by.get(most, 0)}); see "
            f"`limbeck inspect {folder.path} --round {number} --rejected-by {most}`, then relax that filter or improve the "
            "prompt, in a new run"
        )
    facts = dataset_facts(folder, context.recipe, number, rows, read_calibration(folder))
    if folder.dataset(number).exists():
        return
    found = publish_dataset(folder.dataset(number), scored, context.recipe, folder.decisions(number), facts).preferences
    if found is not None:
        context.events.emit("note", words=preference_pairs.summary(found))
        if (words := preference_pairs.warning(found)) is not None:
            context.events.emit("warning", words=words)


def judged(context: Context, number: int, parts: Sequence[str]) -> Accepted:
    """Decide on a round's candidates in these parts, after calibrating bounds that are not calibrated yet."""
    folder = context.folder
    scores = {name: folder.scores(number, name) for name in context.filter_names}
    with connect_parts(folder.candidates(number), scores, folder.sources("train"), parts) as scored:
        bounds = freeze(context.filter_bounds, calibration(context, Numbers(scored), parts))
        return accepted(scored, bounds, context.set_filters_of(number))


def calibration(context: Context, round_0: ScoreTable, parts: Sequence[str] | None = None) -> dict[str, Any]:
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
    return read_calibration(context.folder)


def separations_of(context: Context, found: dict[str, Any], parts: Sequence[str] | None) -> list[Separation]:
    """Whether the frozen bounds separate the candidates of round 0 from mismatched pairs."""
    folder = context.folder
    scores = {name: folder.scores(0, name) for name in context.filter_names}
    return separations(folder.candidates(0), scores, context.filters, dict(freeze(context.filter_bounds, found)), parts)


def train_student(context: Context, pool: "WorkerPool", number: int, student: StudentConfig, placement: "Placement") -> None:
    """Train the round's student on its dataset, unless it is already published; first draw what it needs of its teacher."""
    folder, recipe = context.folder, context.recipe
    if folder.student(number).exists():
        return
    dataset = training_data(context, number, student)
    cached = draw_teacher_logprobs(context, pool, number, student, dataset)
    started = time.monotonic()
    rows = read_object(folder.rows(number)).get("kept")
    if recipe.mix is not None:
        rows = read_mixture(folder, number).rows
    context.events.emit("training_started", round=number, rows=rows, progress=str(progress_file(folder, number)))
    metrics = student.train(
        dataset=dataset,
        teacher=resolve(context.teacher(number).model),
        out=folder.student(number),
        seed=derive_seed(recipe.seed, number, "student") % 2**31,
        documents=folder.sources("train"),
        placement=placement,
        **({} if cached is None else {"teacher_logprobs": cached}),
    )
    reported = ("steps", "loss_first", "loss_last", "held_out_loss_first", "held_out_loss_last")
    facts = {name: metrics[name] for name in reported if name in metrics}
    context.events.emit("trained", round=number, **facts)
    for words in metrics.get("warnings", ()):
        context.events.emit("note", words=words)
    seconds, model_seconds = round(time.monotonic() - started, 3), round(metrics.get("train_seconds", 0.0), 3)
    context.events.emit("stage_done", stage=f"round-{number}/student", seconds=seconds, model_seconds=model_seconds)


def training_data(context: Context, number: int, student: StudentConfig) -> Path:
    """The dataset that a round's student is trained on: the round's own, or, with `mix`, its mixture, which is made once.

    Raises LimbeckError if a component is missing, too small, or not what it was in an earlier round.
    """
    folder, recipe = context.folder, context.recipe
    if recipe.mix is None:
        return folder.dataset(number)
    home = folder.mixture(number)
    if not home.exists():
        started = time.monotonic()
        wanted = Wanted(recipe.renderer, student.columns)
        components = [opened(component, wanted, folder, number) for component in recipe.mix.of_round(number)]
        plan = planned(f"{recipe.name}, round {number}", derive_seed(recipe.seed, number, "mix"), recipe.mix, components)
        refuse_changed(folder, number, plan.facts)
        facts = write_mixture(home, plan)
        mixed = ", ".join(f"{one.rows} of {one.name}" for one in facts.components)
        context.events.emit("note", words=f"round {number} trains on {facts.rows} rows: {mixed}")
        seconds = round(time.monotonic() - started, 3)
        context.events.emit("stage_done", stage=f"round-{number}/mixture", seconds=seconds, model_seconds=0.0)
    facts = read_mixture(folder, number)
    context.finish(home, "student", number, rows_in=sum(one.rows_read for one in facts.components), rows_out=facts.rows)
    return home
