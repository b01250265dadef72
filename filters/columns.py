"""Score tables: `candidate_id`, then columns with their unit in the field metadata; what scores of a unit can be."""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

FLAG = "0 or 1"
SHARE = "share, 0 to 1"
PROBABILITY = "probability"
COSINE = "cosine, -1 to 1"
OCCURRENCES = "occurrences"

Range = tuple[float, float]
"""The lowest and the highest possible score."""

WITHIN_ONE: Range = (0.0, 1.0)
AT_LEAST_ZERO: Range = (0.0, math.inf)
_COUNTS = (
    *(OCCURRENCES, "words", "distinct words", "terms", "rules", "characters", "tokens of the index", "symbols / word"),
    "output characters / document characters",
)
_OF_UNITS = {
    **dict.fromkeys((FLAG, SHARE, PROBABILITY), WITHIN_ONE),
    **dict.fromkeys(_COUNTS, AT_LEAST_ZERO),
    COSINE: (-1.0, 1.0),
}


def ranges_of(units: Mapping[str, str]) -> dict[str, Range]:
    """The ranges of the columns whose unit has one: column → range."""
    return {column: _OF_UNITS[unit] for column, unit in units.items() if unit in _OF_UNITS}


def score_table(candidates: pa.Table, columns: Mapping[str, Any], units: Mapping[str, str]) -> pa.Table:
    """One row per candidate, in input order. `columns` are Arrow or numpy arrays; those not in `units` are evidence."""
    arrays = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    fields = [
        pa.field(name, array.type, metadata={"unit": units[name]} if name in units else None) for name, array in arrays.items()
    ]
    schema = pa.schema([pa.field("candidate_id", pa.string(), nullable=False), *fields])
    return pa.Table.from_arrays([candidates["candidate_id"], *arrays.values()], schema=schema)
