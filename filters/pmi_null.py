"""The shuffled-pair null: each output beside another document, so that a limit can be stated as a false-acceptance rate.

An output is about its own document and not about another, so its score beside another shows what a pair is worth that has nothing
but language in common.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.seeds import derive_seed

NO_OTHER = -1


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
