"""Preference pairs of a tiny model: kill -9 of driver and workers changes neither an answer nor a pair."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.random_kills import kill_until
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_object, read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.pipelines.runs.card import DATA, PREFERENCES
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 3


def run(home: Path, name: str, **more: str) -> int:
    path = write_recipe(
        home,
        rounds=1,
        student=None,
        generator={"kind": "preferences", "answers": 4, "max_new_tokens": 8},
        filters=[
            {"kind": "length", "min_output_tokens": None, "max_compression": None},
            {"kind": "pmi", "min_faithfulness": None},
        ],
        rows={"kind": "preferences", "by": "pmi.pmi", "pairs": "best_random"},
    )
    done = limbeck("run", path, "--out", home / name, "--no-panel", **more)
    assert done.returncode in (0, -9), done.stderr[-4000:]
    return done.returncode


def outcome(folder: Path) -> dict[str, Any]:
    found = RunFolder(folder)
    return {
        "candidates": read_parts(found.candidates(0), CANDIDATES).to_pylist(),
        "decisions": read_table(found.decisions(0)).to_pylist(),
        "pairs": read_table(found.dataset(0) / DATA).to_pylist(),
        "facts": read_object(found.dataset(0) / PREFERENCES),
    }


def test_kills_at_random_steps_change_no_pair(tmp_path: Path) -> None:
    assert run(tmp_path, "reference") == 0
    expected = outcome(tmp_path / "reference")
    assert expected["pairs"] and expected["facts"]["pairs"] == len(expected["pairs"])
    parts = [f"rounds/000/{stage}/part-{part:05d}" for stage in ("candidates", "steps", "scores/pmi") for part in range(3)]
    chosen = [*parts, "rounds/000/decisions.parquet", "rounds/000/dataset"]
    kill_until(KILLS, tmp_path / "kills.json", chosen, "pairs", partial(run, tmp_path, "killed"))
    assert run(tmp_path, "killed") == 0
    assert outcome(tmp_path / "killed") == expected
