"""Texts as sets of shingles: n-grams of words or characters, each a hash, computed for thousands of texts at once.

A text is read as words by the rule of `corpus.text.words` (in NFC; each character of a script written without spaces is a word),
except that letter case is folded code point by code point. Everything between words is ignored. There is no loop over words, and
over rows only in chunks with combining marks or such scripts: all operations work on the code points of a chunk of texts.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.text.words import ALONE, JOINERS, is_mark, is_plain

HASH_BITS = 52
"""Bits of a shingle's hash; two texts of m and n shingles have an equal hash by chance with probability m n / 2^52."""

Unit = Literal["word", "character"]
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_CHUNK_ROWS = 1 << (64 - HASH_BITS)  # a row's number within its chunk and a hash share 64 bits
_CHUNK_BYTES = 2 << 20
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SPACE = 0x20
_PLANES = 4 << 16  # there are no letters or digits beyond
# Flags of a code point beside its case-folded form:
_ALONE = np.uint32(1 << 31)  # a word of its own
_MARK = np.uint32(1 << 30)  # continues a word
_JOINER = np.uint32(1 << 29)  # continues a word after a mark and before a letter
_SYMBOL = np.uint32(1 << 28)  # a word of its own if the text has no others
_NOTHING = np.uint32(0)

Points = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shingles:
    """The distinct shingles of rows: those of row i are `hashes[ends[i - 1] : ends[i]]` (from 0), ascending, `HASH_BITS` bits.

    `texts` identifies each row's sequence of words (or characters): equal if the texts have the same words in order. Rows without
    a word have no shingles.
    """

    hashes: Hashes  # [shingles]
    ends: Places  # [rows]
    texts: Hashes  # [rows]

    @property
    def starts(self) -> Places:
        """Start of each row.  # [rows]"""
        return self.ends - self.counts

    @property
    def counts(self) -> Places:
        """Number of distinct shingles of each row.  # [rows]"""
        return np.diff(self.ends, prepend=0)


class Texts(Protocol):
    """Texts as a `pa.ChunkedArray` has them; `chunks` are read once, in order."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    @property
    def chunks(self) -> Iterable[pa.Array]:
        """All texts, some at a time."""
        ...

    def take(self, places: Places) -> pa.ChunkedArray:
        """The texts at these places."""
        ...


def chunks(texts: Texts) -> Iterator[pa.Array]:
    """Yield the texts in order, at most 4,096 at a time and about 2 MiB (or one longer text)."""
    for piece in texts.chunks:
        sizes = np.cumsum(pc.binary_length(piece.fill_null("")).to_numpy(zero_copy_only=False), dtype=np.int64)
        start = 0
        while start < len(piece):
            before = int(sizes[start - 1]) if start else 0
            stop = int(np.searchsorted(sizes, before + _CHUNK_BYTES, side="right"))
            stop = min(max(stop, start + 1), start + _CHUNK_ROWS)
            yield piece.slice(start, stop - start)
            start = stop


def shingles_of(texts: pa.Array, unit: Unit, size: int) -> Shingles:
    """Return the shingles of at most 4,096 texts (null: none): n-grams of `size` words or characters.

    A shorter text is one shingle. Characters are those of the words, plus one space between two words that are not adjacent.
    Time and memory are linear in the text, about 100 bytes per character; no pair of texts collides by construction of the hash
    (words are summed by position under a mixing function, so there are no Thue-Morse pairs as with a rolling polynomial).
    """
    assert len(texts) <= _CHUNK_ROWS and size >= 1
    points, rows = _code_points(texts)
    units, unit_rows = _words(points, rows) if unit == "word" else _characters(points, rows)
    counts = np.bincount(unit_rows, minlength=len(texts))  # units of each row
    starts = np.cumsum(counts) - counts
    filled = counts > 0
    position = np.arange(len(units)) - starts[unit_rows]
    named = np.zeros(len(texts), np.uint64)
    if len(units):
        named[filled] = np.add.reduceat(_mixed(units + position.astype(np.uint64) * _GOLDEN), starts[filled])
    behind = counts[unit_rows] - position  # units from here to the row's end
    sums = np.zeros(len(units), np.uint64)
    for shift in range(min(size, int(counts.max(initial=0)))):
        terms = _mixed(units[shift:] + mixed(np.array([shift], np.uint64) + _GOLDEN))
        sums[: len(units) - shift] += np.where(behind[: len(units) - shift] > shift, terms, np.uint64(0))
    whole = (behind >= size) | (position == 0)
    hashes = _mixed(sums[whole]) >> np.uint64(64 - HASH_BITS)
    keys = np.sort(unit_rows[whole].astype(np.uint64) << np.uint64(HASH_BITS) | hashes)
    keys = keys[np.diff(keys, prepend=~keys[:1]) != 0]
    row_of = (keys >> np.uint64(HASH_BITS)).astype(np.int64)
    ends = np.cumsum(np.bincount(row_of, minlength=len(texts)))
    return Shingles(keys & np.uint64((1 << HASH_BITS) - 1), ends, _mixed(named))


def gathered(starts: Places, counts: Places) -> tuple[Places, Places]:
    """Return the indices start, start + 1, ... (`counts` of each), concatenated, and the index into `starts` of each."""
    owner = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return np.arange(len(owner)) - first[owner] + starts[owner], owner


def mixed(values: Hashes) -> Hashes:
    """A bijection of 64-bit words that destroys simple relations (the finaliser of splitmix64; Steele et al., 2014)."""
    return _mixed(values.copy())


def _mixed(values: Hashes) -> Hashes:
    """`mixed`, in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _code_points(texts: pa.Array) -> tuple[Points, Places]:
    """The code points of the texts in NFC, concatenated, and the row of each."""
    texts = texts.cast(pa.large_string()).fill_null("")
    _, offsets, data = texts.buffers()
    edges = (
        np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1] if len(texts) else np.zeros(2, np.int64)
    )
    together = data.slice(edges[0], edges[-1] - edges[0]).to_pybytes().decode() if data is not None else ""
    if is_plain(together):
        lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
    else:
        composed = [unicodedata.normalize("NFC", text) for text in texts.to_pylist()]
        together, lengths = "".join(composed), np.fromiter(map(len, composed), np.int64, len(composed))
    return np.frombuffer(together.encode("utf-32-le"), np.uint32), np.repeat(np.arange(len(texts)), lengths)


