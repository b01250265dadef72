"""The recipes of Impossible Distillation with their toys: two rounds of the embedded models, by the command line."""

import json
from pathlib import Path

import pytest

from benchmarks.yield_ladder import rounds_of, summary
from helpers.commands import limbeck
from limbeck.cluster.engines.models import made_root
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.generators.impossible_distillation.texts import REASONS
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.recipes, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", autouse=True)
def nli_model() -> None:
    """The model that the recipes name, made once for this user, like the teacher: some minutes."""
    if not (made_root() / "nli-minilm").exists():
        done = limbeck("critic", "train-nli", timeout=3000)
        assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("name", ["paraphrase", "sentence-summarization"])
def test_the_toy_runs_to_its_report(name: str, tmp_path: Path, ray_address: str) -> None:
    out = tmp_path / "run"
    done = limbeck("run", name, "--with", "toy", "--out", out, "--no-panel", timeout=1800, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report, folder = json.loads((out / "report.json").read_text()), RunFolder(out)
    assert report["finished"] and len(report["rounds"]) == 2
    made = ({"text", "sentence"}, {"text", "rewrite"})
    for number, found in enumerate(report["rounds"]):
        assert (found["task"]["generator"], found["task"]["inputs"]) == ("rewrite", "inputs")
        assert found["rows"]["kept"] + sum(found["rows"]["rejected_by"].values()) == found["rows"]["candidates"]
        assert ("diversity" in found["rows"]["rejected_by"]) == (number == 0) and ("best" in found["rows"]["rejected_by"]) == (
            number == 1
        )
        copies = next(row for row in found["evaluation"] if row["model"] == "document")
        assert copies["passing"] == 0 < copies["candidates"], "a copied input never passes"
        rows = read_parts(folder.candidates(number), CANDIDATES).to_pylist()
        assert all(row["error"] == REASONS[json.loads(row["facts"])["rule"]] for row in rows if row["error"])
        steps = read_parts(folder.steps(number)).to_pylist()
        assert {step["step"] for step in steps} == made[number]
        assert {step["engine"] for step in steps if step["step"] == "text"} == {"author" if number else "teacher"}
        kept = {row["candidate_id"] for row in read_table(folder.decisions(number)).to_pylist() if row["kept"]}
        pairs = [(row["input"], row["output"]) for row in rows if row["candidate_id"] in kept]
        assert pairs and all(x and y and x != y for x, y in pairs)
        if name == "sentence-summarization":
            assert all(len(y) <= 0.8 * len(x) for x, y in pairs)
    asked = [
        {step["prompt"] for step in read_parts(out / f"evaluation/test/{model}/steps").to_pylist()}
        for model in ("teacher", "student-000", "student-001")
    ]
    assert asked[0] == asked[1] == asked[2], "teacher and students are asked the same, by the renderer of the training rows"


def test_the_yield_ladder_s_toy_asks_in_four_ways(tmp_path: Path, ray_address: str) -> None:
    out = tmp_path / "run"
    done = limbeck("run", "yield-ladder", "--with", "toy", "--out", out, "--no-panel", timeout=1800, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report, folder = json.loads((out / "report.json").read_text()), RunFolder(out)
    assert report["finished"] and len(report["rounds"]) == 2
    rows = read_parts(folder.candidates(0), CANDIDATES).to_pylist()
    facts = [json.loads(row["facts"]) for row in rows]
    assert all(row["error"] == REASONS[found["rule"]] for row, found in zip(rows, facts, strict=True) if row["error"])
    counted = list(rounds_of(folder))
    ways = {way["way"]: way for way in summary(counted)["ways"]}
    assert list(ways) == ["plain", "constraints", "pairs", "student"]
    assert len({way["completions"] for way in ways.values()}) == 1, "one budget"
    kept = [row["rows"]["kept"] for row in report["rounds"]]
    assert [sum(way["kept"] for way in ways.values() if way["round"] == number) for number in range(2)] == kept
    plain, *others = (counted[number].ways[name].inputs for number, name in ((0, "plain"), (0, "constraints"), (1, "student")))
    for inputs in others:
        both = plain.keys() & inputs.keys()
        assert both and all(plain[source] == inputs[source] for source in both), "each is asked about the same sentence"
