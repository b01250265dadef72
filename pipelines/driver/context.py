"""The context of a run, and the lanes of work that its stages submit to the pool."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.placement.demand import Step
from limbeck.cluster.placement.plan import Plan
from limbeck.corpus.compaction import compact
from limbeck.corpus.parts import done, mark_done, part_names
from limbeck.corpus.storage.commits import Commits
from limbeck.filters.config import FilterConfig, SetFilterConfig
from limbeck.filters.contract import Bound
from limbeck.filters.ngram.indexes import index_datasets
from limbeck.generators.asking import AskingConfig
from limbeck.generators.contract import GeneratorConfig
from limbeck.pipelines.driver.jobs import Cheaper, GenerateJob, ScoreJob
from limbeck.pipelines.driver.placing import in_turns
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.calibrate import FrozenBounds, absolute, freeze
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder, fingerprint
from limbeck.pipelines.runs.records import read_calibration

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import Lane, WorkerPool
    from limbeck.cluster.workers.worker import PartJob, PartReport

INPUTS = -2  # the "round" used to derive the seeds of held-out inputs
HELD_OUT = -1  # the "round" used to derive the seeds of held-out samples, the same for every model


@dataclass(frozen=True)
class Context:
    """A run in progress. `filters` and `set_filters` are the recipe's, then those passed as objects."""

    recipe: Recipe  # resolved
    folder: RunFolder
    filters: tuple[FilterConfig, ...]
    set_filters: tuple[SetFilterConfig, ...]
    events: Events
    stages: Mapping[str, Any]  # stage → the plain data that determines it
    teacher_folder: Path  # the round-0 teacher on this machine
    placement: Plan
    packages: Mapping[str, str]  # name → version of the packages that provide kinds of the recipe
    loaded: list[Step] = field(default_factory=list)  # steps of the plan that are loaded on the workers
    commits: Commits | None = None  # None: finished stages are not compacted

    @property
    def filter_bounds(self) -> list[tuple[str, tuple[Bound, ...]]]:
        """Filters in recipe order with their bounds, before calibration."""
        return [(filter_.name, filter_.bounds) for filter_ in self.filters]

    @property
    def filter_names(self) -> list[str]:
        """Names of the filters in recipe order."""
        return [filter_.name for filter_ in self.filters]

    def set_filters_of(self, number: int) -> tuple[SetFilterConfig, ...]:
        """The set-wise filters of a round."""
        return tuple(filter_ for filter_ in self.set_filters if filter_.applies_to(number))

    def known_bounds(self) -> FrozenBounds:
        """The filters' bounds, without calibrated ones until round 0 has been calibrated."""
        if self.folder.calibration.exists():
            return freeze(self.filter_bounds, read_calibration(self.folder))
        return absolute(self.filter_bounds)

    def teacher(self, round_number: int) -> EngineConfig:
        """The engine of the round's teacher: the recipe's, or the student of the round before."""
        if round_number == 0 or self.recipe.next_teacher == "teacher":
            return self.counted(self.recipe.teacher)
        return self.student(round_number - 1)

    def counted(self, engine: EngineConfig) -> EngineConfig:
        """The engine with its budget recorded in the run folder, shared by all workers and resumes."""
        return engine.counted(self.folder.path)

    def generator(self, config: GeneratorConfig) -> GeneratorConfig:
        """A generator's config with the budgets of its own engines recorded in the run folder."""
        return config.with_engines(lambda own: self.counted(own or self.recipe.teacher))

    def student(self, round_number: int) -> EngineConfig:
        """The engine of the round's student."""
        folder = str(self.folder.student(round_number).resolve())
        return self.recipe.teacher.for_student(folder)

    def held_out(self, split: str) -> Path:
        """The sources used by evaluation: those of the split, or the same with inputs that were drawn for them."""
        own = self.folder.sources(split)
        return self.folder.evaluation(split, "inputs") / "sources" if self.recipe.asked.invents_inputs else own

    def fingerprint(self, stage: str, *more: object) -> str:
        """Fingerprint of everything that determines a stage: its data, that of earlier stages, and `more`."""
        upto = list(self.stages)[: list(self.stages).index(stage) + 1]
        return fingerprint([{name: self.stages[name] for name in upto}, *more])

    def compact(self, stage: str, candidates: Path, scores: Path) -> None:
        """Compact candidates, their steps and their scores, if they have many parts; all parts that exist are finished."""
        if self.commits is None:
            return
        began = time.monotonic()
        folders = (candidates.parent / "steps", candidates, *(scores / name for name in self.filter_names))
        compacted = [compact(self.folder.path, folder, self.commits) for folder in folders]
        if any(compacted):
            seconds = round(time.monotonic() - began, 3)
            self.events.emit("stage_done", stage=f"{stage}/compaction", seconds=seconds, model_seconds=0.0)

    def compact_round(self, number: int) -> None:
        """Compact the stages of a round."""
        self.compact(f"round-{number}", self.folder.candidates(number), self.folder.round(number) / "scores")

    def finish(self, folder: Path, stage: str, *more: object, **counts: object) -> None:
        """Write a stage folder's `_done.json`, once, after everything else."""
        if done(folder) is None:
            mark_done(folder, self.fingerprint(stage, *more), **counts)


