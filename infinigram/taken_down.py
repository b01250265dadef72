"""The list of documents taken down from an index, and the index of their copies that it goes with."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from limbeck.infinigram.errors import BadIndex

if TYPE_CHECKING:
    from limbeck.infinigram.layout import ShardFiles

REMOVED = "removed"  # the index of the copies
PAIRS = "removed.ig"  # the list
_COMPARED_DOCUMENTS = 256  # byte by byte on opening; `verify` compares all, with no limit


def taken_down(
    folder: Path, shards: "Sequence[ShardFiles]", most_compared: int = _COMPARED_DOCUMENTS
) -> tuple[Path, np.ndarray] | None:
    """The index of what was taken down from a folder, and its pairs (shard, document), [pairs, 2]; None where nothing was.

    Both are links that `remove` exchanges at once, so one of them is followed. Raises BadIndex where the pairs are not ascending
    or the copies differ from the documents: in number or length, or in the content of the first `most_compared`. O(documents
    taken down), and O(tokens) of those compared.
    """
    copies = (folder / REMOVED).resolve()
    path = next((path for path in (copies / PAIRS, folder / PAIRS) if path.exists()), None)
    if path is None:
        broken = next((name for name in (REMOVED, PAIRS) if os.path.lexists(folder / name)), None)
        if broken is not None:
            raise BadIndex(f"{folder / broken} leads to no list of documents taken down; restore it, or remove them again")
        return None
    if not path.is_file():
        raise BadIndex(f"{path} is not a file; restore it, or take the documents down again")
    pairs = read_pairs(path)
    rising = (pairs[1:, 0] > pairs[:-1, 0]) | ((pairs[1:, 0] == pairs[:-1, 0]) & (pairs[1:, 1] > pairs[:-1, 1]))
    if not rising.all() or not set(pairs[:, 0].tolist()) <= {shard.number for shard in shards}:
        raise BadIndex(f"{path} is no ascending list of documents of the shards beside it; it is damaged")
    if len(pairs) == 0:
        return None
    _compare(path, copies, shards, pairs, most_compared)
    return copies, pairs


def read_pairs(path: Path) -> np.ndarray:
    """The documents that a list names: [documents, 2] uint64 of shard and number in it; raises BadIndex for one cut off."""
    data = path.read_bytes()
    if len(data) % 16 != 0:
        raise BadIndex(f"{path} has {len(data)} bytes, not whole pairs of shard and document; it was cut off")
    return np.frombuffer(data, "<u8").reshape(-1, 2)


def _compare(path: Path, copies: Path, shards: "Sequence[ShardFiles]", pairs: np.ndarray, most_compared: int) -> None:
    """The documents of `copies` are those that the pairs name: as long and, of the first few, equal."""
    own_begins, own_text = _mapped(copies / "offset.0", "<u8"), _mapped(copies / "tokenized.0", "u1")
    if len(own_begins) != len(pairs):
        raise BadIndex(f"{path} names {len(pairs)} documents, {copies} holds {len(own_begins)}; take them down again")
    own_sizes = np.diff(own_begins.astype(np.int64), append=len(own_text))
    compared = 0
    for shard in shards:
        rows = np.flatnonzero(pairs[:, 0] == shard.number)
        if len(rows) == 0:
            continue
        begins, text = _mapped(Path(shard.paths[2]), "<u8"), _mapped(Path(shard.paths[0]), "u1")
        documents = pairs[rows, 1]
        if documents[-1] >= len(begins):
            raise BadIndex(
                f"{path} names document {documents[-1]} of shard {shard.number}, which has {len(begins)}; it is damaged"
            )
        firsts = begins[documents].astype(np.int64)
        lasts = np.append(begins[documents[:-1] + 1], begins[documents[-1] + 1] if documents[-1] + 1 < len(begins) else len(text))
        wrong, where = np.flatnonzero(lasts.astype(np.int64) - firsts != own_sizes[rows]).tolist(), shard.paths[2]
        for at in [] if wrong else range(min(len(rows), most_compared - compared)):
            size, own = int(own_sizes[rows[at]]), int(own_begins[rows[at]])
            if not np.array_equal(text[firsts[at] : firsts[at] + size], own_text[own : own + size]):
                wrong, where = [at], shard.paths[0]
                break
        if wrong:
            document = documents[wrong[0]]
            raise BadIndex(f"{where} and {copies} disagree about document {document} of shard {shard.number}; one is damaged")
        compared += len(rows)


def _mapped(path: Path, dtype: str) -> np.ndarray:
    """A file as an array, mapped; nothing where there is no such file or an empty one, and without the rest that is no item."""
    size = path.stat().st_size // np.dtype(dtype).itemsize if path.is_file() else 0
    return np.memmap(path, dtype=dtype, mode="r", shape=(size,)) if size else np.zeros(0, dtype)
