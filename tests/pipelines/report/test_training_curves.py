"""The curves of a training, in the report and while it runs."""

import json
from pathlib import Path

import pytest

from helpers.charts import charts
from helpers.run_folder import make_run
from limbeck.pipelines.report.build import write_report
from limbeck.pipelines.report.figures import MOST_POINTS, training
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.lock import driving
from limbeck.pipelines.runs.status import show, status
from limbeck.pipelines.runs.training import progress_file, step_lines, training_progress
from limbeck.students.training.step_log import StepLog


def log_steps(folder: Path, steps: int, every: int = 0) -> None:
    """The log of a training whose loss falls; the held-out loss after every so many steps."""
    log = StepLog(folder / "metrics.jsonl")
    log.begin(None)
    for step in range(steps + 1):
        line: dict[str, float] = {"step": step}
        if step:
            line |= {"loss": 2 - step / steps, "learning_rate": 1e-4}
        if every and step % every == 0:
            line["held_out_loss"] = 2.5 - step / steps
        log.add(line)


def test_a_report_has_the_curves_of_every_round_also_of_one_that_is_trained(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=2)
    folder = RunFolder(run)
    log_steps(folder.student(0), 12, every=4)
    log_steps(folder.student(1).parent / "training", 5)
    assert len(step_lines(folder, 0)) == 13 and len(step_lines(folder, 1)) == 6
    drawn = {one.label: one for one in charts(write_report(run).html.read_text())}
    assert [label for label in drawn if label.startswith("Round")] == [
        "Round 0: training loss",
        "Round 0: held-out loss",
        "Round 0: learning rate",
        "Round 1: training loss",
        "Round 1: learning rate",
    ]
    tips = drawn["Round 0: held-out loss"].tooltips
    assert len(tips) == 4 and "2.5" in tips[0] and "1.5" in tips[-1]
    assert "1.792" in tips[1], "the mean training loss of steps 1 to 4"


def test_long_trainings_have_curves_of_few_points() -> None:
    (loss,) = training("Round 0", [{"step": step, "loss": float(step % 2)} for step in range(1, 1001)])
    assert MOST_POINTS == 200 and loss.count("0.4") + loss.count("0.6") > 0
    assert training("Round 0", []) == [] == training("Round 0", [{"step": 3, "loss": None, "held_out_loss": "x"}])


def test_status_shows_step_loss_rate_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", finished=False)
    folder = RunFolder(run)
    progress = progress_file(folder, 0)
    progress.parent.mkdir(parents=True)
    Events(folder.events).emit("training_started", round=0, rows=3, progress=str(progress))
    assert status(run)["training"] is None, "no driver runs"
    with driving(folder):
        assert status(run)["training"] == "starting"
        facts = {"unit": "step", "step": 40, "steps": 100, "loss": 1.25, "tokens_per_second": 1234.5, "seconds_left": 150}
        progress.write_text(json.dumps(facts))
        show(status(run))
        assert "training: step 40 of 100, loss 1.250, 1,234 tokens/s, about 2 minutes left" in capsys.readouterr().out
        progress.write_text('{"words": "loading the model x"}')
        assert status(run)["training"] == "loading the model x"
        Events(folder.events).emit("trained", round=0)
        assert status(run)["training"] is None
    assert training_progress(progress) == "loading the model x"
