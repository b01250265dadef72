"""Counts of sources, of candidates, of kept ones, and of those rejected by each filter."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from limbeck.corpus.parts import done
from limbeck.corpus.readers import reason_without_details
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import Rows, Sources
from limbeck.pipelines.runs.select import BEYOND_TARGET, GENERATOR, UNDECIDED


def funnel(decisions: pa.Table, names: Sequence[str] | None = None, *, zeros: bool = True) -> Rows:
    """Count candidates, kept ones, and those rejected by each filter.

    `names`: the filters in recipe order; None: those that rejected something, in order of appearance. `zeros`: include filters
    that rejected nothing.
    """
    rejected = Counter(decisions["rejected_by"].drop_null().to_pylist())
    order = rejected if names is None else (GENERATOR, *names, UNDECIDED, BEYOND_TARGET)
    return Rows(
        sources=len(decisions["source_id"].unique()),
        candidates=decisions.num_rows,
        kept=sum(decisions["kept"].to_pylist()),
        rejected_by={name: rejected[name] for name in order if rejected[name] or (zeros and name in (names or ()))},
    )


def source_counts(folder: RunFolder) -> dict[str, Any] | None:
    """The fields of `Sources` recorded when the sources were read; None until then."""
    found = done(folder.sources("train").parent)
    return None if found is None else {key: found[key] for key in Sources.model_fields if key in found}


def rejected_sources(table: pa.Table) -> dict[str, int]:
    """How many rows of a table of `SOURCES` are unusable, by reason; the details of a reason are left out."""
    reasons = Counter(map(reason_without_details, table["reason"].drop_null().to_pylist()))
    return {reason: reasons[reason] for reason in sorted(reasons)}
