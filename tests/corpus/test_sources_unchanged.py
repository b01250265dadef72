"""The first kinds of sources read as they always did: ids, split, order, cuts and fingerprints are those of older versions."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from helpers.byte_tokenizer import byte_tokenizer
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.corpus.sources import read_sources
from limbeck.corpus.tokenizer import Tokenizer

COLUMNS = ["source_id", "document", "reference", "origin", "split", "group", "document_tokens", "cut_characters"]
COLUMNS += ["following", "salient", "reason"]
NAMES = ["wheel", "parser", "telescope", "kitchen", "violin", "harbour", "glacier", "lantern", "orchard", "compass"]
LIMITS: dict[str, Any] = {"max_source_tokens": 120, "min_source_tokens": 5, "max_documents": 12}


def text(name: str, sentences: int) -> str:
    return " ".join(f"The{name}{i} {name}a {name}b {name}c turns{name} {name}d." for i in range(sentences))


def rows() -> list[dict[str, Any]]:
    made = [{"text": text(name, 2 + i % 4), "summary": f"About {name}.", "n": i} for i, name in enumerate(NAMES)]
    made += [{"text": text("wheel", 6), "summary": None, "n": 1}, {"text": made[3]["text"], "summary": "Twice.", "n": 2}]
    return [*made, {"text": "", "summary": "", "n": 3}, {"text": "Hm.", "summary": "Short.", "n": 4}]


def write(kind: str, folder: Path) -> dict[str, Any]:
    """The input of a kind, and its keys."""
    columns = {"document_column": "text", "reference_column": "summary"}
    if kind == "text":
        for number, row in enumerate(rows()):
            (folder / f"{number:02d}.txt").write_text(row["text"])
        return {"path": str(folder)}
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows()), folder / "rows.parquet")
        return {"path": str(folder / "rows.parquet"), **columns}
    lines = [json.dumps(row) for row in rows()]
    if kind == "jsonl":
        lines += ["{", "[1]", '{"text": 5}', '{"summary": "no text"}']
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
        return {"path": str(folder / "rows.jsonl"), **columns}
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return {"dataset": str(folder), **columns}


def essence(table: pa.Table) -> str:
    found = json.dumps(table.select(COLUMNS).to_pylist(), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(found.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text", "646be672646edafd"),
        ("jsonl", "a6a671c9ea5fe259"),
        ("parquet", "ff723ce35df6b998"),
        ("huggingface", "b334637746fc4419"),
    ],
)
def test_rows_are_as_before(
    kind: str, expected: str, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "input"
    folder.mkdir()
    config = TypeAdapter(SourcesConfig).validate_python({"kind": kind, **write(kind, folder), **LIMITS})
    assert essence(read_sources(config, tokenizer, 7)) == expected


def test_packages_are_as_before(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in rows():
        folder = tmp_path / f"p{row['n']}-{row['summary']}-1.0.dist-info"
        folder.mkdir(exist_ok=True)
        header = f"Metadata-Version: 2.1\nName: p{row['n']}-{len(row['text'])}\nVersion: 1.0\nSummary: {row['summary']}\n"
        (folder / "METADATA").write_text(f"{header}Description-Content-Type: text/plain\n\n{row['text']}\n")
    config = TypeAdapter(SourcesConfig).validate_python({"kind": "installed-packages", **LIMITS})
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = read_sources(config, tokenizer, 7)
    monkeypatch.undo()
    assert essence(found) == "dea21c1e62e860ed"


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("text", ["path"]),
        ("jsonl", ["path", "document_column", "reference_column"]),
        ("parquet", ["path", "document_column", "reference_column"]),
        ("huggingface", ["dataset", "name", "dataset_split", "document_column", "reference_column"]),
        ("installed-packages", []),
    ],
)
def test_what_a_run_records_of_its_sources_is_as_before(kind: str, keys: list[str]) -> None:
    """A run folder of an older version is continued only if the recipe's section dumps to the same keys."""
    shared = ["max_documents", "max_source_tokens", "min_source_tokens", "split", "near_duplicate_threshold", "salient_fraction"]
    needed = {key: "x" for key in keys if key in ("path", "dataset")}
    config = TypeAdapter(SourcesConfig).validate_python({"kind": kind, **needed})
    assert sorted(config.model_dump(mode="json")) == sorted([*shared, "kind", *keys])
