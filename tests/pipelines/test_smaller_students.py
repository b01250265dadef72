"""A run of two rounds by the command line, whose second teacher is a cut and healed student with a trimmed vocabulary."""

import json
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.tiny_run import write_recipe

BASE = {
    "kind": "layers", "layers": 1, "choose": "evenly", "sample": 2, "vocabulary": {},
    "healing": {"tokens": 1024, "sequence_tokens": 32, "batch_size": 4, "measure_tokens": 512},
}  # fmt: skip


@pytest.mark.slow
def test_a_trimmed_student_is_the_next_teacher(tmp_path: Path, ray_address: str) -> None:
    student = {"kind": "sft", "epochs": 1, "batch_size": 4}
    given = write_recipe(tmp_path, student=[{**student, "base": BASE}, {**student, "base": {"kind": "teacher"}}])
    out = tmp_path / "run"
    done = limbeck("run", given, "--out", out, "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads((out / "report.json").read_text())
    assert report["finished"] and [found["rows"]["candidates"] > 0 for found in report["rounds"]] == [True, True]
    base = report["rounds"][0]["training"]["base"]
    assert base["kept"] == [0] and base["vocabulary"]["tokens"] < base["vocabulary"]["of"] == 400
    assert len(base["healing"]["curve"]) >= 3
    sizes = [json.loads((out / f"rounds/00{number}/student/config.json").read_text())["vocab_size"] for number in (0, 1)]
    assert sizes == [base["vocabulary"]["tokens"]] * 2
    assert all((out / f"rounds/00{number}/student/vocabulary.json").exists() for number in (0, 1))
    assert "What students start from" in (out / "report.html").read_text()
    restored = limbeck(
        "restore-vocabulary", out / "rounds/001/student", "--original", tmp_path / "model", "--out", tmp_path / "whole"
    )
    assert restored.returncode == 0 and json.loads((tmp_path / "whole/config.json").read_text())["vocab_size"] == 400
