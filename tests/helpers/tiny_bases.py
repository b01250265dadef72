"""Bases made in this process: documents in a folder as of a run, and what Ray workers would do."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from helpers.tiny_students import make_dataset, make_model, sentence
from limbeck.corpus.parts import write_table
from limbeck.corpus.schemas import SOURCES
from limbeck.students.base import prepare
from limbeck.students.base.config import BaseConfig
from limbeck.students.training.driver import dataset_files


def write_documents(folder: Path, texts: list[str], split: str = "train") -> Path:
    """Documents of a split, each in a near-duplicate group of its own; returns the split's folder."""
    rows = [
        {
            "source_id": f"{split}-{row}", "document": text, "reference": None, "origin": str(row), "group": f"{split}-{row}",
            "split": split, "document_tokens": 40, "cut_characters": 0, "salient": [], "reason": None,
        }
        for row, text in enumerate(texts)
    ]  # fmt: skip
    write_table(folder / split / "part-00000.parquet", pa.Table.from_pylist(rows, schema=SOURCES))
    return folder / split


def some_documents(folder: Path, count: int = 39) -> Path:
    return write_documents(folder, [sentence(row + 1, 40) for row in range(count)])


def make_base(config: BaseConfig, root: Path, documents: Path | None = None, seed: int = 7, **model: Any) -> tuple[Path, Any]:
    """The folder that `config` gives of a tiny teacher in `root/teacher`, and its report."""
    if not (root / "teacher").exists():
        make_model(root / "teacher", **model)
        make_dataset(root / "dataset")
    documents = documents or (root / "sources" / "train" if (root / "sources").exists() else some_documents(root / "sources"))
    files = dataset_files(root / "dataset")
    return prepare.prepare(config, root / "teacher", files, documents, root / "training", seed, prepare.Placement())


def fit_here(work: Any, config: dict[str, Any], workers: int, placement: Any, storage: Path) -> Any:
    """In place of `limbeck.cluster.training.fit`."""
    return work(config)
