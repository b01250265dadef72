"""Lineage in the report: the best round, decisions and alarms, measures over the rounds, and the runs that a run is made from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.charts import charts
from helpers.run_folder import make_run
from limbeck.corpus.parts import write_json
from limbeck.pipelines.report.build import collect, write_report
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import Report
from limbeck.pipelines.runs.status import status

RULES = {"patience": 1}
STOPPED = "round 1: pass rate on dev is 0.300, not above the 0.400 of round 0, for 1 round (stop.patience: 1)"
ALARM = "round 1: 60 % of the student's dev outputs are <b>the same</b> text"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds whose first student is the better one."""
    return make_run(tmp_path_factory.mktemp("lineage") / "run", qualities=(0, 0.2, 0.02))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def record(run: Path, **recipe: Any) -> None:
    lock = json.loads((run / "lock.json").read_text())
    write_json(run / "lock.json", {**lock, "recipe": {"rounds": 2, "student": {"kind": "sft"}, **recipe}}, replace=True)


def decided(run: Path, number: int, stops: list[str], warnings: list[str] | None = None) -> None:
    write_json(run / f"rounds/{number:03d}/stop.json", {"stops": stops, "warnings": warnings or [], "best": 0, "rules": RULES})


def test_an_older_run_has_its_best_round_and_no_decisions(run: Path) -> None:
    report = Report.model_validate_json(write_report(run).json.read_text())
    assert report.best is not None and report.best.round == 0 and report.best.by == "pass_rate"
    assert [one.decision for one in report.rounds] == [None, None] and report.ended is None and report.origins == []
    assert "final student" in report.first_line
    assert status(run)["best_round"] is None and [row["decision"] for row in status(run)["rounds"]] == [None, None]


def test_a_run_that_its_rules_ended(run: Path) -> None:
    record(run, rounds=5, stop={**RULES, "by": "distinct_2"})
    decided(run, 0, [])
    decided(run, 1, [STOPPED], [ALARM])
    write_json(run / "evaluation/_done.json", {"fingerprint": "x", "rounds": 2}, replace=True)
    paths = write_report(run)
    report, page = Report.model_validate_json(paths.json.read_text()), paths.html.read_text()
    ended = f"the run ended after 2 rounds of 5: {STOPPED}; the best round is 0"
    assert report.ended == ended and report.first_line.endswith(f"T{ended[1:]}.")
    assert report.first_line.startswith(f"R{ALARM[1:]}. ")
    assert report.best is not None and report.best.by == "distinct_2"
    assert "<b>the same" not in page and "Warning:</span> Round 1: 60 %" in page and f"Rule: R{STOPPED[1:]}." in page
    assert len(page.encode()) <= 150_000
    found = status(run)
    assert found["ended"] == ended and found["best_round"] == 0 and ALARM[1:] in found["warning"]
    assert found["state"] == "finished"


def test_the_verdict_is_about_the_best_round_if_rules_chose_it(run: Path) -> None:
    record(run, stop=RULES)
    report = collect(RunFolder(run))
    assert "best student on dev (round 0)" in report.first_line and "final student" not in report.first_line
    kept = next(row for row in report.rounds[0].evaluation if row.model == "student" and row.split == "test")
    assert f"{kept.passing} of {kept.candidates} candidates" in report.first_line


def test_measures_over_the_rounds_are_drawn(run: Path) -> None:
    chart = next(chart for chart in charts(write_report(run).html.read_text()) if chart.label == "Dev measures over the rounds")
    rows = [row for round in collect(RunFolder(run)).rounds for row in round.evaluation if row.split == "dev"]
    for row, name in zip(rows, ("teacher, round 0", "student, round 0", "student, round 1"), strict=True):
        for measure, heading in (
            (row.pass_rate, "pass rate"),
            (row.salient_recall, "salient recall"),
            (row.distinct_2, "distinct-2"),
        ):
            assert measure is not None
            assert any(tip.startswith(f"{name}, {heading}: {measure.mean:.4g}") for tip in chart.tooltips)


def test_runs_made_from_runs_are_a_chain(run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(run, second)
    shutil.copytree(run, first)
    student = first / "rounds/001/student"
    student.mkdir(exist_ok=True)
    (student / "config.json").write_text("{}")
    record(run, sources={"kind": "run", "run": str(second), "round": 1, "selection": "strict"})
    record(second, sources={"kind": "run", "run": str(tmp_path / "gone"), "round": "last"}, teacher={"model": str(student)})
    found = [(one.of, one.gives, Path(one.run).name, one.round, one.selection) for one in collect(RunFolder(run)).origins]
    assert found == [
        ("run", "sources", "second", 1, "strict"),
        ("second", "sources", "gone", None, None),
        ("second", "teacher", "first", None, None),  # not recorded as this model: another round's student may be there now
    ]
    from limbeck.cluster.engines.models import fingerprint

    lock = json.loads((second / "lock.json").read_text())
    write_json(second / "lock.json", {**lock, "models": {str(student): fingerprint(student)}}, replace=True)
    record(first, sources={"kind": "run", "run": str(run), "round": 0})  # a circle ends
    origins = collect(RunFolder(run)).origins
    assert [(one.of, one.round) for one in origins] == [("run", 1), ("second", None), ("second", 1), ("first", 0)]
    page = write_report(run).html.read_text()
    assert "Earlier runs" in page and f"{second}, round 1, selection strict" in page


def test_test_figures_seen_before_more_rounds_are_reported(run: Path) -> None:
    (run / "evaluation/test-after-001.json").write_text("{}")
    paths = write_report(run)
    assert json.loads(paths.json.read_text())["seen_test_after"] == [1]
    assert "Test was measured after 1 round, before more were made" in paths.html.read_text()
