"""The recipes of Self-Instruct and Alpaca with their toys: whole runs of the embedded model, by the command line."""

import json
from pathlib import Path

import pytest

from helpers.commands import limbeck
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.generators.contract import Question
from limbeck.generators.instruction_tasks import REASONS
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.recipes, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("name", ["self-instruct", "alpaca"])
def test_the_toy_runs_to_its_report(name: str, tmp_path: Path, ray_address: str) -> None:
    out = tmp_path / "run"
    done = limbeck("run", name, "--with", "toy", "--out", out, "--no-panel", timeout=1800, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report, folder = json.loads((out / "report.json").read_text()), RunFolder(out)
    (found,) = report["rounds"]
    assert report["finished"] and found["task"] | {"measures": []} == {
        "generator": name.replace("-", "_"), "measures": [], "controls": ["mismatched"], "inputs": "inputs",
    }  # fmt: skip
    assert found["rows"]["kept"] + sum(found["rows"]["rejected_by"].values()) == found["rows"]["candidates"]
    assert {row["model"] for row in found["evaluation"]} >= {"teacher", "student"}
    rows = read_parts(folder.candidates(0), CANDIDATES).to_pylist()
    assert all(json.loads(row["facts"])["rule"] in REASONS for row in rows if row["error"])
    kept = {row["candidate_id"] for row in read_table(folder.decisions(0)).to_pylist() if row["kept"]}
    assert kept and all(row["prompt"] and row["output"] for row in rows if row["candidate_id"] in kept)
    renderer = recipes.load(name).renderer
    held_out = read_parts(out / "evaluation/test/inputs/sources", SOURCES).to_pylist()
    questions = [json.loads(row["record"])["frozen_question"] for row in held_out]
    prompts = {str(renderer.ask(Question(row["source_id"], asked["prompt"], input=asked["input"])))
               for row, asked in zip(held_out, questions, strict=True)}  # fmt: skip
    for model in ("teacher", "student-000"):
        steps = read_parts(out / f"evaluation/test/{model}/steps").to_pylist()
        assert {step["prompt"] for step in steps} == prompts, "teacher and student are asked in the format of the training rows"
