"""A run from its recipe to its report: rounds of teacher → candidates → scores → dataset → student, resumable at any part."""

import os
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.models import fingerprint as model_fingerprint
from limbeck.cluster.engines.precision import Concrete, cpu_dtype
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import part_names
from limbeck.filters.config import FilterConfig, SetFilterConfig
from limbeck.filters.contract import Filter, SetFilter
from limbeck.filters.own import own_filter, own_set_filter
from limbeck.generators.contract import GeneratorConfig
from limbeck.pipelines.driver import ending, target
from limbeck.pipelines.driver import evaluate as measuring
from limbeck.pipelines.driver.check import refuse_what_cannot_run
from limbeck.pipelines.driver.context import Context, held_out_lane, inputs_lane, stream, train_lane
from limbeck.pipelines.driver.interrupts import noticing
from limbeck.pipelines.driver.placing import loads_models
from limbeck.pipelines.driver.reading import read_documents
from limbeck.pipelines.driver.repair import reopen
from limbeck.pipelines.driver.round import judged, select, train_student
from limbeck.pipelines.driver.self_test import probe_judges
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.report.build import write_report
from limbeck.pipelines.runs.events import Events, Listener
from limbeck.pipelines.runs.folder import RunFolder, open_run, recorded_cpu_dtype
from limbeck.pipelines.runs.lock import driving
from limbeck.pipelines.runs.lost import finished_rounds
from limbeck.pipelines.runs.stages import stages_of

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import Lane, WorkerPool

PACKAGES = ("limbeck", "torch", "transformers", "tokenizers", "ray", "trl", "peft", "deepspeed", "datasets", "pyarrow", "numpy")


def run(
    recipe: Recipe,
    out: Path | str,
    *,
    generator: GeneratorConfig | None = None,
    filters: Sequence[Filter | FilterConfig] = (),
    set_filters: Sequence[SetFilter | SetFilterConfig] = (),
    listener: Listener | None = None,
    recipe_text: str | None = None,
    started: float | None = None,
) -> RunFolder:
    """Run a recipe in the folder `out`, or resume an interrupted run there; returns the folder.

    `generator` replaces the recipe's. `filters` and `set_filters` are objects that satisfy `Filter` and `SetFilter`
    (filters/contract.py); they are applied after the recipe's. Raises LimbeckError for errors that the user can fix; completed
    work is kept.
    """
    began = started or time.time()
    if generator is not None:
        recipe = recipe.model_copy(update={"generator": generator, "later": None, "task": None})
        recipe.refuse_contradictions()
    folder = RunFolder(Path(out).resolve())
    cpu = recorded_cpu_dtype(folder) or cpu_dtype()
    resolved = recipe.resolved(cpu)
    with driving(folder) as driver:
        events = Events(folder.events, listener)
        every = (*resolved.filters, *map(own_filter, filters)), (*resolved.select, *map(own_set_filter, set_filters))
        context = replace(_open(resolved, folder, *every, events, recipe_text, cpu), commits=folder.commits(driver))
        try:
            events.emit("run_started", name=recipe.name, folder=str(folder.path), seconds_before=round(time.time() - began, 3))
            missing = reopen(context)
            if missing:
                more = f" and {len(missing) - 1} other files" if len(missing) > 1 else ""
                events.emit("note", words=f"{missing[0]}{more} of this run are missing and are computed again")
            goes_on = ending.wants_more_rounds(context)
            made = finished_rounds(folder)
            if made is None or missing or goes_on:
                made = _rounds(context, driver, made or recipe.rounds)
            context.finish(folder.path / "evaluation", "evaluation", rounds=made)
            report = write_report(folder.path)
            events.emit("run_done", seconds=round(time.time() - began, 1), report=str(report.html))
            return folder
        except (LimbeckError, KeyboardInterrupt) as failure:
            with suppress(LimbeckError):  # on a full disk, this event cannot be written either
                events.emit("run_failed", words=str(failure) or "interrupted")
            raise


def _rounds(context: Context, driver: str, most: int) -> int:
    """Make rounds, at most this many, and evaluate them; returns how many were made."""
    from limbeck.cluster.installation import differing_nodes
    from limbeck.cluster.session import connected
    from limbeck.cluster.training import Placement
    from limbeck.cluster.workers.pool import WorkerPool
    from limbeck.cluster.workers.secrets import shared

    recipe, folder = context.recipe, context.folder
    with ExitStack() as stack:
        began = time.monotonic()
        session = stack.enter_context(connected(recipe.cluster))
        words = "started a private Ray cluster" if session.owned else f"joined the Ray cluster at {session.address}; it stays up"
        context.events.emit("cluster", words=words)
        if not session.owned and (differing := differing_nodes(tuple(context.packages), folder.path)):
            raise LimbeckError("; ".join(differing))
        holder = stack.enter_context(shared(variables(context)))

        def on_wait(words: str) -> None:
            context.events.emit("waiting", words=words)

        # workers import their libraries while the sources are read
        layout = (recipe.cluster, folder.workers, driver, context.placement.keep, loads_models(recipe))
        pool = WorkerPool(*layout, holder=holder, on_wait=on_wait)
        stack.callback(pool.close)
        stack.push(noticing)  # what is closed from here on takes its time, and is not to be interrupted once more

        def give_back() -> None:
            pool.close()
            context.loaded.clear()

        placement = Placement(
            use_gpu=session.gpus > 0,
            workers_folder=folder.workers,
            driver=driver,
            after_workers=context.placement.training == "after the workers",
            give_back=give_back,
            on_wait=on_wait,
        )
        _done_stage(context, "start/cluster", began)
        held_out = _prepare_sources(context, pool)
        made = 0
        pending: list[tuple[str, EngineConfig]] = [(measuring.TEACHER, recipe.teacher)]  # models not yet measured on dev
        for number in range(most):
            lanes = [held_out_lane(context, "dev", subject, engine) for subject, engine in pending]
            draw(context, pool, number, lanes)
            if number:
                measuring.evaluate_dev(context, held_out, [number - 1])
                ending.publish(context, number - 1)
            select(context, number)
            student_ = recipe.student_of(number)
            if student_ is not None:
                train_student(context, pool, number, student_, placement)
            pending = [(measuring.student_subject(number), context.student(number))] if student_ is not None else []
            made = number + 1
            if recipe.stop is not None and made < most and ending.ends(context, pool, held_out, number, pending):
                break
        _final(context, pool, held_out, pending, made)
    return made


