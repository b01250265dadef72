"""What counts alone forbid: at the last worker, CPU and GPU that is there, with the key and a number that would do."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.placement import MEMORY
from limbeck.cluster.placement.checks import VLLM_LEAST_BYTES, cannot_be, least_bytes
from limbeck.cluster.placement.demand import Demand, Model, Node, Pool, Step

GB = 10**9


def node(cpus: float = 8.0, gpus: int = 0, name: str = "one") -> Node:
    return Node(name, cpus, gpus, 64 * GB, 80 * GB if gpus else None)


def pool(workers: int = 1, cpus: float = 1.0, gpus: float = 0.0, name: str = "teachers") -> Pool:
    return Pool(name, "cluster" if name == "teachers" else f"cluster.{name}", workers, cpus, gpus)


def model(kind: Any = "transformers", key: str = "teacher", **more: Any) -> Model:
    return Model(key, "m", f"{key} {kind} {more}", kind, 9 * GB, memory=MEMORY[kind], **more)


def problems(pools: list[Pool], nodes: list[Node], *models: Model) -> list[str]:
    """With every model on a worker of the last pool."""
    steps = [Step(f"step {n}", pools[-1].name, (each,)) for n, each in enumerate(models)]
    return cannot_be(Demand(pools, {"round 0": steps}), nodes)


def said(found: list[str], *words: str) -> bool:
    """There is one problem, and it says all of this."""
    return len(found) == 1 and all(word in found[0] for word in words)


@pytest.mark.parametrize("unit", ["cpus", "gpus"])
@given(st.integers(1, 40), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.sampled_from([0.1, 0.3, 0.5, 1.0, 2.0, 3.0]))
def test_workers_are_refused_exactly_where_they_exceed_the_cluster(
    unit: str, workers: int, sizes: list[int], each: float
) -> None:
    """And the number that is offered instead is the most that the cluster takes."""
    nodes = [node(**{"cpus": 1000.0, unit: size}, name=f"n{size}") for size in sizes]  # type: ignore[arg-type]
    tenths = round(each * 10)
    found = problems([pool(workers, **{"cpus": 0.1, unit: each})], nodes)  # type: ignore[arg-type]
    if max(sizes) * 10 < tenths:
        assert said(found, f"cluster.{unit}_per_worker is {each:g}", f"no node has more than {max(sizes)} {unit[:3].upper()}s")
    elif workers * tenths <= sum(sizes) * 10:
        assert found == []
    else:
        assert said(found, f"cluster.workers {workers} × cluster.{unit}_per_worker {each:g} = {workers * each:g} ")
        assert f" {unit[:3].upper()}s, but the cluster has {sum(sizes)}; lower cluster.workers to " in found[0]
        fewer = int(re.search(r"lower cluster.workers to (\d+) ", found[0])[1])  # type: ignore[index]
        assert fewer * tenths <= sum(sizes) * 10 < (fewer + 1) * tenths


def test_both_units_are_counted() -> None:
    both = problems([pool(3, 4.0, 1.0)], [node(cpus=8, gpus=2)])
    assert len(both) == 2 and "= 3 GPUs" in both[0] and "= 12 CPUs" in both[1]


def test_fractions_that_do_not_add_up_in_floating_point_are_no_reason() -> None:
    assert 3 * 0.1 > 0.3 > 0.1
    assert problems([pool(3, 0.1)], [node(cpus=0.3)]) == []
    assert said(problems([pool(4, 0.1)], [node(cpus=0.3)]), "lower cluster.workers to 3 ")
    assert problems([pool(2, 0.1), pool(1, 0.1, name="critics")], [node(cpus=0.3)]) == []
    held = model("vllm", gpu_share=0.1 + 0.2)
    assert problems([pool(1, 1.0, 0.3)], [node(gpus=1)], held) == []


@pytest.mark.parametrize(
    ("gpus", "node_gpus", "words"),
    [
        (0.0, 0, None),
        (0.5, 1, None),
        (1.0, 1, None),
        (2.0, 2, None),
        (0.5, 0, "no node of the cluster has a GPU; set it to 0"),
        (1.5, 4, "neither a share of one GPU nor a whole number"),
        (3.0, 2, "no node has more than 2 GPUs"),
    ],
)
def test_gpus_of_a_worker(gpus: float, node_gpus: int, words: str | None) -> None:
    found = problems([pool(1, 1.0, gpus)], [node(gpus=0), node(gpus=node_gpus, name="two")], model())
    assert found == [] if words is None else said(found, f"cluster.gpus_per_worker {'is ' * ('no node' in words)}{gpus:g}", words)


def test_pools_that_fit_one_by_one_but_not_together() -> None:
    teachers, critics = pool(2, 2.0, 1.0), pool(2, 2.0, 1.0, name="critics")
    assert problems([teachers, critics], [node(cpus=8, gpus=4)]) == []
    found = problems([teachers, critics], [node(cpus=7, gpus=4)])
    assert said(found, "cluster (4) and cluster.critics (4) need 8 CPUs together, but the cluster has 7;", "cpus_per_worker")
    found = problems([teachers, critics], [node(cpus=4, gpus=2), node(cpus=4, gpus=1, name="two")])
    assert said(found, "cluster (2) and cluster.critics (2) need 4 GPUs together, but the cluster has 3;", "gpus_per_worker")
    assert len(problems([teachers, critics], [node(cpus=7, gpus=3)])) == 2
    # what is wrong with one pool by itself is told first, and alone
    assert said(problems([pool(9, 1.0), critics], [node(cpus=8, gpus=4)]), "cluster.workers 9")


@pytest.mark.parametrize(
    ("spread", "gpus", "node_gpus", "words"),
    [
        ({}, 0.0, 0, None),  # vLLM's CPU build
        ({}, 1.0, 1, None),
        ({}, 0.5, 1, None),
        ({"tensor_parallel": 4}, 4.0, 4, None),
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, 4.0, 4, None),
        ({"tensor_parallel": 2}, 0.0, 0, "2 GPUs, but no node has any; set both to 1 for vLLM's CPU build"),
        (
            {"tensor_parallel": 4, "pipeline_parallel": 2},
            8.0,
            4,
            "4 × teacher.pipeline_parallel_size 2 = 8 GPUs, but no node has",
        ),
        (
            {"tensor_parallel": 2},
            0.5,
            4,
            "per_worker 0.5 is a share of one GPU; a model on several GPUs needs whole ones: set it to 2",
        ),
        ({"tensor_parallel": 2}, 1.0, 4, "= 2 GPUs, but cluster.gpus_per_worker is 1; set it to 2"),
        ({"tensor_parallel": 2}, 3.0, 4, "is 3; set it to 2"),
        ({}, 2.0, 4, "= 1 GPUs, but cluster.gpus_per_worker is 2; set it to 1"),
        ({}, 0.0, 1, "is 0; set it to 1"),
    ],
)
def test_vllm_over_gpus(spread: dict[str, int], gpus: float, node_gpus: int, words: str | None) -> None:
    found = problems([pool(1, 1.0, gpus)], [node(), node(gpus=node_gpus, name="two")], model("vllm", **spread))
    assert found == [] if words is None else said(found, words)


def test_a_model_larger_than_any_node_is_one_problem_with_another_way_out() -> None:
    found = problems([pool(1, 1.0, 8.0)], [node(gpus=4), node(gpus=4, name="two")], model("vllm", tensor_parallel=8))
    assert said(found, "no node has more than 4", "vllm serve", "kind endpoint") and "gpus_per_worker is 8" not in found[0]


def test_only_critics_on_the_teachers_workers_could_have_workers_of_their_own() -> None:
    def advice(pools: list[Pool], key: str) -> bool:
        (found,) = problems(pools, [node(gpus=4)], model("vllm", key=key, tensor_parallel=2))
        return "give filters their own workers: cluster.critics" in found

    alone, both = [pool(1, 1.0, 1.0)], [pool(1, 1.0, 1.0), pool(1, 1.0, 1.0, name="critics")]
    assert advice(alone, "filters.pmi.engine")
    assert not advice(alone, "teacher") and not advice(both, "filters.pmi.engine")


@pytest.mark.parametrize(
    ("heads", "tensor", "offered"), [(9, 2, "1, 3, 9"), (32, 3, "1, 2, 4, 8, 16"), (64, 4, None), (None, 3, None), (7, 7, None)]
)
def test_attention_heads_are_shared_out_evenly(heads: int | None, tensor: int, offered: str | None) -> None:
    found = problems([pool(1, 1.0, tensor)], [node(gpus=8)], model("vllm", attention_heads=heads, tensor_parallel=tensor))
    words = f"tensor_parallel_size {tensor} does not divide the model's {heads} attention heads; choose one of {offered}, and"
    assert found == [] if offered is None else said(found, words)


@pytest.mark.parametrize(
    ("share", "gpus", "lower_to"),
    [
        (None, 0.5, None),
        (0.5, 0.5, None),
        (0.51, 0.5, "0.45"),
        (1.0, 1.0, None),
        (1.0, 2.0, None),
        (1.1, 2.0, "0.9"),
        (0.9, 0.0, None),
    ],
)
def test_vllm_s_share_of_a_gpu_is_within_what_its_worker_reserves(share: float | None, gpus: float, lower_to: str | None) -> None:
    spread = {"tensor_parallel": 2} if gpus > 1 else {}
    found = problems([pool(1, 1.0, gpus)], [node(gpus=2 if gpus else 0)], model("vllm", gpu_share=share, **spread))
    if lower_to is None:
        assert found == []
    else:
        assert said(found, f"teacher.gpu_memory_utilization {share:g} exceeds the {min(1.0, gpus):g} of a GPU")
        assert f"lower it to {lower_to}," in found[0]


def test_cuda_needs_a_gpu_somewhere_and_is_told_once() -> None:
    one = model(device="cuda")
    assert said(problems([pool()], [node(), node(name="two")], one), "teacher.device is cuda", "set it to auto or cpu")
    assert problems([pool()], [node(), node(gpus=1, name="two")], one) == []
    for device in ("auto", "cpu"):
        assert problems([pool()], [node()], model(device=device)) == []
    same_key = [model(device="cuda", attention_heads=heads) for heads in (1, 2)]  # two models of one section
    assert len({each.identity for each in same_key}) == 2 and len(problems([pool()], [node()], *same_key)) == 1


def test_memory_without_which_a_model_does_not_start() -> None:
    """vLLM needs a cache and room to work beside its weights; the weights are shared out over its GPUs."""
    assert least_bytes(model()) == 9 * GB
    assert least_bytes(model("vllm", tensor_parallel=3)) == 3 * GB + VLLM_LEAST_BYTES
    assert least_bytes(model("vllm", tensor_parallel=7)) == 1_285_714_285 + VLLM_LEAST_BYTES  # a whole number of bytes
    assert 200 << 20 <= VLLM_LEAST_BYTES <= 8 << 30
