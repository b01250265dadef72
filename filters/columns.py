"""Score tables: `candidate_id`, then columns with their unit in the field metadata."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

FLAG = "0 or 1"
SHARE = "share, 0 to 1"


def score_table(candidates: pa.Table, columns: Mapping[str, Any], units: Mapping[str, str]) -> pa.Table:
    """One row per candidate, in input order. `columns` are Arrow or numpy arrays; those not in `units` are evidence."""
    arrays = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    fields = [
        pa.field(name, array.type, metadata={"unit": units[name]} if name in units else None) for name, array in arrays.items()
    ]
    schema = pa.schema([pa.field("candidate_id", pa.string(), nullable=False), *fields])
    return pa.Table.from_arrays([candidates["candidate_id"], *arrays.values()], schema=schema)
