"""Resources that a run demands and that a cluster has: plain data, input of the placement plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Node:
    """A machine of the cluster. `gpu_memory_bytes` is the memory of each of its GPUs; None: unknown."""

    name: str
    cpus: float
    gpus: int
    memory_bytes: int
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class Model:
    """A model that workers load. `key` is the section of the recipe that names it; models of one `identity` are loaded once.

    `weights_bytes` and `cache_bytes` are held while it is loaded, `work_bytes` while it computes. `kind` is that of an engine,
    or "critic" for a model that only scores. `memory` is where it is held: in the worker's `process`, in separate `processes`
    (on GPUs these take `gpu_share` of each device, None: 0.9 times the worker's share, regardless of the weights), as a
    `critic` in the worker's process but counted separately from engines, or as `none`, outside the cluster.
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
        """Number of GPUs that it is spread over."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True)
class Step:
    """A step of a part on a worker of a pool, with the models it needs. Steps of one name are interchangeable."""

    name: str
    pool: str
    models: tuple[Model, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Identical workers; `key` is the section of the recipe that describes them."""

    name: str
    key: str
    workers: int
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Trainer:
    """Training processes, and the memory that each needs for weights, gradients and optimiser: GPU memory if it has a GPU."""

    workers: int
    cpus: float
    gpus: int
    memory_bytes: int
    gpu_memory_bytes: int


@dataclass(frozen=True)
class Demand:
    """The total demand of a recipe. `phases`: name → steps of that phase of the run, in order."""

    pools: Sequence[Pool]
    phases: Mapping[str, Sequence[Step]]
    trainer: Trainer | None = None

    def models(self, pool: str) -> list[Model]:
        """The distinct models that workers of a pool ever load."""
        return distinct([step for steps in self.phases.values() for step in steps if step.pool == pool])


def distinct(steps: Sequence[Step]) -> list[Model]:
    """The distinct models of some steps."""
    return list({model.identity: model for step in reversed(steps) for model in step.models}.values())[::-1]


def gigabytes(count: float) -> str:
    """A size as text."""
    return f"{count / 1e9:.1f} GB"
