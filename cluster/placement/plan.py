"""The placement plan: which workers with which models on which node, and which steps run together or in turns.

Pure functions over plain data: from the demand of a recipe and the resources of a cluster to a plan, or the reasons against one.
Ray makes its own scheduling decisions; the plan shows that a placement exists, and bounds what a worker holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from limbeck.cluster.placement.checks import cannot_be, least_bytes
from limbeck.cluster.placement.demand import Demand, Model, Node, Pool, Step, Trainer, distinct, gigabytes
from limbeck.cluster.placement.memory import PROCESS_BYTES, USABLE, Room, device_bytes, load, needed, on_gpu, shortage, take_turns


@dataclass(frozen=True)
class Plan:
    """The placement; invalid if it has `problems`.

    `keep`: how many engines, and how many of the filters' own models, a worker may hold at once. `turns`: phase → steps that are
    done together, in order. `places`: pool → the node of each worker. `training`: whether the trainer runs beside the workers or
    after they have stopped; None if nothing is trained.
    """

    nodes: tuple[Node, ...]
    demand: Demand
    rooms: Mapping[str, Room]
    keep: int
    turns: Mapping[str, list[list[Step]]]
    places: Mapping[str, tuple[int, ...]]
    training: Literal["beside the workers", "after the workers"] | None
    training_places: tuple[int, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def make_plan(demand: Demand, nodes: Sequence[Node]) -> Plan:
    """Place the demand on the nodes, or return the problems, one sentence each."""
    problems = cannot_be(demand, nodes)
    bare = _bare_rooms(demand, nodes)
    slots, places = _placed(demand.pools, nodes, {name: _least(demand, name, room) for name, room in bare.items()})
    if any(len(places[pool.name]) < pool.workers for pool in demand.pools):  # whether CPUs or memory are short is reported below
        slots, places = _placed(demand.pools, nodes, {})
    for pool in demand.pools:
        if not problems and len(places[pool.name]) < pool.workers:
            problems.append(_crowded(pool, demand.pools, len(places[pool.name])))
    rooms = _rooms(demand, nodes, places, bare)
    keep, turns = _fitting_turns(demand, rooms)
    if not problems:
        problems += dict.fromkeys(sentence for pool in demand.pools for sentence in _too_large(demand, pool, rooms[pool.name]))
    training: Literal["beside the workers", "after the workers"] | None = None
    training_places: tuple[int, ...] = ()
    if demand.trainer is not None and not problems:
        held = {pool.name: _heaviest(pool, rooms[pool.name], turns, keep) for pool in demand.pools}
        for place, slot in enumerate(slots):
            used = sum(found.count(place) * held[name] for name, found in places.items())
            slot.memory = nodes[place].memory_bytes * USABLE - used
        training_places = _training_places(slots, demand.trainer)
        training = "beside the workers"
        if len(training_places) < demand.trainer.workers or any(_unreserved(demand, pool, nodes) for pool in demand.pools):
            training = "after the workers"
            training_places = _training_places([_Slot(node) for node in nodes], demand.trainer)
        if len(training_places) < demand.trainer.workers:
            problems.append(_never_trains(demand.trainer, len(training_places)))
    notes = tuple(_notes(demand, nodes))
    return Plan(
        tuple(nodes), demand, rooms, keep, turns, places, training, training_places, tuple(dict.fromkeys(problems)), notes
    )


def as_plain(plan: Plan) -> dict[str, Any]:
    """The plan as plain data: {nodes, pools, phases, training, keep, notes}; bytes and GPUs are per worker."""
    pools = []
    for pool in plan.demand.pools:
        room = plan.rooms[pool.name]
        facts = {"memory_bytes": room.memory_bytes, "gpu_memory_bytes": room.gpu_budget_bytes}
        pools.append({**asdict(pool), **facts, "nodes": [plan.nodes[place].name for place in plan.places[pool.name]]})
    phases = [
        {
            "phase": phase,
            "stages": [
                {
                    "stage": step.name,
                    "pool": step.pool,
                    "turn": number,
                    "models": [_model_facts(model, plan.rooms[step.pool]) for model in step.models],
                }
                for number, turn in enumerate(turns, 1)
                for step in turn
            ],
        }
        for phase, turns in plan.turns.items()
    ]
    trainer = plan.demand.trainer
    training = None
    if trainer is not None:
        training = {**asdict(trainer), "when": plan.training, "nodes": [plan.nodes[place].name for place in plan.training_places]}
    nodes = [asdict(node) for node in plan.nodes]
    return {"nodes": nodes, "pools": pools, "phases": phases, "training": training, "keep": plan.keep, "notes": list(plan.notes)}


def _model_facts(model: Model, room: Room) -> dict[str, Any]:
    one = load([model], room, 1)
    where = "a server" if model.memory == "none" else "GPU" if on_gpu(model, room) else "CPU"
    return {
        "key": model.key,
        "model": model.name,
        "kind": model.kind,
        "on": where,
        "weights_bytes": model.weights_bytes,
        "memory_bytes": one.memory_bytes - PROCESS_BYTES if where == "CPU" else 0,
        "gpu_memory_bytes": one.gpu_memory_bytes if where == "GPU" else 0,
        "gpus": model.devices if where == "GPU" else 0,
    }


class _Slot:
    """Free resources of a node while workers are placed."""

    def __init__(self, node: Node) -> None:
        self.cpus, self.gpus = node.cpus, [1.0] * node.gpus
        self.memory = node.memory_bytes * USABLE
        self.gpu_memory = node.gpu_memory_bytes

    def take(self, cpus: float, gpus: float, memory_bytes: int = 0) -> bool:
        """Reserve like Ray, a share of one GPU or whole GPUs; False if that is not free."""
        share, count = (gpus, 1) if gpus < 1 else (1.0, round(gpus))
        room = sorted((free, place) for place, free in enumerate(self.gpus) if free >= share - 1e-9)  # the fullest first
        if self.cpus < cpus - 1e-9 or (gpus > 0 and len(room) < count) or self.memory < memory_bytes:
            return False
        self.cpus, self.memory = self.cpus - cpus, self.memory - memory_bytes
        for _, place in room[:count] if gpus > 0 else ():
            self.gpus[place] -= share
        return True


def _places(slots: Sequence[_Slot], workers: int, cpus: float, gpus: float, memory_bytes: int = 0) -> tuple[int, ...]:
    """The node of each worker, as far as there is room; workers without GPUs prefer nodes without GPUs."""
    order = sorted(range(len(slots)), key=lambda place: bool(slots[place].gpus) and not gpus)
    found = (next((place for place in order if slots[place].take(cpus, gpus, memory_bytes)), None) for _ in range(workers))
    return tuple(place for place in found if place is not None)


def _training_places(slots: Sequence[_Slot], trainer: Trainer) -> tuple[int, ...]:
    able = [
        slot if slot.gpu_memory is None or trainer.gpu_memory_bytes <= slot.gpu_memory * USABLE else _Slot(NOTHING)
        for slot in slots
    ]
    return _places(able, trainer.workers, trainer.cpus, trainer.gpus, trainer.memory_bytes)


NOTHING = Node("", 0, 0, 0)


def _placed(
    pools: Sequence[Pool], nodes: Sequence[Node], memory_bytes: Mapping[str, int]
) -> tuple[list["_Slot"], dict[str, tuple[int, ...]]]:
    """The node of every pool's workers, those that reserve most first, and the remaining resources of the nodes."""
    slots, places = [_Slot(node) for node in nodes], {}
    for pool in sorted(pools, key=lambda pool: (-pool.gpus, -pool.cpus)):
        places[pool.name] = _places(slots, pool.workers, pool.cpus, pool.gpus, memory_bytes.get(pool.name, 0))
    return slots, places


