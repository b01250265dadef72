"""The dataset of an earlier run, or a selection of it, as sources; what is not there is named."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.byte_tokenizer import byte_tokenizer
from helpers.run_folder import make_run
from helpers.source_rows import read, used
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "first")


def test_the_dataset_of_an_earlier_run(earlier: Path, tokenizer: Tokenizer) -> None:
    rows = used(read(tokenizer, "run", run=str(earlier), round=0, near_duplicate_threshold=0.9))
    stored = pq.read_table(next((earlier / "rounds/000/dataset/data").glob("*.parquet"))).to_pylist()
    assert len(rows) > 10
    for row in stored:
        found = rows.get(f"first/rounds/000/dataset:{row['candidate_id']}")
        if found is not None:
            assert found["record"] == {key: row[key] for key in ("prompt", "completion", "document", "output", "reference")}
            assert (found["document"], found["reference"]) == (row["document"], row["reference"])
    by_document: dict[str, set[str]] = {}
    for found in rows.values():
        by_document.setdefault(found["document"], set()).add(found["split"])
    assert all(len(splits) == 1 for splits in by_document.values())
    last = used(read(tokenizer, "run", run=str(earlier), near_duplicate_threshold=0.9))
    assert {origin.partition(":")[0] for origin in last} == {"first/rounds/001/dataset"}
    assert last.keys() == used(read(tokenizer, "run", run=str(earlier), round=1, near_duplicate_threshold=0.9)).keys()


def test_rows_of_one_source_share_a_split_though_they_have_no_document(tmp_path: Path, tokenizer: Tokenizer) -> None:
    dataset = tmp_path / "run" / "rounds" / "000" / "selections" / "few" / "dataset" / "data"
    dataset.mkdir(parents=True)
    (tmp_path / "run" / "rounds" / "000" / "dataset").mkdir()
    (tmp_path / "run" / "lock.json").write_text("{}")
    facts = json.dumps({"vary": {"persona": "a nurse"}})
    shared = {"completion": " a", "output": "a", "document": "", "reference": None, "facts": facts, "pmi.pmi": 0.5}
    stored = [{"candidate_id": f"c{n}", "source_id": f"s{n // 3}", "prompt": f"Task {n}", **shared} for n in range(30)]
    pq.write_table(pa.Table.from_pylist(stored), dataset / "train-00000-of-00001.parquet")
    rows = used(read(tokenizer, "run", run=str(tmp_path / "run"), selection="few"))
    assert len(rows) == 30
    splits = {n: rows[f"run/rounds/000/selections/few/dataset:c{n}"]["split"] for n in range(30)}
    assert all(splits[n] == splits[n - n % 3] for n in range(30)) and set(splits.values()) == {"train", "test"}
    record = rows["run/rounds/000/selections/few/dataset:c0"]["record"]
    assert record == {"prompt": "Task 0", "completion": " a", "output": "a", "document": "", "facts": json.loads(facts)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"run": "absent"}, "no such run folder: absent"),
        ({"run": "plain"}, "plain is not a run folder"),
        ({"run": "begun"}, "the run begun has no dataset yet"),
        ({"run": "done", "round": 4}, "the run done has no dataset of round 4; rounds with a dataset: 0, 1"),
        ({"run": "done", "selection": "wide"}, "round 1 of the run done has no selection 'wide'; it has loose, tight"),
        (
            {"run": "done", "round": 0, "selection": "wide"},
            "round 0 of the run done has no selection 'wide'; `limbeck filter done",
        ),
        ({"run": "done", "selection": "../selections/tight"}, "has no selection"),
        ({"run": "done"}, "rounds/001/dataset has no Parquet file"),
        ({"run": "done", "selection": "tight"}, "train.parquet is not a run's dataset .it has n"),
        ({"run": "done", "selection": "loose"}, "there are no rows in the run done"),
    ],
)
def test_a_run_that_cannot_be_read_is_named(
    fields: dict[str, Any], message: str, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("plain", "begun/rounds/000", "done/rounds/000/dataset", "done/rounds/001/dataset"):
        Path(folder).mkdir(parents=True)
    for run in ("begun", "done"):
        Path(run, "lock.json").write_text("{}")
    for name, columns in (("tight", {"n": [1]}), ("loose", {"prompt": [], "output": []}), (".new", {"n": [1]})):
        data = Path("done/rounds/001/selections") / name / "dataset/data"
        data.mkdir(parents=True)
        pq.write_table(pa.table(columns), data / "train.parquet")
    with pytest.raises(LimbeckError, match=message):
        read(tokenizer, "run", **fields)
