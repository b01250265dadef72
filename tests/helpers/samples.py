"""Rows for set-wise filters that compare the samples of a source, and what such a filter says of each row."""

from typing import Any

import pyarrow as pa

from limbeck.filters.contract import SetFilter

COLUMNS = pa.schema(
    [
        ("candidate_id", pa.string()),
        ("source_id", pa.string()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("input", pa.string()),
        ("output", pa.string()),
        ("reference", pa.string()),
        ("rejected_by", pa.string()),
    ]
)


def samples(*outputs: str | None, **given: Any) -> list[dict[str, Any]]:
    """The samples of one source; `given` replaces what all of them have."""
    common = {"source_id": "s", "prompt": "How many?", "input": None, "reference": "42", "rejected_by": None, **given}
    return [
        {"candidate_id": f"{common['source_id']}{place}", "sample": place, "output": output, **common}
        for place, output in enumerate(outputs)
    ]


def judged(config: Any, rows: list[dict[str, Any]], schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the filter says by candidate id: every row once, except those that another filter rejected."""
    filter_ = config.build()
    assert isinstance(filter_, SetFilter)
    found = filter_.select(pa.Table.from_pylist(rows, schema=COLUMNS))
    assert found.schema.equals(schema)
    by_id = {row["candidate_id"]: row for row in found.to_pylist()}
    assert len(by_id) == found.num_rows
    assert sorted(by_id) == sorted(row["candidate_id"] for row in rows if row.get("rejected_by") is None)
    return by_id


def reasons(config: Any, rows: list[dict[str, Any]], schema: pa.Schema) -> list[str | None]:
    """The reasons of the rows that the filter returns, in the order of `rows`."""
    by_id = judged(config, rows, schema)
    return [by_id[row["candidate_id"]]["reason"] for row in rows if row["candidate_id"] in by_id]
