"""Counts of sources, of candidates, of kept ones, and of those rejected by each filter."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from limbeck.corpus.parts import check_whole, done
from limbeck.corpus.readers import reason_without_details
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import BEYOND_TARGET, Rows, Sources
from limbeck.pipelines.runs.scored import text
from limbeck.pipelines.runs.select import GENERATOR, UNDECIDED


def funnel(decisions: Path, names: Sequence[str] | None = None, *, zeros: bool = True) -> Rows:
    """Count candidates, kept ones, and those rejected by each filter, in a file of decisions.

    `names`: the filters in recipe order; None: those that rejected something, in order of appearance. `zeros`: include filters
    that rejected nothing.
    """
    check_whole(decisions)
    found = f"read_parquet({text(str(decisions))}, file_row_number = true)"
    with duckdb.connect() as connection:
        query = f"select count(distinct source_id), count(*), count(*) filter (kept) from {found}"
        sources, candidates, kept = connection.execute(query).fetchall()[0]
        query = (
            f"select rejected_by, count(*) from {found} where rejected_by is not null group by 1 order by min(file_row_number)"
        )
        rejected = dict(connection.execute(query).fetchall())
    order = rejected if names is None else (GENERATOR, *names, UNDECIDED, BEYOND_TARGET)
    counts = {name: rejected.get(name, 0) for name in order}
    return Rows(
        sources=sources,
        candidates=candidates,
        kept=kept,
        rejected_by={name: count for name, count in counts.items() if count or (zeros and name in (names or ()))},
    )


def kept_sources(decisions: Path) -> int:
    """The number of sources with a kept candidate."""
    with duckdb.connect() as connection:
        query = f"select count(distinct source_id) from read_parquet({text(str(decisions))}) where kept"
        return int(connection.execute(query).fetchall()[0][0])


def source_counts(folder: RunFolder) -> dict[str, Any] | None:
    """The fields of `Sources` recorded when the sources were read; None until then."""
    found = done(folder.sources("train").parent)
    return None if found is None else {key: found[key] for key in Sources.model_fields if key in found}


def rejected_sources(table: pa.Table) -> dict[str, int]:
    """How many rows of a table of `SOURCES` are unusable, by reason; the details of a reason are left out."""
    reasons = Counter(map(reason_without_details, table["reason"].drop_null().to_pylist()))
    return {reason: reasons[reason] for reason in sorted(reasons)}
