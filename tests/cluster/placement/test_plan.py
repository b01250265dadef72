"""The placement plan as a pure function: it never over-commits a node or a device, and leaves no stage without a place."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.placement import MEMORY
from limbeck.cluster.placement.demand import Demand, Model, Node, Pool, Step, Trainer, distinct
from limbeck.cluster.placement.memory import CONTEXT_BYTES, PROCESS_BYTES, USABLE, device_bytes, needed, on_gpu
from limbeck.cluster.placement.plan import Plan, as_plain, make_plan

GB = 10**9
KINDS = ("transformers", "vllm", "endpoint", "critic")


@st.composite
def models(draw: st.DrawFn, number: int, spread: tuple[int, int]) -> Model:
    kind: Any = draw(st.sampled_from(KINDS))
    tensor, pipeline = spread if kind == "vllm" else (1, 1)
    return Model(
        key=f"filters.f{number}.engine",
        name=f"model-{number}",
        identity=f"{kind} {draw(st.integers(0, 4))}",
        kind=kind,
        weights_bytes=draw(st.sampled_from([0, 1, 3, 5, 8, 14, 70])) * GB,
        work_bytes=draw(st.sampled_from([0, 1, 3])) * GB if kind in ("transformers", "critic") else 0,
        cache_bytes=2 * GB if kind == "vllm" else 0,
        device=draw(st.sampled_from(["auto", "auto", "cpu"])) if kind != "vllm" else "auto",
        gpu_share=draw(st.sampled_from([None, None, 0.3, 0.5])) if kind == "vllm" else None,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        attention_heads=draw(st.sampled_from([None, 9, 32])),
        memory=MEMORY[kind],
    )


@st.composite
def demands(draw: st.DrawFn) -> tuple[Demand, list[Node]]:
    gpu_bytes = draw(st.sampled_from([None, 24 * GB, 80 * GB]))
    gpus = draw(st.sampled_from([0, 1, 8]))
    nodes = [
        Node(f"node-{i}", draw(st.sampled_from([2, 16, 64])), gpus, draw(st.sampled_from([24, 64, 512])) * GB, gpu_bytes)
        for i in range(draw(st.integers(1, 3)))
    ]
    spread = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (4, 1), (2, 2)]))
    share = draw(st.sampled_from([0.0, 0.5, 1.0, float(spread[0] * spread[1])]))
    pools = [Pool("teachers", "cluster", draw(st.integers(1, 5)), draw(st.sampled_from([0.5, 1, 4])), share)]
    if draw(st.booleans()):
        pools.append(Pool("critics", "cluster.critics", draw(st.integers(1, 3)), 1.0, draw(st.sampled_from([0.0, 0.25, 1.0]))))
    phases = {}
    for phase in ("round 0", "later")[: draw(st.integers(1, 2))]:
        samples = [Step("sample", "teachers", (draw(models(n, spread)),)) for n in range(1 if phase == "round 0" else 2)]
        scores = [
            Step(f"score {n}", pools[-1].name, (draw(models(n, spread)),) if draw(st.booleans()) else ())
            for n in range(3, 3 + draw(st.integers(0, 4)))
        ]
        phases[phase] = [*samples, *scores]
    same = {model.identity: model for steps in phases.values() for model in distinct(steps)}  # one identity, one model
    phases = {
        name: [Step(s.name, s.pool, tuple(same[model.identity] for model in s.models)) for s in steps]
        for name, steps in phases.items()
    }
    size = draw(st.sampled_from([1, 10, 100])) * GB
    trainer = Trainer(draw(st.integers(1, 4)), 1.0, int(gpus > 0), PROCESS_BYTES + size, size if gpus else 0)
    return Demand(tuple(pools), phases, trainer if draw(st.booleans()) else None), nodes


def most_held(plan: Plan, turn: list[Step], pool: str) -> tuple[int, int]:
    """By trying every set of models that `keep` allows: the most memory, and the most of a GPU, that a worker comes to hold."""
    room, found = plan.rooms[pool], (0, 0)
    there = distinct([step for step in turn if step.pool == pool])
    engines = [model for model in there if model.kind not in ("critic", "endpoint")]
    critics = [model for model in there if model.kind == "critic"]
    for few, some in itertools.product(range(min(plan.keep, len(engines)) + 1), range(min(plan.keep, len(critics)) + 1)):
        for held in itertools.product(itertools.combinations(engines, few), itertools.combinations(critics, some)):
            resident = [model for group in held for model in group]
            on = [model for model in resident if on_gpu(model, room)]
            off = [model for model in resident if not on_gpu(model, room)]
            gpu = sum(device_bytes(model, room) for model in on)
            gpu += max((CONTEXT_BYTES + model.work_bytes for model in on if model.kind != "vllm"), default=0)
            memory = sum(model.weights_bytes + model.cache_bytes for model in off)
            memory += max((model.work_bytes for model in off), default=0) + PROCESS_BYTES
            memory += PROCESS_BYTES * max((model.devices for model in resident if model.kind == "vllm"), default=0)
            found = max(found[0], memory), max(found[1], gpu)
    return found


@settings(max_examples=400, deadline=None)
@given(demands())
def test_a_plan_never_over_commits_and_leaves_nothing_out(given_: tuple[Demand, list[Node]]) -> None:
    demand, nodes = given_
    plan = make_plan(demand, nodes)
    for phase, steps in demand.phases.items():  # every stage has a turn, in order, problems or not
        assert [step for turn in plan.turns[phase] for step in turn] == list(steps)
    if plan.problems:
        assert all(";" in problem or ":" in problem for problem in plan.problems), plan.problems
        return
    memory = [0.0] * len(nodes)
    for pool in demand.pools:
        assert len(plan.places[pool.name]) == pool.workers
        held = PROCESS_BYTES
        for turn in (turn for phase in plan.turns.values() for turn in phase):
            host, gpu = most_held(plan, turn, pool.name)
            held = max(held, host)
            budget = plan.rooms[pool.name].gpu_budget_bytes
            assert budget is None or gpu <= budget
            assert needed([step for step in turn if step.pool == pool.name]) <= plan.keep
        for place in plan.places[pool.name]:
            memory[place] += held
    assert all(used <= node.memory_bytes * USABLE + 1 for used, node in zip(memory, nodes, strict=True))
    for place, node in enumerate(nodes):
        counts = {pool.name: plan.places[pool.name].count(place) for pool in demand.pools}
        assert sum(counts[pool.name] * pool.cpus for pool in demand.pools) <= node.cpus + 1e-6
        assert sum(counts[pool.name] * pool.gpus for pool in demand.pools) <= node.gpus + 1e-6
    if demand.trainer is None:
        assert plan.training is None
        return
    assert len(plan.training_places) == demand.trainer.workers
    for place, node in enumerate(nodes):
        trainers = plan.training_places.count(place)
        beside = plan.training == "beside the workers"
        counts = {pool.name: plan.places[pool.name].count(place) * beside for pool in demand.pools}
        assert trainers * demand.trainer.cpus + sum(counts[p.name] * p.cpus for p in demand.pools) <= node.cpus + 1e-6
        assert trainers * demand.trainer.gpus + sum(counts[p.name] * p.gpus for p in demand.pools) <= node.gpus + 1e-6
        assert trainers * demand.trainer.memory_bytes + memory[place] * beside <= node.memory_bytes * USABLE + 1
        if trainers and node.gpu_memory_bytes is not None:
            assert demand.trainer.gpu_memory_bytes <= node.gpu_memory_bytes * USABLE


@settings(max_examples=200, deadline=None)
@given(demands())
def test_turns_are_no_more_than_needed_and_plain_data_says_all(given_: tuple[Demand, list[Node]]) -> None:
    """A turn ends only where its first stage would not have fitted the turn before."""
    from limbeck.cluster.placement.memory import fits

    plan = make_plan(*given_)
    for turns in plan.turns.values():
        for before, after in itertools.pairwise(turns):
            assert not fits([*before, after[0]], plan.rooms, plan.keep)
    plain = as_plain(plan)
    assert [len(phase["stages"]) for phase in plain["phases"]] == [len(steps) for steps in given_[0].phases.values()]


def engine(name: str = "teacher", gigabytes: float = 15.2, kind: Any = "vllm", key: str = "teacher", **more: Any) -> Model:
    return Model(key, name, f"{kind} {name}", kind, weights_bytes=int(gigabytes * GB), memory=MEMORY[kind], **more)


NLI = Model("filters.nli.classifier", "nli", "nli", "critic", int(0.7 * GB), int(2.1 * GB), memory="critic")
H100 = Node("gpu-node", 16, 1, 128 * GB, 81559 << 20)
EIGHT = Node("eight", 96, 8, 1000 * GB, 81559 << 20)


def run(teacher: Model, *critics: Model, pool: Pool, node: Node | list[Node], trainer: Trainer | None = None) -> Plan:
    steps = [Step("sample", "teachers", (teacher,)), *(Step(f"score {m.name}", "teachers", (m,)) for m in critics)]
    return make_plan(Demand((pool,), {"round 0": steps}, trainer), node if isinstance(node, list) else [node])


def stages(plan: Plan) -> list[list[str]]:
    return [[step.name for step in turn] for turn in plan.turns["round 0"]]


def workers(count: int, gpus: float, cpus: float = 1.0) -> Pool:
    return Pool("teachers", "cluster", count, cpus, gpus)


def test_two_cores_hold_teacher_student_and_trainer() -> None:
    here = Node("this machine", 2, 0, 22 * GB)
    small = engine(kind="transformers", gigabytes=0.27, work_bytes=2 * GB)
    trainer = Trainer(1, 1.0, 0, PROCESS_BYTES + int(0.135 * 16 * GB), 0)
    plan = run(small, NLI, pool=workers(1, 0), node=here, trainer=trainer)
    assert not plan.problems and stages(plan) == [["sample", "score nli"]] and plan.training == "beside the workers"


def test_one_gpu_holds_vllm_and_a_small_critic_but_trains_afterwards() -> None:
    trainer = Trainer(1, 1.0, 1, 30 * GB, int(7.6 * 6 * GB))  # LoRA
    plan = run(engine(), NLI, pool=workers(1, 1.0), node=H100, trainer=trainer)
    assert not plan.problems and stages(plan) == [["sample", "score nli"]]  # 0.9 of the GPU, and the critic in the rest
    assert plan.training == "after the workers" and plan.keep == 1
    # a second model of 7B, or a GPU of 24 GB: the rest is too small, so they take turns
    pmi = engine("pmi", kind="transformers", key="filters.pmi.engine")
    assert stages(run(engine(), NLI, pmi, pool=workers(1, 1.0), node=H100)) == [["sample", "score nli"], ["score pmi"]]
    small_gpu = Node("gpu-node", 8, 1, 64 * GB, 24 * GB)
    assert stages(run(engine(), NLI, pool=workers(1, 1.0), node=small_gpu)) == [["sample"], ["score nli"]]
    # all weights in float32 with Adam do not fit even alone
    (problem,) = run(engine(), NLI, pool=workers(1, 1.0), node=H100, trainer=Trainer(1, 1.0, 1, 30 * GB, 122 * GB)).problems
    assert "student.workers 1 need" in problem and "student.lora" in problem


def test_a_gpu_of_unknown_size_is_shared_with_nothing() -> None:
    plan = run(engine(), NLI, pool=workers(1, 1.0), node=Node("far", 16, 1, 64 * GB, None))
    assert stages(plan) == [["sample"], ["score nli"]] and "GPU memory of far is unknown" in plan.notes[0]


def test_eight_gpus_as_two_replicas_of_tensor_parallel_4() -> None:
    teacher = engine("70B", 141, tensor_parallel=4, attention_heads=64)
    plan = run(teacher, NLI, pool=workers(2, 4), node=EIGHT, trainer=Trainer(8, 1.0, 1, 40 * GB, 60 * GB))
    assert not plan.problems and plan.places["teachers"] == (0, 0) and plan.training == "after the workers"
    (problem,) = run(teacher, pool=workers(3, 4), node=EIGHT).problems
    assert "cluster.workers 3 × cluster.gpus_per_worker 4 = 12 GPUs" in problem and "lower cluster.workers to 2" in problem


def test_eight_gpus_as_tensor_2_by_pipeline_2() -> None:
    teacher = engine("70B", 141, tensor_parallel=2, pipeline_parallel=2, attention_heads=64)
    assert not run(teacher, pool=workers(2, 4), node=EIGHT).problems
    (problem,) = run(teacher, pool=workers(4, 2), node=EIGHT).problems
    assert "teacher.tensor_parallel_size 2 × teacher.pipeline_parallel_size 2 = 4 GPUs" in problem
    assert "cluster.gpus_per_worker is 2; set it to 4" in problem


def test_two_nodes_of_eight() -> None:
    nodes = [EIGHT, Node("other", 96, 8, 1000 * GB, 81559 << 20)]
    plan = run(engine("70B", 141, tensor_parallel=4), pool=workers(4, 4), node=nodes)
    assert not plan.problems and sorted(plan.places["teachers"]) == [0, 0, 1, 1]
    # an engine lies on one node
    for teacher, pool in (
        (engine("405B", 810, tensor_parallel=8, pipeline_parallel=2), workers(1, 16)),
        (engine("405B", 810, kind="transformers"), workers(1, 16)),
    ):
        problem = run(teacher, pool=pool, node=nodes).problems[0]
        assert "vllm serve" in problem and "kind endpoint" in problem
    # 16 GPUs in all, but each worker of six fits a node once
    (problem,) = run(engine("70B", 141, tensor_parallel=6), pool=workers(3, 5), node=nodes).problems
    assert "set it to 6" in problem


def test_a_small_node_is_not_where_a_large_model_goes() -> None:
    nodes = [Node("head", 4, 0, 8 * GB), Node("large", 4, 0, 64 * GB)]
    plan = run(engine(kind="transformers"), pool=workers(2, 0), node=nodes)
    assert not plan.problems and plan.places["teachers"] == (1, 1)
    assert "of memory, but a worker" in run(engine(kind="transformers"), pool=workers(5, 0), node=nodes).problems[0]


def test_half_gpu_workers() -> None:
    plan = run(engine(), pool=workers(2, 0.5), node=H100)
    assert not plan.problems and plan.places["teachers"] == (0, 0)
    assert as_plain(plan)["phases"][0]["stages"][0]["models"][0]["gpu_memory_bytes"] == int(0.45 * (81559 << 20))
    (problem,) = run(engine(gpu_share=0.9), pool=workers(2, 0.5), node=H100).problems
    assert "teacher.gpu_memory_utilization 0.9" in problem and "lower it to 0.45" in problem
    (problem,) = run(engine(tensor_parallel=2), pool=workers(2, 0.5), node=EIGHT).problems
    assert "share of one GPU" in problem and "set it to 2" in problem
    (problem,) = run(engine("32B", 65), pool=workers(2, 0.5), node=H100).problems
    assert "needs about 66.1 GB of each GPU to start" in problem and "cluster.gpus_per_worker" in problem
    assert not run(engine(gpu_share=0.2), pool=workers(1, 1.0), node=H100).problems
    (problem,) = run(engine(gpu_share=0.15), pool=workers(1, 1.0), node=H100).problems
    assert "vLLM's share is 12.8 GB; raise teacher.gpu_memory_utilization" in problem
    plan = run(engine(gigabytes=1), pool=workers(3, 0.6), node=Node("two", 16, 2, 99 * GB, 24 * GB))
    assert "only 2 workers" in plan.problems[0]  # 1.8 GPUs of two, yet no GPU has a second 0.6


@pytest.mark.parametrize(
    ("teacher", "pool", "node", "said"),
    [
        (engine(attention_heads=9, tensor_parallel=4), workers(1, 4), EIGHT, "does not divide the model's 9 attention heads"),
        (engine(kind="transformers"), workers(1, 1.5), EIGHT, "neither a share of one GPU nor a whole number"),
        (engine(kind="transformers"), workers(1, 1), Node("cpu", 8, 0, 64 * GB), "no node of the cluster has a GPU"),
        (engine(kind="transformers", device="cuda"), workers(1, 0), Node("cpu", 8, 0, 64 * GB), "teacher.device is cuda"),
        (engine(kind="vllm", tensor_parallel=2), workers(1, 0), Node("cpu", 8, 0, 64 * GB), "set both to 1"),
        (engine(kind="vllm"), workers(1, 0), H100, "cluster.gpus_per_worker is 0; set it to 1"),
        (engine(kind="transformers"), workers(3, 0, 4.0), Node("cpu", 8, 0, 64 * GB), "lower cluster.workers to 2"),
        (engine(kind="transformers"), workers(1, 0, 16.0), Node("cpu", 8, 0, 64 * GB), "no node has more than 8 CPUs"),
        (engine(gigabytes=100, kind="transformers"), workers(1, 0), Node("cpu", 8, 0, 64 * GB), "of memory, but a worker"),
        (engine(gigabytes=100, kind="transformers"), workers(1, 1), H100, "of GPU memory, but a worker of cluster has"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(teacher: Model, pool: Pool, node: Node, said: str) -> None:
    problems = run(teacher, pool=pool, node=node).problems
    assert len(problems) == 1 and said in problems[0] and "\n" not in problems[0]


def test_pools_side_by_side_and_a_gpu_that_nobody_reserves() -> None:
    critics = Pool("critics", "cluster.critics", 2, 1.0, 1.0)
    steps = [Step("sample", "teachers", (engine(tensor_parallel=4),)), Step("score nli", "critics", (NLI,))]
    assert not make_plan(Demand((workers(1, 4), critics), {"round 0": steps}), [EIGHT]).problems
    (problem,) = make_plan(Demand((workers(2, 4), critics), {"round 0": [*steps]}), [EIGHT]).problems
    assert "cluster (8) and cluster.critics (2)" in problem and "10 GPUs together" in problem
    plan = run(engine(kind="transformers"), pool=workers(1, 0), node=H100, trainer=Trainer(1, 1.0, 1, GB, GB))
    assert "uses a GPU unreserved" in plan.notes[0] and plan.training == "after the workers"


def test_students_stand_for_one_another_but_not_beside_the_teacher_as_critic() -> None:
    """One vllm engine fills the GPU: students and teacher are loaded in turn, never together."""
    student = [Step("sample", "teachers", (engine(f"student {n}"),)) for n in range(2)]
    pmi = Step("score pmi", "teachers", (engine(),))
    demand = Demand((workers(1, 1.0),), {"later": [*student, Step("sample", "teachers", (engine(),)), pmi]})
    plan = make_plan(demand, [H100])
    assert plan.keep == 1 and not plan.problems
    assert [[step.models[0].name for step in turn] for turn in plan.turns["later"]] == [
        ["student 0", "student 1", "teacher"],
        ["teacher"],
    ]
