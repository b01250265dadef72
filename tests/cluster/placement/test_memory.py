"""Memory of a worker, against every choice of models that it could hold, and at the byte where it no longer suffices."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.placement import MEMORY
from limbeck.cluster.engines.vllm.config import GPU_SHARE
from limbeck.cluster.placement.demand import Model, Step
from limbeck.cluster.placement.memory import (
    CONTEXT_BYTES,
    PROCESS_BYTES,
    Load,
    Room,
    device_bytes,
    fits,
    load,
    needed,
    on_gpu,
    shortage,
    take_turns,
)

GB = 10**9
CPU = Room(64 * GB, 0.0, None)
GPU = Room(64 * GB, 1.0, 24 * GB)


def model(name: str, kind: Any = "transformers", weights: int = 0, work: int = 0, cache: int = 0, **more: Any) -> Model:
    return Model(f"filters.{name}", name, f"{kind} {name}", kind, weights, work, cache, memory=MEMORY[kind], **more)


def step(name: str, *models: Model, pool: str = "teachers") -> Step:
    return Step(name, pool, models)


@st.composite
def several_models(draw: st.DrawFn) -> list[Model]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["transformers", "vllm", "endpoint", "critic"]))
        sizes = [draw(st.integers(0, 9)) * GB for _ in range(3)]
        device = draw(st.sampled_from(["auto", "cpu"]))
        parallel = {"tensor_parallel": draw(st.integers(1, 3)), "pipeline_parallel": draw(st.integers(1, 2))}
        share = {"gpu_share": draw(st.sampled_from([None, 0.25]))}
        found.append(model(str(number), kind, *sizes, device=device, **({**parallel, **share} if kind == "vllm" else {})))
    return found


def most(models: Sequence[Model], keep: int, held: Any, work: Any) -> int:
    """The most held by any set of up to `keep` engines and `keep` models of critics, and the most that one of all works in."""
    kinds = [[m for m in models if (m.kind == "critic") == critic] for critic in (True, False)]
    sets = [[c for n in range(keep + 1) for c in itertools.combinations(kind, n)] for kind in kinds]
    return max(sum(held(m) for m in (*a, *b)) for a in sets[0] for b in sets[1]) + max((work(m) for m in models), default=0)


@settings(deadline=None)
@given(several_models(), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([None, 24 * GB]))
def test_a_worker_needs_the_most_that_it_can_come_to_hold(
    models: list[Model], keep: int, gpus: float, gpu_bytes: int | None
) -> None:
    """The oracle: weights and caches for as long as they are loaded, the work of one at a time, a process per GPU of vLLM's."""
    room = Room(64 * GB, gpus, gpu_bytes)
    there = [m for m in models if gpus and m.device == "auto" and m.kind != "endpoint"]
    here = [m for m in models if m not in there and m.kind != "endpoint"]
    processes = 1 + max([m.tensor_parallel * m.pipeline_parallel for m in models if m.kind == "vllm"], default=0)
    memory = processes * PROCESS_BYTES + most(here, keep, lambda m: m.weights_bytes + m.cache_bytes, lambda m: m.work_bytes)

    def on_device(m: Model) -> int:
        if m.kind == "vllm" and gpu_bytes is not None:
            return int((m.gpu_share if m.gpu_share is not None else GPU_SHARE * gpus) * gpu_bytes)
        return m.weights_bytes // (m.tensor_parallel * m.pipeline_parallel)

    def working(m: Model) -> int:
        return 0 if m.kind == "vllm" else CONTEXT_BYTES + m.work_bytes

    assert load(models, room, keep) == Load(memory, most(there, keep, on_device, working))
    assert [m for m in models if on_gpu(m, room)] == there and all(device_bytes(m, room) == on_device(m) for m in there)


def test_a_model_that_computes_needs_room_to_work_in() -> None:
    """Memory is counted for activations too, on a CPU and on a GPU; of several models only one computes at a time."""
    two = [model("a", weights=3 * GB, work=5 * GB), model("b", "critic", weights=2 * GB, work=4 * GB)]
    assert load(two, CPU, 1) == Load(PROCESS_BYTES + 5 * GB + 5 * GB, 0)
    assert load(two, GPU, 1) == Load(PROCESS_BYTES, 5 * GB + CONTEXT_BYTES + 5 * GB)


def test_a_teacher_fits_to_the_byte() -> None:
    teacher = model("teacher", weights=3 * GB, work=2 * GB, cache=GB)
    need = PROCESS_BYTES + 6 * GB
    assert shortage([teacher], Room(need, 0.0, None), 1) == "" and fits(
        [step("a", teacher)], {"teachers": Room(need, 0, None)}, 1
    )
    assert shortage([teacher], Room(need - 1, 0.0, None), 1) == "memory"
    assert not fits([step("a", teacher)], {"teachers": Room(need - 1, 0.0, None)}, 1)


