"""Which pairs of texts can have a ROUGE-L F1 above a floor: prefix and position filters, then signatures, all in arrays.

F1 = 2c / (m + n) for a longest common subsequence of c words out of m and n, and c is at most the number of words that the two
share. Sort each text's words from the rarest to the most frequent, and let the first word that two texts share be at positions i
and j. All shared words are at or after these, so c <= min(m - i, n - j): pairs above the floor share one of their rarest words,
and only those are indexed and looked up (Chaudhuri et al. 2006; Xiao et al. 2008). The remaining pairs are compared by signatures
of 64 and then of 256 bits: each bit set in only one of the texts is a word that the other lacks (Sandes et al. 2020).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.corpus.text.rouge.words import Bools, Ints, Numbers, Texts

_LOW = (1 << 32) - 1
_CHUNK_PAIRS = 1 << 18  # fits a core's cache
_MIXER, _REPETITION = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x632BE59BD9B4E019)  # odd, effectively random
_WIDTH = 4  # 64-bit words per signature

Signatures = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Rows:
    """Texts prepared for a join: the words to look up (the rarest) and the bounds of a pair.

    Text `t` looks up the entries `starts[t] : starts[t + 1]`. `share` is the floor times its words, reduced slightly so that
    rounding never loses a pair: only pairs with 2c >= share + share are above the floor.
    """

    lengths: npt.NDArray[np.float32]  # [texts]
    share: npt.NDArray[np.float32]  # [texts]
    folded: Signatures  # [texts] the words of the signature, combined
    signatures: Signatures  # [texts, _WIDTH]
    starts: Ints  # [texts + 1]
    words: Numbers  # [entries] popularity: the higher, the rarer
    texts: Numbers  # [entries]
    left: npt.NDArray[np.float32]  # [entries] words from this one on, the rarest first

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.lengths)

    def slice(self, begin: int, end: int) -> "Rows":
        """The rows of texts `begin` to `end`, which become 0 to `end` - `begin`."""
        first, last = self.starts[begin], self.starts[end]
        return Rows(
            self.lengths[begin:end],
            self.share[begin:end],
            self.folded[begin:end],
            self.signatures[begin:end],
            self.starts[begin : end + 1] - first,
            self.words[first:last],
            self.texts[first:last] - np.int32(begin),
            self.left[first:last],
        )

    def where(self, chosen: Bools) -> "Rows":
        """The rows of the chosen texts, renumbered.  # chosen: [texts]"""
        numbers = np.cumsum(chosen, dtype=np.int32) - np.int32(1)
        entries = chosen[self.texts]
        counts = np.diff(self.starts)[chosen]
        return Rows(
            self.lengths[chosen],
            self.share[chosen],
            self.folded[chosen],
            self.signatures[chosen],
            np.concatenate([[0], np.cumsum(counts)]),
            self.words[entries],
            numbers[self.texts[entries]],
            self.left[entries],
        )

    def joined(self, after: "Rows") -> "Rows":
        """These rows followed by `after`."""
        return Rows(
            np.concatenate([self.lengths, after.lengths]),
            np.concatenate([self.share, after.share]),
            np.concatenate([self.folded, after.folded]),
            np.concatenate([self.signatures, after.signatures]),
            np.concatenate([self.starts, after.starts[1:] + self.starts[-1]]),
            np.concatenate([self.words, after.words]),
            np.concatenate([self.texts, after.texts + np.int32(len(self))]),
            np.concatenate([self.left, after.left]),
        )


def prepare(texts: Texts, popularity: Numbers, floor: float) -> Rows:
    """Sort each text's words from the rarest on. `popularity`: per word number, 0 for the most frequent. O(words log words)."""
    lengths = texts.lengths
    owners = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    keys = (owners << 32) | (_LOW - popularity[texts.numbers].astype(np.int64))
    keys.sort()
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    words = (_LOW - (keys & _LOW)).astype(np.int32)
    places = np.arange(len(keys)) - texts.starts[:-1][owners]
    share = floor * lengths - 1e-6 * lengths - 1e-3
    needed = np.ceil(share / (2 - floor))  # common words, for any length of the other text
    prefix = first & (places <= (lengths - needed)[owners])
    chosen = np.flatnonzero(prefix)
    counts = np.bincount(owners[chosen], minlength=len(texts))
    signatures = _signatures(words, first, texts)
    return Rows(
        lengths.astype(np.float32),
        share.astype(np.float32),
        np.bitwise_or.reduce(signatures, axis=1),
        signatures,
        np.concatenate([[0], np.cumsum(counts)]),
        words[chosen],
        owners[chosen].astype(np.int32),
        (lengths[owners[chosen]] - places[chosen]).astype(np.float32),
    )


