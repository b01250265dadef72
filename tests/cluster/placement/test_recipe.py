"""From recipes to plans, and what `limbeck check` says of those that cannot be."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.outcomes import as_text
from helpers.tiny_run import recipe, write_recipe
from limbeck.cluster.placement.demand import Node, Step
from limbeck.cluster.placement.memory import PROCESS_BYTES, USABLE
from limbeck.cluster.placement.nodes import gpu_memory_bytes, this_machine
from limbeck.corpus import extras
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.own import own_generator
from limbeck.pipelines.driver import check, placing
from limbeck.pipelines.driver.jobs import GenerateJob, ScoreJob
from limbeck.pipelines.recipe import Recipe, validate

GB = 10**9
OTHER_DTYPE = {"kind": "pmi", "engine": {"kind": "transformers", "dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placement")
    write_recipe(folder)
    return folder


def tiny(home: Path, **changes: Any) -> Recipe:
    """The tiny recipe, whose critic asks an engine of its own where `changes` say so, resolved."""
    data = recipe(home, **changes)
    for part in data["filters"]:
        if part.get("engine"):
            part["engine"] = {**part["engine"], "model": data["teacher"]["model"]}
    return validate(data, "here").resolved()


def node(memory_bytes: int = 64 * GB, **more: Any) -> Node:
    return Node("one", **{"cpus": 8.0, "gpus": 0, "memory_bytes": memory_bytes, **more})


def too_small_for_two(found: Recipe) -> Node:
    """A node that holds any one of the recipe's models, and no two."""
    models = placing.demand(found, gpus=False).models("teachers")
    largest = max(model.weights_bytes + model.work_bytes for model in models)
    return node(int((PROCESS_BYTES + largest + min(model.weights_bytes for model in models) / 2) / USABLE))


def test_a_recipe_s_models_are_counted_once_and_as_they_are_loaded(home: Path) -> None:
    found = tiny(home)
    demand = placing.demand(found, gpus=False)
    teacher = demand.phases["round 0"][0].models[0]
    parameters = sum(w.numel() for w in weights(Path(found.teacher.model)))
    assert teacher.weights_bytes == 4 * parameters and teacher.attention_heads is None
    # layers × (keys, values) × key-value heads × their size × float32, for 256 sequences of 1024; logits of 2048 tokens
    assert teacher.work_bytes == 256 * 1024 * (2 * 2 * 2 * 8) * 4 + 2048 * 400 * 4
    assert [step.name for step in demand.phases["round 0"]] == ["sample", "score heuristics", "score length", "score pmi"]
    assert demand.phases["round 0"][-1].models[0].identity == teacher.identity
    later = demand.phases["later rounds, held-out documents"]
    assert [step.models[0].name for step in later[:2]] == ["the student of round 1", "the student of round 0"]
    assert demand.trainer and demand.trainer.memory_bytes == PROCESS_BYTES + 16 * parameters
    plan = placing.plan_for(found, [node()])
    assert not plan.problems and plan.keep == 2 and max(map(len, plan.turns.values())) == 1