def test_a_gpu_fits_to_the_byte() -> None:
    teacher = model("teacher", weights=3 * GB, work=2 * GB)
    need = 5 * GB + CONTEXT_BYTES
    gpu = next(size for size in range(int(need / 0.95) - 9, 24 * GB) if Room(0, 1.0, size).gpu_budget_bytes == need)
    assert shortage([teacher], Room(64 * GB, 1.0, gpu), 1) == ""
    assert shortage([teacher], Room(64 * GB, 1.0, gpu - 2), 1) == "GPU memory"
    assert shortage([teacher], Room(64 * GB, 1.0, None), 1) == ""  # not known: not refused
    assert shortage([teacher], Room(1, 1.0, gpu - 2), 1) == "memory"  # of both, the node's first


@pytest.mark.parametrize(
    ("gpus", "gpu_bytes", "budget"), [(1.0, 100, 95), (0.5, 100, 47), (4.0, 100, 95), (0.0, 100, 0), (1.0, None, None)]
)
def test_the_budget_of_a_gpu(gpus: float, gpu_bytes: int | None, budget: int | None) -> None:
    """Several GPUs do not make one larger; a share of one gets that share of its memory."""
    assert Room(0, gpus, gpu_bytes).gpu_budget_bytes == budget


def test_vllm_holds_its_share_and_several_gpus_split_the_weights() -> None:
    spread = model("70B", "vllm", weights=20 * GB, tensor_parallel=2, pipeline_parallel=2)
    assert device_bytes(spread, Room(0, 4.0, 80 * GB)) == int(GPU_SHARE * 80 * GB)
    assert device_bytes(spread, Room(0, 4.0, None)) == 5 * GB
    assert device_bytes(model("7B", "vllm", gpu_share=0.3), Room(0, 1.0, 80 * GB)) == int(0.3 * 80 * GB)


def test_what_one_part_takes() -> None:
    """Steps of one name stand for each other, so a part takes one of them; servers take nothing here."""
    a, b, c = model("a"), model("b"), model("c")
    critics = [model(f"critic {n}", "critic") for n in range(3)]
    assert needed([]) == 0 and needed([step("draw")]) == 0
    assert needed([step("draw", a)]) == 1 and needed([step("draw", model("far", "endpoint"))]) == 0
    assert needed([step("draw", a), step("score", a)]) == 1  # one model, one engine
    assert needed([step("draw", a), step("score", b)]) == 2
    assert needed([step("draw", a), step("draw", b), step("draw", c)]) == 1
    assert needed([step("draw", a), step("draw", b), step("score", b)]) == 2  # a with b
    assert needed([step("draw", a), *(step(f"score {m.name}", m) for m in critics)]) == 3  # one engine, three critics
    assert needed([step("score", *critics[:2]), step("draw", a), step("draw", b), step("pmi", c)]) == 2


def test_a_worker_never_loads_a_model_once_a_part() -> None:
    two = [step("draw", model("a")), step("score", model("b"))]
    assert not fits(two, {"teachers": CPU}, 1) and fits(two, {"teachers": CPU}, 2)
    elsewhere = [two[0], step("score", model("b"), pool="critics")]
    assert fits(elsewhere, {"teachers": CPU, "critics": CPU}, 1)
    assert not fits(elsewhere, {"teachers": CPU, "critics": Room(1, 0.0, None)}, 1)


def test_what_vllm_leaves_of_a_gpu_of_unknown_size_is_used_by_nothing() -> None:
    unknown = {"teachers": Room(64 * GB, 1.0, None)}
    vllm, critic = model("a", "vllm"), model("b", "critic")
    assert fits([step("draw", vllm)], unknown, 1) and fits([step("draw", model("a")), step("score", critic)], unknown, 1)
    assert not fits([step("draw", vllm), step("score", critic)], unknown, 1)
    assert fits([step("draw", vllm), step("score", critic)], {"teachers": Room(64 * GB, 1.0, 24 * GB)}, 1)
    on_cpu = model("c", "critic", device="cpu")  # beside vLLM, but not on its GPU
    assert fits([step("draw", vllm), step("score", on_cpu)], unknown, 1)
    assert fits([step("draw", vllm), step("score", critic)], {"teachers": Room(64 * GB, 0.0, None)}, 1)


def test_a_turn_ends_where_the_next_step_would_not_fit() -> None:
    room = {"teachers": Room(PROCESS_BYTES + 6 * GB, 0.0, None)}
    a, b, c = (step(name, model(name, weights=3 * GB)) for name in "abc")
    critic = step("nli", model("nli", "critic", weights=3 * GB))
    assert take_turns([], room, 1) == []
    assert take_turns([a, b, c, critic], room, 1) == [[a], [b], [c, critic]]
    assert take_turns([a, b, c, critic], room, 2) == [[a, b], [c, critic]]
    huge = step("huge", model("huge", weights=9 * GB))
    assert take_turns([a, huge, critic], room, 2) == [[a], [huge], [critic]]  # what fits nowhere has a turn all the same


def test_processes_and_contexts_are_of_a_plausible_size() -> None:
    """A Python process with torch takes some hundred MB, and so does CUDA; the plan would otherwise promise what cannot be."""
    assert 200 << 20 <= PROCESS_BYTES <= 2 << 30 and 200 << 20 <= CONTEXT_BYTES <= 2 << 30
