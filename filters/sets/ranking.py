"""The order in which set-wise filters prefer survivors, and how their reasons show a score."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.near_duplicates.groups import Places


def ranks(survivors: pa.Table, by: str | None, name: str, *, lowest: bool = False) -> Places:
    """Return the rank of each row: best score first, then (source_id, sample, candidate_id).  # [rows]

    `by` is the score (`filter.column`); with `lowest`, the lowest is best. Missing scores rank last. Raises LimbeckError, naming
    the filter `name`, if the score does not exist.
    """
    keys = survivors.select(["source_id", "sample", "candidate_id"])
    order = [(key, "ascending") for key in keys.column_names]
    if by is not None:
        if by not in survivors.column_names:
            known = ", ".join(column for column in survivors.column_names if "." in column) or "none"
            raise LimbeckError(f"filter {name}: no score {by!r} to rank by (written filter.column); available: {known}")
        if not _is_number(survivors[by].type):
            raise LimbeckError(f"filter {name}: cannot rank by {by!r}: its type is {survivors[by].type}, not a number")
        scores = survivors[by].cast(pa.float64())
        scores = pc.if_else(pc.is_null(scores, nan_is_null=True), -np.inf, pc.negate(scores) if lowest else scores)
        keys, order = keys.append_column("score", scores), [("score", "descending"), *order]
    sorted_rows = pc.sort_indices(keys, order).to_numpy()
    places = np.empty(len(sorted_rows), np.int64)
    places[sorted_rows] = np.arange(len(sorted_rows))
    return places


def shown_above(score: float, limit: float) -> str:
    """A score above a limit, in four digits, or in all if four would not show that it is above."""
    short = f"{score:.4g}"
    return short if float(short) > limit else repr(score)


def _is_number(kind: pa.DataType) -> bool:
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(is_kind(kind) for is_kind in numbers)