def _bare_rooms(demand: Demand, nodes: Sequence[Node]) -> dict[str, Room]:
    """GPU use of workers, before their share of a node's memory is known."""
    gpu_sizes = [node.gpu_memory_bytes for node in nodes if node.gpus]
    known = [size for size in gpu_sizes if size is not None]
    gpu_bytes = min(known) if known and len(known) == len(gpu_sizes) else None
    return {pool.name: Room(0, _gpus(demand, pool, nodes), gpu_bytes) for pool in demand.pools}


def _least(demand: Demand, name: str, room: Room) -> int:
    """Memory that a worker of a pool needs for the largest of its models."""
    return max((load([model], room, 1).memory_bytes for model in demand.models(name)), default=PROCESS_BYTES)


def _rooms(
    demand: Demand, nodes: Sequence[Node], places: Mapping[str, tuple[int, ...]], bare: Mapping[str, Room]
) -> dict[str, Room]:
    """A worker's share of its node: the need of its largest model, and of the rest in proportion to that of all its models."""
    shares: dict[str, float] = {}
    least = {name: _least(demand, name, room) for name, room in bare.items()}
    most = {name: load(demand.models(name), room, max(1, len(demand.models(name)))).memory_bytes for name, room in bare.items()}
    for place, node in enumerate(nodes):
        count = {name: found.count(place) for name, found in places.items()}
        left = node.memory_bytes * USABLE - sum(count[name] * least[name] for name in count)
        wanted = sum(count[name] * (most[name] - least[name]) for name in count)
        for name in (name for name in count if count[name]):
            share = least[name] + left * ((most[name] - least[name]) / wanted if wanted else 1 / sum(count.values()))
            if left < 0:  # not even one model each: shared equally, and refused
                share = node.memory_bytes * USABLE / sum(count.values())
            shares[name] = min(share, shares.get(name, share))
    return {name: Room(int(shares.get(name, 0)), room.gpus, room.gpu_memory_bytes) for name, room in bare.items()}


def _gpus(demand: Demand, pool: Pool, nodes: Sequence[Node]) -> float:
    """GPU use of a worker: its reservation, or its share of the GPU that all workers find if none is reserved."""
    if not _unreserved(demand, pool, nodes):
        return pool.gpus
    return 1.0 / sum(other.workers for other in demand.pools if not other.gpus)