def _signatures(words: Numbers, first: Bools, texts: Texts) -> Signatures:
    """One bit per word and repetition, at a hashed position.  # [texts, _WIDTH]"""
    places = np.arange(len(words))
    repetition = places - np.maximum.accumulate(np.where(first, places, 0))
    mixed = (words.astype(np.uint64) + repetition.astype(np.uint64) * _REPETITION) * _MIXER
    bits = np.uint64(1) << (mixed >> np.uint64(58))
    columns = (mixed >> np.uint64(32)) % np.uint64(_WIDTH)
    signatures = np.zeros((len(texts), _WIDTH), np.uint64)
    filled = np.flatnonzero(texts.lengths)
    if len(filled):
        for column in range(_WIDTH):
            own = np.where(columns == column, bits, np.uint64(0))
            signatures[filled, column] = np.bitwise_or.reduceat(own, texts.starts[:-1][filled])
    return signatures


class Segment:
    """An index over the rarest words of some texts, numbered from 0."""

    def __init__(self, rows: Rows) -> None:
        """Index `rows`. O(entries log entries + vocabulary)."""
        self.rows = rows
        keys = (rows.words.astype(np.int64) << 32) | np.arange(len(rows.words))
        keys.sort()  # by word, then by text
        order = keys & _LOW
        self._texts = rows.texts[order]
        self._share = rows.share[self._texts]
        self._spare = 2 * rows.left[order] - self._share
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(rows.words))])  # [commonest..rarest word + 1]

    def candidates(self, probes: Rows) -> tuple[Ints, Ints]:
        """The pairs (probe, text of this segment) that may be above the floor, each once, sorted."""
        found = [_distinct(*pairs) for pairs in self._meetings(probes)]
        keys = _sorted_distinct(np.concatenate(found)) if found else np.zeros(0, np.int64)
        own, others = keys >> 32, keys & _LOW
        close = self._close(probes, own, others, probes.signatures[own], self.rows.signatures[others])
        return own[close], others[close]

    def _meetings(self, probes: Rows) -> Iterator[tuple[Numbers, Numbers]]:
        """Yield arrays of pairs that share one of their rarest words and pass every bound."""
        entries = np.flatnonzero(probes.words < len(self._starts) - 1)
        begins = self._starts[probes.words[entries]]
        counts = self._starts[probes.words[entries] + 1] - begins
        ends = np.cumsum(counts)
        texts = probes.texts[entries]
        share = probes.share[texts]
        spare = 2 * probes.left[entries] - share
        first = 0
        while first < len(entries):
            done = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK_PAIRS, "right")))
            repeats = counts[first:last]
            at = np.repeat(begins[first:last] - ends[first:last] + repeats + done, repeats)
            at += np.arange(len(at))
            possible = np.repeat(spare[first:last], repeats) >= self._share[at]  # 2 (m - i) >= floor (m + n)
            possible &= self._spare[at] >= np.repeat(share[first:last], repeats)  # 2 (n - j) >= floor (m + n)
            chosen = np.flatnonzero(possible)
            own, others = np.repeat(texts[first:last], repeats)[chosen], self._texts[at[chosen]]
            close = self._close(probes, own, others, probes.folded[own], self.rows.folded[others])
            yield own[close], others[close]
            first = last

    def _close(self, probes: Rows, own: Any, others: Any, mine: Signatures, theirs: Signatures) -> Bools:
        """Which pairs may share enough words, judging by their signatures.  # signatures: [pairs] or [pairs, _WIDTH]"""
        needed = (probes.share[own] + self.rows.share[others]) / 2
        close: Bools = probes.lengths[own] - _bits(mine & ~theirs) >= needed
        close &= self.rows.lengths[others] - _bits(theirs & ~mine) >= needed
        return close


def _bits(signatures: Signatures) -> npt.NDArray[np.integer]:
    """Number of set bits of each.  # [pairs] or [pairs, _WIDTH] -> [pairs]"""
    counts = np.bitwise_count(signatures)
    return counts if counts.ndim == 1 else counts.sum(axis=1, dtype=np.int32)


def _distinct(own: Numbers, others: Numbers) -> Ints:
    return _sorted_distinct((own.astype(np.int64) << 32) | others)


def _sorted_distinct(keys: Ints) -> Ints:
    """Sort `keys` in place and return each once (several times as fast as np.unique)."""
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]
