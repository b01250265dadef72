"""Salient recall: the share of the document's salient words that the output uses. A critic that takes no part in filtering."""

import re

import numpy as np
import pyarrow as pa

from filters.contract import Bound


def salient_recall(document: str, salient: list[int], output: str) -> float:
    """The share in [0, 1] of the document's distinct salient words that stand in `output` as whole words, whatever their case.

    `salient` holds character positions in `document`: start0, end0, start1, ... NaN where there are none.
    """
    words = {document[start:end].lower() for start, end in zip(salient[::2], salient[1::2], strict=True)}
    if not words:
        return float("nan")
    text = output.lower()
    return sum(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None for word in words) / len(words)


class SalientRecallFilter:
    """Shaped like a filter, without bounds, so that whatever can score a candidate can score this too."""

    name = "recall"
    bounds: tuple[Bound, ...] = ()

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `salient_recall` of each candidate."""
        rows = candidates.select(["document", "salient", "output"]).to_pylist()
        recall = np.array([salient_recall(row["document"], row["salient"], row["output"]) for row in rows], dtype=np.float64)
        return pa.table({"candidate_id": candidates["candidate_id"], "salient_recall": recall})
