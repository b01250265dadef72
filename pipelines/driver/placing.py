"""Derive the demand on the cluster from a recipe, and run a stream of parts in the turns of the placement plan."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from limbeck.cluster.engines.contract import EngineConfig, ScoringModelConfig
from limbeck.cluster.placement.demand import Demand, Model, Node, Pool, Step, Trainer
from limbeck.cluster.placement.memory import fits, take_turns
from limbeck.cluster.placement.nodes import cluster_nodes
from limbeck.cluster.placement.plan import Plan, make_plan
from limbeck.corpus.extras import problem
from limbeck.filters.config import FilterConfig
from limbeck.generators.asking import AskingConfig
from limbeck.generators.contract import TEACHER, GeneratorConfig
from limbeck.pipelines.driver.jobs import GenerateJob, ProbeJob, ScoreJob
from limbeck.pipelines.driver.logprobs_job import LogprobsJob
from limbeck.pipelines.recipe import Recipe

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import Lane, WorkerPool
    from limbeck.cluster.workers.worker import PartJob, PartReport


def plan_for(recipe: Recipe, nodes: Sequence[Node] | None = None) -> Plan:
    """The placement plan of a resolved recipe on these nodes; None: the nodes that a run would use.

    Raises LimbeckError if a model cannot be resolved, or if the cluster does not respond.
    """
    nodes = list(nodes) if nodes is not None else cluster_nodes(recipe.cluster)
    return make_plan(demand(recipe, gpus=any(node.gpus for node in nodes)), nodes)


def demand(recipe: Recipe, gpus: bool) -> Demand:
    """The resources that a resolved recipe needs; `gpus`: whether the cluster has GPUs."""
    cluster = recipe.cluster
    pools = [Pool("teachers", "cluster", cluster.workers, cluster.cpus_per_worker, cluster.gpus_per_worker)]
    if cluster.critics is not None:
        own = cluster.critics
        pools.append(Pool("critics", "cluster.critics", own.workers, own.cpus_per_worker, own.gpus_per_worker))
    teacher = recipe.teacher.footprint(TEACHER)
    first, later = _beside(recipe.generator), _beside(recipe.generator_of(1))
    critics = [_filter_step(recipe, filter_) for filter_ in sorted(recipe.filters, key=lambda filter_: filter_.cost)]
    phases = {"round 0": [Step("sample", "teachers", (teacher, *first)), *critics]}
    if recipe.students:
        students = [_student(recipe, number) for number in reversed(range(recipe.rounds))]
        name = "later rounds, held-out documents" if recipe.rounds > 1 else "held-out documents"
        phases[name] = [*(Step("sample", "teachers", (model, *later)) for model in (*students, teacher)), *critics]
    return Demand(tuple(pools), phases, _trainer(recipe, gpus))


def missing_extras(recipe: Recipe) -> list[str]:
    """One sentence that names every extra which the recipe needs and is not installed; empty if none is missing."""
    resolved, subjects = recipe.resolved(), dict[tuple[str, str], str]()
    for key, config in _loaded(resolved).items():
        if config.extra is not None:  # a config shared by several sections is named once
            kind = f" (kind {config.kind})" if isinstance(config, EngineConfig) else ""
            subjects.setdefault((config.extra, config.model_dump_json()), f"{key}{kind}")
    needs = [(subject, extra) for (extra, _), subject in subjects.items()]
    students = {section: student for section, student in recipe.student_sections.items() if student.extra is not None}
    needs += [(f"{section} (kind {student.kind})", str(student.extra)) for section, student in students.items()]
    sentence = problem(needs)
    return [sentence] if sentence else []


def loads_models(recipe: Recipe) -> bool:
    """Whether workers load models, in their own or in child processes; `recipe` is resolved."""
    held = _loaded(recipe).values()
    return bool(recipe.students) or not all(isinstance(config, EngineConfig) and config.remote for config in held)


def _loaded(recipe: Recipe) -> dict[str, EngineConfig | ScoringModelConfig]:
    """Everything that workers load or connect to, except students: key → config."""
    found: dict[str, EngineConfig | ScoringModelConfig] = {TEACHER: recipe.teacher}
    for generator in (recipe.generator, recipe.later, recipe.task):
        found |= {f"generator.{name}": engine for name, engine in generator.engines.items()} if generator else {}
    for filter_ in recipe.filters:
        found |= {f"filters.{filter_.name}.{key}": config for key, config in filter_.held.items()}
    return found


def in_turns(plan: Plan, loaded: list[Step], pool: "WorkerPool", lanes: Sequence["Lane"]) -> Generator["PartReport"]:
    """Stream lanes through the pool; if their models do not fit together, all parts go through one turn's jobs at a time.

    `loaded` records what the workers have loaded. Workers are stopped if the next turn's models do not fit in addition: a process
    that exits frees all its memory, one that continues does not.
    """
    from limbeck.cluster.workers.pool import Lane

    every = dict.fromkeys(step_of(job, plan) for lane in lanes for job in lane.jobs)
    turns = take_turns(sorted(every, key=lambda step: step.name != "sample"), plan.rooms, plan.keep)
    for turn in turns:
        mine = [Lane([job for job in lane.jobs if step_of(job, plan) in turn], lane.parts) for lane in lanes]
        if len(turns) > 1 and all(job.finished(part) for lane in mine for job in lane.jobs for part in lane.parts):
            continue
        if not fits(list(dict.fromkeys([*loaded, *turn])), plan.rooms, plan.keep):
            pool.close()
            loaded.clear()
        loaded += [step for step in turn if step not in loaded]
        yield from pool.stream([lane for lane in mine if lane.jobs])


def step_of(job: "PartJob", plan: Plan) -> Step:
    """The step of a job: the models it loads, and the worker pool."""
    pool = job.pool if job.pool in plan.rooms else "teachers"
    if isinstance(job, GenerateJob):
        return Step("sample", pool, (job.engine.footprint(TEACHER), *_beside(job.generator)))
    if isinstance(job, LogprobsJob):
        return Step("teacher log-probabilities", pool, (job.engine.footprint(TEACHER),))
    assert isinstance(job, ScoreJob | ProbeJob), job
    return Step(f"score {job.filter.name}", pool, _held(job.filter))


def _filter_step(recipe: Recipe, filter_: FilterConfig) -> Step:
    return Step(f"score {filter_.name}", "teachers" if recipe.cluster.critics is None else "critics", _held(filter_))


def _held(filter_: FilterConfig) -> tuple[Model, ...]:
    """The models that a filter's workers load."""
    return tuple(config.footprint(f"filters.{filter_.name}.{key}") for key, config in filter_.held.items())