def train_lane(context: Context, round_number: int, parts: Sequence[str] | None = None, accepted: Path | None = None) -> "Lane":
    """A lane of train parts (None: all) through generation and every filter; `accepted`: the task pool of this wave."""
    from limbeck.cluster.workers.pool import Lane

    folder = context.folder
    jobs: list[PartJob] = [
        GenerateJob(
            stage=f"round-{round_number}/candidates",
            sources=folder.sources("train"),
            out=folder.candidates(round_number),
            generator=context.generator(context.recipe.generator_of(round_number)),
            run_seed=context.recipe.seed,
            round=round_number,
            engine=context.teacher(round_number),
            accepted=accepted,
        )
    ]
    jobs += score_jobs(
        context,
        f"round-{round_number}",
        "train",
        folder.candidates(round_number),
        folder.round(round_number) / "scores",
        earlier_index(context, round_number),
        calibrating=round_number == 0 and (context.recipe.target is None or not folder.calibration.exists()),
        parts=parts,
    )
    return Lane(jobs, part_names(folder.sources("train")) if parts is None else parts)


def held_out_lane(context: Context, split: str, subject: str, engine: EngineConfig | None) -> "Lane":
    """A lane of a held-out split through a model (None: a control, whose candidates exist) and every filter."""
    from limbeck.cluster.workers.pool import Lane

    folder = context.folder.evaluation(split, subject)
    jobs: list[PartJob] = []
    if engine is not None:
        settings = context.recipe.evaluation
        samples = settings.samples if split == "test" else settings.dev_samples
        jobs.append(
            GenerateJob(
                stage=f"{split}/candidates",
                sources=context.held_out(split),
                out=folder / "candidates",
                generator=AskingConfig(context.recipe.asked, context.recipe.renderer, samples),
                run_seed=context.recipe.seed,
                round=HELD_OUT,
                engine=context.counted(engine),
                subject=subject,
            )
        )
    jobs += score_jobs(context, split, split, folder / "candidates", folder / "scores", subject=subject)
    return Lane(jobs, part_names(context.held_out(split)))


def inputs_lane(context: Context, split: str) -> "Lane":
    """A lane of a held-out split through the task's generator; after `freeze_inputs`, its drafts are every model's inputs."""
    from limbeck.cluster.workers.pool import Lane

    job = GenerateJob(
        stage=f"{split}/inputs",
        sources=context.folder.sources(split),
        out=context.folder.evaluation(split, "inputs") / "candidates",
        generator=context.generator(context.recipe.asked.for_inputs),
        run_seed=context.recipe.seed,
        round=INPUTS,
        engine=context.counted(context.recipe.teacher),
    )
    return Lane([job], part_names(context.folder.sources(split)))


def earlier_index(context: Context, round_number: int) -> str | None:
    """The n-gram index of what earlier rounds kept, if a filter reads it; None in round 0. Built once."""
    if not round_number or not any(filter_.reads_earlier for filter_ in context.filters):
        return None
    folder = context.folder
    datasets = [folder.dataset(number) for number in range(round_number)]
    out = folder.round(round_number) / "earlier"
    return str(index_datasets(datasets, out, str(context.teacher_folder)))


