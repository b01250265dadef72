"""All rows of a run folder, column by column, to compare whole runs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Columns = dict[str, dict[str, str]]
"""Table (sources, candidates, scores, decisions, dataset) → column → its content."""


def run_columns(run: Path) -> Columns:
    """Every column's type and values as exact text: equal texts are equal bit for bit."""
    return {
        name: {field.name: f"{field.type} {field.metadata} {table[field.name].to_pylist()!r}" for field in table.schema}
        for name, table in _tables(run).items()
    }


def run_digests(run: Path) -> Columns:
    """A digest of every column, without the floats' last digits, which may differ between processors."""
    return {
        name: {column: _digest(table[column].to_pylist()) for column in table.column_names}
        for name, table in _tables(run).items()
    }


def changed_columns(found: Columns, expected: Columns) -> list[str]:
    """The expected columns that are missing or differ; additional columns are ignored."""
    return [
        f"{table}: {column}"
        for table, columns in expected.items()
        for column, content in columns.items()
        if found.get(table, {}).get(column) != content
    ]


def distant_scores(run: Path, reference: Path, filter_: str) -> list[str]:
    """The reference's score columns of a filter, also those in datasets, that are missing or differ by more than rounding."""
    found, distant = _tables(run), []
    for name, table in _tables(reference).items():
        own = table.column_names if name.endswith(f"scores/{filter_}") else []
        for column in (*own, *(column for column in table.column_names if column.startswith(f"{filter_}."))):
            if not pa.types.is_floating(table[column].type):
                continue
            values = [
                np.array(rows[column].to_pylist(), np.float64) if column in rows.column_names else np.array([])
                for rows in (table, found.get(name, pa.table({})))
            ]
            alike = values[0].shape == values[1].shape and np.allclose(*values, rtol=1e-5, atol=1e-6, equal_nan=True)
            distant += [] if alike else [f"{name}: {column}"]
    return distant


def _tables(run: Path) -> dict[str, pa.Table]:
    """Parts are joined into their folder's table; any other file is its own table."""
    files = sorted(file for part in ("rounds", "evaluation") for file in (run / part).rglob("*.parquet"))
    found: dict[str, list[pa.Table]] = {}
    for file in files:
        if "training" not in file.parts and not any(step.startswith(".") for step in file.relative_to(run).parts):
            table = file.parent if file.name.startswith("part-") else file.with_suffix("")
            found.setdefault(str(table.relative_to(run)), []).append(pq.read_table(file))
    return {name: pa.concat_tables(parts, promote_options="default") for name, parts in found.items()}


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(repr(_rounded(values)).encode()).hexdigest()[:12]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