def _beside(generator: GeneratorConfig | AskingConfig) -> tuple[Model, ...]:
    """The engines other than the teacher that a generator's scripts use."""
    return tuple(engine.footprint(f"generator.{name}") for name, engine in generator.engines.items())


def _student(recipe: Recipe, number: int) -> Model:
    """A round's student as workers will load it: with the teacher's engine, or a local one if that is a server."""
    student = recipe.students[number]
    engine = recipe.teacher.for_student(student.base_model(recipe.teacher.model))
    like = engine.footprint(TEACHER if engine.kind == recipe.teacher.kind else "student")  # the section with the loading options
    weights = int(like.weights_bytes * student.weights_share(recipe.teacher.model))
    return replace(like, name=f"the student of round {number}", identity=f"student {number}", weights_bytes=weights)


def _trainer(recipe: Recipe, gpus: bool) -> Trainer | None:
    """The maximum of each resource over the rounds' trainers, which run one after another."""
    found = [student.trainer(recipe.teacher.model, gpus) for student in recipe.students]
    every = [trainer for trainer in found if trainer is not None]
    if not every:
        return None
    return Trainer(
        max(trainer.workers for trainer in every),
        max(trainer.cpus for trainer in every),
        max(trainer.gpus for trainer in every),
        max(trainer.memory_bytes for trainer in every),
        max(trainer.gpu_memory_bytes for trainer in every),
    )
