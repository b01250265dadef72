"""Near duplicates among millions of texts: MinHash, locality-sensitive hashing, and an exact check of every candidate pair.

Two texts are similar if the Jaccard similarity of their shingle sets is at least a threshold. The minimum of a random hash over a
set is equal for two sets with probability equal to their Jaccard similarity (Broder, 1997); with `bands` keys of `rows` minima
each, two texts with similarity s share a key with probability 1 - (1 - s^rows)^bands (Indyk and Motwani, 1998). Pairs that share
a key are compared exactly, so a pair below the threshold is never joined; a pair above it is missed with a probability bounded by
`bands_for`.
"""

import io
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.near_duplicates.groups import Components, Places
from limbeck.corpus.near_duplicates.shingles import HASH_BITS, Hashes, Shingles, Texts, Unit, chunks, gathered, mixed, shingles_of

REACH = 1000
"""Maximum number of texts that a text is compared with under one key: the nearest in number of shingles."""

_SEED = 20971
_PAIRS = 1 << 18
_CHECKED_SHINGLES = 1 << 16
_PAIR_BITS = 64 - HASH_BITS
_BITMAP_WORDS = 4


@dataclass(frozen=True)
class Bands:
    """How signatures are split: `bands` keys of `rows` minima each."""

    bands: int
    rows: int

    def chance(self, similarity: float) -> float:
        """The probability that two texts of this similarity share a key."""
        return float(1.0 - (1.0 - similarity**self.rows) ** self.bands)


