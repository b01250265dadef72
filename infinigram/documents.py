"""Documents to index: text files, JSON lines (plain, .gz, .zst), Parquet, saved Hugging Face datasets, or arrays of token ids.

Every document has a text or token ids, the file and line (or row) that it came from, and the other columns as metadata. The
order is fixed: files by name, rows in file order; an interrupted build resumes by counting documents.
"""

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from limbeck.infinigram.errors import BadIndex

_JSON = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst")
_TEXT = (".txt", ".md", ".rst", ".text")
_KNOWN = (*_JSON, ".parquet", ".npy", *_TEXT)
_ROWS_PER_BATCH = 1024


@dataclass(slots=True)
class Document:
    """One document: a text, or token ids; `origin` is the file relative to the given folder, `row` its line or row, from 0."""

    origin: str
    row: int
    content: str | np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)
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


def find_sources(paths: Iterable[str | Path]) -> list[Source]:
    """The files that the given files and folders hold, by name; raises BadIndex if nothing is found.

    Within folders, files ending in .txt, .md, .rst, .json(l), .json(l).gz, .json(l).zst, .parquet or .npy are read
    (NAME.offsets.npy holds the offsets for token ids); a folder saved by `datasets` is one source.
    """
    found: list[Source] = []
    for given in paths:
        path = Path(given).expanduser()
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            found.append(Source(path, path.name))
        elif path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and _known(file))
            if not inside:
                raise BadIndex(f"the folder {path} holds no document file ({', '.join(_KNOWN)}); name another, or the files")
            found.extend(Source(file, file.relative_to(path).as_posix()) for file in inside)
        elif path.is_file():
            found.append(Source(path, path.name))
        else:
            raise BadIndex(f"no such file or folder: {path}; correct the path of the documents")
    if not found:
        raise BadIndex("no documents were given; name at least one file or folder")
    return found


def read_documents(sources: Iterable[Source], text_column: str, split: str = "train") -> Iterator[Document]:
    """Yield the documents of the sources in order; raises BadIndex with the file and line of the first unreadable one.

    `text_column`: the field of JSON lines, Parquet files and datasets that holds the text (or a list of token ids).
    """
    bytes_before = 0
    for source in sources:
        for document in _documents(source, text_column, split):
            document.bytes_read += bytes_before
            yield document
        bytes_before += source.bytes


def _documents(source: Source, text_column: str, split: str) -> Iterator[Document]:
    name = source.path.name.lower()
    if source.path.is_dir():
        return _dataset(source, text_column, split)
    if name.endswith(_JSON):
        return _json_lines(source, text_column)
    if name.endswith(".parquet"):
        return _parquet(source, text_column)
    if name.endswith(".npy"):
        return _ids(source)
    content = source.path.read_bytes()
    return iter([Document(source.name, 0, _decoded(content, source.name), bytes_read=len(content))])


def _known(file: Path) -> bool:
    name = file.name.lower()
    return name.endswith(_KNOWN) and not name.endswith(".offsets.npy")


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadIndex(f"{where} is not UTF-8 (byte {error.start}); convert it, or omit it") from error


def _content(value: object, where: str) -> str | np.ndarray:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
            raise BadIndex(f"{where}: the text holds an unpaired surrogate at {error.start}; fix or drop it") from error
        return value
    if isinstance(value, list) and all(type(item) is int for item in value):
        return np.array(value, dtype=np.int64)
    raise BadIndex(f"{where}: the document is {type(value).__name__}, neither text nor token ids; fix or drop it")


def _without(record: dict[str, Any], column: str, where: str) -> tuple[str | np.ndarray, dict[str, Any]]:
    if column not in record:
        raise BadIndex(
            f"{where} has no {column!r}; it has {', '.join(map(str, record)) or 'nothing'}; set text_column (--text-column)"
        )
    return _content(record[column], where), {name: value for name, value in record.items() if name != column}


def _json_lines(source: Source, column: str) -> Iterator[Document]:
    with open(source.path, "rb") as raw, _unpacked(raw, source.path.name.lower()) as lines:
        try:
            for row, line in enumerate(lines):
                where = f"{source.name}, line {row + 1}"
                if not line.strip():
                    continue
                try:
                    record = json.loads(_decoded(line, where))
                except (ValueError, RecursionError) as error:
                    if isinstance(error, BadIndex):
                        raise
                    raise BadIndex(f"{where} is not JSON ({error}); fix or drop it") from error
                if not isinstance(record, dict):
                    raise BadIndex(f"{where} is not a JSON object; fix or drop it")
                content, metadata = _without(record, column, where)
                yield Document(source.name, row, content, metadata, raw.tell())
        except (OSError, EOFError) as error:
            raise BadIndex(f"{source.path} cannot be read to its end ({error}); copy or download it again") from error


def _unpacked(raw: BinaryIO, name: str) -> Any:
    if name.endswith(".gz"):
        return gzip.open(raw)
    if name.endswith(".zst"):
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    return io.BufferedReader(raw)  # type: ignore[type-var]


def _parquet(source: Source, column: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source.path) as opened:
            yield from _rows(source, opened.iter_batches(_ROWS_PER_BATCH), opened.metadata.num_rows, column)
    except (pa.ArrowException, OSError) as error:
        raise BadIndex(f"{source.path} is not a complete Parquet file ({error}); copy or download it again") from error


def _dataset(source: Source, column: str, split: str) -> Iterator[Document]:
    import datasets  # imports in more than a second

    try:
        loaded = datasets.load_from_disk(str(source.path))
    except Exception as error:  # the library passes through the errors of every format
        raise BadIndex(f"cannot load the dataset {source.path} ({error}); save it again") from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise BadIndex(f"{source.path} has no split {split!r}; it has {', '.join(loaded)}")
        loaded = loaded[split]
    yield from _rows(source, loaded.with_format("arrow").iter(_ROWS_PER_BATCH), len(loaded), column)


def _rows(source: Source, batches: Iterable[Any], rows: int, column: str) -> Iterator[Document]:
    row = 0
    for batch in batches:
        for record in batch.to_pylist():
            content, metadata = _without(record, column, f"{source.name}, row {row}")
            row += 1
            yield Document(source.name, row - 1, content, metadata, source.bytes * row // rows)


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