def _prepare_sources(context: Context, pool: "WorkerPool") -> measuring.HeldOut:
    """Read the sources and freeze the inputs of held-out ones; returns what measures models on them."""
    began = time.monotonic()
    read_documents(context)
    _done_stage(context, "sources", began)
    for student in context.recipe.student_sections.values():
        student.warm_up()
    held_out = measuring.HeldOut(context)
    _freeze_inputs(context, pool)
    ending.refuse_blind_rules(context)
    return held_out


def _freeze_inputs(context: Context, pool: "WorkerPool") -> None:
    """Draw the inputs of the held-out sources once, if the generator makes its inputs itself."""
    if context.recipe.asked.invents_inputs:
        stream(context, pool, "inputs", [inputs_lane(context, split) for split in ("dev", "test")])
        for split in ("dev", "test"):
            measuring.freeze_inputs(context, split)


def variables(context: Context) -> list[str]:
    """The environment variables with the keys of the recipe's engines, which workers on any node need."""
    recipe = context.recipe
    generators = [config for config in (recipe.generator, recipe.later, recipe.task) if config is not None]
    engines = [recipe.teacher, *(engine for config in generators for engine in config.engines.values())]
    engines += [filter_.asks for filter_ in context.filters if filter_.asks is not None]
    return sorted({name for engine in engines for name in engine.variables})


def draw(context: Context, pool: "WorkerPool", number: int, others: Sequence["Lane"]) -> None:
    """Draw and score a round's candidates, for every source or until the target is reached; in round 0, test judges on them."""
    if context.recipe.target is None:
        stream(context, pool, f"round-{number}", [train_lane(context, number), *others])
    elif context.folder.decisions(number).exists():
        stream(context, pool, f"round-{number}", others)
    else:
        target.reach(context, pool, number, others, lambda parts: judged(context, number, parts))
    if number == 0:
        probe_judges(context, pool)


def _final(
    context: Context, pool: "WorkerPool", held_out: measuring.HeldOut, pending: list[tuple[str, EngineConfig]], made: int
) -> None:
    """Measure the last student on dev, then every model of the `made` rounds and every control once on the test documents."""
    recipe = context.recipe
    lanes = [held_out_lane(context, "dev", subject, engine) for subject, engine in pending]
    subjects: list[tuple[str, EngineConfig]] = [(measuring.TEACHER, recipe.teacher)]
    if recipe.students:
        subjects += [(measuring.student_subject(number), context.student(number)) for number in reversed(range(made))]
    lanes += [held_out_lane(context, "test", subject, engine) for subject, engine in reversed(subjects)]
    stream(context, pool, "test", lanes)
    if part_names(context.held_out("test")):
        names = measuring.publish_controls(context, "test")
        stream(context, pool, "test", [held_out_lane(context, "test", name, None) for name in names])
    began = time.monotonic()
    measuring.evaluate_dev(context, held_out, range(made))
    for number in range(made):
        ending.publish(context, number)
    measuring.evaluate_test(context, held_out, made)
    _done_stage(context, "evaluation", began)


def _open(
    recipe: Recipe,
    folder: RunFolder,
    filters: tuple[FilterConfig, ...],
    set_filters: tuple[SetFilterConfig, ...],
    events: Events,
    text: str | None,
    cpu: Concrete,
) -> Context:
    names = [filter_.name for filter_ in (*filters, *set_filters)]
    if len(set(names)) < len(names):
        raise LimbeckError(f"filter names must be unique, but they are {', '.join(names)}; rename one")
    teacher_folder, placement = refuse_what_cannot_run(recipe, folder.path)
    stages = stages_of(recipe, filters, set_filters, teacher_folder)
    recorded = recipe.model_dump(mode="json", serialize_as_any=True)
    facts = {
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads_per_worker": recipe.cluster.threads(),
        "cpu_dtype": cpu,
        "models": {recipe.teacher.model: model_fingerprint(teacher_folder)},
        "recipe": {**recorded, "rows": recipe.recorded_rows.model_dump(mode="json")},
    }
    text = text if text is not None else yaml.safe_dump(recorded, sort_keys=False)
    open_run(folder, stages, facts, text)
    return Context(recipe, folder, filters, set_filters, events, stages.data, teacher_folder, placement, stages.packages)


def _version(package: str) -> str | None:
    """The installed version of a package, or None if it belongs to an extra that is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _done_stage(context: Context, stage: str, began: float) -> None:
    context.events.emit("stage_done", stage=stage, seconds=round(time.monotonic() - began, 3), model_seconds=0.0)
