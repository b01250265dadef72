"""The n-gram indexes that filters query: opened once per process, identified by content, and built from a run's datasets."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from limbeck.corpus.errors import LimbeckError

if TYPE_CHECKING:
    from limbeck.infinigram.index import Index

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NGRAM_TOKENS = 13
WINDOW_CHARACTERS = 50
_WORD_START = re.compile(r"\S+")
_MANIFEST = "manifest.json"
_TAKEN_DOWN = "removed.ig"
_TEXT_COLUMN = "output"


def open_index(folder: str) -> "Index":
    """Open the index in a folder, once per process while its content is unchanged; raises LimbeckError if that fails."""
    return _opened(str(Path(folder).expanduser().resolve()), fingerprint(folder))


@lru_cache(maxsize=4)
def _opened(folder: str, _fingerprint: str) -> "Index":
    from limbeck.infinigram.index import Index

    return Index.open(folder)


def usable(folder: str, *, by_bytes: bool) -> "Index":
    """Open an index that can be queried with text: it records a tokenizer, with `by_bytes` the byte tokenizer.

    Raises LimbeckError otherwise.
    """
    index = open_index(folder)
    if index.tokenizer is None:
        raise LimbeckError(f"the index {folder} records no tokenizer; build it with one: limbeck ngram build --tokenizer")
    if by_bytes and index.tokenizer.spec.get("kind") != "bytes":
        raise LimbeckError(
            f"the index {folder} does not use the bytes tokenizer, which 50-characters needs; rebuild it with bytes"
        )
    return index


def fingerprint(folder: str) -> str:
    """A SHA-256 of an index's content: its manifest, which has the checksum of every file, and its removed documents.

    Official infini-gram folders have no manifest; names, sizes and modification times of the files are used instead.
    """
    path = Path(folder).expanduser()
    digest = hashlib.sha256()
    if (path / _MANIFEST).is_file():
        for name in (_MANIFEST, _TAKEN_DOWN):
            digest.update((path / name).read_bytes() if (path / name).is_file() else b"")
        return digest.hexdigest()
    if not path.is_dir():
        raise LimbeckError(
            f"the index folder {folder} does not exist; correct it or build it: limbeck ngram build TEXTS --out {folder}"
        )
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


def index_datasets(datasets: Iterable[Path], out: Path, tokenizer: str) -> Path:
    """Build the index `out` of the outputs in dataset folders (Parquet files with a column `output`) and return `out`.

    `tokenizer` is a model folder or "bytes", as for `infinigram.tokenizers.load_tokenizer`. If the same files were already
    indexed, this returns at once; an interrupted build resumes. Raises LimbeckError if a dataset cannot be read. O(tokens).
    """
    from limbeck.infinigram.build import Settings, build

    files = [file for folder in datasets for file in sorted(folder.rglob("*.parquet"))]
    build(files, out, Settings(tokenizer=tokenizer, text_column=_TEXT_COLUMN, metadata=False))
    return out


def encode(index: "Index", texts: Sequence[str]) -> tuple[npt.NDArray[Any], Integers]:
    """The token ids of all texts, concatenated, and the offset of each text.  # [tokens], [texts + 1]"""
    arrays = index.tokenizer.encode_batch(texts)
    return np.concatenate([np.zeros(0, np.uint32), *arrays]).astype(np.uint32), _offsets([len(array) for array in arrays])


def longest_spans(ends: Integers, offsets: Integers) -> tuple[Integers, Integers]:
    """Start of each text's longest verbatim span in the flat tokens (the first of several), and its length in tokens.

    `ends`: for every token, the end of the longest matching span that starts there, relative to its text, as returned by
    `Index.creativity_batch`. A text without tokens has a span of 0.  # [tokens], [texts + 1] → [texts], [texts]
    """
    sizes = np.diff(offsets)
    filled = sizes > 0
    rows = np.repeat(np.arange(len(sizes)), sizes)
    lengths = ends + offsets[:-1][rows] - np.arange(len(ends))
    longest = np.zeros(len(sizes), np.int64)
    if len(ends):
        longest[filled] = np.maximum.reduceat(lengths, offsets[:-1][filled])
    best = np.flatnonzero(lengths == longest[rows])
    starts = offsets[:-1].copy()
    starts[filled] = best[np.unique(rows[best], return_index=True)[1]]
    return starts, longest


def covered_tokens(ends: Integers, offsets: Integers, span_tokens: int) -> Integers:
    """The number of tokens of each text in verbatim spans of at least `span_tokens`; `ends` as for `longest_spans`.  # [texts]"""
    flat = ends + np.repeat(offsets[:-1], np.diff(offsets))
    places = np.arange(len(flat))
    reach = np.maximum.accumulate(np.where(flat - places >= span_tokens, flat, 0))  # no span crosses the end of its text
    return row_sums(reach > places, offsets).astype(np.int64)


def ngram_share(index: "Index", texts: Sequence[str]) -> Floats:
    """The share of each text's 13-grams, in index tokens, that occur in the index; 0 for a shorter text.  # [texts]"""
    ids, offsets = encode(index, texts)
    ends = index.creativity_batch(ids, offsets)
    long = ends + np.repeat(offsets[:-1], np.diff(offsets)) - np.arange(len(ids)) >= NGRAM_TOKENS
    share: Floats = row_sums(long, offsets) / np.maximum(1, np.diff(offsets) - NGRAM_TOKENS + 1)
    return share


def window_share(index: "Index", texts: Sequence[str]) -> Floats:
    """The share of each text's 50-character pieces, one per word start, that occur in an index of bytes.

    0 for a text without such a piece.  # [texts]
    """
    pieces = [[text[at : at + WINDOW_CHARACTERS] for at in _window_starts(text)] for text in texts]
    flat = [piece.encode("utf-8", errors="replace") for of_text in pieces for piece in of_text]
    ids = np.frombuffer(b"".join(flat), dtype=np.uint8)
    counts = index.count_batch(ids, _offsets([len(piece) for piece in flat])) if flat else np.zeros(0, np.int64)
    numbers = _offsets([len(of_text) for of_text in pieces])
    share: Floats = row_sums(counts > 0, numbers) / np.maximum(1, np.diff(numbers))
    return share


def row_sums(values: npt.NDArray[Any], offsets: Integers) -> Floats:
    """The sum of each row of flat values, independent of the other rows; 0 for an empty row.  # [rows]"""
    sums = np.zeros(len(offsets) - 1)
    filled = np.diff(offsets) > 0
    if len(values):
        sums[filled] = np.add.reduceat(values.astype(np.float64), offsets[:-1][filled])
    return sums


def _window_starts(text: str) -> list[int]:
    last = len(text) - WINDOW_CHARACTERS
    return [word.start() for word in _WORD_START.finditer(text) if word.start() <= last]


def _offsets(sizes: Sequence[int]) -> Integers:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
