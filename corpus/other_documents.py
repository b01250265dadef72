"""Another document: the replacement for a candidate's own document in every null and control."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.near_duplicates.groups import Components
from limbeck.corpus.near_duplicates.texts import codes
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.split import NEAR_DUPLICATE_THRESHOLD, near_duplicate_groups

NO_OTHER = -1


def other_rows(
    documents: Sequence[str], groups: Sequence[str] | None = None, *, drawn_by: Sequence[str] | None = None
) -> npt.NDArray[np.int64]:
    """Return for each row the first row of another document; `NO_OTHER` if no row qualifies.  # [rows]

    `documents` names the document of each row, by its text or id. Documents of one of the `groups` are never another for each
    other (None: the near-duplicate groups of `documents` as texts). By default it is the next other document in order of first
    appearance, around the end. With `drawn_by`, an id per row, it is number `derive_seed("null", id)`, modulo their number, of
    all other documents in sorted order: that depends on ids alone, not on the order of the rows. O(rows + groups × documents).

    >>> other_rows(["a", "a", "b", "c"], ["g", "g", "g", "h"])
    array([3, 3, 3, 0])
    """
    if groups is None:
        found_groups = near_duplicate_groups({text: text for text in documents}, NEAR_DUPLICATE_THRESHOLD)
        groups = [found_groups[text] for text in documents]
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


def groups_of(candidates: pa.Table) -> list[str] | None:
    """The near-duplicate group of each candidate's document (`corpus.schemas.SCORED_INPUT`), for `other_rows`.

    It is the group of its source. Candidates with an `input` in place of the source's document also share a group if the inputs
    are near-duplicates. None if the table has no column `group`.
    """
    if "group" not in candidates.column_names:
        return None
    groups = candidates["group"]
    names: list[str] = groups.to_pylist()
    if "input" not in candidates.column_names or candidates["input"].null_count == candidates.num_rows:
        return names
    components = Components(candidates.num_rows)
    inputs = candidates["input"].to_pylist()
    alike = near_duplicate_groups({text: text for text in inputs if text}, NEAR_DUPLICATE_THRESHOLD)
    own = pa.chunked_array([pa.array([alike[text] if text else None for text in inputs], pa.large_string())])
    _join_equal(components, groups)
    _join_equal(components, own)
    return [names[label] for label in components.labels.tolist()]


def _join_equal(components: Components, values: pa.ChunkedArray) -> None:
    """Connect the rows with equal values; null equals nothing."""
    rows = np.flatnonzero(values.is_valid().to_numpy())
    keys = codes(values.take(rows))
    order = rows[np.argsort(keys, kind="stable")]
    same = np.diff(np.sort(keys)) == 0
    components.join(order[:-1][same], order[1:][same])


def _following(first: dict[str, int], groups: Sequence[str]) -> dict[str, int]:
    """Document → the row of the next document of another group, around the end. O(documents)."""
    rows = list(first.values())
    found = dict.fromkeys(rows, NO_OTHER)
    for row, after in zip(reversed(rows * 2), reversed([*rows[1:], *rows, rows[0]] if rows else []), strict=True):
        found[row] = after if groups[after] != groups[row] else found[after]
    return {document: found[row] for document, row in first.items()}
