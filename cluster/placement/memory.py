"""Which models a worker holds together, and which stages take turns: models whose total exceeds a device are never together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from limbeck.cluster.engines.vllm.config import GPU_SHARE
from limbeck.cluster.placement.demand import Model, Step, distinct

PROCESS_BYTES = 700 << 20  # a Python process with torch and transformers
CONTEXT_BYTES = 500 << 20  # GPU memory that CUDA takes per process
USABLE = 0.95  # usable share of a node's and of a GPU's memory


@dataclass(frozen=True)
class Room:
    """Resources of one worker. `gpus` 0: none; `gpu_memory_bytes` is that of a whole GPU, None: unknown."""

    memory_bytes: int
    gpus: float
    gpu_memory_bytes: int | None

    @property
    def gpu_budget_bytes(self) -> int | None:
        """Its share of a GPU's memory."""
        return None if self.gpu_memory_bytes is None else int(min(1.0, self.gpus) * self.gpu_memory_bytes * USABLE)


@dataclass(frozen=True)
class Load:
    """Memory that one worker needs: on its node, and on the GPU of which it needs most."""

    memory_bytes: int
    gpu_memory_bytes: int


def take_turns(steps: Sequence[Step], rooms: Mapping[str, Room], keep: int) -> list[list[Step]]:
    """Group steps, in order, into as few turns as possible: the models of a turn are loaded together, and fit."""
    turns: list[list[Step]] = []
    for step in steps:
        if turns and fits([*turns[-1], step], rooms, keep):
            turns[-1].append(step)
        else:
            turns.append([step])
    return turns


def fits(steps: Sequence[Step], rooms: Mapping[str, Room], keep: int) -> bool:
    """Whether workers that hold at most `keep` engines can run these steps in memory, without loading a model for each part."""
    for name, room in rooms.items():
        mine = [step for step in steps if step.pool == name]
        models = distinct(mine)
        if needed(mine) > keep or shortage(models, room, keep):
            return False
        there = [model for model in models if on_gpu(model, room)]
        if room.gpu_memory_bytes is None and len(there) > 1 and any(model.memory == "processes" for model in there):
            return False  # what vLLM leaves of a GPU of unknown size is also unknown
    return True


def shortage(models: Sequence[Model], room: Room, keep: int) -> str:
    """Which memory is too small for these models on one worker: "memory", "GPU memory", or "" if they fit."""
    need, budget = load(models, room, keep), room.gpu_budget_bytes
    if need.memory_bytes > room.memory_bytes:
        return "memory"
    return "GPU memory" if budget is not None and need.gpu_memory_bytes > budget else ""


def needed(steps: Sequence[Step]) -> int:
    """Number of engines, or of filters' own models, that one part needs on a worker."""
    names = [step.name for step in steps]
    instead = [step for step in steps if names.count(step.name) > 1]
    chains = [[step for step in steps if step is one or step.name != one.name] for one in instead] or [list(steps)]
    counts = [[model.memory == "critic" for model in distinct(chain) if model.memory != "none"] for chain in chains]
    return max(max(count.count(True), count.count(False)) for count in counts)


def load(models: Sequence[Model], room: Room, keep: int) -> Load:
    """Memory of a worker that holds the `keep` largest engines and filter models, one of which computes at a time."""
    there = [model for model in models if on_gpu(model, room)]
    here = [model for model in models if not on_gpu(model, room) and model.memory != "none"]
    processes = 1 + max((model.devices for model in models if model.memory == "processes"), default=0)
    memory = PROCESS_BYTES * processes + _most(here, keep, lambda model: model.weights_bytes + model.cache_bytes)
    memory += max((model.work_bytes for model in here), default=0)
    gpu = _most(there, keep, lambda model: device_bytes(model, room))
    work = [CONTEXT_BYTES + model.work_bytes for model in there if model.memory != "processes"]
    return Load(memory, gpu + max(work, default=0))


def on_gpu(model: Model, room: Room) -> bool:
    """Whether a worker with this room puts a model on its GPU."""
    return room.gpus > 0 and model.device != "cpu" and model.memory != "none"


def device_bytes(model: Model, room: Room) -> int:
    """Memory that a loaded model holds on each of its GPUs; the rest of vLLM's share is its cache."""
    if model.memory == "processes" and room.gpu_memory_bytes is not None:
        return int((model.gpu_share or GPU_SHARE * min(1.0, room.gpus)) * room.gpu_memory_bytes)
    return model.weights_bytes // model.devices


def _most(models: Sequence[Model], keep: int, size: Callable[[Model], int]) -> int:
    """The sum of the `keep` largest engines and of the `keep` largest filter models."""
    kinds = ([model for model in models if model.memory == "critic"], [model for model in models if model.memory != "critic"])
    return sum(sum(sorted(map(size, kind), reverse=True)[:keep]) for kind in kinds)
