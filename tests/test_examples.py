"""Every example runs as its docstring says."""

import json
import subprocess
from pathlib import Path

import pytest

from helpers.commands import limbeck, script
from helpers.paths import ROOT
from helpers.tiny_run import write_documents, write_recipe
from helpers.tiny_students import make_model
from limbeck.corpus.parts import read_parts
from limbeck.pipelines.runs.whatif import WhatIf

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    done = script(EXAMPLES / name, *arguments, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_one_round_by_hand(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_model(model, max_position_embeddings=1024)
    lines = run_example("one_round.py", model).stdout.splitlines()
    assert len([line for line in lines if line.startswith(("kept: ", "rejected by "))]) == 12


@pytest.mark.timeout(900)
def test_an_own_generator_gets_steps_frozen_inputs_and_a_report(tmp_path: Path, ray_address: str) -> None:
    recipe = write_recipe(tmp_path, rounds=1, student=None, filters=[{"kind": "length", "min_output_tokens": 1}])
    run = tmp_path / "run"
    run_example("own_generator.py", recipe, run, RAY_ADDRESS=ray_address)
    steps = json.loads((run / "report.json").read_text())
    assert steps["finished"] and steps["rounds"][0]["rows"]["candidates"] == 12
    assert list((run / "rounds/000/steps").glob("part-*.parquet")), "steps are stored"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_own_filter(tmp_path: Path, ray_address: str) -> None:
    recipe = write_recipe(tmp_path, rounds=1, student=None)
    run_example("own_filter.py", recipe, tmp_path / "run", RAY_ADDRESS=ray_address)
    assert list((tmp_path / "run/rounds/000/scores/numbers").glob("part-*.parquet"))
    trial = WhatIf(tmp_path / "run")
    assert trial.decide([]).decisions.equals(trial.before.decisions)
    looser = trial.decide(["filters.pmi.min_faithfulness=null", "filters.pmi.min_saliency=null", "select=[]"])
    verdicts = looser.decisions["rejected_by"].to_pylist()
    invented = {
        row["candidate_id"]: row["invented"] for row in read_parts(tmp_path / "run/rounds/000/scores/numbers").to_pylist()
    }
    assert "numbers" in verdicts and trial.before.names[-1] == "numbers"
    for id_, by in zip(looser.decisions["candidate_id"].to_pylist(), verdicts, strict=True):
        assert by is None if invented[id_] == 0 and by not in ("heuristics", "length") else by is not None
    done = limbeck("filter", tmp_path / "run", "--set", "filters.pmi.min_faithfulness=null", "--json")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_data(tmp_path: Path, ray_address: str) -> None:
    recipe, documents = write_recipe(tmp_path, student=None), write_documents(tmp_path / "mine.jsonl", 20, seed=3)
    run_example("own_data.py", recipe, documents, tmp_path / "run", RAY_ADDRESS=ray_address)
    counts = json.loads((tmp_path / "run/report.json").read_text())["sources"]
    assert counts["used"] == 20 and counts["train"] == 12


def test_the_readme_s_generator_is_the_example_and_has_at_most_fifteen_lines() -> None:
    readme, example = (ROOT / "README.md").read_text(), (EXAMPLES / "own_generator.py").read_text()
    code = next(block.split("```")[0] for block in readme.split("```python\n")[1:] if "def questions" in block)
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    assert len(lines) <= 15
    script = [line for line in lines if not line.startswith("run(")]
    assert len(script) >= 6 and all(line in example for line in script)
    assert lines[-1].partition("generator=")[2] in example
