"""From a recipe to what it demands of a cluster, and from the plan to the turns in which a stream of parts is done."""

import importlib.util
import json
from collections.abc import Generator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.cluster.engines.config import for_student
from limbeck.cluster.engines.models import describe, resolve
from limbeck.cluster.engines.vllm.config import CPU_BATCH_TOKENS, CPU_CACHE_BYTES, VllmConfig
from limbeck.cluster.placement.demand import Demand, Model, Node, Pool, Step, Trainer
from limbeck.cluster.placement.memory import PROCESS_BYTES, fits, take_turns
from limbeck.cluster.placement.nodes import cluster_nodes
from limbeck.cluster.placement.plan import Plan, make_plan
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.config import Cost
from limbeck.pipelines.recipe import Recipe

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import Lane, WorkerPool
    from limbeck.cluster.workers.worker import PartReport

ENGINES = ("transformers", "vllm", "endpoint")
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
VLLM_CPU_LOGITS = 3 * CPU_BATCH_TOKENS  # rows of the vocabulary, in float32, that the CPU build keeps once it has scored prompts
ACTIVATIONS = 32  # numbers of the hidden size that a critic's model holds for each token of a forward pass
LORA_STATE_BYTES = 6  # of a frozen weight, adapters and all


def plan_for(recipe: Recipe, nodes: Sequence[Node] | None = None) -> Plan:
    """The plan of a resolved recipe on these nodes; None: on those that a run would compute on.

    Raises LimbeckError where a model cannot be resolved, or the cluster does not answer.
    """
    nodes = list(nodes) if nodes is not None else cluster_nodes(recipe.cluster)
    return make_plan(demand(recipe, gpus=any(node.gpus for node in nodes)), nodes)


def vllm_problems(recipe: Recipe) -> list[str]:
    """That an engine of kind vllm is asked for where there is no vLLM, or with an adapter where there is none."""
    asked = [(key, config) for key, config in configs(recipe) if isinstance(config, VllmConfig)]
    problems = []
    for key, config in asked:
        try:
            config.adapter()
        except LimbeckError as error:
            problems.append(f"{key}.lora: {error}")
    if asked and importlib.util.find_spec("vllm") is None:
        way_out = "run `pip install 'limbeck[vllm]'`, or `make vllm` for its CPU build in .venv-vllm"
        problems.append(f"{asked[0][0]}.kind is vllm, which is not installed; {way_out}")
    return problems


def demand(recipe: Recipe, gpus: bool) -> Demand:
    """What a resolved recipe asks for; `gpus`: whether the cluster has some."""
    cluster = recipe.cluster
    pools = [Pool("teachers", "cluster", cluster.workers, cluster.cpus_per_worker, cluster.gpus_per_worker)]
    if cluster.critics is not None:
        own = cluster.critics
        pools.append(Pool("critics", "cluster.critics", own.workers, own.cpus_per_worker, own.gpus_per_worker))
    teacher = model_of("teacher", recipe.teacher)
    critics = [_filter_step(recipe, part) for part in sorted(recipe.filters, key=lambda part: getattr(part, "cost", Cost.MODEL))]
    phases = {"round 0": [Step("sample", "teachers", (teacher,)), *critics]}
    if recipe.student is not None:
        drawn = [_student(recipe, teacher, number) for number in reversed(range(recipe.rounds))]
        name = "later rounds, held-out documents" if recipe.rounds > 1 else "held-out documents"
        phases[name] = [*(Step("sample", "teachers", (model,)) for model in (*drawn, teacher)), *critics]
    return Demand(tuple(pools), phases, _trainer(recipe, gpus))


def configs(recipe: Recipe) -> list[tuple[str, Any]]:
    """The config of every engine, classifier, encoder and masked model that a resolved recipe names, with its key."""
    return [("teacher", recipe.teacher), *(found for part in recipe.filters for found in _filter_configs(part))]


def model_of(key: str, config: Any) -> Model:
    """What a worker loads for a config."""
    kind = getattr(config, "kind", None)
    identity = f"{type(config).__name__} {config.model_dump_json()}"
    if kind == "endpoint":
        return Model(key, config.model, identity, "endpoint")
    folder = str(resolve(config.model))
    shape, width = _shape(folder), DTYPE_BYTES[config.dtype]
    weights = shape["parameters"] * width
    if kind == "vllm":
        return Model(
            key,
            config.model,
            identity,
            "vllm",
            weights_bytes=shape["bytes"] if config.quantization else weights,
            cache_bytes=(config.cache_bytes or CPU_CACHE_BYTES) + VLLM_CPU_LOGITS * shape["vocabulary"] * 4,
            gpu_share=config.gpu_memory_utilization,
            tensor_parallel=config.tensor_parallel_size,
            pipeline_parallel=config.pipeline_parallel_size,
            attention_heads=shape["heads"],
        )
    if kind == "transformers":
        context = min(shape["context"], config.context_tokens or shape["context"])
        cache = min(config.cache_bytes, config.batch_sequences * context * shape["cached"] * width)
        work = cache + config.pack_tokens * shape["vocabulary"] * DTYPE_BYTES["float32"]
        return Model(key, config.model, identity, "transformers", weights, work, device=config.device)
    tokens = getattr(config, "batch_tokens", None) or 32768
    work = tokens * shape["hidden"] * ACTIVATIONS * width
    return Model(key, config.model, identity, "critic", weights, work, device=config.device)


