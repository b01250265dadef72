"""What each worker may use, where it goes, and what trains beside it: plans that can be worked out by hand."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.placement import MEMORY
from limbeck.cluster.placement.demand import Demand, Model, Node, Pool, Step, Trainer, distinct, gigabytes
from limbeck.cluster.placement.memory import CONTEXT_BYTES, PROCESS_BYTES, USABLE
from limbeck.cluster.placement.plan import Plan, as_plain, make_plan

GB = 10**9
ENDPOINT = Model("teacher", "far", "endpoint far", "endpoint", memory="none")


def node(memory: int = 64 * GB, cpus: float = 8.0, gpus: int = 0, gpu_memory: int | None = None, name: str = "one") -> Node:
    return Node(name, cpus, gpus, memory, gpu_memory)


def pool(workers: int = 1, cpus: float = 1.0, gpus: float = 0.0, name: str = "teachers") -> Pool:
    return Pool(name, "cluster" if name == "teachers" else f"cluster.{name}", workers, cpus, gpus)


def model(name: str = "small", weights: int = GB, kind: Any = "transformers", key: str = "teacher", **more: Any) -> Model:
    return Model(key, name, f"{kind} {name}", kind, weights, memory=MEMORY[kind], **more)


def plan(pools: list[Pool], nodes: list[Node], *steps: Step, trainer: Trainer | None = None) -> Plan:
    return make_plan(Demand(pools, {"round 0": steps}, trainer), nodes)


def draw(*models: Model, pool: str = "teachers", name: str = "draw") -> Step:
    return Step(name, pool, models)


def usable(made: Plan) -> float:
    return sum(each.memory_bytes for each in made.nodes) * USABLE


SIZES = st.lists(st.integers(0, 4), max_size=3)


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 3), st.integers(1, 3))
def test_a_node_is_shared_out_in_full_and_in_proportion_to_what_workers_could_hold(
    ours: list[int], theirs: list[int], teachers: int, critics: int
) -> None:
    pools = [pool(teachers), pool(critics, name="critics")]
    engines = [model(f"e{n}", size * GB) for n, size in enumerate(ours)]
    judges = [model(f"c{n}", size * GB, "critic") for n, size in enumerate(theirs)]
    steps = [draw(each, name=each.name) for each in engines]
    steps += [draw(each, name=each.name, pool="critics") for each in judges]
    made = plan(pools, [node()], *steps)
    rooms = {name: room.memory_bytes for name, room in made.rooms.items()}
    assert usable(made) - teachers - critics <= teachers * rooms["teachers"] + critics * rooms["critics"] <= usable(made)
    beyond = {  # a worker's largest model is seen to first
        "teachers": rooms["teachers"] - PROCESS_BYTES - max(ours, default=0) * GB,
        "critics": rooms["critics"] - PROCESS_BYTES - max(theirs, default=0) * GB,
    }
    more = {
        "teachers": sum(sorted(ours)[:-1]),
        "critics": sum(sorted(theirs)[:-1]),
    }  # what all its models need beyond the largest
    if any(more.values()):
        assert beyond["teachers"] * more["critics"] == pytest.approx(beyond["critics"] * more["teachers"], abs=100)
    else:
        assert beyond["teachers"] == pytest.approx(beyond["critics"], abs=2)


def test_a_worker_s_room_is_that_of_the_smallest_share_it_may_get() -> None:
    nodes = [node(64 * GB, cpus=1), node(20 * GB, cpus=1, name="two"), node(40 * GB, cpus=1, name="three")]
    made = plan([pool(3)], nodes, draw(model()))
    assert made.places["teachers"] == (0, 1, 2) and made.rooms["teachers"].memory_bytes == int(20 * GB * USABLE)
    assert plan([pool(1)], nodes, draw(model())).rooms["teachers"].memory_bytes == int(64 * GB * USABLE)


def test_where_no_share_is_enough_all_get_alike_and_the_model_is_named_once() -> None:
    large = [draw(model("large", 30 * GB)), draw(model("large", 30 * GB, kind="critic"), name="score")]
    made = plan([pool(2)], [node(40 * GB)], *large)
    assert made.rooms["teachers"].memory_bytes == int(19 * GB)
    (problem,) = made.problems
    assert problem.startswith("teacher large needs about 30.7 GB of memory, but a worker of cluster has 19.0 GB")
    assert "lower cluster.workers" in problem
    fewer = plan([pool(1)], [node(40 * GB)], large[0])
    assert not fewer.problems and fewer.rooms["teachers"].memory_bytes == int(38 * GB)
    beside = draw(model("large", 30 * GB, "critic", key="filters.nli.classifier"), name="score", pool="critics")
    made = plan([pool(), pool(name="critics")], [node(20 * GB)], draw(model()), beside)
    assert [room.memory_bytes for room in made.rooms.values()] == [int(9.5 * GB)] * 2
    assert len(made.problems) == 1 and made.problems[0].startswith("filters.nli.classifier large needs")
    other = draw(model("other", 50 * GB, key="filters.pmi.engine"), name="pmi")
    assert len(plan([pool(1)], [node(20 * GB)], large[0], other).problems) == 2


def test_a_node_that_is_just_large_enough_gives_each_worker_what_its_model_needs() -> None:
    small, large = model("a", 6 * GB - PROCESS_BYTES), model("b", 13 * GB - PROCESS_BYTES, "critic", key="filters.nli.classifier")
    made = plan([pool(), pool(name="critics")], [node(20 * GB)], draw(small), draw(large, pool="critics", name="score"))
    assert {name: room.memory_bytes for name, room in made.rooms.items()} == {"teachers": 6 * GB, "critics": 13 * GB}
    assert usable(made) == 19 * GB and not made.problems


def test_the_gpus_of_a_cluster_are_as_large_as_the_smallest_and_as_unknown_as_any() -> None:
    def gpu_bytes(*nodes: Node) -> int | None:
        return plan([pool(1, gpus=1.0)], list(nodes), draw(model())).rooms["teachers"].gpu_memory_bytes

    small, large = node(gpus=1, gpu_memory=24 * GB), node(gpus=2, gpu_memory=80 * GB, name="two")
    assert gpu_bytes(small, large) == gpu_bytes(large, small) == 24 * GB and gpu_bytes(large) == 80 * GB
    assert gpu_bytes(large, node(gpus=1, name="unknown")) is None
    assert gpu_bytes(large, node(name="none")) == 80 * GB


def test_models_that_exceed_a_gpu_say_what_it_has() -> None:
    gpu = node(gpus=1, gpu_memory=20 * GB)
    need = int(20 * GB * USABLE) - CONTEXT_BYTES
    assert not plan([pool(1, gpus=1.0)], [gpu], draw(model("a", need))).problems
    (problem,) = plan([pool(1, gpus=1.0)], [gpu], draw(model("a", need + 1))).problems
    assert "teacher a needs about 19.0 GB of GPU memory, but a worker of cluster has 19.0 GB of each GPU" in problem
    (problem,) = plan([pool(2, gpus=0.5)], [gpu], draw(model("a", need))).problems
    assert "has 9.5 GB of each GPU; raise cluster.gpus_per_worker" in problem
    assert not plan([pool(1, gpus=1.0)], [gpu], draw(model("a", need + 1, device="cpu"))).problems
    unknown = node(gpus=1)
    assert not plan([pool(1, gpus=1.0)], [unknown], draw(model("a", 60 * GB))).problems


def test_vllm_that_does_not_start_in_its_share() -> None:
    gpu, exact = node(gpus=1, gpu_memory=40 * GB), int(0.5 * 40 * GB) - (1 << 30)
    starts = draw(model("a", exact, "vllm", gpu_share=0.5))
    assert not plan([pool(1, gpus=1.0)], [gpu], starts).problems
    (problem,) = plan([pool(1, gpus=1.0)], [gpu], draw(model("a", exact + 1, "vllm", gpu_share=0.5))).problems
    assert "needs about 20.0 GB of each GPU to start, but vLLM's share is 20.0 GB" in problem
    assert "raise teacher.gpu_memory_utilization" in problem


# where workers go


def test_workers_fill_one_node_after_the_other() -> None:
    nodes = [node(cpus=2), node(cpus=2, name="two")]
    assert plan([pool(3)], nodes, draw(model())).places == {"teachers": (0, 0, 1)}
    assert plan([pool(4, cpus=1.0)], nodes, draw(model())).places == {"teachers": (0, 0, 1, 1)}


def test_what_needs_no_gpu_leaves_nodes_with_gpus_alone() -> None:
    nodes = [node(cpus=4, gpus=1, gpu_memory=24 * GB), node(cpus=4, name="two")]
    assert plan([pool(2)], nodes, draw(ENDPOINT)).places["teachers"] == (1, 1)
    assert plan([pool(1, gpus=1.0)], nodes, draw(model())).places["teachers"] == (0,)
    assert plan([pool(5)], nodes, draw(ENDPOINT)).places["teachers"] == (1, 1, 1, 1, 0)


def test_shares_of_a_gpu_are_packed_so_that_whole_ones_stay_free() -> None:
    gpus = node(cpus=8, gpus=3, gpu_memory=80 * GB)
    made = plan([pool(4, gpus=0.5)], [gpus], draw(model()), trainer=Trainer(1, 1.0, 1, GB, GB))
    assert made.training == "beside the workers" and made.training_places == (0,)
    assert plan([pool(5, gpus=0.5)], [gpus], draw(model()), trainer=Trainer(1, 1.0, 1, GB, GB)).training == "after the workers"
    tenths = plan([pool(10, cpus=0.1, gpus=0.1)], [node(cpus=1, gpus=1, gpu_memory=80 * GB)], draw(model("tiny", GB // 100)))
    assert not tenths.problems and len(tenths.places["teachers"]) == 10  # although ten tenths are not quite one


def test_pools_that_reserve_most_are_placed_first() -> None:
    nodes = [node(cpus=4), node(cpus=3, name="two")]
    pools = [pool(3, cpus=1.0), pool(1, cpus=4.0, name="critics")]
    made = plan(pools, nodes, draw(ENDPOINT), draw(name="score", pool="critics"))
    assert not made.problems and made.places == {"critics": (0,), "teachers": (1, 1, 1)}
    gpus = [node(cpus=4, gpus=1, gpu_memory=80 * GB), node(cpus=4, gpus=2, gpu_memory=80 * GB, name="two")]
    pools = [pool(1, cpus=4.0, gpus=1.0), pool(1, cpus=1.0, gpus=2.0, name="critics")]
    made = plan(pools, gpus, draw(model()), draw(model("n", kind="critic"), name="score", pool="critics"))
    assert not made.problems and made.places == {"critics": (1,), "teachers": (0,)}


def test_workers_for_which_no_single_node_has_room() -> None:
    nodes = [node(cpus=3), node(cpus=3, name="two")]
    (problem,) = plan([pool(3, cpus=2.0)], nodes, draw(ENDPOINT)).problems
    assert "cluster.workers is 3, but only 2 workers with 2 CPUs and 0 GPUs each" in problem and "other pool" not in problem
    assert "lower cluster.workers to 2" in problem
    nodes = [node(cpus=4), node(cpus=4, name="two")]
    both = [pool(2, cpus=3.0), pool(1, cpus=2.0, name="critics")]
    (problem,) = plan(both, nodes, draw(ENDPOINT), draw(pool="critics", name="score")).problems
    assert problem.startswith("no node has 2 CPUs and 0 GPUs free beside the other pool's for a worker of cluster.critics;")


def test_memory_decides_where_models_go_and_is_what_is_told_when_it_is_short() -> None:
    nodes = [node(8 * GB, cpus=4), node(64 * GB, cpus=2, name="two")]
    assert plan([pool(2)], nodes, draw(model("large", 20 * GB))).places["teachers"] == (1, 1)
    (problem,) = plan([pool(3)], nodes, draw(model("large", 20 * GB))).problems
    assert "needs about 20.7 GB of memory, but a worker of cluster has" in problem  # and not that processors are short


# training


def beside(memory: int, trainer: Trainer, cpus: float = 2.0, workers: int = 1) -> str | None:
    return plan([pool(workers)], [node(memory, cpus)], draw(model("a", 4 * GB, work_bytes=GB)), trainer=trainer).training


def test_training_beside_the_workers_fits_to_the_byte() -> None:
    trainer = Trainer(1, 1.0, 0, 10 * GB, 0)
    need = PROCESS_BYTES + 5 * GB + 10 * GB
    enough = next(size for size in range(int(need / USABLE) - 9, 64 * GB) if size * USABLE >= need)
    assert beside(enough, trainer) == "beside the workers"
    assert beside(enough - 2, trainer) == "after the workers"
    assert beside(64 * GB, trainer, cpus=1.0) == "after the workers"  # no processor is free
    two = 2 * (PROCESS_BYTES + 5 * GB) + 10 * GB
    assert beside(int(two / USABLE) + 9, trainer, cpus=3.0, workers=2) == "beside the workers"
    assert beside(int(two / USABLE) - 9, trainer, cpus=3.0, workers=2) == "after the workers"


@pytest.mark.parametrize(
    ("memory", "weights", "turns", "trainer", "when"),
    [
        (22, (4, 4), [2], 10, "beside the workers"),  # 8.7 of 20.9 GB for both models
        (17, (4, 4), [2], 10, "after the workers"),  # of 16.1 GB; with one model, 4.7 GB, both would fit
        (12, (2, 10), [1, 1], 3, "after the workers"),  # 10.7 of 11.4 GB in one turn, 2.7 in the other
        (12, (10, 2), [1, 1], 3, "after the workers"),
    ],
)
def test_training_leaves_workers_what_they_hold_at_their_peak(
    memory: int, weights: tuple[int, int], turns: list[int], trainer: int, when: str
) -> None:
    """All models of a turn, in the turn that holds most: not only the largest model, by which a worker is placed."""
    steps = [draw(model(name, weight * GB), name=name) for name, weight in zip("ab", weights, strict=True)]
    made = plan([pool(1)], [node(memory * GB)], *steps, trainer=Trainer(1, 1.0, 0, trainer * GB, 0))
    assert [len(turn) for turn in made.turns["round 0"]] == turns and made.training == when


def test_training_that_never_fits_says_how_many_would() -> None:
    made = plan([pool(1)], [node(40 * GB)], draw(ENDPOINT), trainer=Trainer(4, 1.0, 0, 15 * GB, 0))
    (problem,) = made.problems
    assert "student.workers 4 need 1 CPU and 15.0 GB of memory each, but the cluster has room for 2" in problem
    assert "lower student.workers to 2" in problem and made.training == "after the workers"
    (problem,) = plan([pool(1)], [node(10 * GB)], draw(ENDPOINT), trainer=Trainer(1, 1.0, 0, 15 * GB, 0)).problems
    assert "room for 0" in problem and "lower student.workers" not in problem
    assert not plan([pool(1)], [node(40 * GB)], draw(ENDPOINT), trainer=Trainer(2, 1.0, 0, 15 * GB, 0)).problems
    for beyond in (0, 1):  # all that may be used of the node, and a byte more
        most = Trainer(1, 1.0, 0, int(40 * GB * USABLE) + beyond, 0)
        assert len(plan([pool(1)], [node(40 * GB)], draw(ENDPOINT), trainer=most).problems) == beyond
    untrained = plan([pool(1)], [node()], draw(ENDPOINT))
    assert untrained.training is None and untrained.training_places == ()


def test_a_trainer_s_gpu_is_large_enough_to_the_byte() -> None:
    nodes = [node(gpus=1, gpu_memory=10 * GB), node(gpus=1, gpu_memory=40 * GB, name="two")]

    def training(gpu_bytes: int, workers: int = 1) -> Plan:
        return plan([pool(1)], nodes, draw(ENDPOINT), trainer=Trainer(workers, 1.0, 1, GB, gpu_bytes))

    assert training(int(10 * GB * USABLE)).training_places == (0,)
    assert training(int(10 * GB * USABLE) + 1).training_places == (1,)
    assert training(int(40 * GB * USABLE)).training_places == (1,)
    (problem,) = training(int(40 * GB * USABLE) + 1).problems
    assert "1 CPU, 1 GPU with 38.0 GB and 1.0 GB of memory each" in problem and "room for 0" in problem
    (problem,) = training(20 * GB, workers=2).problems
    assert "lower student.workers to 1" in problem
    unknown = plan([pool(1)], [node(gpus=1)], draw(ENDPOINT), trainer=Trainer(1, 1.0, 1, GB, 999 * GB))
    assert not unknown.problems and unknown.training == "beside the workers"


def test_workers_that_compute_on_a_gpu_unreserved_are_ended_before_training() -> None:
    gpu = [node(gpus=2, gpu_memory=80 * GB)]
    trainer = Trainer(1, 1.0, 1, GB, GB)
    auto = plan([pool(2)], gpu, draw(model()), trainer=trainer)
    assert auto.training == "after the workers" and auto.rooms["teachers"].gpus == 0.5  # both find the first one
    assert "cluster.gpus_per_worker is 0" in auto.notes[0]
    for quiet in (ENDPOINT, model(device="cpu")):
        made = plan([pool(2)], gpu, draw(quiet), trainer=trainer)
        assert made.training == "beside the workers" and made.rooms["teachers"].gpus == 0 and not made.notes
    reserved = plan([pool(1, gpus=1.0)], gpu, draw(model()), trainer=trainer)
    assert reserved.training == "beside the workers" and reserved.rooms["teachers"].gpus == 1.0 and not reserved.notes
    no_gpu = plan([pool(2)], [node()], draw(model()), trainer=Trainer(1, 1.0, 0, GB, 0))
    assert no_gpu.training == "beside the workers" and not no_gpu.notes
    judge = draw(model("c", kind="critic"), pool="critics")
    critics = plan([pool(1, gpus=1.0), pool(2, name="critics")], gpu, draw(model()), judge, trainer=trainer)
    assert critics.training == "after the workers"  # although the second GPU is reserved by none
    assert (critics.rooms["teachers"].gpus, critics.rooms["critics"].gpus) == (1.0, 0.5)
    assert len(critics.notes) == 1 and critics.notes[0].startswith("cluster.critics.gpus_per_worker is 0")


# turns


def test_as_few_models_are_held_at_once_as_spares_loading_one_for_each_part() -> None:
    a, b, c = (draw(model(name, 6 * GB), name=name) for name in "abc")
    nli = draw(model("nli", 6 * GB, "critic"), name="nli")

    def turns(memory: int, *steps: Step) -> tuple[int, list[list[str]]]:
        made = plan([pool(1)], [node(memory)], *steps)
        assert not made.problems
        return made.keep, [[step.name for step in turn] for turn in made.turns["round 0"]]

    assert turns(64 * GB, a, b, c, nli) == (3, [["a", "b", "c", "nli"]])
    assert turns(16 * GB, a, b, c, nli) == (2, [["a", "b"], ["c", "nli"]])
    assert turns(8 * GB, a, b, nli) == (1, [["a"], ["b"], ["nli"]])
    assert turns(64 * GB, nli) == (1, [["nli"]]) and turns(64 * GB, draw()) == (1, [["draw"]]) and turns(64 * GB) == (1, [])


def test_the_rows_of_the_plan_are_plain_data() -> None:
    """As `limbeck check --json` prints it: what is on a CPU takes no GPU memory, what is on a GPU no other."""
    gpu = node(gpus=2, gpu_memory=40 * GB)
    teacher = model("seven", 8 * GB, "vllm", tensor_parallel=2)
    nli = model("nli", 2 * GB, "critic", key="filters.nli.classifier", work_bytes=GB, device="cpu")
    pmi = model("pmi", 3 * GB, key="filters.pmi.engine", work_bytes=GB)
    judge = Model("filters.judge.engine", "far", "far", "endpoint", memory="none")
    steps = [draw(teacher), *(draw(each, name=f"score {each.name}") for each in (nli, pmi, judge))]
    trainer = Trainer(1, 1.0, 1, 5 * GB, 7 * GB)
    plain = as_plain(plan([pool(1, gpus=2.0)], [gpu], *steps, trainer=trainer))
    assert list(plain) == ["nodes", "pools", "phases", "training", "keep", "notes"]
    assert plain["nodes"] == [{"name": "one", "cpus": 8.0, "gpus": 2, "memory_bytes": 64 * GB, "gpu_memory_bytes": 40 * GB}]
    assert plain["pools"] == [
        {
            **{"name": "teachers", "key": "cluster", "workers": 1, "cpus": 1.0, "gpus": 2.0, "nodes": ["one"]},
            **{"memory_bytes": int(64 * GB * USABLE), "gpu_memory_bytes": int(40 * GB * USABLE)},
        }
    ]
    assert [phase["phase"] for phase in plain["phases"]] == ["round 0"]
    rows = plain["phases"][0]["stages"]
    assert [(row["stage"], row["pool"], row["turn"]) for row in rows] == [
        ("draw", "teachers", 1),
        ("score nli", "teachers", 1),
        ("score pmi", "teachers", 2),
        ("score far", "teachers", 2),
    ]
    found = [
        [row[key] for key in ("on", "memory_bytes", "gpu_memory_bytes", "gpus")] for stage in rows for row in stage["models"]
    ]
    assert found == [
        ["GPU", 0, 36 * GB, 2],
        ["CPU", 3 * GB, 0, 0],
        ["GPU", 0, 3 * GB + GB + CONTEXT_BYTES, 1],
        ["a server", 0, 0, 0],
    ]
    first = rows[0]["models"][0]
    assert [first[key] for key in ("key", "model", "kind", "weights_bytes")] == ["teacher", "seven", "vllm", 8 * GB]
    assert plain["training"] == {
        **{"workers": 1, "cpus": 1.0, "gpus": 1, "memory_bytes": 5 * GB, "gpu_memory_bytes": 7 * GB},
        **{"when": "after the workers", "nodes": ["one"]},
    }
    assert as_plain(plan([pool(1)], [node()], draw(ENDPOINT)))["training"] is None


def test_notes_name_what_is_reserved_for_nothing_and_what_is_not_known() -> None:
    gpus = node(gpus=4, gpu_memory=80 * GB)
    (note,) = plan([pool(1, gpus=2.0)], [gpus], draw(model())).notes
    assert "a worker of cluster reserves 2 GPUs but computes on 1" in note
    assert not plan([pool(1, gpus=1.0)], [gpus], draw(model())).notes
    assert not plan([pool(1, gpus=2.0)], [gpus], draw(model(kind="vllm", tensor_parallel=2))).notes
    (note,) = plan([pool(1, gpus=1.0)], [node(gpus=1, name="far"), node(name="two")], draw(model())).notes
    assert re.match(r"the GPU memory of far is unknown", note)


def test_models_of_one_identity_are_loaded_once() -> None:
    """Of two sections that ask for the same engine the first is named; the order is that of the steps."""
    teacher, again = model("m"), model("m", key="filters.pmi.engine")
    other = model("other", key="filters.nli.classifier")
    assert distinct([draw(teacher), draw(other, again, name="score")]) == [teacher, other]
    assert distinct([draw(again), draw(teacher)]) == [again]
    demand = Demand([pool()], {"a": [draw(other)], "b": [draw(teacher), draw(again), draw(model("x"), pool="critics")]})
    assert demand.models("teachers") == [other, teacher] and [m.name for m in demand.models("critics")] == ["x"]
    assert model(tensor_parallel=3, pipeline_parallel=2).devices == 6


@pytest.mark.parametrize(("count", "words"), [(0, "0.0 GB"), (1.26e9, "1.3 GB"), (80 * GB, "80.0 GB")])
def test_sizes_in_words(count: float, words: str) -> None:
    assert gigabytes(count) == words
