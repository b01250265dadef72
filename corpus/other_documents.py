"""Another document: the replacement for a candidate's own document in every null and control."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.near_duplicates.groups import Components
from limbeck.corpus.near_duplicates.texts import codes
from limbeck.corpus.parts import part_names, read_part
from limbeck.corpus.schemas import OTHER, OTHERS, SOURCES
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.split import NEAR_DUPLICATE_THRESHOLD, near_duplicate_groups
from limbeck.corpus.text.invisible import is_blank

NO_OTHER = -1

MOST_DOCUMENTS = 4096
"""The most documents of a split that are drawn from; they bound the memory of a worker."""

MOST_TRIES = 64
"""How many documents are tried for a candidate with an input of its own before it has no other."""

_FIELDS = [name.removeprefix("other_") for name in OTHER.names]
_COLUMNS = ["source_id", "group", *_FIELDS]


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


@dataclass(frozen=True)
class OtherDocuments:
    """The documents of a split that candidates are paired with: all, or the `MOST_DOCUMENTS` whose ids hash lowest.

    What a candidate is paired with depends on its id and on the split, never on the part that it is in, the size of parts or the
    number of workers.
    """

    sources: pa.Table  # columns of `SOURCES`, only rows with a document, sorted by source_id

    @classmethod
    def of(cls, folder: Path) -> "OtherDocuments":
        """Those of the sources in a folder; read once per process. Time: one pass over the folder."""
        return _of_folder(folder, len(part_names(folder)))

    @classmethod
    def of_table(cls, sources: pa.Table) -> "OtherDocuments":
        """Those of a table of sources."""
        return cls(_lowest(sources.select(_COLUMNS)).sort_by("source_id"))

    def crossed(self, candidates: pa.Table, wanted: Sequence[bool]) -> pa.Table:
        """The columns `OTHER` of each candidate (`corpus.schemas.SCORED_INPUT`); null if not `wanted`, or if it has no other.

        It is number `derive_seed("null", candidate_id)`, modulo their number, of the documents outside the candidate's
        near-duplicate group. A candidate with an `input` takes the first one from there on that is not near its input.
        """
        positions = self._by_group()
        columns = ("candidate_id", "group", "input")
        rows = zip(*(candidates[name].to_pylist() for name in columns), wanted, strict=True)
        found = [
            next(self._drawn(derive_seed("null", id_), positions.get(group, []), given), None) if asked else None
            for id_, group, given, asked in rows
        ]
        taken = pa.array(found, pa.int64())
        return pa.table({f"other_{name}": self.sources[name].take(taken) for name in _FIELDS}, schema=OTHER)

    def several(self, candidates: pa.Table, count: int) -> pa.Table:
        """The column `OTHERS` of each candidate: up to `count` documents outside its near-duplicate group and not near its input.

        They are consecutive from number `derive_seed("others", source_id)`, modulo their number, so all candidates of a source
        have the same ones, and an engine runs each document once.
        """
        positions = self._by_group()
        texts = self.sources["document"].to_pylist()
        known: dict[tuple[str, str, str | None], list[str]] = {}
        rows = list(zip(*(candidates[name].to_pylist() for name in ("source_id", "group", "input")), strict=True))
        for source_id, group, given in rows:
            if (source_id, group, given) not in known:
                drawn = self._drawn(derive_seed("others", source_id), positions.get(group, []), given)
                known[source_id, group, given] = [texts[position] for position in islice(drawn, count)]
        return pa.table({OTHERS.name: pa.array([known[row] for row in rows], OTHERS.type)})

    def _by_group(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for position, group in enumerate(self.sources["group"].to_pylist()):
            found.setdefault(group, []).append(position)
        return found

    def _drawn(self, first: int, own: Sequence[int], given: str | None) -> Iterator[int]:
        """Yield the positions of other documents, from number `first` on, among those without the ascending positions `own`."""
        others: int = self.sources.num_rows - len(own)
        for step in range(min(others, MOST_TRIES)):
            position = (first + step) % others
            for mine in own:  # the position among the others → the position among all
                position += mine <= position
            if not given or not _near(given, self.sources["document"][position].as_py()):
                yield position


def crossed(candidates: pa.Table, in_table: Callable[[], npt.NDArray[np.int64]]) -> pa.Table:
    """The columns `OTHER` of each candidate: as given, or, in a table without them, taken from the rows that `in_table` returns.

    A run gives them; a table that is scored outside of a run is its own split.
    """
    if OTHER.names[0] in candidates.column_names:
        return candidates.select(OTHER.names)
    rows = in_table()
    taken = pa.array(rows, pa.int64(), mask=rows == NO_OTHER)
    return pa.table({f"other_{name}": candidates[name].take(taken) for name in _FIELDS if name in candidates.column_names})


def others_of(candidates: pa.Table, count: int) -> pa.ChunkedArray:
    """Up to `count` other documents of each candidate: as given (`OTHERS`), or the next ones in the table, around the end.

    A run gives them; a table that is scored outside of a run is its own split.
    """
    if OTHERS.name in candidates.column_names:
        return candidates[OTHERS.name]
    documents: list[str] = [text or "" for text in candidates["document"].to_pylist()]
    groups = groups_of(candidates)
    if groups is None:
        alike = near_duplicate_groups({text: text for text in documents}, NEAR_DUPLICATE_THRESHOLD)
        groups = [alike[text] for text in documents]
    of_group = dict(zip(documents, groups, strict=True))
    distinct = [text for text in of_group if not is_blank(text)]
    place = {text: number for number, text in enumerate(distinct)}
    found: dict[str, list[str]] = {}
    for text in distinct:
        after = (*distinct[place[text] + 1 :], *distinct[: place[text]])
        found[text] = list(islice((other for other in after if of_group[other] != of_group[text]), count))
    return pa.chunked_array([pa.array([found.get(text, []) for text in documents], OTHERS.type)])


@lru_cache(maxsize=4)
def _of_folder(folder: Path, parts: int) -> OtherDocuments:
    """`parts` makes a folder that has grown another key."""
    found = SOURCES.empty_table().select(_COLUMNS)
    for part in part_names(folder):
        found = _lowest(pa.concat_tables([found, read_part(folder, part).select(_COLUMNS).cast(found.schema)]))
    return OtherDocuments(found.sort_by("source_id"))


def _lowest(sources: pa.Table) -> pa.Table:
    """The rows with a document whose ids hash lowest, at most `MOST_DOCUMENTS`."""
    sources = sources.filter(pa.array([not is_blank(text) for text in sources["document"].to_pylist()], pa.bool_()))
    if sources.num_rows <= MOST_DOCUMENTS:
        return sources
    hashes = [derive_seed("other", id_) for id_ in sources["source_id"].to_pylist()]
    return sources.take(pa.array(sorted(np.argsort(hashes, kind="stable")[:MOST_DOCUMENTS].tolist())))


def _near(one: str, other: str) -> bool:
    groups = near_duplicate_groups({"one": one, "other": other}, NEAR_DUPLICATE_THRESHOLD)
    return groups["one"] == groups["other"]
