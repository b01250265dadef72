"""What a run asks of a cluster, and what the cluster has: plain data, from which the placement plan is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Node:
    """A machine of the cluster. `gpu_memory_bytes` is that of each of its GPUs; None: not known."""

    name: str
    cpus: float
    gpus: int
    memory_bytes: int
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class Model:
    """A model that workers load. `key` is the section of the recipe that names it; models of one `identity` are loaded once.

    `weights_bytes` and `cache_bytes` are held for as long as it is loaded, `work_bytes` while it computes. `kind` is an engine's,
    or "critic" for a model that only scores. `memory` says where it is held: in the worker's `process`, in `processes` of its own
    (on GPUs these take `gpu_share` of each of its devices, None: 0.9 times the worker's share, whatever the weights are), as a
    `critic` in the worker's process but counted apart from engines, or as `none`, outside the cluster.
    """

    key: str
    name: str
    identity: str
    kind: str
    weights_bytes: int = 0
    work_bytes: int = 0
    cache_bytes: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpu_share: float | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    attention_heads: int | None = None
    memory: Literal["process", "processes", "critic", "none"] = "process"

    @property
    def devices(self) -> int:
        """The GPUs that it is spread over."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True)
class Step:
    """What a part goes through on a worker of a pool, with the models that this takes. Steps of one name stand for each other."""

    name: str
    pool: str
    models: tuple[Model, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Workers that are alike; `key` is the section of the recipe that describes them."""

    name: str
    key: str
    workers: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Trainer:
    """Training processes, and the memory that each needs for weights, gradients and optimiser: of its GPU where it has one."""

    workers: int
    cpus: float
    gpus: int
    memory_bytes: int
    gpu_memory_bytes: int


@dataclass(frozen=True)
class Demand:
    """All that a recipe asks for. `phases`: a name → the steps of that part of the run, in the order in which parts take them."""

    pools: Sequence[Pool]
    phases: Mapping[str, Sequence[Step]]
    trainer: Trainer | None = None

    def models(self, pool: str) -> list[Model]:
        """Every model that workers of a pool load at some time, each once."""
        return distinct([step for steps in self.phases.values() for step in steps if step.pool == pool])


def distinct(steps: Sequence[Step]) -> list[Model]:
    """The models of some steps, each once."""
    return list({model.identity: model for step in reversed(steps) for model in step.models}.values())[::-1]


def gigabytes(count: float) -> str:
    """A size in words."""
    return f"{count / 1e9:.1f} GB"
