"""A dataset's rows and the facts of its card, from kept candidates and a run folder."""

from typing import Any

import pyarrow as pa
import pytest

from helpers.run_folder import candidates, make_run, sources
from limbeck.corpus.parts import read_json
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.card import card
from limbeck.pipelines.runs.dataset import dataset_facts, dataset_rows
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import Rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(make_run(tmp_path_factory.mktemp("dataset") / "made-up", rounds=1))


def recipe(**changes: Any) -> recipes.Recipe:
    data = {
        "name": "rows",
        "sources": {"kind": "text", "path": "unused"},
        "teacher": {"kind": "transformers", "model": "unused"},
        "generator": {"kind": "summaries"},
        "filters": [{"kind": "length"}],
        **changes,
    }
    return recipes.validate(data, "here")


def kept(inputs: list[str | None]) -> pa.Table:
    table = candidates(sources("train", 60), 1, 0).slice(0, len(inputs))
    return table.drop_columns(["input"] if "input" in table.column_names else []).append_column(
        "input", pa.array(inputs, pa.string())
    )


def test_the_instruction_is_kept_if_a_template_surrounds_it(folder: RunFolder) -> None:
    given = kept(["an input", None])
    rows = dataset_rows(folder, recipe(rows={"kind": "alpaca"}), given)
    assert rows["instruction"].to_pylist() == given["prompt"].to_pylist() and rows["input"].to_pylist() == ["an input", None]
    for row in rows.to_pylist():
        assert f"### Instruction:\n{row['instruction']}\n" in row["prompt"]


@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_a_prompt_that_is_the_instruction_is_not_stored_twice(folder: RunFolder, kind: str) -> None:
    rows = dataset_rows(folder, recipe(rows={"kind": kind}), kept([None, None]))
    assert not {"instruction", "input"} & set(rows.column_names)


def test_the_card_counts_the_sources_of_the_run(folder: RunFolder) -> None:
    rows = Rows(sources=60, candidates=2, kept=2, rejected_by={})
    facts = dataset_facts(folder, recipe(), 0, rows, read_json(folder.calibration))
    text = card(dataset_rows(folder, recipe(), kept([None, None])), facts)
    assert facts.sources is not None and facts.sources.used == 104
    for line in ("## Documents", "| train | 60 |", "| not used: shorter than 200 characters | 9 |"):
        assert line in text
