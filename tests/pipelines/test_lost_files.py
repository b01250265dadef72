"""A run that has lost files: starting it again computes them, bit for bit, or says why it cannot."""

import shutil
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_table

LOST = {
    "decisions": ["rounds/000/decisions.parquet"],
    "calibration": ["calibration.json"],
    "a part of scores": ["rounds/000/scores/pmi/part-00001.parquet", "evaluation/test/teacher/scores/pmi/part-00000.parquet"],
    "candidates, a dataset and figures": [
        *("rounds/000/candidates/part-00000.parquet", "rounds/000/dataset/data", "rounds/000/rows.json"),
        *("rounds/000/evaluation.json", "evaluation/test.json", "report.json"),
    ],
    "bounds and scores of a run that is not finished": [
        *("evaluation", "calibration.json", "rounds/000/scores/pmi/part-00001.parquet"),
    ],
}
MORE = ("decisions", "a part of scores")
"""Losses for `make test-all`: the others lose such files too."""


@pytest.fixture(scope="module")
def finished(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("lost")
    done = limbeck("run", write_recipe(home, rounds=1, student=None), "--out", home / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def tables(run: Path) -> dict[str, list]:
    return {str(path.relative_to(run)): read_table(path).to_pylist() for path in sorted(run.rglob("*.parquet"))}


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "lost",
    [pytest.param(lost, marks=[pytest.mark.slow] if name in MORE else [], id=name) for name, lost in LOST.items()],
)
def test_what_was_removed_is_computed_again(finished: Path, run: Path, ray_address: str, lost: list[str]) -> None:
    before, calibration = tables(run), (run / "calibration.json").read_text()
    for name in lost:
        remove(run / name)
    done = limbeck("run", finished / "recipe.yaml", "--out", run, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert lost == ["report.json"] or "missing and are computed again" in done.stderr
    assert repr(tables(run)) == repr(before) and (run / "calibration.json").read_text() == calibration
    assert (run / "report.json").exists() and (run / "evaluation/test.json").exists()
    again = limbeck("run", finished / "recipe.yaml", "--out", run, RAY_ADDRESS=ray_address)
    assert again.returncode == 0 and "computed again" not in again.stderr


def test_sources_and_the_record_of_the_run_cannot_be_made_again(finished: Path, run: Path, ray_address: str) -> None:
    remove(run / "rounds/000/sources/train/part-00000.parquet")
    done = limbeck("run", finished / "recipe.yaml", "--out", run, RAY_ADDRESS=ray_address)
    assert done.returncode == 1 and "sources/train has lost parts, which cannot be made again" in done.stderr
    (run / "lock.json").write_text((run / "lock.json").read_text()[:200])
    for verb in (["run", finished / "recipe.yaml", "--out"], ["filter"], ["report"]):
        done = limbeck(*verb, run, RAY_ADDRESS=ray_address)
        assert done.returncode == 1 and "cannot be made again: restore it, or start again with another --out" in done.stderr
        assert "Traceback" not in done.stderr
