"""Input files of documents and rows: which files a path names, the format of each, and their content without compression.

This is the only reader of input files: sources, `limbeck ngram build`, pool files and `limbeck critic` use it. Compression is
detected by content, not by name.
"""

import bz2
import contextlib
import errno
import glob
import gzip
import io
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pyarrow as pa

from limbeck.corpus.errors import LimbeckError

Format = Literal["text", "JSON", "CSV", "Parquet"]

SUFFIXES: dict[Format, tuple[str, ...]] = {
    "text": (".txt", ".md", ".rst", ".text"),
    "JSON": (".jsonl", ".ndjson", ".json"),
    "CSV": (".csv", ".tsv"),
    "Parquet": (".parquet",),
}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_FORMATS: dict[str, Format] = {suffix: name for name, suffixes in SUFFIXES.items() for suffix in suffixes}

_HEAD_BYTES = 512
_PARQUET = b"PAR1"
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.S)
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", re.S)
_XZ = b"\xfd7zXZ\x00"
_UNREADABLE = {
    b"PK\x03\x04": "a zip archive",
    b"%PDF-": "a PDF",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x04\x22\x4d\x18": "compressed with LZ4",
    b"ARROW1": "an Arrow file",
    b"\x93NUMPY": "a numpy array",
}
_TAR_AT = 257
_MOST_LISTED = 5
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


@dataclass(frozen=True)
class InputFile:
    """A file, and what origins call it: its path relative to the folder, or to the fixed part of the glob, that named it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Content:
    """An open file: the stream of its content without compression, and the file on disk, whose position is the progress."""

    stream: BinaryIO
    raw: BinaryIO
    compressed: bool

    def position(self) -> int:
        """How many bytes of the file on disk have been read."""
        return self.raw.tell()


def inner_suffix(path: Path) -> str:
    """The suffix without that of a compression, in lower case: ".jsonl" of "a.JSONL.gz"."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


def format_by_name(path: Path) -> Format | None:
    """The format that the name of a file promises; None if its suffix is none of `SUFFIXES`."""
    return _FORMATS.get(inner_suffix(path))


def format_of(path: Path, otherwise: Format) -> Format:
    """The format of a file: Parquet by its content, others by name, and `otherwise` if the suffix is unknown.

    Raises LimbeckError if the content cannot be documents, such as a PDF or a zip archive, or the file cannot be read.
    """
    with open_content(path) as content:
        head = content.stream.read(_HEAD_BYTES)
    if head.startswith(_PARQUET):
        return "Parquet"
    if what := _unreadable(head):
        raise LimbeckError(f"{path} is {what}, which cannot be read; extract its text, or convert it to JSON Lines")
    return format_by_name(path) or otherwise


def _unreadable(head: bytes) -> str | None:
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "a tar archive"
    return next((what for magic, what in _UNREADABLE.items() if head.startswith(magic)), None)


@contextlib.contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """Open a file for reading, decompressed if its content is gzip, zstd, bzip2 or xz.

    Raises LimbeckError, also inside the `with` block, for a file that cannot be opened, or is truncated or damaged.
    """
    try:
        with open(path, "rb") as raw:
            head = raw.read(16)
            raw.seek(0)
            stream = _decompressed(raw, head)
            with stream:
                yield Content(stream, raw, stream is not raw)
    except _DAMAGED as error:
        raise unreadable_file(path, error) from error


def _decompressed(raw: BinaryIO, head: bytes) -> BinaryIO:
    if head.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.open(raw))
    if _BZIP2.match(head):
        return cast(BinaryIO, io.BufferedReader(bz2.BZ2File(raw)))
    if head.startswith(_XZ):
        return cast(BinaryIO, io.BufferedReader(lzma.LZMAFile(raw)))
    if _ZSTD.match(head):
        compressed = pa.PythonFile(raw, mode="r")
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(compressed, "zstd"), 1 << 16))
    return raw


def text_of(path: Path) -> tuple[str, str | None]:
    """The text of a file, and the reason if it has none that can be read ("")."""
    try:
        with open_content(path) as content:
            data = content.stream.read()
    except LimbeckError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise
        return "", str(error).removeprefix(f"{path} is ")
    if what := "a Parquet file" if data.startswith(_PARQUET) else _unreadable(data[:_HEAD_BYTES]):
        return "", f"{what}, not text"
    if b"\0" in data:
        return "", "binary, not text"
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        return "", "not UTF-8"


def unreadable_file(path: Path, error: Exception) -> LimbeckError:
    """The error for a file that cannot be opened, or not be read to its end."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        wrong = "permissions" if error.errno in (errno.EACCES, errno.EPERM) else "path"
        return LimbeckError(f"cannot read {path}: {error.strerror}; correct the {wrong}")
    message = next(iter(str(error).splitlines()), "") or type(error).__name__
    return LimbeckError(f"{path} is truncated or damaged ({message}); copy or download it again")


def find_files(path: str | Path, suffixes: Collection[str]) -> list[InputFile]:
    """The files of a file, a folder (those with one of the suffixes, at any depth, also compressed) or a glob, sorted.

    Raises LimbeckError if no file matches; for a folder it lists what is there.
    """
    given = Path(path).expanduser()
    if given.is_file():
        return [_named(given, given.name)]
    if given.is_dir():
        if (given / "state.json").is_file() or (given / "dataset_dict.json").is_file():
            raise LimbeckError(
                f"{path} is a dataset saved by the library datasets; read it with `kind: huggingface, dataset: {path}`"
            )
        inside = sorted(file for file in given.rglob("*") if file.is_file())
        found = [file for file in inside if inner_suffix(file) in suffixes]
        if not found:
            raise LimbeckError(_no_file(str(path), suffixes, inside))
        return [_named(file, file.relative_to(given).as_posix()) for file in found]
    matched = sorted(Path(match) for match in glob.glob(str(given), recursive=True) if Path(match).is_file())
    if not matched:
        what = "no file matches" if glob.has_magic(str(path)) else "there is no file or folder"
        raise LimbeckError(f"{what} {path}; correct the path (relative paths start in the folder that you run in)")
    base = Path(_fixed_part(str(given)))
    return [_named(file, file.relative_to(base).as_posix()) for file in matched]


def _named(file: Path, name: str) -> InputFile:
    """A file name may be any bytes; origins are Unicode."""
    return InputFile(file, os.fsencode(name).decode("utf-8", "backslashreplace"))


def _no_file(path: str, suffixes: Collection[str], inside: list[Path]) -> str:
    first, *others = suffixes
    nor = f"nor {', '.join(others)}, " if others else ""
    there = Counter(inner_suffix(file) or "(no suffix)" for file in inside).most_common()
    holds = ", ".join(f"{count} {suffix}" for suffix, count in there[:_MOST_LISTED]) or "no file at all"
    more = ", ..." if len(there) > _MOST_LISTED else ""
    return (
        f"the folder {path} holds no {first} file ({nor}plain or with {', '.join(COMPRESSED)}); it holds {holds}{more}; give "
        f"another folder, a file, or a glob such as {path}/*"
    )


def _fixed_part(pattern: str) -> str:
    """The folder part of a glob before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return str(Path(*parts[:fixed])) if fixed else "."
