"""Mixtures for students that train on other columns than a prompt and its completion."""

from pathlib import Path
from typing import Any

import pytest

from helpers.small_datasets import chat_row, lines, run_of
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_table
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.mixture.components import Wanted, opened
from limbeck.pipelines.runs.mixture.config import MixtureConfig
from limbeck.pipelines.runs.mixture.mixing import planned, write_mixture
from limbeck.pipelines.runs.rows import ChatRows

COLUMNS = ("prompt", "chosen", "rejected", "margin")


def row(number: int, **more: Any) -> dict[str, Any]:
    asked = chat_row(f"q {number}", f"good {number}")
    worse = chat_row("", f"bad {number}")["completion"]
    return {"prompt": asked["prompt"], "chosen": asked["completion"], "rejected": worse, "margin": number / 2, **more}


def mixed(out: Path, *components: dict[str, Any]) -> list[dict[str, Any]]:
    config = MixtureConfig.model_validate({"name": "m", "components": list(components)})
    wanted = Wanted(ChatRows(), COLUMNS)
    plan = planned("m", 0, config, [opened(component, wanted, None, 0) for component in config.components])
    write_mixture(out, plan)
    return read_table(out / DATA).to_pylist()


def test_all_columns_of_a_student_are_mixed(tmp_path: Path) -> None:
    run_of(tmp_path / "run", [{**row(number), "completion": row(number)["chosen"]} for number in range(4)])
    path = lines(tmp_path / "old.jsonl", [row(9), row(8, rejected=None), row(7, chosen={"a": 1})])
    run, old = {"kind": "run", "name": "run", "run": str(tmp_path / "run")}, {"kind": "rows", "name": "old", "path": str(path)}
    rows = mixed(tmp_path / "out", run, old)
    assert sorted(one["margin"] for one in rows) == [0, 0.5, 1, 1.5, 4.5]
    assert all(one["rejected"][0]["content"].startswith("bad") for one in rows)


def test_a_component_without_them_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [chat_row("q", "a")])
    path = lines(tmp_path / "old.jsonl", [chat_row("q", "a")])
    with pytest.raises(
        LimbeckError, match="component 'x' of the mixture: .* has no column 'chosen', which the student trains on"
    ):
        mixed(tmp_path / "out", {"kind": "run", "name": "x", "run": str(run)})
    with pytest.raises(
        LimbeckError, match="component 'x' of the mixture: .* has no column 'chosen', .* it has the columns compl"
    ):
        mixed(tmp_path / "out", {"kind": "rows", "name": "x", "path": str(path)})


def test_columns_of_two_types_are_refused(tmp_path: Path) -> None:
    one, two = (lines(tmp_path / f"{name}.jsonl", [row(1, margin=value)]) for name, value in (("one", 1.5), ("two", "far")))
    parts = [{"kind": "rows", "name": path.stem, "path": str(path)} for path in (one, two)]
    with pytest.raises(LimbeckError, match="component 'two' of the mixture has a 'margin' of type str .* but 'one' has float"):
        mixed(tmp_path / "out", *parts)