def score_jobs(
    context: Context,
    stage: str,
    split: str,
    candidates: Path,
    out: Path,
    earlier: str | None = None,
    subject: str = "",
    *,
    calibrating: bool = False,
    parts: Sequence[str] | None = None,
) -> list[ScoreJob]:
    """One job per filter, cheap ones first; a `lazy` filter skips rows that those reject, on train candidates only.

    All held-out candidates are scored, since their measures are means over every row. `earlier` is the index of earlier rounds;
    without it (round 0, held-out candidates) nothing is found there. `calibrating`: bounds are calibrated on these `parts` (None:
    all), so filters also score the mismatched pairs that show whether a calibrated bound separates.
    """
    sources = context.folder.sources(split) if split == "train" else context.held_out(split)
    done_before, jobs = list[Cheaper](), list[ScoreJob]()
    known = dict(context.known_bounds())
    for filter_ in sorted(context.filters, key=lambda filter_: filter_.cost):
        lazy = split == "train" and filter_.lazy
        jobs.append(
            ScoreJob(
                stage=f"{stage}/scores/{filter_.name}",
                sources=sources,
                candidates=candidates,
                out=out / filter_.name,
                filter=for_run(context, filter_, earlier),
                cheaper=tuple(done_before) if lazy else (),
                subject=subject,
                nulls="none" if filter_.nulls == "some" and not calibrating else filter_.nulls,
                checked=None if parts is None else tuple(parts),
            )
        )
        if not filter_.lazy:  # a lazy filter leaves rows without a score, so others cannot rely on it
            done_before.append(Cheaper(filter_.name, out / filter_.name, known[filter_.name]))
    return jobs


def for_run(context: Context, filter_: FilterConfig, earlier: str | None = None) -> FilterConfig:
    """A filter's config with data of the run: the index of earlier rounds, and the ledger of its endpoint's budget."""
    here = filter_.against(earlier)
    return here if here.asks is None else here.with_engine(context.counted(here.asks))


def stream(
    context: Context,
    pool: "WorkerPool",
    stage: str,
    lanes: Sequence["Lane"],
    on_report: Callable[["PartReport"], None] | None = None,
) -> None:
    """Run lanes on the pool and emit an event for each part and, at the end, one with the seconds of each stage.

    `on_report` is called for each finished part; an exception that it raises ends the stream.

    Wall-clock time beyond that of the jobs is reported as the stage's `streaming`: the overhead of the framework.
    """
    jobs = sum(len(lane.jobs) * len(lane.parts) for lane in lanes)
    context.events.emit("stage_started", stage=stage, parts=jobs)
    started, spent = time.monotonic(), 0.0
    totals: dict[str, dict[str, float]] = {}
    with closing(in_turns(context.placement, context.loaded, pool, lanes)) as reports:
        for report in reports:
            facts = {key: value for key, value in vars(report).items() if key != "stage"}
            context.events.emit("part_done", stage=report.stage, **facts)
            if report.deaths:
                times = "once" if len(report.deaths) == 1 else f"{len(report.deaths)} times"
                words = f"{report.stage} {report.part}: its worker died and was restarted {times}"
                context.events.emit("note", words=f"{words}: {'; '.join(dict.fromkeys(report.deaths))}")
            for reason in report.failed_rows:
                context.events.emit("note", words=f"{report.stage}: {reason}")
            while pool.notes:
                context.events.emit("note", words=pool.notes.pop(0))
            if on_report is not None:
                on_report(report)
            total = totals.setdefault(report.stage, {"seconds": 0.0, "model_seconds": 0.0, "load_seconds": 0.0, "rows": 0})
            for key in total:
                total[key] += vars(report)[key]
    workers = context.recipe.cluster.all_workers  # workers run in parallel, so their seconds are divided
    for name, total in totals.items():
        total["model_seconds"] = min(total["model_seconds"], total["seconds"])  # engines may run in parallel
        shares = {key: round(value / workers if key != "rows" else value, 3) for key, value in total.items()}
        spent += shares["seconds"]
        context.events.emit("stage_done", stage=name, **shares)
    rest = max(0.0, time.monotonic() - started - spent)
    context.events.emit("stage_done", stage=f"{stage}/streaming", seconds=round(rest, 3), model_seconds=0.0)
