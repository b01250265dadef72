"""Run folders that have lost files, hold JSON of another shape, or are starting: every reader says so in one sentence."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.run_folder import make_run
from limbeck.corpus.earlier_runs import dataset_folder
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import mark_done, part_path, write_json
from limbeck.filters.nli_model.training import check_out
from limbeck.pipelines.driver.repair import reopen
from limbeck.pipelines.report.build import write_report
from limbeck.pipelines.runs import status as looking
from limbeck.pipelines.runs.events import read_events
from limbeck.pipelines.runs.export import export
from limbeck.pipelines.runs.folder import RunFolder, read_lock, refuse_other_run
from limbeck.pipelines.runs.inspect import candidates
from limbeck.pipelines.runs.lock import driving, lock_holder
from limbeck.pipelines.runs.records import read_calibration
from limbeck.pipelines.runs.status import show, status, stop
from limbeck.pipelines.runs.steps import steps
from limbeck.pipelines.runs.training import training_progress
from limbeck.pipelines.runs.whatif import WhatIf

AGAIN = "is missing; `limbeck run` with the run's recipe computes it again"
READERS: dict[str, Callable[[Path], Any]] = {"inspect": candidates, "report": write_report}
OTHER_SHAPES = ("[1]", "3", "null", '"text"', "{}", '{"bounds": [1], "stages": [1], "rounds": [1]}')


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds."""
    return make_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "name",
    [
        *("rounds/001/scores/pmi/part-00000.parquet", "rounds/001/candidates/part-00002.parquet"),
        *("rounds/001/candidates/part-00000.parquet", "rounds/001/decisions.parquet"),
    ],
)
def test_a_lost_part_of_a_decided_round_is_named(run: Path, reader: str, name: str) -> None:
    READERS[reader](run)
    remove(run / name)
    with pytest.raises(LimbeckError, match=f"{name} {AGAIN}"):
        READERS[reader](run)
    found = status(run)
    assert found["state"] == "incomplete" and f"{name} {AGAIN}" in found["missing"]


def test_a_part_that_every_folder_of_a_round_has_lost_is_known_by_its_sources(run: Path) -> None:
    for home in [run / "rounds/001/candidates", *(run / "rounds/001/scores").iterdir()]:
        part_path(home, "part-00002").unlink()
    with pytest.raises(LimbeckError, match=f"rounds/001/candidates/part-00002.parquet {AGAIN}"):
        candidates(run)


def test_lost_sources_cannot_be_made_again(run: Path) -> None:
    remove(run / "rounds/000/sources/train/part-00001.parquet")
    for reader in (candidates, write_report):
        with pytest.raises(LimbeckError, match=r"sources/train/part-00001.parquet is missing; it cannot be made again"):
            reader(run)


@pytest.mark.parametrize("name", ["calibration.json", "rounds/000/evaluation.json", "evaluation/test.json"])
def test_a_lost_record_of_a_finished_run_is_named_by_its_report(run: Path, name: str) -> None:
    remove(run / name)
    with pytest.raises(LimbeckError, match=f"{name} {AGAIN}"):
        write_report(run)
    assert status(run)["state"] == "incomplete"


@pytest.mark.parametrize(("usable", "state"), [(0, "finished"), (1, "incomplete")])
def test_figures_on_test_are_not_lost_where_no_drawn_input_was_usable(run: Path, usable: int, state: str) -> None:
    mark_done(run / "evaluation/test/inputs/sources", "x", rows_in=2, rows_out=usable)
    remove(run / "evaluation/test.json")
    assert status(run)["state"] == state


@pytest.mark.parametrize("name", ["rounds/001/rows.json", "rounds/001/dataset/data", "rounds/001/dataset", "rounds/001"])
def test_status_knows_whatever_is_lost(run: Path, name: str) -> None:
    assert status(run)["state"] == "finished"
    lock = json.loads((run / "lock.json").read_text())
    write_json(run / "lock.json", {**lock, "recipe": {"rounds": 2}}, replace=True)
    remove(run / name)
    found = status(run)
    assert found["state"] == "incomplete" and AGAIN in found["missing"] and "rounds/001" in found["missing"]
    show(found)


