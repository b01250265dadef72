"""The recipe shrink with its toy: from 30 to 28 to 27 layers of the embedded model, by the command line."""

import json
from pathlib import Path

import pytest

from helpers.commands import limbeck

pytestmark = [pytest.mark.recipes, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(3600)]


def test_the_toy_runs_to_its_report_with_smaller_and_smaller_students(tmp_path: Path, ray_address: str) -> None:
    out = tmp_path / "run"
    done = limbeck("run", "shrink", "--with", "toy", "--out", out, "--no-panel", timeout=2400, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads((out / "report.json").read_text())
    assert report["finished"] and len(report["rounds"]) == 2
    bases = [found["training"]["base"] for found in report["rounds"]]
    assert [len(base["kept"]) for base in bases] == [24, 20] and [len(base["dropped"]) for base in bases] == [6, 4]
    for number, layers in enumerate((28, 27)):
        config = json.loads((out / f"rounds/{number:03d}/student/config.json").read_text())
        assert config["num_hidden_layers"] == layers
    for base in bases:
        curve = base["healing"]["curve"]
        assert base["nats_per_token_teacher"] < base["nats_per_token_cut"] == base["nats_per_token_start"]
        assert curve[0]["nats_per_token"] == pytest.approx(base["nats_per_token_start"], abs=0.1), "in float32, not in bfloat16"
        assert curve[-1]["nats_per_token"] == base["nats_per_token_healed"] and base["healing"]["text"]["left_out"] > 0
