"""Another document: the replacement for a candidate's own document in every null and control."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from limbeck.corpus.seeds import derive_seed

NO_OTHER = -1


def other_rows(
    documents: Sequence[str], groups: Sequence[str] | None = None, *, drawn_by: Sequence[str] | None = None
) -> npt.NDArray[np.int64]:
    """Return for each row the first row of another document; `NO_OTHER` if no row qualifies.  # [rows]

    `documents` names the document of each row, by its text or id. Documents of one of the `groups` (near-duplicates; None: each
    is its own) are never another for each other. By default it is the next other document in order of first appearance, around
    the end. With `drawn_by`, an id per row, it is number `derive_seed("null", id)`, modulo their number, of all other documents
    in sorted order: that depends on ids alone, not on the order of the rows. O(rows + groups × documents).

    >>> other_rows(["a", "a", "b", "c"], ["g", "g", "g", "h"])
    array([3, 3, 3, 0])
    """
    groups = documents if groups is None else groups
    first: dict[str, int] = {}
    for row, document in enumerate(documents):
        first.setdefault(document, row)
    if drawn_by is None:
        following = _following(first, groups)
        return np.array([following[document] for document in documents], np.int64)
    order = sorted(first)
    others: dict[str, list[str]] = {}
    found = np.full(len(documents), NO_OTHER, np.int64)
    for row, (id_, group) in enumerate(zip(drawn_by, groups, strict=True)):
        if group not in others:
            others[group] = [document for document in order if groups[first[document]] != group]
        if others[group]:
            found[row] = first[others[group][derive_seed("null", id_) % len(others[group])]]
    return found


def _following(first: dict[str, int], groups: Sequence[str]) -> dict[str, int]:
    """Document → the row of the next document of another group, around the end. O(documents)."""
    rows = list(first.values())
    found = dict.fromkeys(rows, NO_OTHER)
    for row, after in zip(reversed(rows * 2), reversed([*rows[1:], *rows, rows[0]] if rows else []), strict=True):
        found[row] = after if groups[after] != groups[row] else found[after]
    return {document: found[row] for document, row in first.items()}
