"""Reading sources in tests: the table as rows, by origin."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.corpus.sources import read_sources
from limbeck.corpus.tokenizer import Tokenizer

HALVES = {"train": 0.5, "dev": 0.0, "test": 0.5}
WORDS = ["wheel", "parser", "telescope", "kitchen", "violin", "harbour", "glacier", "lantern", "orchard", "compass"]


def read(tokenizer: Tokenizer, kind: str, seed: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """The table as rows, each record parsed."""
    config = TypeAdapter(SourcesConfig).validate_python({"kind": kind, "split": HALVES, **fields})
    table = read_sources(config, tokenizer, seed)
    assert table.schema == SOURCES
    assert len(set(table["source_id"].to_pylist())) == table.num_rows
    rows = table.to_pylist()
    assert all((row["split"] == "rejected") == (row["reason"] is not None) for row in rows)
    return [{**row, "record": row["record"] and json.loads(row["record"])} for row in rows]


def used(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["origin"]: row for row in rows if row["reason"] is None}


def reasons(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["origin"]: row["reason"] for row in rows if row["reason"] is not None}


def write_lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)
