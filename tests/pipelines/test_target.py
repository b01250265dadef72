"""Exactly N rows: the first accepted ones by part and row, regardless of interruptions; otherwise exit code 3."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import part_names, read_part, read_parts, read_table

TARGET = 5


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "rounds": 1,
        "student": None,
        "target": TARGET,
        "calibration": {"pass_rate": 0.3, "parts": 2},
        "cluster": {"rows_per_part": 1, "threads_per_worker": 1},
        **changes,
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("target")


@pytest.fixture(scope="module")
def run(home: Path, ray_address: str) -> Path:
    done = limbeck("run", write_recipe(home, **settings()), "--out", home / "run", "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert f"of {TARGET} rows accepted" in done.stderr
    return home / "run"


def test_the_dataset_has_exactly_the_first_accepted_rows(run: Path) -> None:
    first = run / "rounds/000"
    decisions = {row["candidate_id"]: row for row in read_table(first / "decisions.parquet").to_pylist()}
    drawn = [
        id_
        for part in part_names(first / "candidates")
        for id_ in read_part(first / "candidates", part)["candidate_id"].to_pylist()
    ]
    assert sorted(drawn) == sorted(decisions)
    accepted = [id_ for id_ in drawn if decisions[id_]["kept"] or decisions[id_]["rejected_by"] == "target"]
    assert [id_ for id_ in accepted if decisions[id_]["kept"]] == accepted[:TARGET]
    dataset = read_table(first / "dataset/data/train-00000-of-00001.parquet")
    assert sorted(dataset["candidate_id"].to_pylist()) == sorted(accepted[:TARGET])
    rows = json.loads((first / "rows.json").read_text())
    assert rows["kept"] == TARGET and rows["kept"] + sum(rows["rejected_by"].values()) == rows["candidates"] == len(drawn)
    assert len(drawn) < 3 * read_parts(first / "sources/train").num_rows, "sources were left untouched"


def test_status_and_check_say_how_it_went(run: Path, home: Path) -> None:
    facts = json.loads(limbeck("status", run, "--json").stdout)["acceptance"]
    assert facts["accepted"] >= facts["target"] == TARGET and 0 < facts["rate"] <= 1 and facts["tokens_per_accepted"] > 0
    assert f"of {TARGET} rows accepted" in limbeck("check", home / "recipe.yaml", "--out", run).stdout


@pytest.mark.slow
def test_a_spent_budget_ends_the_run_short_and_a_larger_one_goes_on_to_the_same_rows(
    run: Path, home: Path, ray_address: str
) -> None:
    other = home / "budgeted"
    short = limbeck(
        "run", write_recipe(home, **settings(budget={"tokens": 1})), "--out", other, "--no-panel", RAY_ADDRESS=ray_address
    )
    assert short.returncode == 3 and "budget.tokens is spent" in short.stderr and "Traceback" not in short.stderr
    assert not (other / "rounds/000/decisions.parquet").exists()
    done = limbeck(
        "run", write_recipe(home, **settings(budget={"tokens": 1_000_000})), "--out", other, "--no-panel", RAY_ADDRESS=ray_address
    )
    assert done.returncode == 0, done.stderr
    for file in ("decisions.parquet", "dataset/data/train-00000-of-00001.parquet"):
        assert read_table(other / "rounds/000" / file).equals(read_table(run / "rounds/000" / file))


@pytest.mark.slow
def test_spent_sources_end_the_run_short(home: Path, ray_address: str) -> None:
    done = limbeck(
        "run", write_recipe(home, **settings(target=1000)), "--out", home / "all", "--no-panel", RAY_ADDRESS=ray_address
    )
    assert done.returncode == 3 and "the sources are exhausted" in done.stderr and "of 1000 rows accepted" in done.stderr


def test_a_budget_without_a_target_is_refused(home: Path) -> None:
    done = limbeck("run", write_recipe(home, rounds=1, student=None, budget={"tokens": 5}), "--out", home / "none")
    assert done.returncode == 1 and "budget needs a target" in done.stderr
