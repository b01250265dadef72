"""A dataset's rows and the facts of its card, from kept candidates and a run folder."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.run_folder import candidates, make_run, sources
from limbeck.corpus.parts import read_json, read_table
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.card import DATA, DatasetFacts, card, write_dataset
from limbeck.pipelines.runs.dataset import dataset_facts, training_rows
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import Rows
from limbeck.pipelines.runs.scored import SOURCE_REFERENCE


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
    """Candidates of the first sources, with what is joined to them."""
    documents = sources("train", 60).slice(0, len(inputs))
    table = candidates(documents, 1, 0)
    columns = {name: table[name] for name in table.column_names if name != "input"}
    joined = {"document": documents["document"], SOURCE_REFERENCE: documents["reference"]}
    return pa.table({**columns, "input": pa.array(inputs, pa.string()), **joined})


def written(tmp_path: Path, changes: dict[str, Any], batches: list[pa.Table]) -> pa.Table:
    """The dataset that these batches of kept candidates become."""
    made = recipe(**changes)
    kept = sum(batch.num_rows for batch in batches)
    rows = Rows(sources=60, candidates=kept, kept=kept, rejected_by={})
    facts = DatasetFacts(name="rows", round=0, rows=rows, teacher="t", seed=1)
    write_dataset(tmp_path / "dataset", [training_rows(made, batch) for batch in batches], facts)
    return read_table(tmp_path / "dataset" / DATA)


def test_the_instruction_is_kept_if_a_template_surrounds_it(tmp_path: Path) -> None:
    given = kept(["an input", None])
    rows = written(tmp_path, {"rows": {"kind": "alpaca"}}, [given.slice(0, 0), given.slice(0, 1), given.slice(1)])
    assert rows["instruction"].to_pylist() == given["prompt"].to_pylist() and rows["input"].to_pylist() == ["an input", None]
    for row in rows.to_pylist():
        assert f"### Instruction:\n{row['instruction']}\n" in row["prompt"]


def test_an_optional_column_is_there_if_only_the_last_batch_needs_it(tmp_path: Path) -> None:
    given = kept([None, None, "an input"])
    rows = written(tmp_path, {"rows": {"kind": "plain"}}, [given.slice(0, 2), given.slice(2)])
    assert rows["input"].to_pylist() == [None, None, "an input"]
    assert rows["instruction"].to_pylist() == given["prompt"].to_pylist(), "of all rows, since one prompt has an input"


@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_a_prompt_that_is_the_instruction_is_not_stored_twice(tmp_path: Path, kind: str) -> None:
    rows = written(tmp_path, {"rows": {"kind": kind}}, [kept([None, None])])
    assert not {"instruction", "input", "messages", "facts"} & set(rows.column_names) and rows.num_rows == 2


def test_the_card_counts_the_sources_of_the_run(folder: RunFolder) -> None:
    rows = Rows(sources=60, candidates=2, kept=2, rejected_by={})
    facts = dataset_facts(folder, recipe(), 0, rows, read_json(folder.calibration))
    text = card(training_rows(recipe(), kept([None, None])).schema, facts)
    assert facts.sources is not None and facts.sources.used == 104
    for line in ("## Documents", "| train | 60 |", "| not used: shorter than 200 characters | 9 |"):
        assert line in text
