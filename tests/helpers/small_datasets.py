"""Run folders with nothing but a dataset, and files of existing data, for tests of mixtures."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.pipelines.runs.card import DatasetFacts, write_dataset
from limbeck.pipelines.runs.report_model import Rows


def chat_row(asked: str, answer: str) -> dict[str, Any]:
    """A question and its answer as turns."""
    return {"prompt": [{"role": "user", "content": asked}], "completion": [{"role": "assistant", "content": answer}]}


def run_of(folder: Path, rows: list[dict[str, Any]], number: int = 0, **recipe: Any) -> Path:
    """Add a finished dataset of a round to a run folder."""
    table = pa.Table.from_pylist([{"candidate_id": f"c{place}", "source_id": "s", **row} for place, row in enumerate(rows)])
    counts = Rows(sources=len(rows), candidates=len(rows), kept=len(rows), rejected_by={})
    dataset = folder / "rounds" / f"{number:03d}" / "dataset"
    write_dataset(dataset, [table], DatasetFacts(name="small", round=number, rows=counts, teacher="a teacher", seed=0))
    (dataset / "_done.json").write_text("{}")
    (folder / "lock.json").write_text(json.dumps({"stages": {}, "recipe": recipe}))
    return folder


def chat_run(folder: Path, count: int, word: str = "", number: int = 0) -> Path:
    """A run whose rows are `count` different conversations."""
    return run_of(folder, [chat_row(f"{word or folder.name} {place}?", f"answer {place}") for place in range(count)], number)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
