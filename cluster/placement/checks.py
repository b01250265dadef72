"""Reasons why a placement is impossible, before planning: one sentence each, with the recipe key and the remedy."""

import math
from collections.abc import Sequence

from limbeck.cluster.engines.vllm.config import GPU_SHARE
from limbeck.cluster.placement.demand import Demand, Model, Node, Pool

VLLM_LEAST_BYTES = 1 << 30  # activations and cache that vLLM needs to start
OVER_NODES = "serve the model with `vllm serve` over several nodes and use kind endpoint"


def cannot_be(demand: Demand, nodes: Sequence[Node]) -> list[str]:
    """Every reason that follows from counts only: workers, CPUs, GPUs, and how models are spread over them."""
    problems = []
    for pool in demand.pools:
        for model in demand.models(pool.name):
            problems += _spread(model, pool, nodes) if model.memory == "processes" else _device(model, nodes)
        if not any("several nodes" in problem for problem in problems):
            problems += _counts(pool, nodes)
    if not problems:
        problems += _together(demand.pools, nodes)
    return list(dict.fromkeys(problems))


def least_bytes(model: Model) -> int:
    """Minimum GPU memory per device for a model to start."""
    return model.weights_bytes // model.devices + (VLLM_LEAST_BYTES if model.memory == "processes" else 0)


def _counts(pool: Pool, nodes: Sequence[Node]) -> list[str]:
    most_gpus, most_cpus = max(node.gpus for node in nodes), max(node.cpus for node in nodes)
    gpus_key, cpus_key = f"{pool.key}.gpus_per_worker", f"{pool.key}.cpus_per_worker"
    if pool.gpus > 1 and pool.gpus != int(pool.gpus):
        return [f"{gpus_key} {pool.gpus:g} is neither a share of one GPU nor a whole number; make it one or the other"]
    if pool.gpus > most_gpus and not most_gpus:
        return [f"{gpus_key} is {pool.gpus:g}, but no node of the cluster has a GPU; set it to 0 to compute on CPUs"]
    if pool.gpus > most_gpus:
        return [
            f"{gpus_key} is {pool.gpus:g}, but no node has more than {most_gpus} GPUs: an engine runs on one node; {OVER_NODES}"
        ]
    if pool.cpus > most_cpus:
        return [f"{cpus_key} is {pool.cpus:g}, but no node has more than {most_cpus:g} CPUs; set it to {most_cpus:g} or less"]
    problems = []
    for name, each in (("gpus", pool.gpus), ("cpus", pool.cpus)):
        total = sum(getattr(node, name) for node in nodes)
        if pool.workers * each > total + 1e-9:
            problems.append(
                f"{pool.key}.workers {pool.workers} × {pool.key}.{name}_per_worker {each:g} = {pool.workers * each:g} "
                f"{_unit(name)}, but the cluster has {total:g}; lower {pool.key}.workers to {math.floor(total / each + 1e-9)} "
                "or join a larger cluster"
            )
    return problems


def _together(pools: Sequence[Pool], nodes: Sequence[Node]) -> list[str]:
    """Pools that fit the cluster separately, but not together: they are started together."""
    problems = []
    for name in ("gpus", "cpus"):
        wanted = {pool.key: pool.workers * float(getattr(pool, name)) for pool in pools}
        total = sum(getattr(node, name) for node in nodes)
        if sum(wanted.values()) > total + 1e-9:
            told = " and ".join(f"{key} ({count:g})" for key, count in wanted.items())
            problems.append(
                f"the workers of {told} need {sum(wanted.values()):g} {_unit(name)} together, but the cluster has {total:g}; "
                f"lower workers or {name}_per_worker, or omit cluster.critics: filters then run on the teachers' workers"
            )
    return problems


def _spread(model: Model, pool: Pool, nodes: Sequence[Node]) -> list[str]:
    """Requirements of vLLM on the worker that starts it."""
    tensor, pipeline = f"{model.key}.tensor_parallel_size", f"{model.key}.pipeline_parallel_size"
    product = f"{tensor} {model.tensor_parallel} × {pipeline} {model.pipeline_parallel} = {model.devices} GPUs"
    most = max(node.gpus for node in nodes)
    if model.devices > max(1, most):
        way_out = OVER_NODES if most else "set both to 1 for vLLM's CPU build"
        return [f"{product}, but no node has {'more than ' + str(most) if most else 'any'}; {way_out}"]
    if model.devices > 1 and 0 < pool.gpus != int(pool.gpus):
        return [
            f"{product}, but {pool.key}.gpus_per_worker {pool.gpus:g} is a share of one GPU; a model on several GPUs needs whole "
            f"ones: set it to {model.devices}"
        ]
    if model.devices != math.ceil(pool.gpus) and (most or pool.gpus):
        apart = "" if model.key == "teacher" or pool.name == "critics" else ", or give filters their own workers: cluster.critics"
        return [f"{product}, but {pool.key}.gpus_per_worker is {pool.gpus:g}; set it to {model.devices}{apart}"]
    problems = []
    if model.attention_heads and model.attention_heads % model.tensor_parallel:
        divisors = ", ".join(str(n) for n in range(1, 17) if model.attention_heads % n == 0)
        problems.append(
            f"{tensor} {model.tensor_parallel} does not divide the model's {model.attention_heads} attention heads; choose one "
            f"of {divisors}, and {pipeline} for the rest"
        )
    share = min(1.0, pool.gpus)
    if pool.gpus and model.gpu_share is not None and model.gpu_share > share + 1e-9:
        problems.append(
            f"{model.key}.gpu_memory_utilization {model.gpu_share:g} exceeds the {share:g} of a GPU that "
            f"{pool.key}.gpus_per_worker reserves; lower it to {GPU_SHARE * share:g}, or leave it null, which means that"
        )
    return problems


def _device(model: Model, nodes: Sequence[Node]) -> list[str]:
    if model.device == "cuda" and not any(node.gpus for node in nodes):
        return [f"{model.key}.device is cuda, but no node of the cluster has a GPU; set it to auto or cpu"]
    return []


def _unit(name: str) -> str:
    return name[:-1].upper() + "s"
