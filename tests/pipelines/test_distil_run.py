"""Distillation by the command line: whole runs with a live and a cached teacher, and what `check` refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from helpers.commands import limbeck
from helpers.outcomes import parts_done
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import done, part_names
from limbeck.pipelines.runs.events import read_events
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.training.driver import dataset_files
from limbeck.students.training.rows import read_rows, rendered
from limbeck.students.training.teacher_cache import TeacherCache

SMALLER = {"kind": "layers", "layers": 1, "sample": 2, "sample_tokens": 16, "healing": None}
DISTIL = {"kind": "distil", "base": SMALLER, "epochs": 2, "batch_size": 4, "learning_rate": 3e-3, "checkpoint_steps": 1}
CACHED = {**DISTIL, "teacher": {"kind": "cached", "top_k": 8}, "loss": {"kind": "skew_kl"}}
SMALL = {"rounds": 1, "evaluation": {"samples": 1, "dev_samples": 1}}


def training(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RunFolder(run).training(0).read_text())
    return found


@pytest.mark.timeout(300)
def test_a_live_teacher(tmp_path: Path, ray_address: str) -> None:
    recipe = write_recipe(tmp_path, **SMALL, student={**DISTIL, "loss": {"kind": "jsd", "beta": 0.3}, "epochs": 4})
    ended = limbeck("run", recipe, "--out", tmp_path / "run", RAY_ADDRESS=ray_address)
    assert ended.returncode == 0, ended.stderr
    found = training(tmp_path / "run")
    half = len(found["loss_curve"]) // 2
    assert sum(found["loss_curve"][-half:]) < sum(found["loss_curve"][:half]) and found["weights_moved_fraction"] > 0.9
    assert not (tmp_path / "run" / "rounds" / "000" / "teacher_logprobs").exists()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["finished"] and {row["model"] for row in report["rounds"][0]["evaluation"]} >= {"teacher", "student"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cached_teacher_survives_kills_and_is_drawn_once(tmp_path: Path) -> None:
    recipe, faults, run = write_recipe(tmp_path, **SMALL, student=CACHED), tmp_path / "faults.json", tmp_path / "run"
    strikes = [("part-00001", "before", "self"), ("part-00002", "after", "driver")]
    plan = [{"rename": f"teacher_logprobs/[^/]+/{part}", "when": when, "victim": victim} for part, when, victim in strikes]
    faults.write_text(json.dumps(plan))
    assert limbeck("run", recipe, "--out", run, faults=faults).returncode == -9
    ended = limbeck("run", recipe, "--out", run, faults=faults)
    assert ended.returncode == 0, ended.stderr
    assert all(Path(f"{faults}.{index}").exists() for index in range(len(strikes)))
    (drawn,) = RunFolder(run).teacher_logprobs(0).iterdir()
    cache, model = TeacherCache(drawn), tmp_path / "model"
    table = read_rows(dataset_files(RunFolder(run).dataset(0)))
    rows = rendered(table, AutoTokenizer.from_pretrained(model), end_tokens(model))
    facts, found = done(drawn), training(run)
    assert facts is not None and facts["failed"] == 0 and facts["rows"] == found["rows"] == len(rows)
    assert all(cache.of(row.ids, row.prompt_length).ids.shape == (len(row.ids) - row.prompt_length, 8) for row in rows)
    of_stage = {part: count for (stage, part), count in parts_done(run).items() if stage.endswith("teacher_logprobs")}
    assert of_stage["part-00000"] == of_stage["part-00001"] == 1 and len(of_stage) >= len(part_names(drawn)) - 1
    words = [event["words"] for event in read_events(run / "events.jsonl") if event["event"] == "note"]
    assert any("8 most likely tokens" in line and "bytes per label" in line for line in words)
    assert any("teacher_logprobs part-00001: its worker died and was restarted once" in line for line in words)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"base": {"kind": "teacher"}}, "would learn nothing; set base"),
    ({"base": {**SMALLER, "vocabulary": {}}}, "base.vocabulary gives tokens other ids than the teacher's, which forward_kl"),
    ({"loss": {"kind": "reverse_kl"}, "teacher": {"kind": "cached"}}, "use loss.kind forward_kl or skew_kl"),
    ({"loss": {"temperature": 2.0}, "teacher": {"kind": "cached"}}, "which loss.temperature would divide"),
    ({"loss": {"kind": "forward_kl", "beta": 0.2}}, "beta has no effect on forward_kl, it belongs to jsd; remove it"),
    ({"loss": {"kind": "jsd", "beta": 1.0}}, "student.loss.beta"),
    ({"on_policy": {}, "teacher": {"kind": "cached"}}, "on_policy needs the teacher to judge new samples"),
    ({"on_policy": {}, "loss": {"kind": "uld"}}, "reads the student's token ids, not uld"),
    ({"on_policy": {}, "cross_entropy": 1.0}, "would teach the student its own samples"),
    ({"on_policy": {}, "deepspeed": {"zero_optimization": {"stage": 3}}}, "ZeRO 3 divides among the workers; use stage 2"),
    ({"teacher": {"kind": "cached", "top_k": 1000}}, "the vocabulary of"),
    ({"teacher": {"kind": "half"}}, "student.teacher"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_what_cannot_work_is_refused_by_check(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    checked = limbeck("check", write_recipe(tmp_path, student={**DISTIL, **changes}), "--out", tmp_path / "run")
    told = " ".join((checked.stdout + checked.stderr).split())
    assert checked.returncode != 0 and sentence in told, told
