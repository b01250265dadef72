"""The recipe infosumm with its toy: a whole run of the embedded model over two rounds, by the command line."""

import json
import math
from pathlib import Path

import pytest

from helpers.commands import limbeck
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.generators.infosumm import REASONS
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.rows import ASKED

pytestmark = [pytest.mark.recipes, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(3600)]


def test_the_toy_runs_to_its_report(tmp_path: Path, ray_address: str) -> None:
    out = tmp_path / "run"
    done = limbeck("run", "infosumm", "--with", "toy", "--out", out, "--no-panel", timeout=1800, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report, folder = json.loads((out / "report.json").read_text()), RunFolder(out)
    assert report["finished"] and len(report["rounds"]) == 2
    for number, found in enumerate(report["rounds"]):
        assert (found["task"]["generator"], found["task"]["inputs"]) == ("infosumm", "inputs")
        assert found["rows"]["kept"] + sum(found["rows"]["rejected_by"].values()) == found["rows"]["candidates"]
        rows = read_parts(folder.candidates(number), CANDIDATES).to_pylist()
        assert all(row["error"] == REASONS[json.loads(row["facts"])["rule"]] for row in rows if row["error"])
        steps = read_parts(folder.steps(number)).to_pylist()
        assert sum(step["step"] == "document" for step in steps) == found["rows"]["sources"]
        assert sum(step["step"] == "summary" for step in steps) == sum(row["error"] is None for row in rows)
        scores = read_parts(folder.scores(number, "pmi")).to_pylist()
        assert any(row["saliency"] is not None and not math.isnan(row["saliency"]) for row in scores)
        kept = {row["candidate_id"] for row in read_table(folder.decisions(number)).to_pylist() if row["kept"]}
        assert kept and all(row["input"] and row["output"] for row in rows if row["candidate_id"] in kept)
    (held_out,) = [read_parts(out / "evaluation/test/inputs/sources", SOURCES).to_pylist()]
    assert held_out and all(row["document"] and row["salient"] for row in held_out)
    for model in ("teacher", "student-001"):
        answers = read_parts(out / f"evaluation/test/{model}/candidates", CANDIDATES).to_pylist()
        asked = [(row["source_id"], json.loads(row["facts"])[ASKED]["length"]) for row in answers]
        assert sorted(asked) == sorted((row["source_id"], bucket) for row in held_out for bucket in range(3))
    for row in report["rounds"][-1]["evaluation"]:
        assert (row["code_accuracy"] is not None) == (row["model"] in ("teacher", "student"))
    assert "Of the buckets that control codes ask for" in report["first_line"]
