"""The shuffled-pair null: which other document a candidate is scored beside, to state a bound as a false-acceptance rate.

An output is about its own document and not about another, so its score beside another shows what a pair scores that shares
nothing but the language.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.seeds import derive_seed

NO_OTHER = -1


def next_other(documents: Sequence[str]) -> npt.NDArray[np.int64]:
    """For each row a row with the next distinct document, in order of first appearance and around the end; -1: there is none."""
    firsts = {document: row for row, document in reversed(list(enumerate(documents)))}
    order = sorted(firsts.values())
    if len(order) < 2:
        return np.full(len(documents), -1)
    follows = {documents[row]: order[(place + 1) % len(order)] for place, row in enumerate(order)}
    return np.array([follows[document] for document in documents], np.int64)


def other_documents(candidates: pa.Table) -> npt.NDArray[np.int64]:
    """Return for each candidate a row that holds another document, or `NO_OTHER` where there is none.  # [candidates]

    Of the sources in the table that are neither its own nor in its near-duplicate group, in order of source_id, it is number
    `derive_seed("null", candidate_id)` modulo how many there are: a draw that depends on ids alone, not on the order of the rows.
    `candidates` needs candidate_id, source_id and group. O(rows + groups × sources).
    """
    ids, sources, groups = (candidates[name].to_pylist() for name in ("candidate_id", "source_id", "group"))
    rows: dict[str, int] = {}
    for row, source in enumerate(sources):
        rows.setdefault(source, row)
    order = sorted(rows)
    choices: dict[str, list[str]] = {}
    found = np.full(len(ids), NO_OTHER, dtype=np.int64)
    for place, (candidate_id, group) in enumerate(zip(ids, groups, strict=True)):
        if group not in choices:
            choices[group] = [source for source in order if groups[rows[source]] != group]
        if others := choices[group]:
            found[place] = rows[others[derive_seed("null", candidate_id) % len(others)]]
    return found
