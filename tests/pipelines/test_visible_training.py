"""A run whose student is measured while it is trained, from the command to the report."""

import importlib.util
from pathlib import Path

import pytest

from helpers.charts import charts
from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck.students.training.step_log import read_step_log

STUDENT = {"kind": "sft", "batch_size": 4, "held_out": 0.3, "eval_steps": 2, "keep_best": True, "packing": "prompts"}


def test_a_run_shows_how_its_student_learned(tmp_path: Path, ray_address: str) -> None:
    recipe = write_recipe(tmp_path, rounds=1, student={**STUDENT, "epochs": 3, "report_to": ["tensorboard"]})
    done = limbeck("run", recipe, "--out", tmp_path / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "run/rounds/000"
    lines = read_step_log(home / "student/metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(len(lines))) and "held_out_loss" in lines[0]
    assert f"student trained, {len(lines) - 1} steps, loss " in done.stderr and ", held-out loss " in done.stderr
    drawn = [one.label for one in charts((tmp_path / "run/report.html").read_text())]
    assert {"Round 0: training loss", "Round 0: held-out loss", "Round 0: learning rate"} <= set(drawn)
    assert list((home / "tracking/tensorboard").iterdir()) and not (home / "training").exists()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_check_names_a_tracker_that_is_not_installed(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, rounds=1, student={**STUDENT, "report_to": ["wandb"]})
    done = limbeck("check", recipe)
    assert done.returncode != 0
    assert (
        "student: report_to names wandb, but the package wandb is not installed; run: pip install wandb"
        in done.stdout + done.stderr
    )
