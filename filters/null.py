"""Which other document a candidate is scored beside, where a critic scores mismatched pairs and any other document will do."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def next_other(documents: Sequence[str]) -> npt.NDArray[np.int64]:
    """For each row a row with the next distinct document, in order of first appearance and around the end; -1: there is none."""
    firsts = {document: row for row, document in reversed(list(enumerate(documents)))}
    order = sorted(firsts.values())
    if len(order) < 2:
        return np.full(len(documents), -1)
    follows = {documents[row]: order[(place + 1) % len(order)] for place, row in enumerate(order)}
    return np.array([follows[document] for document in documents], np.int64)
