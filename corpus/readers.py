"""Reading rows of raw text from files and Hugging Face datasets: a row that cannot be read carries a reason instead of a text."""

import difflib
import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.markup.cleaning import clean_text

ROWS_PER_BATCH = 1024


@dataclass(frozen=True)
class RawRow:
    """One input row: its origin, cleaned text ("" if there is a reason), human-written summary, and reason why it is unusable.

    `record` holds the columns of a row that is more than a document, which may then have no text. Rows without a text that have
    the same `related` share a split, as near-duplicate documents do.
    """

    origin: str
    text: str
    reference: str | None = None
    reason: str | None = None
    record: Mapping[str, Any] | None = None
    related: str | None = None


def read_text(path: str) -> Iterator[RawRow]:
    """Yield one row per text file of a file, a folder (its `*.txt`, at any depth) or a glob."""
    for file, name in find_files(path, (".txt",)):
        yield text_row(name, file.read_bytes(), None)


def read_jsonl(path: str, document_column: str, reference_column: str | None) -> Iterator[RawRow]:
    """Yield one row per non-blank line, with origin `file:line`; raises LimbeckError if no line has a column."""
    for file, name in find_files(path, (".jsonl", ".ndjson")):
        names: set[str] = set()
        found = False
        for origin, record, reason in json_lines(file, name):
            if reason is not None:
                yield RawRow(origin, "", reason=reason)
                continue
            names.update(record)
            found = found or document_column in record
            yield _record(origin, record, document_column, reference_column)
        if names and not found:
            raise missing_column(str(file), document_column, names)
        if reference_column is not None and names and reference_column not in names:
            raise missing_column(str(file), reference_column, names)


def json_lines(file: Path, name: str) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Yield (origin `name:line`, object, reason) per non-blank line; with a reason the object is empty."""
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            record, reason = {}, None
            try:
                value = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                reason = "not UTF-8"
            except (ValueError, RecursionError) as error:
                reason = f"not JSON: {str(error)[:80]}"
            else:
                record, reason = (value, None) if isinstance(value, dict) else ({}, "not a JSON object")
            yield f"{name}:{number}", record, reason


def read_parquet(path: str, document_column: str, reference_column: str | None) -> Iterator[RawRow]:
    """Yield the rows of the Parquet files, with origin `file:row` (from 0).

    Raises LimbeckError if a column is missing or a file is truncated.
    """
    for file, name in find_files(path, (".parquet",)):
        try:
            with pq.ParquetFile(file) as opened:
                columns = _columns(str(file), opened.schema_arrow.names, document_column, reference_column)
                row = 0
                for batch in opened.iter_batches(ROWS_PER_BATCH, columns=columns):
                    for record in _records(batch):
                        yield _record(f"{name}:{row}", record, document_column, reference_column)
                        row += 1
        except (pa.ArrowException, OSError) as error:
            message = str(error).splitlines()[0]
            raise LimbeckError(f"{file} is not a complete Parquet file ({message}); copy or download it again") from error


def read_huggingface(dataset: str, name: str | None, split: str, columns: tuple[str, str | None]) -> Iterator[RawRow]:
    """Yield the rows of a Hugging Face dataset (an id, or a local folder), with origin `dataset[split]:row` (from 0).

    `columns`: document and reference. Raises LimbeckError if the dataset, its split or a column is missing.
    """
    document_column, reference_column = columns
    loaded = load_dataset(dataset, name, split)
    _columns(f"{dataset} [{split}]", loaded.column_names, document_column, reference_column)
    label = Path(dataset).name if Path(dataset).exists() else dataset
    row = 0
    for batch in loaded.select_columns([c for c in columns if c]).with_format("arrow").iter(ROWS_PER_BATCH):
        for record in _records(batch):
            yield _record(f"{label}[{split}]:{row}", record, document_column, reference_column)
            row += 1


def find_files(path: str, suffixes: Sequence[str]) -> list[tuple[Path, str]]:
    """The files of a file, folder or glob, sorted, each with its relative name; raises LimbeckError if no file matches."""
    given = Path(path).expanduser()
    if given.is_file():
        return [(given, given.name)]
    if given.is_dir():
        found = sorted(file for file in given.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        if not found:
            wanted = " or ".join(suffixes)
            raise LimbeckError(
                f"the folder {path} holds no {wanted} file; give another folder, a file, or a glob such as {path}/*"
            )
        return [(file, file.relative_to(given).as_posix()) for file in found]
    matched = sorted(Path(match) for match in glob.glob(str(given), recursive=True) if Path(match).is_file())
    if not matched:
        what = "no file matches" if glob.has_magic(path) else "there is no file or folder"
        raise LimbeckError(f"{what} {path}; correct the path of the sources (paths are relative to the folder you run in)")
    base = Path(_fixed_part(str(given)))
    return [(file, file.relative_to(base).as_posix()) for file in matched]


def _fixed_part(pattern: str) -> str:
    """The folder part of a glob before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return str(Path(*parts[:fixed])) if fixed else "."