def bands_for(threshold: float, permutations: int, recall: float) -> Bands:
    """Return the widest bands with at most `permutations` minima for which a pair at the threshold shares a key with chance
    `recall`.

    A wider band lets fewer dissimilar pairs meet. Since every such pair is checked, they only cost time and are given no weight.
    Raises LimbeckError if even bands of one minimum meet too rarely.
    """
    for rows in range(permutations, 0, -1):
        if (found := Bands(permutations // rows, rows)).chance(threshold) >= recall:
            return found
    raise LimbeckError(
        f"{permutations} permutations find a pair of similarity {threshold:g} with a chance of only "
        f"{Bands(permutations, 1).chance(threshold):.3g}, below the recall of {recall:g}; raise permutations or min_similarity"
    )


def signatures(shingles: Shingles, permutations: int) -> Hashes:
    """Return the minima of each row under `permutations` hash functions; a row without shingles has the largest word.

    Multiply-add modulo 2^64 (Dietzfelbinger et al., 1997) of hashes that are random already.  # [permutations, rows]
    """
    rng = np.random.default_rng(_SEED)
    factors = rng.integers(0, 1 << 63, permutations, np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 1 << 63, permutations, np.uint64) * np.uint64(2)
    filled = shingles.counts > 0
    starts = shingles.starts[filled]
    minima = np.full((permutations, len(filled)), np.iinfo(np.uint64).max)
    if not len(starts):
        return minima
    hashes, products = mixed(shingles.hashes), np.empty_like(shingles.hashes)
    for row, factor, offset in zip(minima, factors, offsets, strict=True):
        np.multiply(hashes, factor, out=products)
        products += offset
        row[filled] = np.minimum.reduceat(products, starts)
    return minima


@dataclass(frozen=True)
class Sketches:
    """The distinct shingles of all rows, their keys, and a bitmap of each row's shingles by a small hash."""

    shingles: Shingles
    keys: npt.NDArray[np.uint32]  # [bands, rows]
    bitmaps: Hashes  # [words, rows]


def sketch(texts: Texts, unit: Unit, size: int, bands: Bands, threads: int | None = None, folder: Path | None = None) -> Sketches:
    """Return the shingles and keys of all texts (null: none); the same for any number of threads (null: one per core, at most 8).

    Memory: 8 bytes per shingle, 40 + 4 x bands per text, and about 100 MiB per thread. With `folder` the shingles, keys and
    bitmaps are mapped files there, without a name; 16 bytes per text remain.
    """

    def work(chunk: pa.Array) -> Sketches:
        shingles = shingles_of(chunk, unit, size)
        keys = _keys(signatures(shingles, bands.bands * bands.rows), bands)
        return Sketches(shingles, keys, _bitmaps(shingles))

    rows, start = len(texts), 0
    counts, words = np.empty(rows, np.int64), np.empty(rows, np.uint64)
    keys, bitmaps = _array((bands.bands, rows), np.uint32, folder), _array((_BITMAP_WORDS, rows), np.uint64, folder)
    with tempfile.TemporaryFile(dir=folder) if folder else io.BytesIO() as hashes:
        for part in _in_order(work, chunks(texts), threads or min(8, _cores())):
            stop = start + len(part.shingles.ends)
            hashes.write(part.shingles.hashes.tobytes())
            counts[start:stop], words[start:stop] = part.shingles.counts, part.shingles.texts
            keys[:, start:stop], bitmaps[:, start:stop] = part.keys, part.bitmaps
            start = stop
        assert start == rows
        return Sketches(Shingles(_hashes(hashes), np.cumsum(counts), words), keys, bitmaps)


def _in_order(work: Callable[[pa.Array], Sketches], pieces: Iterable[pa.Array], threads: int) -> Iterator[Sketches]:
    """Yield the results in order; only as many pieces as there are threads are read ahead."""
    waiting: deque[Future[Sketches]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _array(shape: tuple[int, int], dtype: type[np.generic], folder: Path | None) -> npt.NDArray[Any]:
    """An array in memory, or in a mapped file whose space is reserved: a full disk is an error here, not a signal later."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if folder is None or not size:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape)  # the mapping remains when the file is closed


def _hashes(file: IO[bytes]) -> Hashes:
    if isinstance(file, io.BytesIO):
        return np.frombuffer(file.getvalue(), np.uint64)
    file.flush()
    return np.memmap(file, np.uint64, "r") if file.tell() else np.empty(0, np.uint64)


def near_duplicates(sketches: Sketches, scopes: Places, threshold: float) -> Places:
    """Return the component of each row, labelled by its smallest row; edges join similar rows of one scope.

    Rows with identical words are joined without a check; rows without words are joined with no other. The components do not
    depend on the order of the rows. Time: a sort of the rows per band, and about 0.1 µs per pair that shares a key, or 1 µs if
    the sets must be compared. If more than `REACH` rows share a key, each is compared with the next `REACH` in number of
    shingles.
    """
    shingles = sketches.shingles
    components = Components(len(scopes))
    order = np.lexsort((scopes, shingles.texts, shingles.counts))  # the order of trials is independent of the rows' positions
    order = order[shingles.counts[order] > 0]
    same = (np.diff(shingles.texts[order]) == 0) & (np.diff(scopes[order]) == 0) & (np.diff(shingles.counts[order]) == 0)
    components.join(order[:-1][same], order[1:][same])
    order = order[np.concatenate(([True], ~same))] if len(order) else order
    counts, scopes = shingles.counts[order], scopes[order]
    bitmaps = sketches.bitmaps[:, order]
    keys = sketches.keys
    by_scope = (mixed(scopes.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32)
    ends = np.searchsorted(
        counts, np.floor(counts / threshold + 1e-9), side="right"
    )  # from here on, other rows have too many shingles

    def similar(first: Places, second: Places) -> npt.NDArray[np.bool_]:
        return jaccard(shingles, first, second) >= threshold

    for band in range(len(keys)):
        for first, second in _meeting(keys[band][order] ^ by_scope, ends):
            possible = (scopes[first] == scopes[second]) & (_at_most(counts, bitmaps, first, second) >= threshold)
            first, second = first[possible], second[possible]
            one, other = order[first], order[second]
            new = ~(keys[:band, one] == keys[:band, other]).any(axis=0)  # the others were compared under an earlier key
            components.join_similar(one[new], other[new], similar)
    return components.labels


def jaccard(shingles: Shingles, first: Places, second: Places) -> npt.NDArray[np.float64]:
    """Return the exact Jaccard similarity of the shingle sets of rows first[k] and second[k]; 1 for two empty sets.  # [pairs]"""
    starts, counts = shingles.starts, shingles.counts
    both = counts[first] + counts[second]
    common = np.zeros(len(first), np.int64)
    start = 0
    sizes = np.cumsum(both)
    while start < len(first):
        before = int(sizes[start - 1]) if start else 0
        stop = max(int(np.searchsorted(sizes, before + _CHECKED_SHINGLES, side="right")), start + 1)
        stop = min(stop, start + (1 << _PAIR_BITS))
        pairs = np.stack((first[start:stop], second[start:stop]), axis=1).ravel()
        places, owner = gathered(starts[pairs], counts[pairs])
        tagged = np.sort((owner >> 1).astype(np.uint64) << np.uint64(HASH_BITS) | shingles.hashes[places])
        twice = tagged[1:][tagged[1:] == tagged[:-1]] >> np.uint64(HASH_BITS)
        common[start:stop] = np.bincount(twice.astype(np.int64), minlength=stop - start)
        start = stop
    similarity: npt.NDArray[np.float64] = np.where(both > 0, common / np.maximum(both - common, 1), 1.0)
    return similarity


def _keys(minima: Hashes, bands: Bands) -> npt.NDArray[np.uint32]:
    """One key per band and row, from the band's minima.  # [permutations, rows] -> [bands, rows]"""
    parts = minima.reshape(bands.bands, bands.rows, -1)
    keys = np.zeros((bands.bands, minima.shape[1]), np.uint64)
    for row in range(bands.rows):
        keys = mixed(keys + parts[:, row])
    return (keys >> np.uint64(32)).astype(np.uint32)


def _bitmaps(shingles: Shingles) -> Hashes:
    """For each row, the set of its shingles' lowest bits as `_BITMAP_WORDS` words.  # [words, rows]"""
    bitmaps = np.zeros((_BITMAP_WORDS, len(shingles.ends)), np.uint64)
    filled = shingles.counts > 0
    starts = shingles.starts[filled]
    if len(starts):
        bits = np.uint64(1) << (shingles.hashes & np.uint64(63))
        words = (shingles.hashes >> np.uint64(6)) % np.uint64(_BITMAP_WORDS)
        for word, row in enumerate(bitmaps):
            row[filled] = np.bitwise_or.reduceat(np.where(words == word, bits, np.uint64(0)), starts)
    return bitmaps


def _at_most(counts: Places, bitmaps: Hashes, first: Places, second: Places) -> npt.NDArray[np.float64]:
    """An upper bound of the Jaccard similarity: each bit that differs between two bitmaps belongs to a shingle missing from one
    set.

    For s shingles in total, d of them unmatched, the similarity is (s - d) / (s + d).  # [pairs]
    """
    differing = sum(np.bitwise_count(word[first] ^ word[second]).astype(np.int64) for word in bitmaps)
    shingles = counts[first] + counts[second]
    bound: npt.NDArray[np.float64] = (shingles - differing) / (shingles + differing)
    return bound


def _meeting(keys: npt.NDArray[np.uint32], ends: Places) -> Iterator[tuple[Places, Places]]:
    """Yield, some at a time, the pairs i < j of rows that share a key, with j < ends[i].

    Neighbours first, so that most of a large group is connected before the rest of its pairs is examined.
    """
    members = np.argsort(keys, kind="stable")
    sorted_keys = keys[members]
    last = np.flatnonzero(np.diff(sorted_keys, append=~sorted_keys[-1:]))  # the last position of each key
    left = np.repeat(last, np.diff(last, prepend=-1)) - np.arange(len(members))  # rows of the key that follow
    starts = np.flatnonzero(left)
    left = np.minimum(left[starts], REACH)
    for begin, stop in ((1, 2), (2, REACH + 1)):
        counts = np.maximum(np.minimum(left + 1, stop) - begin, 0)
        sizes = np.cumsum(counts)
        place = 0
        while place < len(starts):
            before = int(sizes[place - 1]) if place else 0
            until = max(int(np.searchsorted(sizes, before + _PAIRS, side="right")), place + 1)
            partners, owner = gathered(starts[place:until] + begin, counts[place:until])
            first, second = members[starts[place:until][owner]], members[partners]
            fits = second < ends[first]
            yield first[fits], second[fits]
            place = until


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
