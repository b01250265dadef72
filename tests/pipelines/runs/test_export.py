"""Datasets and their cards, opened by the libraries that read them, and exports in each format."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import yaml

from helpers.run_folder import make_run
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.runs.card import DatasetFacts, card, write_dataset
from limbeck.pipelines.runs.export import export
from limbeck.pipelines.runs.report_model import Bounds, Rows, Sources


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds."""
    return make_run(tmp_path_factory.mktemp("run") / "made-up")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A private cache, and no hub."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def table(*rows: dict[str, Any]) -> pa.Table:
    """A dataset's rows with the given prompt and completion."""
    return pa.Table.from_pylist([{"candidate_id": f"c{index}", "source_id": "s", **row} for index, row in enumerate(rows)])


def facts(kept: int = 1, **changes: Any) -> DatasetFacts:
    """Facts of a round that kept `kept` of nine candidates."""
    rows = Rows(sources=3, candidates=9, kept=kept, rejected_by={"pmi": 9 - kept})
    return DatasetFacts(**({"name": "small", "round": 0, "rows": rows, "teacher": "a teacher", "seed": 0} | changes))


CHAT = {
    "prompt": [{"role": "user", "content": "Summarise."}],
    "completion": [{"role": "assistant", "content": "Sum | mary\n«é»"}],
}
SYSTEM = {"prompt": [{"role": "system", "content": "Be brief."}, *CHAT["prompt"]], "completion": CHAT["completion"]}
PLAIN = {"prompt": "A document.\nTL;DR:", "completion": " A summary."}
TURNS = {"prompt": [*CHAT["prompt"], *CHAT["completion"], *CHAT["prompt"]], "completion": CHAT["completion"]}


def small_run(folder: Path, *rows: dict[str, Any]) -> Path:
    """A run folder with nothing but one dataset."""
    write_dataset(folder / "rounds" / "000" / "dataset", [table(*rows)], facts(len(rows)))
    (folder / "lock.json").write_text("{}")
    (folder / "rounds" / "000" / "dataset" / "_done.json").write_text("{}")
    return folder


def test_the_datasets_library_opens_a_published_dataset(run: Path, offline: Path) -> None:
    rows = datasets.load_dataset(str(run / "rounds" / "001" / "dataset"), cache_dir=str(offline))["train"]
    report = json.loads((run / "rounds" / "001" / "evaluation.json").read_text())
    assert len(rows) == report["rows"]["kept"]
    assert rows[0]["prompt"][0]["role"] == "user" and rows[0]["completion"][0]["content"] == rows[0]["output"]


def test_the_card_tells_the_story_and_states_an_unknown_licence() -> None:
    bounds = Bounds.model_validate({"bounds": {"pmi": {"pmi": {"minimum": 0.123456}}}, "note": "A note."})
    sources = Sources(used=5, train=3, dev=1, test=1, rejected={"a | b": 2})
    text = card(table(CHAT).schema, facts(bounds=bounds, sources=sources))
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "unknown" and "Unknown: neither" in body
    for words in ("| pmi | 8 |", "| pmi | `pmi` | 0.1235 |  |", "A note.", "| not used: a \\| b | 2 |", "**a teacher**", "11.1%"):
        assert words in body
    assert "Apache-2.0." in card(table(CHAT).schema, facts(licence="Apache-2.0"))


def test_publishing_a_dataset_again_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", [table(CHAT)], facts())
    write_dataset(tmp_path / "dataset", [table(CHAT, CHAT)], facts(2))
    assert "the 1 that passed" in (tmp_path / "dataset" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_messages_are_whole_conversations(run: Path, tmp_path: Path, offline: Path) -> None:
    out = export(run, None, "messages", tmp_path / "deep" / "messages.jsonl")
    kept = json.loads((run / "rounds" / "001" / "evaluation.json").read_text())["rows"]["kept"]
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == kept, "the last round is the default"
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    opened = datasets.load_dataset("json", data_files=str(out), cache_dir=str(offline))["train"]
    assert opened[0]["messages"] == rows[0]["messages"]


@pytest.mark.parametrize(
    ("row", "messages", "alpaca"),
    [
        (CHAT, [*CHAT["prompt"], *CHAT["completion"]], ("Summarise.", "Sum | mary\n«é»", "")),
        (SYSTEM, [*SYSTEM["prompt"], *SYSTEM["completion"]], ("Summarise.", "Sum | mary\n«é»", "Be brief.")),
        (
            PLAIN,
            [{"role": "user", "content": "A document.\nTL;DR:"}, {"role": "assistant", "content": "A summary."}],
            ("A document.\nTL;DR:", "A summary.", ""),
        ),
    ],
)
def test_formats_keep_every_character(
    tmp_path: Path, row: dict[str, Any], messages: list[dict[str, str]], alpaca: tuple[str, str, str]
) -> None:
    run = small_run(tmp_path / "run", row)
    lines = export(run, 0, "messages", tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"messages": messages}]
    folder = export(run, 0, "alpaca", tmp_path / "a")
    instruction, output, system = alpaca
    written = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert written == [{"instruction": instruction, "input": "", "output": output, "system": system}]
    info = json.loads((folder / "dataset_info.json").read_text())["run-round-0"]
    assert info["file_name"] == "dataset.json" and set(info["columns"].values()) == set(written[0])


def test_rows_made_by_a_template_are_exported_without_it(tmp_path: Path) -> None:
    given = {**PLAIN, "instruction": "Shorten.", "input": "A document.", "output": "A summary."}
    run = small_run(tmp_path / "run", given, {**given, "input": None})
    folder = export(run, 0, "alpaca", tmp_path / "a")
    rows = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert [row["instruction"] for row in rows] == ["Shorten."] * 2 and [row["input"] for row in rows] == ["A document.", ""]
    assert all(row["output"] == "A summary." and row["system"] == "" for row in rows)


def test_a_hugging_face_folder_is_the_dataset_without_the_runs_mark(run: Path, tmp_path: Path, offline: Path) -> None:
    out = export(run, 0, "huggingface", tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "data"]
    original = run / "rounds" / "000" / "dataset"
    assert (out / "README.md").read_bytes() == (original / "README.md").read_bytes()
    assert len(datasets.load_dataset(str(out), cache_dir=str(offline))["train"]) > 0


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LimbeckError, match="candidate c0 has several turns"):
        export(small_run(tmp_path / "run", TURNS), 0, "alpaca", out)
    with pytest.raises(LimbeckError, match="did you mean alpaca"):
        export(run, 0, "alpacca", out)
    with pytest.raises(LimbeckError, match="no dataset of round 7; rounds with a dataset: 0"):
        export(run, 7, "messages", out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    out.write_text("mine")
    with pytest.raises(LimbeckError, match="already exists"):
        export(run, 0, "messages", out)
    assert out.read_text() == "mine"


def test_a_dataset_that_is_not_finished_is_not_exported(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", CHAT)
    (run / "rounds" / "000" / "dataset" / "_done.json").unlink()
    with pytest.raises(LimbeckError, match="is not finished yet; resume the run"):
        export(run, None, "messages", tmp_path / "out")