def reason_without_details(reason: str) -> str:
    """The reason of an unusable row without what differs from row to row: "same content as a.txt" is "same content"."""
    return reason.split(":")[0].split(" as ")[0]


def text_row(origin: str, text: object, reference: object) -> RawRow:
    """Decode and check one document and its reference; a row without a text carries a reason."""
    try:
        cleaned = [clean_text(_decoded(value)) if value is not None else None for value in (text, reference)]
    except UnicodeError:
        return RawRow(origin, "", reason="not UTF-8")
    except TypeError as error:
        return RawRow(origin, "", reason=str(error))
    return RawRow(origin, cleaned[0] or "", cleaned[1] or None, None if cleaned[0] else "empty")


def _decoded(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8-sig")
    if not isinstance(value, str):
        raise TypeError(f"not a text but a {type(value).__name__}")
    value.encode("utf-8")  # JSON can contain an unpaired surrogate
    return value


def _record(origin: str, record: dict[str, Any], document_column: str, reference_column: str | None) -> RawRow:
    if document_column not in record:
        return RawRow(origin, "", reason=f"no {document_column!r}")
    return text_row(origin, record[document_column], record.get(reference_column) if reference_column else None)


def _records(batch: pa.RecordBatch | pa.Table) -> Iterable[dict[str, Any]]:
    """The rows of a batch, strings as bytes: invalid UTF-8 then affects one row, not the batch."""
    names = batch.schema.names
    columns = []
    for name in names:
        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
            column = column.cast(pa.large_binary())
        columns.append(column.to_pylist())
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _columns(where: str, names: Sequence[str], document_column: str, reference_column: str | None) -> list[str]:
    wanted = [column for column in (document_column, reference_column) if column is not None]
    for column in wanted:
        if column not in names:
            raise missing_column(where, column, names)
    return list(dict.fromkeys(wanted))


def missing_column(where: str, column: str, names: Iterable[str]) -> LimbeckError:
    """The error for a column that a table does not have, with the nearest name and all existing ones."""
    ordered = sorted(names)
    near = difflib.get_close_matches(column, ordered, 1, cutoff=0.0)
    hint = f"did you mean {near[0]!r}? It has {', '.join(ordered)}" if near else "it has no columns"
    return LimbeckError(f"{where} has no column {column!r}; {hint}")


def load_dataset(dataset: str, name: str | None, split: str) -> Any:
    """One split of a Hugging Face dataset (an id, or a local folder); raises LimbeckError if it cannot be loaded."""
    import datasets  # imports in more than a second

    try:
        if (Path(dataset) / "dataset_dict.json").exists() or (Path(dataset) / "state.json").exists():
            saved = datasets.load_from_disk(dataset)
            if not isinstance(saved, datasets.DatasetDict):
                return saved
            if split not in saved:
                raise LimbeckError(f"{dataset} has no split {split!r}; it has {', '.join(saved)}")
            return saved[split]
        return datasets.load_dataset(dataset, name, split=split)
    except LimbeckError:
        raise
    except Exception as error:  # the library passes through the errors of every storage and format
        message = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise LimbeckError(
            f"cannot load the dataset {dataset}, split {split!r}: {message}; check dataset, name and dataset_split"
        ) from error