def in_turns(plan: Plan, loaded: list[Step], pool: "WorkerPool", lanes: Sequence["Lane"]) -> Generator["PartReport"]:
    """Stream lanes through the pool; where their models do not fit together, all parts through one turn's jobs, then the next's.

    `loaded` remembers what the workers hold. They are ended where the next turn's models do not fit beside it: an ended process
    gives back all its memory, which a process that goes on does not.
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


def step_of(job: Any, plan: Plan) -> Step:
    """The step of a job: what it loads, and on whose workers."""
    pool = job.pool if job.pool in plan.rooms else "teachers"
    if hasattr(job, "engine"):
        return Step("sample", pool, (_cached_model("teacher", job.engine),))
    models = tuple(_cached_model(key, config) for key, config in _filter_configs(job.filter))
    return Step(f"score {job.filter.name}", pool, models)


def _filter_step(recipe: Recipe, part: Any) -> Step:
    pool = "teachers" if recipe.cluster.critics is None else "critics"
    return Step(f"score {part.name}", pool, tuple(model_of(key, config) for key, config in _filter_configs(part)))


def _filter_configs(part: Any) -> list[tuple[str, Any]]:
    """The fields of a filter's config that name a model; of an object that a user passed nothing is known."""
    fields = {name: getattr(part, name) for name in getattr(type(part), "model_fields", {})}
    return [
        (f"filters.{part.name}.{name}", value)
        for name, value in fields.items()
        if hasattr(value, "model") and (getattr(value, "kind", None) in ENGINES or hasattr(value, "load"))
    ]


def _student(recipe: Recipe, teacher: Model, number: int) -> Model:
    """A round's student as workers will load it: with the teacher's engine, but behind no server."""
    engine = for_student(recipe.teacher, _base(recipe))
    like = model_of("teacher" if engine.kind == recipe.teacher.kind else "student", engine)  # whose section says how it is loaded
    share = _layers_kept(recipe)
    return Model(
        **{
            **vars(like),
            "name": f"the student of round {number}",
            "identity": f"student {number}",
            "weights_bytes": int(like.weights_bytes * share),
        }
    )


def _trainer(recipe: Recipe, gpus: bool) -> Trainer | None:
    """Memory of each training process; activations, which `micro_batch_size` bounds, are not counted."""
    student = recipe.student
    if student is None:
        return None
    shape = _shape(str(resolve(_base(recipe))))
    weights = int(shape["parameters"] * _layers_kept(recipe))
    zero = (student.deepspeed or {}).get("zero_optimization", {})
    stage, workers = int(zero.get("stage", 0)), student.workers
    if student.lora is not None:
        state = weights * LORA_STATE_BYTES
    else:  # ZeRO divides Adam's moments (1), then gradients (2), then weights (3) among the workers
        state = sum(weights * each // (workers if stage >= least else 1) for each, least in ((8, 1), (4, 2), (4, 3)))
    offloaded = bool(zero.get("offload_optimizer") or zero.get("offload_param"))
    if not gpus:
        return Trainer(workers, 1.0, 0, PROCESS_BYTES + state, 0)
    on_gpu = weights * 4 if offloaded else state
    return Trainer(workers, 1.0, 1, PROCESS_BYTES + weights * 4 + (state if offloaded else 0), on_gpu)


def _base(recipe: Recipe) -> str:
    base = recipe.student.base if recipe.student else None
    return base.model if base is not None and base.kind == "model" else recipe.teacher.model


def _layers_kept(recipe: Recipe) -> float:
    """The part of the base's weights that a student starts with."""
    base = recipe.student.base if recipe.student else None
    if base is None or base.kind != "layers":
        return 1.0
    return min(1.0, base.layers / max(1, _shape(str(resolve(recipe.teacher.model)))["layers"]))


Fact = Literal["parameters", "bytes", "context", "vocabulary", "heads", "layers", "hidden", "cached"]


@lru_cache(maxsize=256)
def _shape(folder: str) -> dict[Fact, int]:
    """What decides a model's memory; `cached`: numbers in the key-value cache a token."""
    info = describe(Path(folder))
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config

    def first(*names: str) -> int:
        return next((int(text[name]) for name in names if text.get(name)), 0)

    heads, hidden = first("num_attention_heads", "n_head", "num_heads"), first("hidden_size", "d_model", "n_embd")
    layers = first("num_hidden_layers", "n_layer", "num_layers")
    head = first("head_dim") or (hidden // heads if heads else 0)
    cached = 2 * layers * (first("num_key_value_heads") or heads) * head
    return {
        "parameters": info.parameters,
        "bytes": info.bytes,
        "context": info.context_tokens,
        "vocabulary": info.vocab_size,
        "heads": heads,
        "layers": layers,
        "hidden": hidden,
        "cached": cached,
    }


@lru_cache(maxsize=256)
def _cached_model(key: str, config: Any) -> Model:
    return model_of(key, config)
