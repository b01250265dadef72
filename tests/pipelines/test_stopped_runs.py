"""A run of three rounds that its rules end after two: it is finished, resumes as such, and goes on without them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck.corpus.earlier_runs import dataset_folder
from limbeck.corpus.errors import LimbeckError

FILTERS = [{"kind": "length", "min_output_tokens": 1, "max_compression": 5.0}]
RULES = {"patience": 2, "min_delta": 1.0}  # no gain is more than 1, so the second round without one is round 1
WORDS = "the run ended after 2 rounds of 3: round 1: pass rate on dev is"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    write_recipe(folder, rounds=3, stop=RULES, filters=FILTERS)
    return folder


@pytest.fixture(scope="module")
def run(home: Path, ray_address: str) -> Path:
    done = limbeck("run", home / "recipe.yaml", "--out", home / "run", "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert WORDS in done.stderr
    return home / "run"


def report_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report.json").read_text()))


def again(run: Path, *settings: str, **environment: str) -> Any:
    return limbeck("run", run.parent / "recipe.yaml", "--out", run, "--no-panel", *settings, **environment)


def test_it_ends_with_the_best_round_and_says_why(run: Path) -> None:
    report = report_of(run)
    assert report["finished"] and len(report["rounds"]) == 2 and report["planned_rounds"] == 3
    assert report["ended"].startswith(WORDS) and f"{WORDS[0].upper()}{WORDS[1:]}" in report["first_line"]
    assert not (run / "rounds/002").exists() and set(json.loads((run / "evaluation/test.json").read_text())["rounds"]) == {
        "0",
        "1",
    }
    rates = [
        next(row for row in found["evaluation"] if (row["model"], row["split"]) == ("student", "dev"))
        for found in report["rounds"]
    ]
    values = [row["pass_rate"]["mean"] for row in rates]
    best = values.index(max(values))
    assert report["best"]["round"] == best and report["best"]["value"] == max(values) and all(row["form"] for row in rates)
    assert os.readlink(run / "best") == f"rounds/{best:03d}/student" and (run / "best/config.json").exists()
    first, second = (found["decision"] for found in report["rounds"])
    assert first["stops"] == [] and len(second["stops"]) == 1 and first["rules"]["patience"] == 2
    assert [found["generator"] for found in report["rounds"]] == ["summaries", "summaries"]
    page = (run / "report.html").read_text()
    assert "Lineage" in page and "a rule held" in page and "Dev measures over the rounds" in page and "<script" not in page


def test_status_shows_it(run: Path) -> None:
    found = json.loads(limbeck("status", run, "--json").stdout)
    assert found["state"] == "finished" and found["missing"] is None
    assert found["ended"].startswith(WORDS) and found["best_round"] == report_of(run)["best"]["round"]
    assert [bool(row["decision"]["stops"]) for row in found["rounds"]] == [False, True]
    shown = limbeck("status", run).stdout
    assert WORDS in shown and "student trained (the best on dev)" in shown


def test_commands_take_the_best_round(run: Path, tmp_path: Path) -> None:
    best = report_of(run)["best"]["round"]
    assert dataset_folder(run, "best", None) == dataset_folder(run, best, None)
    for name, number in (("best", "best"), ("number", str(best))):
        done = limbeck("export", run, "--round", number, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "best").read_bytes() == (tmp_path / "number").read_bytes()
    rows = json.loads(limbeck("inspect", run, "--round", "best", "--kept", "--json").stdout)
    assert rows and rows == json.loads(limbeck("inspect", run, "--round", best, "--kept", "--json").stdout)
    wrong = limbeck("export", run, "--round", "worst", "--out", tmp_path / "x")
    assert wrong.returncode == 1 and "--round worst: expected a number from 0, or best" in wrong.stderr


def test_the_same_command_and_more_rounds_change_nothing_while_the_rule_holds(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    for settings in ((), ("--set", "rounds=4"), ("--set", "rounds=3")):
        done = again(run, *settings)
        assert done.returncode == 0 and "Ray cluster" not in done.stderr, done.stderr
        assert "the run ended after 2 rounds of" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    fewer = again(run, "--set", "rounds=1", "--set", "stop=null")
    assert fewer.returncode == 1 and "stage 'evaluation' differs (rounds: 3 in the folder, 1 in this recipe)" in fewer.stderr
    assert len(report_of(run)["rounds"]) == 2


@pytest.mark.slow
def test_kills_around_a_decision_change_nothing(run: Path, home: Path, ray_address: str) -> None:
    plan = home / "faults.json"
    faults = [("rounds/000/stop.json", "before"), ("best$", "before"), ("rounds/001/stop.json", "after")]
    plan.write_text(json.dumps([{"rename": rename, "when": when, "victim": "driver"} for rename, when in faults]))
    killed = home / "killed"
    for left in (*faults, None):
        done = limbeck("run", home / "recipe.yaml", "--out", killed, "--no-panel", faults=plan, RAY_ADDRESS=ray_address)
        assert (done.returncode == 0) == (left is None), done.stderr
        assert (killed / "evaluation/_done.json").exists() == (left is None) and not (killed / "rounds/002").exists()
    for number in ("000", "001"):
        assert (killed / f"rounds/{number}/stop.json").read_text() == (run / f"rounds/{number}/stop.json").read_text()
    assert os.readlink(killed / "best") == os.readlink(run / "best")


@pytest.mark.slow
def test_without_the_rule_it_goes_on(run: Path, ray_address: str) -> None:
    kept = {path: path.read_bytes() for number in ("000", "001") for path in (run / "rounds" / number).glob("*.json")}
    on_test = (run / "evaluation/test.json").read_text()
    done = again(run, "--set", "stop=null", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert "2 rounds were made; the run goes on to at most 3; its test figures are measured again" in done.stderr
    report = report_of(run)
    assert report["finished"] and len(report["rounds"]) == 3 and report["ended"] is None and report["seen_test_after"] == [2]
    assert (run / "evaluation/test-after-002.json").read_text() == on_test
    old, new = json.loads(on_test)["rounds"], json.loads((run / "evaluation/test.json").read_text())["rounds"]
    assert {number: new[number] for number in old} == old and set(new) == {"0", "1", "2"}
    for path, content in kept.items():
        assert path.name == "stop.json" or path.read_bytes() == content
    assert "Test was measured after 2 rounds, before more were made" in (run / "report.html").read_text()
    assert json.loads(limbeck("status", run, "--json").stdout)["state"] == "finished"


def test_without_a_link_the_best_round_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{}")
    (tmp_path / "rounds/000/dataset").mkdir(parents=True)
    with pytest.raises(LimbeckError, match="best does not exist: no student was measured on dev yet; give the number of a round"):
        dataset_folder(tmp_path, "best", None)
    (tmp_path / "best").mkdir()
    with pytest.raises(LimbeckError, match="best is a copy of its student, not a link"):
        dataset_folder(tmp_path, "best", None)