def test_a_lost_dataset_is_not_answered_with_an_earlier_one(run: Path, tmp_path: Path) -> None:
    remove(run / "rounds/001/dataset/data")
    with pytest.raises(LimbeckError, match="rounds/001/dataset/data/train.* does not exist; `limbeck run`"):
        export(run, None, "huggingface", tmp_path / "out")
    remove(run / "rounds/001/dataset")
    with pytest.raises(LimbeckError, match="the dataset of round 1 of the run .* is missing; `limbeck run`"):
        dataset_folder(run, "last", None)


def test_a_round_in_progress_may_have_fewer_parts_of_scores(whole: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=2, finished=False)
    for name in ("decisions.parquet", "dataset", "rows.json", "evaluation.json", "scores/pmi/part-00002.parquet"):
        remove(run / "rounds/001" / name)
    assert candidates(run)["candidate_id"][0].as_py().startswith("0-")
    assert json.loads(write_report(run).json.read_text())["finished"] is False
    found = status(run)
    assert found["state"] == "stopped" and found["missing"] is None and found["rounds"][1]["parts_done"] == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rounds/000/scores/pmi/part-00000.parquet", AGAIN),
        ("rounds/000/candidates/part-00000.parquet", AGAIN),
        ("rounds/000/decisions.parquet", AGAIN),
        ("calibration.json", "does not exist; `limbeck run` with the run's recipe computes it again"),
    ],
)
def test_a_what_if_of_a_run_that_lost_a_file(plain_run: Path, tmp_path: Path, name: str, words: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    WhatIf(run).decide([])
    remove(run / name)
    with pytest.raises(LimbeckError, match=f"{name} {words}"):
        WhatIf(run)
    assert f"{name} is missing" in status(run)["missing"]


def test_a_lock_that_records_another_shape_of_stages_or_recipe(plain_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    lock = json.loads((run / "lock.json").read_text())
    for change in ({"recipe": {"generator": 1}}, {"stages": {**lock["stages"], "decisions": {"select": 3}}}):
        write_json(run / "lock.json", {**lock, **change}, replace=True)
        with pytest.raises(LimbeckError, match="lock.json is not the record of a run"):
            WhatIf(run)


def test_steps_of_a_lost_candidate(run: Path) -> None:
    remove(run / "rounds/001/candidates/part-00000.parquet")
    with pytest.raises(LimbeckError, match=AGAIN):
        steps(run, "1-train0000-0")


def test_a_truncated_part_leads_to_limbeck_run(run: Path) -> None:
    (run / "rounds/001/scores/pmi/part-00000.parquet").write_text("PAR1")
    with pytest.raises(LimbeckError, match="is not a complete Parquet file .*delete it, and `limbeck run` with the run's recipe"):
        candidates(run)


@pytest.mark.parametrize("content", OTHER_SHAPES)
@pytest.mark.parametrize(
    "name",
    [
        *("calibration.json", "lock.json", "rounds/001/rows.json", "rounds/001/evaluation.json", "evaluation/test.json"),
        *("rounds/000/sources/_done.json", "self_test.json"),
    ],
)
def test_json_of_another_shape_is_one_sentence(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    raised = []
    for reader in (status, write_report, candidates):
        try:
            reader(run)
        except LimbeckError as error:
            raised.append(str(error))
    assert all(name in words for words in raised)
    harmless = name.endswith(("self_test.json", "_done.json")) and content == "{}"
    assert raised or harmless, "no reader noticed"


def test_one_reader_of_the_calibration(run: Path) -> None:
    (run / "calibration.json").write_text("[1]")
    with pytest.raises(LimbeckError, match="calibration.json is not a JSON object; delete it, and `limbeck run`"):
        read_calibration(RunFolder(run))
    (run / "calibration.json").unlink()
    with pytest.raises(LimbeckError, match="calibration.json does not exist; `limbeck run` with the run's recipe"):
        read_calibration(RunFolder(run))


@pytest.mark.parametrize("content", OTHER_SHAPES)
def test_a_lock_of_another_shape_is_no_record(run: Path, content: str) -> None:
    (run / "lock.json").write_text(content)
    with pytest.raises(LimbeckError, match="lock.json is not the record of a run; .*restore it"):
        read_lock(RunFolder(run))


def test_damaged_events_are_skipped(run: Path) -> None:
    before = read_events(run / "events.jsonl")
    lines = (
        "[1]",
        "null",
        "7",
        "{}",
        '{"event": 3, "time": 1}',
        '{"event": "stage_done", "time": 1}',
        '{"event": "x"}',
        "[" * 9999,
    )
    with (run / "events.jsonl").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    assert read_events(run / "events.jsonl") == before
    assert status(run)["state"] == "finished"
    write_report(run)


@pytest.mark.parametrize("process", ['"x"', "0", "-1", "true", "null"])
def test_a_run_lock_that_names_no_process_is_not_signalled(run: Path, process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, signalled = RunFolder(run), []
    monkeypatch.setattr(looking.os, "kill", lambda *given: signalled.append(given))
    with driving(folder):
        holder = json.loads(folder.run_lock.read_text())
        folder.run_lock.write_text(json.dumps(holder).replace(str(holder["process"]), process))
        assert status(run)["state"] == "running"
        with pytest.raises(LimbeckError, match="is being run by a process .* that run.lock does not name"):
            stop(run, timeout_seconds=0.1)
    assert not signalled


def test_a_run_that_is_starting(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with driving(RunFolder(run)):
        found = status(run)
        assert found["state"] == "starting" and found["driver"]["process"] == os.getpid() and found["rounds"] == []
        show(found)
        assert f"starting (process {os.getpid()} on " in capsys.readouterr().out
        for reader in (candidates, write_report, WhatIf):
            with pytest.raises(LimbeckError, match=f"has nothing yet: the run is starting .process {os.getpid()} on"):
                reader(run)
        with pytest.raises(LimbeckError, match="has no dataset yet: it is starting"):
            dataset_folder(run, "last", None)
        signals: list[int] = []
        monkeypatch.setattr(looking.os, "kill", lambda process, signal: signals.append(process))
        with contextlib.suppress(LimbeckError):  # this process goes on
            stop(run, timeout_seconds=0.1)
        assert signals == [os.getpid()]
        write_json(run / "lock.json", {"stages": {}})
        show(status(run))  # nothing has happened yet
    assert lock_holder(RunFolder(run)) is None


def test_a_run_that_was_killed_while_it_was_starting(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text("{}")
    with pytest.raises(LimbeckError, match="its run ended while it was starting; start it again with `limbeck run`"):
        status(tmp_path)


@pytest.mark.parametrize("format", ["messages", "alpaca", "huggingface"])
def test_an_output_below_a_file_is_one_sentence(whole: Path, tmp_path: Path, format: str) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file/x.jsonl", tmp_path / "file/a/b.jsonl"):
        with pytest.raises(LimbeckError, match="cannot write .*jsonl: .*/file is not a folder; choose another path"):
            export(whole, None, format, out)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/x"):
        assert read_events(out / "events.jsonl") == []
        never_read: Any = None
        with pytest.raises(LimbeckError, match="/file is a file; choose another --out"):
            refuse_other_run(RunFolder(out), never_read)
    with pytest.raises(LimbeckError, match="cannot write .*: .*/file is not a folder; choose another path"):
        check_out(tmp_path / "file/model")


@pytest.mark.parametrize(
    ("lost", "target", "undecided"),
    [
        ("calibration.json", None, [0]),
        ("rounds/000/scores/pmi/part-00001.parquet", None, []),
        ("rounds/000/candidates/part-00001.parquet", 9, [0]),
        ("rounds/001/dataset/data", None, []),
    ],
)
def test_an_unfinished_run_does_not_resume_without_what_it_lost(
    tmp_path: Path, lost: str, target: int | None, undecided: list[int]
) -> None:
    folder = RunFolder(make_run(tmp_path / "run", finished=False))
    context: Any = SimpleNamespace(folder=folder, recipe=SimpleNamespace(rounds=2, target=target))
    assert reopen(context) == []
    remove(folder.path / lost)
    (found,) = reopen(context)
    assert found.startswith(lost)
    assert [number for number in range(2) if not folder.decisions(number).exists()] == undecided
    assert folder.dataset(1).exists() == ("dataset" not in lost)


@pytest.mark.parametrize("content", [*OTHER_SHAPES, "{", "[" * 9999])
def test_other_records_of_a_driver_in_another_shape(tmp_path: Path, content: str) -> None:
    (tmp_path / "progress.json").write_text(content)
    assert training_progress(tmp_path / "progress.json") == "starting"
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits/00000000.json").write_text(content)
    with pytest.raises(LimbeckError, match="commits/00000000.json of the run folder is damaged; restore it"):
        RunFolder(tmp_path).commits("driver").claim()
