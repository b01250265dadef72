"""The recipes magpie and documents-qa with their toys: whole runs of the embedded models, by the command line."""

import json
from pathlib import Path

import pytest

from helpers.commands import limbeck
from limbeck.cluster.engines.models import made_root
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.generators import magpie
from limbeck.generators.documents_qa import steps as documents_qa
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.recipes, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(3600)]

REASONS = {"magpie": magpie.REASONS, "documents_qa": documents_qa.REASONS}
STEPS = {"magpie": ("instruction", "response"), "documents_qa": ("question", "answer")}


@pytest.fixture(scope="module", autouse=True)
def nli_model() -> None:
    """The model that documents-qa names, made once for this user, like the teacher: some minutes."""
    if not (made_root() / "nli-minilm").exists():
        done = limbeck("critic", "train-nli", timeout=3000)
        assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("name", ["magpie", "documents-qa"])
def test_the_toy_runs_to_its_report(name: str, tmp_path: Path, ray_address: str) -> None:
    out, kind = tmp_path / "run", name.replace("-", "_")
    done = limbeck("run", name, "--with", "toy", "--out", out, "--no-panel", timeout=1800, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report, folder = json.loads((out / "report.json").read_text()), RunFolder(out)
    (found,) = report["rounds"]
    assert report["finished"] and (found["task"]["generator"], found["task"]["inputs"]) == (kind, "inputs")
    assert found["rows"]["kept"] + sum(found["rows"]["rejected_by"].values()) == found["rows"]["candidates"]
    assert {row["model"] for row in found["evaluation"]} >= {"teacher", "student", "mismatched"}
    rows = read_parts(folder.candidates(0), CANDIDATES).to_pylist()
    assert all(row["error"] == REASONS[kind][json.loads(row["facts"])["rule"]] for row in rows if row["error"])
    drawn, answered = STEPS[kind]
    steps = [step["step"].partition(".")[0] for step in read_parts(folder.steps(0)).to_pylist()]
    assert steps.count(drawn) == len(rows) and steps.count(answered) == sum(row["error"] is None for row in rows)
    assert set(steps) == {drawn, answered}
    kept = {row["candidate_id"] for row in read_table(folder.decisions(0)).to_pylist() if row["kept"]}
    assert kept and all(row["prompt"] and row["output"] for row in rows if row["candidate_id"] in kept)
    asked = [
        {step["prompt"] for step in read_parts(out / f"evaluation/test/{model}/steps").to_pylist()}
        for model in ("teacher", "student-000")
    ]
    assert asked[0] == asked[1], "teacher and student are asked the same, by the renderer of the training rows"
