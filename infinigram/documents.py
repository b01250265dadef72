"""Documents to index: text files, JSON, CSV, Parquet, saved Hugging Face datasets, or arrays of token ids.

The files are read by `limbeck.corpus.inputs` and `limbeck.corpus.tables`, as those of a run's sources are. Every document has a
text or token ids, the file and line (or row) that it came from, and the other columns as metadata. The order is fixed: files by
name, rows in file order; an interrupted build resumes by counting documents. A row without a document is skipped and counted.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import SUFFIXES, InputFile, find_files, format_by_name, format_of, inner_suffix, text_of
from limbeck.corpus.readers import reason_without_details
from limbeck.corpus.tables import Table, open_dataset, open_table
from limbeck.infinigram.errors import BadIndex

_IDS = ".npy"
_OFFSETS = ".offsets.npy"
_KNOWN = (*(suffix for suffixes in SUFFIXES.values() for suffix in suffixes), _IDS)


@dataclass(slots=True)
class Document:
    """One document: a text, or token ids; `origin` is the file relative to the given folder, `row` its line or row, from 0."""

    origin: str
    row: int
    content: str | np.ndarray
    metadata: Mapping[str, Any] = field(default_factory=dict)
    bytes_read: int = 0  # input bytes read so far, for progress


@dataclass(frozen=True)
class Source:
    """A file to read, and its name relative to the given folder."""

    path: Path
    name: str

    @property
    def bytes(self) -> int:
        """Size on disk; for a folder, of everything in it."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())

    @property
    def fingerprint(self) -> list[Any]:
        """Name, size in bytes and modification time; a build compares them to detect changed input."""
        return [self.name, self.bytes, self.path.stat().st_mtime_ns]


@dataclass
class Skipped:
    """The rows that hold no document: how many for each reason, and the first of them."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, origin: str, reason: str) -> None:
        """Count one row."""
        found = self.rows.setdefault(reason_without_details(reason), {"rows": 0, "first": f"{origin}: {reason}"})
        found["rows"] += 1


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Errors of the input files are errors of the build."""
    try:
        yield
    except BadIndex:
        raise
    except LimbeckError as error:
        raise BadIndex(str(error)) from error


def find_sources(paths: Iterable[str | Path]) -> list[Source]:
    """The files that the given files, folders and globs name, by name; raises BadIndex if nothing is found.

    Within folders, files with a suffix of `limbeck.corpus.inputs` (also compressed) or .npy are read (NAME.offsets.npy holds the
    offsets for token ids); a folder saved by `datasets` is one source.
    """
    found: list[Source] = []
    for given in paths:
        path = Path(given).expanduser()
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            found.append(Source(path, path.name))
            continue
        with _reading():
            files = find_files(given, _KNOWN)
        found.extend(Source(file.path, file.name) for file in files if not file.path.name.lower().endswith(_OFFSETS))
    if not found:
        raise BadIndex("no documents were given; name at least one file or folder")
    return found


def read_documents(
    sources: Iterable[Source], text_column: str, split: str = "train", skipped: Skipped | None = None
) -> Iterator[Document]:
    """Yield the documents of the sources in order; rows without one are counted in `skipped`.

    `text_column`: the field of JSON, CSV, Parquet and datasets that holds the text (or a list of token ids). Raises BadIndex for
    a file that cannot be read as a whole, if no row of a file has that column, and if there is no document.
    """
    skipped = Skipped() if skipped is None else skipped
    sources = list(sources)
    bytes_before, empty, documents = 0, True, 0
    for source in sources:
        with _reading():
            for document in _documents(source, text_column, split, skipped):
                document.bytes_read += bytes_before
                documents += 1
                empty = empty and len(document.content) == 0 and isinstance(document.content, str)
                yield document
        bytes_before += source.bytes
    if empty:
        raise BadIndex(_nothing(sources, documents, skipped))


def _nothing(sources: list[Source], documents: int, skipped: Skipped) -> str:
    names = ", ".join(source.name for source in sources[:3]) + (", ..." if len(sources) > 3 else "")
    if skipped.rows:
        reasons = "; ".join(f"{found['rows']} {reason} (first {found['first']})" for reason, found in skipped.rows.items())
        return f"no row of {names} holds a document: {reasons}; fix the rows, or name other files"
    what = "are empty" if documents > 1 else "is empty" if documents == 1 else "hold no document"
    subject = f"all {documents} documents of {names}" if documents > 1 else f"the document in {names}" if documents else names
    if not documents and len(sources) == 1:
        what = "holds no document"
    return f"{subject} {what}, so there is nothing to index; name other files"


def _documents(source: Source, text_column: str, split: str, skipped: Skipped) -> Iterator[Document]:
    if source.path.is_dir():
        for table in open_dataset(str(source.path), None, split):
            yield from _rows(table, source, text_column, skipped)
        return
    if inner_suffix(source.path) == _IDS:
        yield from _ids(source)
        return
    form = format_by_name(source.path)
    if form != "text":
        form = format_of(source.path, "text")
    if form != "text":
        yield from _rows(open_table(InputFile(source.path, source.name), form), source, text_column, skipped)
        return
    text, reason = text_of(source.path)
    if reason is not None:
        skipped.add(source.name, reason)
    else:
        yield Document(source.name, 0, text, bytes_read=source.bytes)


def _rows(table: Table, source: Source, column: str, skipped: Skipped) -> Iterator[Document]:
    for row in table.rows_with([column], hint="; set text_column (--text-column)"):
        content, reason = ("", row.reason) if row.reason is not None else _content(row.record, column)
        if reason is not None:
            skipped.add(row.origin, reason)
            continue
        metadata = {name: value for name, value in row.record.items() if name != column}
        yield Document(source.name, row.row, content, metadata, table.bytes_read)


def _content(record: Mapping[str, Any], column: str) -> tuple[str | np.ndarray, str | None]:
    """The text or the token ids of a row, or the reason why it has none."""
    value = record.get(column)
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # JSON can contain an unpaired surrogate
            return "", "not UTF-8"
        return value, None
    if value is None:
        return "", f"null {column}" if column in record else f"no {column!r}"
    if isinstance(value, list) and all(type(item) is int for item in value):
        try:
            return np.array(value, dtype=np.int64), None
        except OverflowError:
            return "", "a token id above 2^63"
    return "", f"neither text nor token ids but {type(value).__name__}"


def _ids(source: Source) -> Iterator[Document]:
    """Flat token ids; NAME.offsets.npy holds the offsets (documents + 1 entries); without it the file is one document."""
    ids = _array(source.path)
    beside = source.path.with_name(source.path.name[: -len(".npy")] + ".offsets.npy")
    offsets = _array(beside) if beside.exists() else np.array([0, len(ids)])
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(ids) or np.any(offsets[1:] < offsets[:-1]):
        raise BadIndex(f"{beside} must ascend from 0 to {len(ids)}, the number of ids in {source.path.name}; write both again")
    for row in range(len(offsets) - 1):
        tokens = ids[int(offsets[row]) : int(offsets[row + 1])]
        yield Document(source.name, row, tokens, bytes_read=int(offsets[row + 1]) * ids.itemsize)


def _array(path: Path) -> np.ndarray:
    try:
        mode: Literal["r"] | None = "r" if path.stat().st_size > 4096 else None  # an empty array cannot be mapped
        array: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadIndex(f"{path} is not a complete numpy array ({error}); write it again") from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadIndex(f"{path} has {array.ndim} dimensions of {array.dtype}; token ids must be one dimension of integers")
    return array
