"""`--json` of the commands that change something: one JSON value, and the same change."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.run_folder import make_run
from helpers.tiny_bases import fit_here, make_base
from limbeck.pipelines.cli.main import app
from limbeck.students.base import prepare
from limbeck.students.base.config import TeacherBase, VocabularyConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "made-up")


def test_export_names_what_it_wrote(run: Path, tmp_path: Path) -> None:
    plain, out = tmp_path / "plain.jsonl", tmp_path / "out.jsonl"
    assert CliRunner().invoke(app, ["export", str(run), "--out", str(plain)]).stdout == f"wrote {plain}\n"
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(out), "--json"])
    assert json.loads(done.stdout) == {"written": str(out), "format": "messages"}
    assert out.read_text() == plain.read_text() != ""


def test_stop_of_a_run_that_nothing_runs(run: Path) -> None:
    done = CliRunner().invoke(app, ["stop", str(run), "--json"])
    assert json.loads(done.stdout) == {"run": str(run), "was_running": False, "message": f"{run} is not running"}


def test_a_vocabulary_is_restored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "fit", fit_here)
    base, _ = make_base(TeacherBase(vocabulary=VocabularyConfig(), sample=4), tmp_path)
    out = tmp_path / "whole"
    given = ["restore-vocabulary", str(base), "--original", str(tmp_path / "teacher"), "--out", str(out), "--json"]
    assert json.loads(CliRunner().invoke(app, given).stdout) == {"written": str(out)}
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "teacher" / "tokenizer.json").read_bytes()
    assert "choose another --out" in str(CliRunner().invoke(app, given).exception)
