"""The command line end to end, on one real run of a tiny model: two rounds, students, report, and every verb after it."""

import json
from pathlib import Path

import jsonschema
import pytest

from helpers.commands import limbeck
from helpers.commands import script as run_script
from helpers.paths import ROOT
from helpers.tiny_run import recipe, write_recipe
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES, SOURCES


@pytest.fixture(scope="module")
def run(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cli")
    done = limbeck("run", write_recipe(home), "--out", home / "run", "--json", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((home / "run" / "report.json").read_text())
    assert "round 1: kept" in done.stderr and "Traceback" not in done.stderr
    return home / "run"


def test_nothing_vanishes(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    sources = {split: read_parts(run / "rounds/000/sources" / split, SOURCES) for split in ("train", "dev", "test", "rejected")}
    assert sum(table.num_rows for table in sources.values()) == 26
    assert report["sources"]["used"] + sum(report["sources"]["rejected"].values()) == 26
    groups = [set(sources[split]["group"].to_pylist()) for split in ("train", "dev", "test")]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    for number, part in enumerate(report["rounds"]):
        folder = run / "rounds" / f"{number:03d}"
        candidates = read_parts(folder / "candidates", CANDIDATES)
        decisions = read_table(folder / "decisions.parquet")
        assert candidates.num_rows == decisions.num_rows == part["rows"]["candidates"] == 3 * sources["train"].num_rows
        for name in ("heuristics", "length", "pmi"):
            scored = read_parts(folder / "scores" / name)["candidate_id"].to_pylist()
            assert sorted(scored) == sorted(candidates["candidate_id"].to_pylist())
        kept = sum(decisions["kept"].to_pylist())
        assert kept == part["rows"]["kept"] and kept + sum(part["rows"]["rejected_by"].values()) == decisions.num_rows
        assert all((row["rejected_by"] is None) == row["kept"] for row in decisions.to_pylist())
        assert all(row["reason"] for row in decisions.to_pylist() if not row["kept"])


def test_the_bounds_are_those_of_round_0_and_the_report_keeps_its_schema(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    schema = json.loads(limbeck("schema", "--report").stdout)
    jsonschema.validate(report, schema)
    frozen = json.loads((run / "calibration.json").read_text())
    assert report["bounds"]["bounds"] == frozen["bounds"] and abs(frozen["pass_rate"] - 0.5) < 0.1
    models = [(row["model"], row["split"]) for row in report["rounds"][1]["evaluation"]]
    assert models.count(("student", "test")) == 1 and models.count(("student", "dev")) == 1
    assert {"first-sentence", "mismatched", "document"} <= {model for model, split in models if split == "test"}
    assert report["rounds"][1]["teacher"]["fingerprint"] == report["rounds"][0]["student"]["fingerprint"]
    assert report["finished"] and 0 < report["seconds"]["model"] < report["seconds"]["total"]


def test_the_dataset_loads_and_the_student_opens(run: Path, tmp_path: Path) -> None:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = datasets.load_dataset(str(run / "rounds/001/dataset"), cache_dir=str(tmp_path))["train"]
    assert loaded.num_rows == json.loads((run / "report.json").read_text())["rounds"][1]["rows"]["kept"]
    assert loaded[0]["prompt"][0]["role"] == "user" and loaded[0]["completion"][0]["content"] == loaded[0]["output"]
    student = run / "rounds/001/student"
    assert AutoModelForCausalLM.from_pretrained(student) and AutoTokenizer.from_pretrained(student).chat_template
    assert not list(run.rglob("*.bin")) and not list(run.rglob("*.tmp"))


def test_the_same_command_again_does_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    done = limbeck("run", run.parent / "recipe.yaml", "--out", run)
    assert done.returncode == 0 and "Ray cluster" not in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}


def test_status_inspect_report_and_export(run: Path, tmp_path: Path) -> None:
    status = json.loads(limbeck("status", run, "--json").stdout)
    assert status["state"] == "finished" and [row["student"] for row in status["rounds"]] == [True, True]
    assert "finished" in limbeck("status", run).stdout
    rows = json.loads(limbeck("inspect", run, "--round", 0, "--rejected-by", "pmi", "--sort", "saliency", "--json").stdout)
    assert rows and all(row["rejected_by"] == "pmi" for row in rows)
    scores = [row["saliency"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    one = json.loads(limbeck("inspect", run, "--round", 0, "--source", rows[0]["source_id"], "--json").stdout)
    assert len(one) == 3
    assert rows[0]["source_id"] in limbeck("inspect", run, "--round", 0, "--rejected-by", "pmi", "--sort", "saliency").stdout
    wrong = limbeck("inspect", run, "--sort", "saliencey")
    assert wrong.returncode == 1 and "saliency" in wrong.stderr
    page = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert limbeck("report", run).returncode == 0
    assert len((run / "report.html").read_text()) == pytest.approx(len(page), rel=0.01)
    for format in ("messages", "alpaca", "huggingface"):
        done = limbeck("export", run, "--format", format, "--out", tmp_path / format)
        assert done.returncode == 0, done.stderr
    assert limbeck("export", run, "--format", "alpacca", "--out", tmp_path / "x").returncode == 1


def test_preview_writes_nothing_and_judges_everything(run: Path) -> None:
    home = run.parent
    before = set(home.rglob("*"))
    done = limbeck("preview", home / "recipe.yaml", "-n", 2, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["candidates"]) == 6 and all("pmi.faithfulness" in row["scores"] for row in found["candidates"])
    assert set(home.rglob("*")) == before


def test_check_estimates_and_finds(run: Path) -> None:
    good = json.loads(limbeck("check", run.parent / "recipe.yaml", "--json").stdout)
    assert good["problems"] == [] and good["documents"]["train"] == 12 and good["estimate"]["tokens"]["logprobs"] > 0
    bad = limbeck("check", run.parent / "recipe.yaml", "--set", "teacher.model=nobody/nothing")
    assert bad.returncode == 1 and "nobody/nothing" in bad.stdout


def test_the_readme_s_filter_runs(run: Path, ray_address: str, tmp_path: Path) -> None:
    """The script in the README, verbatim, on the tiny recipe."""
    readme = (ROOT / "README.md").read_text()
    script = next(block.split("```")[0] for block in readme.split("```python\n")[1:] if "class Numbers" in block)
    assert sum(bool(line.strip()) for line in script.splitlines()) <= 20
    data = recipe(run.parent, rounds=1, student=None)
    (tmp_path / "tiny.yaml").write_text(json.dumps(data))
    for given, mine in (("quickstart", tmp_path / "tiny.yaml"), ("runs/numbers", "numbers")):
        assert f'"{given}"' in script
        script = script.replace(f'"{given}"', f'"{mine}"')
    (tmp_path / "mine.py").write_text(script)
    done = run_script(tmp_path / "mine.py", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert "invented" in read_parts(tmp_path / "numbers/rounds/000/scores/numbers").column_names
    assert "numbers" in json.loads((tmp_path / "numbers/report.json").read_text())["rounds"][0]["rows"]["rejected_by"]
