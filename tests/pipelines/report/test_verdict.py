"""The verdict of a report: what it compares, by which intervals, and what it adds about other measures."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.run_folder import make_run
from limbeck.pipelines.report.build import collect, first_line
from limbeck.pipelines.report.page import render
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.students.evaluation.measures import Measure


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one round."""
    return make_run(tmp_path_factory.mktemp("run") / "made-up", rounds=1)


def test_a_control_that_beats_the_student_comes_first(finished: Path) -> None:
    report = collect(RunFolder(finished))
    assert report.first_line.startswith("The control ")
    assert "The final student passes" in report.first_line or "No significant difference" in report.first_line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": 0.2, "low": 0.1, "high": 0.3}, "more often than the round-0 teacher"),
        ({"mean": -0.2, "low": -0.3, "high": -0.1}, "less often than the round-0 teacher"),
        ({"mean": 0.2, "low": -0.1, "high": 0.3}, "No significant difference between the final student and the round-0 teacher"),
        (None, "could not be compared"),
    ],
)
def test_the_verdict_goes_by_the_interval(finished: Path, tmp_path: Path, change: dict[str, float] | None, words: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "evaluation" / "test.json"
    rows = [row for row in json.loads(file.read_text())["rounds"]["0"] if row["model"] == "student"]
    rows[0]["difference_to_round_0_teacher"] |= {
        "pass_rate": change,
        "salient_recall": {"mean": -0.1, "low": -0.2, "high": -0.01},
    }
    file.write_text(json.dumps({"rounds": {"0": rows}}))
    first_line = collect(RunFolder(run)).first_line
    assert words in first_line
    assert ("is not used for filtering, decreased" in first_line) == (change is not None)


@pytest.mark.parametrize(
    ("shares", "low", "words"),
    [
        ((0.3, 0.5, 0.6), 0.1, "60.0 % by the student of round 1: this share rises in every round (+30.0 points"),
        ((0.3, 0.7, 0.6), 0.1, "this share rises over the rounds, though not in each of them"),
        ((0.3, 0.5, 0.6), -0.1, "30.0 % by the round-0 teacher, 50.0 % by the student of round 0, "),
        ((0.3, 0.5, 0.6), -0.1, "this share does not rise significantly"),
        ((0.6, 0.5, 0.3), -0.4, "this share falls over the rounds (-30.0 points, 95 % interval -40.0 to -20.0"),
        (None, 0.0, ""),
    ],
)
def test_the_first_line_says_whether_control_codes_are_followed_more_often(
    finished: Path, shares: tuple[float, ...] | None, low: float, words: str
) -> None:
    report = collect(RunFolder(finished))
    rows = {row.model: row for row in report.rounds[0].evaluation if row.split == "test"}
    teacher, student = rows["teacher"], rows["student"]
    rounds = [report.rounds[0].model_copy(update={"evaluation": [teacher, student]})] * 2
    if shares is not None:
        high = low + 0.2
        difference = Measure(mean=shares[-1] - shares[0], low=low, high=high)
        measured = [Measure(mean=share, low=share, high=share) for share in shares]
        students = [
            student.model_copy(
                update={
                    "code_accuracy": found,
                    "difference_to_round_0_teacher": {
                        **(student.difference_to_round_0_teacher or {}), "code_accuracy": difference,
                    },
                }
            )
            for found in measured[1:]
        ]  # fmt: skip
        first = teacher.model_copy(update={"code_accuracy": measured[0]})
        rounds = [one.model_copy(update={"evaluation": [first, made]}) for one, made in zip(rounds, students, strict=True)]
    line = first_line(rounds, finished=True)
    assert words in line
    assert ("control codes" in line) == (shares is not None)
    alone = [
        one.model_copy(update={"evaluation": [row.model_copy(update={"documents": 1}) for row in one.evaluation]})
        for one in rounds
    ]
    assert ("one input cannot show" in first_line(alone, finished=True)) == (shares is not None)


@pytest.mark.parametrize(
    ("bound", "said"), [(None, "invention, which is not used for filtering, increased"), (0.0, "invention increased")]
)
def test_more_inventions_are_in_the_verdict(finished: Path, tmp_path: Path, bound: float | None, said: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    test, frozen = run / "evaluation" / "test.json", run / "calibration.json"
    rows = [row for row in json.loads(test.read_text())["rounds"]["0"] if row["model"] == "student"]
    rows[0]["difference_to_round_0_teacher"]["invention"] = {"mean": 0.125, "low": 0.02, "high": 0.2}
    test.write_text(json.dumps({"rounds": {"0": rows}}))
    bounds = json.loads(frozen.read_text())
    bounds["bounds"]["invention"] = {"invented": {"minimum": None, "maximum": bound}}
    frozen.write_text(json.dumps(bounds))
    report = collect(RunFolder(run))
    assert f"However, {said}: more outputs have a name or number that the document lacks (+12.5 points" in report.first_line
    page = render(RunFolder(run), report)
    assert "lower is better" in page
    assert f"Not used for filtering: salient recall{', invention' if bound is None else ''}." in " ".join(page.split())


def test_a_run_of_a_version_without_invention_stays_readable(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for file in (run / "evaluation" / "test.json", *run.glob("rounds/*/evaluation.json")):
        found = json.loads(file.read_text())
        for rows in found["rounds"].values() if "rounds" in found else [found["evaluation"]]:
            for row in rows:
                del row["invention"]
                (row["difference_to_round_0_teacher"] or {}).pop("invention", None)
        if "task" in found:
            found["task"]["measures"].remove("invention")
        file.write_text(json.dumps(found))
    report = collect(RunFolder(run))
    assert all(row.invention is None for round in report.rounds for row in round.evaluation)
    page = render(RunFolder(run), report)
    assert "invention" not in page.partition("<h2>Where the candidates went")[0]