def _unreserved(demand: Demand, pool: Pool, nodes: Sequence[Node]) -> bool:
    """Whether workers of the pool compute on a GPU that they did not reserve, as `device: auto` does."""
    auto = any(model.memory in ("process", "critic") and model.device != "cpu" for model in demand.models(pool.name))
    return not pool.gpus and auto and any(node.gpus for node in nodes)


def _fitting_turns(demand: Demand, rooms: Mapping[str, Room]) -> tuple[int, dict[str, list[list[Step]]]]:
    """The smallest `keep` with which no turn loads a model for each part, and every phase's turns."""

    def most(groups: Sequence[Sequence[Step]]) -> int:
        return max((needed([step for step in group if step.pool == name]) for group in groups for name in rooms), default=0)

    keep = max(1, most(list(demand.phases.values())))
    while True:
        turns = {name: take_turns(steps, rooms, keep) for name, steps in demand.phases.items()}
        least = max(1, most([turn for phase in turns.values() for turn in phase]))
        if least == keep:
            return keep, turns
        keep = least


def _heaviest(pool: Pool, room: Room, turns: Mapping[str, list[list[Step]]], keep: int) -> int:
    """Peak memory of one worker in the pool."""
    every = [[step for step in turn if step.pool == pool.name] for phase in turns.values() for turn in phase]
    return max((load(distinct(turn), room, keep).memory_bytes for turn in every), default=PROCESS_BYTES)


def _too_large(demand: Demand, pool: Pool, room: Room) -> list[str]:
    """Models that do not fit a worker even alone; only the first one per key."""
    found: dict[str, str] = {}
    for model in demand.models(pool.name):
        if model.key in found:
            continue
        scarce = shortage([model], room, 1)
        budget, ours = room.gpu_budget_bytes, on_gpu(model, room)
        if scarce == "memory":
            need = load([model], room, 1).memory_bytes
            found[model.key] = (
                f"{model.key} {model.name} needs about {gigabytes(need)} of memory, but a worker of {pool.key} has "
                f"{gigabytes(room.memory_bytes)}; lower {pool.key}.workers, or use a smaller model"
            )
        elif ours and budget is not None and scarce:
            need = load([model], room, 1).gpu_memory_bytes
            found[model.key] = (
                f"{model.key} {model.name} needs about {gigabytes(need)} of GPU memory, but a worker of {pool.key} has "
                f"{gigabytes(budget)} of each GPU; raise {pool.key}.gpus_per_worker (over several GPUs: kind vllm with "
                "tensor_parallel_size), or use a smaller model"
            )
        elif ours and budget is not None and least_bytes(model) > device_bytes(model, room):
            found[model.key] = (
                f"{model.key} {model.name} needs about {gigabytes(least_bytes(model))} of each GPU to start, but vLLM's share is "
                f"{gigabytes(device_bytes(model, room))}; raise {model.key}.gpu_memory_utilization, or {pool.key}.gpus_per_worker"
                f" with {model.key}.tensor_parallel_size, or use a smaller model"
            )
    return list(found.values())


def _crowded(pool: Pool, pools: Sequence[Pool], placed: int) -> str:
    """Reason why workers do not fit although the cluster as a whole has enough."""
    beside = " beside the other pool's" if len(pools) > 1 else ""
    each = f"{pool.cpus:g} CPUs and {pool.gpus:g} GPUs"
    if not placed:
        return f"no node has {each} free{beside} for a worker of {pool.key}; lower what it reserves"
    return (
        f"{pool.key}.workers is {pool.workers}, but only {placed} workers with {each} each fit on the nodes{beside}; "
        f"lower {pool.key}.workers to {placed}, or what each worker reserves"
    )


def _never_trains(trainer: Trainer, placed: int) -> str:
    gpu = f", {trainer.gpus} GPU with {gigabytes(trainer.gpu_memory_bytes)}" if trainer.gpus else ""
    each = f"{trainer.cpus:g} CPU{gpu} and {gigabytes(trainer.memory_bytes)} of memory each"
    way_out = f"lower student.workers to {placed}, " if placed else ""
    return (
        f"student.workers {trainer.workers} need {each}, but the cluster has room for {placed} even without other workers; "
        f"{way_out}use a smaller model, student.lora, or student.deepspeed with ZeRO stage 3 over more workers"
    )


def _notes(demand: Demand, nodes: Sequence[Node]) -> list[str]:
    notes = [
        f"the GPU memory of {node.name} is unknown: fitting is not checked, and vllm does not share a GPU"
        for node in nodes
        if node.gpus and node.gpu_memory_bytes is None
    ]
    for pool in demand.pools:
        models = demand.models(pool.name)
        spread = max((model.devices for model in models if model.memory == "processes"), default=1)
        if _unreserved(demand, pool, nodes):
            notes.append(
                f"{pool.key}.gpus_per_worker is 0, but device: auto uses a GPU unreserved; set it so that Ray keeps others off"
            )
        elif pool.gpus > spread:
            notes.append(f"a worker of {pool.key} reserves {pool.gpus:g} GPUs but computes on {spread}: only vllm uses several")
    return notes
