"""What `limbeck check` reports about a student that is measured while it is trained."""

import importlib.util
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.tiny_run import write_recipe

STUDENT = {"kind": "sft", "batch_size": 4, "held_out": 0.3, "eval_steps": 2, "keep_best": True, "packing": "prompts"}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_check_names_a_tracker_that_is_not_installed(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, rounds=1, student={**STUDENT, "report_to": ["wandb"]})
    done = limbeck("check", recipe)
    assert done.returncode != 0
    assert (
        "student: report_to names wandb, but the package wandb is not installed; run: pip install wandb"
        in done.stdout + done.stderr
    )