@cache
def _table() -> Points:
    """Code point → its case-folded form and flags, or 0 if it is between words.  # [2^18 + 1]"""
    table = np.zeros(_PLANES + 1, np.uint32)
    for point in range(_PLANES):
        character = chr(point)
        category = unicodedata.category(character)
        if category[0] in "LN" or character == "_":
            folded = character.casefold()
            table[point] = ord(folded) if len(folded) == 1 else point
        elif category[0] == "M" and is_mark(character):
            table[point] = point | _MARK
        elif category == "So":
            table[point] = point | _SYMBOL
    for first, last in ALONE:
        block = table[first : last + 1]
        block[(block != 0) & (block < _SYMBOL)] |= _ALONE
    for joiner in JOINERS:
        table[ord(joiner)] = ord(joiner) | _JOINER
    return table


def _read(points: Points, rows: Places) -> tuple[Points, Flags]:
    """The case-folded form of each code point, 0 between words, and whether it begins a word.  # each: [code points]"""
    read = _table()[np.minimum(points, _PLANES)]
    flags = int(np.bitwise_or.reduce(read, initial=0))
    base = (read != 0) & (read < _SYMBOL) | (read >= _ALONE)  # letters and digits, not what continues them
    continues, alone = np.zeros(len(read), bool), read >= _ALONE
    if flags & int(_MARK | _JOINER):
        continues, alone = _continuing(read, base, alone, rows)
    if flags & int(_SYMBOL):
        wordless = np.bincount(rows[base], minlength=int(rows[-1]) + 1) == 0
        lonely = (read & _SYMBOL != 0) & ~alone & wordless[rows]
        base, alone = base | lonely, alone | lonely
    inside = base | continues
    begins: Flags = base & alone
    begins[:1] |= base[:1]
    begins[1:] |= base[1:] & (~inside[:-1] | alone[:-1] | (rows[1:] != rows[:-1]))
    return np.where(inside, read & (_SYMBOL - np.uint32(1)), _NOTHING), begins


def _continuing(read: Points, base: Flags, alone: Flags, rows: Places) -> tuple[Flags, Flags]:
    """Which marks and joiners continue a word, and which code points belong to a word of one character.  # each: [code points]"""
    mark, joiner = (read & _MARK != 0) & ~base, (read & _JOINER != 0) & ~base
    last = np.maximum.accumulate(np.where(mark, 0, np.arange(len(read))))  # the last code point that is not a mark
    continues = mark & base[last] & (rows[last] == rows)
    alone = alone | (continues & alone[last])
    before = np.flatnonzero(joiner[1:-1]) + 1
    before = before[continues[before - 1] & ~alone[before - 1] & base[before + 1] & ~alone[before + 1]]
    before = before[(rows[before - 1] == rows[before]) & (rows[before + 1] == rows[before])]
    continues[before] = True
    return continues, alone


def _words(points: Points, rows: Places) -> tuple[Hashes, Places]:
    """The hash of each word, and its row: the sum of its characters, each mixed with its position in the word."""
    folded, begins = _read(points, rows)
    inside = np.flatnonzero(folded)
    starts = np.flatnonzero(begins[inside])  # of each word, among the characters inside words
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    lengths = np.diff(starts, append=len(inside))
    place = np.arange(len(inside)) - np.repeat(starts, lengths)
    characters = folded[inside].astype(np.uint64) + place.astype(np.uint64) * _GOLDEN
    return np.add.reduceat(_mixed(characters), starts), rows[inside[starts]]


def _characters(points: Points, rows: Places) -> tuple[Hashes, Places]:
    """The characters of words, with a space between two words of a row that are not adjacent, and the row of each."""
    folded, begins = _read(points, rows)
    starts = np.flatnonzero(begins)
    later = starts[1:][rows[starts[1:]] == rows[starts[:-1]]]
    folded[later[folded[later - 1] == 0] - 1] = _SPACE
    kept = np.flatnonzero(folded)
    return folded[kept].astype(np.uint64), rows[kept]