def weights(folder: Path) -> list[Any]:
    from safetensors.torch import load_file

    return list(load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize(
    ("student", "share"),
    [
        ({"lora": {"rank": 4}}, 6),
        ({"workers": 2, "batch_size": 8, "deepspeed": {"zero_optimization": {"stage": 1}}}, 12),
        ({"workers": 2, "batch_size": 8, "deepspeed": {"zero_optimization": {"stage": 2}}}, 10),
        ({"workers": 2, "batch_size": 8, "deepspeed": {"zero_optimization": {"stage": 3}}}, 8),
        ({"base": {"kind": "layers", "layers": 1}}, 8),
    ],
)
def test_what_a_training_process_holds(home: Path, student: dict[str, Any], share: int) -> None:
    found = tiny(home, student={"kind": "sft", **student})
    trainer = placing.demand(found, gpus=False).trainer
    parameters = sum(w.numel() for w in weights(Path(found.teacher.model)))
    assert trainer and trainer.memory_bytes == PROCESS_BYTES + share * parameters and trainer.workers == found.student.workers  # type: ignore[union-attr]
    with_gpu = placing.demand(found, gpus=True).trainer
    assert with_gpu and with_gpu.gpus == 1 and with_gpu.gpu_memory_bytes == share * parameters


def test_engines_that_a_script_names_are_placed_beside_the_teacher(home: Path) -> None:
    found = tiny(home)
    judge = found.teacher.model_copy(update={"context_tokens": 256})
    asking = own_generator("asking", lambda source, draw, pool: iter(()), named_engines={"judge": judge})
    demand = placing.demand(found.model_copy(update={"generator": asking}), gpus=False)
    for phase, steps in demand.phases.items():
        sampling = [step for step in steps if step.name == "sample"]
        assert sampling and all([model.key for model in step.models][1:] == ["generator.judge"] for step in sampling), phase


def test_critics_of_their_own_have_room_of_their_own(home: Path) -> None:
    found = tiny(home, cluster={"critics": {"workers": 2}})
    plan = placing.plan_for(found, [node()])
    pools = {step.name: step.pool for step in plan.demand.phases["round 0"]}
    assert pools["sample"] == "teachers" and pools["score pmi"] == "critics"
    assert len(plan.places["critics"]) == 2 and plan.keep == 1
    problems = placing.plan_for(found, [node(cpus=2.0)]).problems
    assert len(problems) == 1 and "cluster.critics (2)" in problems[0]


class Recorder:
    """Stands for the pool: what was streamed, and when the workers were ended."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def stream(self, lanes: list[Any]) -> Any:
        self.log.append([[job.stage for job in lane.jobs] for lane in lanes])
        yield "a report"

    def close(self) -> None:
        self.log.append("ended")


def lanes(found: Recipe, out: Path, engines: list[Any]) -> list[Any]:
    from limbeck.cluster.workers.pool import Lane

    made = []
    for number, engine in enumerate(engines):
        place = out / str(number)
        jobs: list[Any] = [GenerateJob(f"draw {number}", out, place / "candidates", found.generator, 0, 0, engine)]
        jobs += [ScoreJob(f"{part.name} {number}", out, place / "candidates", place / part.name, part) for part in found.filters]
        made.append(Lane(jobs, ["part-00000"]))
    return made


def test_parts_go_through_all_of_a_turn_before_the_next(home: Path, tmp_path: Path) -> None:
    found = tiny(home, filters=[{"kind": "length"}, OTHER_DTYPE, {"kind": "heuristics"}])
    both = [found.teacher, found.teacher.model_copy(update={"context_tokens": 512})]  # another engine, as large
    plan = placing.plan_for(found, [too_small_for_two(found)])
    assert not plan.problems and plan.keep == 1 and plan.training == "after the workers"
    pool, loaded = Recorder(), list[Step]()
    reports = list(placing.in_turns(plan, loaded, pool, lanes(found, tmp_path, both)))  # type: ignore[arg-type]
    assert pool.log == [
        [["draw 0", "length 0"], ["draw 1", "length 1"]],
        "ended",
        [["pmi 0", "heuristics 0"], ["pmi 1", "heuristics 1"]],
    ]
    assert len(reports) == 2
    pool.log.clear()  # the next round begins with the other turn's models
    list(placing.in_turns(plan, loaded, pool, lanes(found, tmp_path, both)))  # type: ignore[arg-type]
    assert [entry for entry in pool.log if entry == "ended"] == ["ended", "ended"]
    roomy = Recorder()
    list(placing.in_turns(placing.plan_for(found, [node()]), [], roomy, lanes(found, tmp_path, both)))  # type: ignore[arg-type]
    assert roomy.log == [[[f"{name} {n}" for name in ("draw", "length", "pmi", "heuristics")] for n in range(2)]]


def test_a_turn_whose_parts_are_published_is_left_out(home: Path, tmp_path: Path) -> None:
    found = tiny(home, filters=[{"kind": "length"}, OTHER_DTYPE])
    plan = placing.plan_for(found, [too_small_for_two(found)])
    for name in ("candidates", "length"):
        (tmp_path / "0" / name).mkdir(parents=True)
        (tmp_path / "0" / name / "part-00000.parquet").touch()
    pool = Recorder()
    list(placing.in_turns(plan, [], pool, lanes(found, tmp_path, [found.teacher])))  # type: ignore[arg-type]
    assert pool.log == [[["pmi 0"]]]


def test_run_refuses_what_check_refuses(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "cluster_nodes", lambda config: [node(PROCESS_BYTES // 2)])
    found = tiny(home)
    with pytest.raises(LimbeckError, match="teacher .* needs about .* of memory, but a worker of cluster has"):
        check.refuse_what_cannot_run(found, tmp_path)
    assert check.check(found, tmp_path)["problems"]
    monkeypatch.setattr(placing, "cluster_nodes", lambda config: [node()])
    assert check.refuse_what_cannot_run(found, tmp_path)[1].places == {"teachers": (0,)}


def test_vllm_where_it_is_not_installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tiny(home, teacher={"kind": "vllm", "model": str(home / "model"), "tensor_parallel_size": 4})
    monkeypatch.setattr(extras, "installed", lambda module: module != "vllm")
    expected = "teacher (kind vllm) needs vllm, which is not installed: pip install 'limbeck[vllm]'"
    assert placing.missing_extras(found) == [expected]
    monkeypatch.setattr(extras, "installed", lambda module: True)
    assert placing.missing_extras(found) == [] and check.engine_problems(found) == []
    eight = node(gpus=8, gpu_memory_bytes=80 * GB)
    problems = placing.plan_for(found, [eight]).problems
    assert len(problems) == 1, problems
    problem = problems[0]
    assert "teacher.tensor_parallel_size 4" in problem and "cluster.gpus_per_worker is 0; set it to 4" in problem
    spread = tiny(home, teacher={"kind": "vllm", "model": str(home / "model")}, cluster={"gpus_per_worker": 1})
    plan = placing.plan_for(spread, [eight])
    assert not plan.problems and plan.keep == 1 and len(plan.turns["later rounds, held-out documents"]) == 2
    three = tiny(
        home, teacher={"kind": "vllm", "model": str(home / "model"), "tensor_parallel_size": 3}, cluster={"gpus_per_worker": 3}
    )
    assert "does not divide the model's 4 attention heads" in placing.plan_for(three, [eight]).problems[0]


def test_gpus_are_those_that_nvidia_smi_and_the_environment_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho '0, GPU-aa, 81559'; echo '1, GPU-bb, 24576'; echo '2, GPU-cc, [N/A]'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_memory_bytes() == [81559 << 20, 24576 << 20, 0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-cc")
    assert gpu_memory_bytes() == [24576 << 20, 0]
    assert this_machine().gpus == 2 and this_machine().gpu_memory_bytes is None  # one of them does not say
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_memory_bytes() == [] and this_machine().gpus == 0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cluster.workers=64"], "cluster.workers 64 × cluster.cpus_per_worker 1 = 64 CPUs"),
        (["cluster.gpus_per_worker=4", "teacher.device=cuda"], "cluster.gpus_per_worker is 4"),
        (["student.workers=128", "student.batch_size=512"], "student.workers 128 need 1 CPU"),
        (["cluster.critics.workers=64"], "cluster.critics.workers 64"),
    ],
)
@pytest.mark.skipif(bool(gpu_memory_bytes()), reason="refusals for a machine without a GPU")
def test_check_and_run_refuse_with_the_key_and_the_way_out(home: Path, tmp_path: Path, overrides: list[str], said: str) -> None:
    options = [word for override in overrides for word in ("--set", override)]
    checked = limbeck("check", home / "recipe.yaml", *options)
    assert checked.returncode == 1 and f"problem: {said}" in checked.stdout, checked.stdout + checked.stderr
    done = limbeck("run", home / "recipe.yaml", "--out", tmp_path / "run", *options)
    assert done.returncode == 1 and said in done.stderr and "Ray" not in done.stderr, done.stderr


def test_check_prints_the_plan(home: Path) -> None:
    shown = limbeck("check", home / "recipe.yaml").stdout
    assert "placement, round 0" in shown and "sample, score pmi" in shown and "beside the workers" in shown
    found = json.loads(limbeck("check", home / "recipe.yaml", "--json").stdout)["placement"]
    assert [pool["workers"] for pool in found["pools"]] == [1] and found["training"]["when"] == "beside the workers"


IN_TURNS = """
import sys
from limbeck.cluster.placement.demand import Node
from limbeck.pipelines import recipe, run
from limbeck.pipelines.driver import placing

placing.cluster_nodes = lambda config: [Node("small", 2.0, 0, int(sys.argv[3]))]
run.run(recipe.load(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_in_turns_is_the_run_without(home: Path, tmp_path: Path) -> None:
    """A node that holds one model at a time: the same rows and the same student, with the workers ended between turns."""
    from helpers.commands import settings
    from helpers.paths import ROOT
    from limbeck.corpus.parts import read_parts, read_table

    data = recipe(home, rounds=1, filters=[{"kind": "length", "min_output_tokens": 1}, OTHER_DTYPE])
    data["filters"][1]["engine"] = {**data["filters"][1]["engine"], "model": data["teacher"]["model"]}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(data))
    found = validate(data, "here").resolved()
    script = tmp_path / "in_turns.py"
    script.write_text(IN_TURNS)
    seen = []
    for name, memory in (("roomy", 64 * GB), ("small", too_small_for_two(found).memory_bytes)):
        out = tmp_path / name
        command = [sys.executable, str(script), str(path), str(out), str(memory)]
        done = subprocess.run(command, cwd=ROOT, env=settings(), capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        places = [out / "rounds/000" / part for part in ("candidates", "scores/length", "scores/pmi")]
        places += [out / "evaluation" / part for part in ("test/student-000/candidates", "test/student-000/scores/pmi")]
        tables = [read_parts(place) for place in places if place.exists()] + [read_table(out / "rounds/000/decisions.parquet")]
        seen.append((tables, (out / "rounds/000/student/model.safetensors").read_bytes(), places))
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
        order = [event["stage"] for event in events if event["event"] == "part_done" and event["stage"].startswith("round-0/")]
        scored = [place for place, stage in enumerate(order) if stage.endswith("pmi")]
        drawn = [place for place, stage in enumerate(order) if stage.endswith("candidates")]
        assert (max(drawn) < min(scored)) == (name == "small")
    (first, student, places), (second, other, _) = seen
    assert len(first) >= 4 and list(map(as_text, first)) == list(map(as_text, second))
    assert student == other
