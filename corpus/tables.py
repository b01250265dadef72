"""Tables with all their columns: JSON Lines, JSON, CSV, TSV, Parquet and Hugging Face datasets, one record per row.

A row that cannot be read carries a reason instead of a record. Records hold what JSON can hold: dates become ISO 8601 text,
decimals text, and numbers that are not finite null.
"""

import csv
import datetime
import decimal
import json
import math
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.readers import ROWS_PER_BATCH, find_files, json_lines, load_dataset

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class TableRow:
    """One row: where it came from, and its columns; `record` is empty beside a reason."""

    origin: str
    record: Mapping[str, Any]
    reason: str | None = None


@dataclass(frozen=True)
class Table:
    """One file or dataset: what messages call it, and its rows."""

    where: str
    rows: Iterator[TableRow]


@dataclass(frozen=True)
class Delimited:
    """How CSV and TSV files are written; `delimiter` None: by the file's name; `quote` None: cells are never quoted."""

    delimiter: str | None = None
    quote: str | None = '"'


def open_tables(path: str, delimited: Delimited = Delimited()) -> Iterator[Table]:
    """Yield every file of a file, folder or glob; origins are `file:line`, or `file:row` (from 0) of JSON arrays and Parquet.

    Raises LimbeckError for a file that is missing, of another kind, or broken as a whole.
    """
    for file, name in find_files(path, SUFFIXES):
        suffix = file.suffix.lower()
        if suffix not in SUFFIXES:
            raise LimbeckError(f"{file} is not a table that can be read; convert it to one of {', '.join(SUFFIXES)}")
        if suffix == ".parquet":
            rows = parquet_rows(file, name)
        elif suffix in _DELIMITERS:
            rows = _delimited_rows(file, name, delimited.delimiter or _DELIMITERS[suffix], delimited.quote)
        elif suffix == ".json" and _is_array(file):
            rows = _array_rows(file, name)
        else:
            rows = _line_rows(file, name)
        yield Table(str(file), rows)


def open_dataset(dataset: str, name: str | None, split: str) -> Iterator[Table]:
    """Yield one split of a Hugging Face dataset (an id, or a local folder); origins are `dataset[split]:row` (from 0)."""
    loaded = load_dataset(dataset, name, split)
    label = Path(dataset).name if Path(dataset).exists() else dataset
    batches = loaded.with_format("arrow").iter(ROWS_PER_BATCH)
    yield Table(f"{dataset} [{split}]", _numbered(f"{label}[{split}]", (r for batch in batches for r in _batch_rows(batch))))


def parquet_rows(file: Path, name: str) -> Iterator[TableRow]:
    """Yield the rows of one Parquet file, with origin `name:row` (from 0); raises LimbeckError if it is truncated."""
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            _check_names(str(file), names)
            yield from _numbered(name, (r for batch in opened.iter_batches(ROWS_PER_BATCH) for r in _batch_rows(batch)))
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        raise LimbeckError(f"{file} is not a complete Parquet file ({message}); copy or download it again") from error


def _numbered(name: str, records: Iterable[Any]) -> Iterator[TableRow]:
    return (_table_row(f"{name}:{row}", record) for row, record in enumerate(records))


def _batch_rows(batch: pa.RecordBatch | pa.Table) -> list[Any]:
    """The rows of a batch; one that is not UTF-8 is None and does not cost the others."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_one(batch.slice(row, 1)) for row in range(batch.num_rows)]


def _one(batch: pa.RecordBatch | pa.Table) -> Any:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _line_rows(file: Path, name: str) -> Iterator[TableRow]:
    for origin, record, reason in json_lines(file, name):
        yield _table_row(origin, record if reason is None else reason)


def _is_array(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array_rows(file: Path, name: str) -> Iterator[TableRow]:
    """One JSON array of objects. A broken row cannot be skipped, since the start of the next row is unknown."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LimbeckError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    decoder = json.JSONDecoder()
    position, row = _skip(text, text.index("[") + 1), 0
    try:
        while text[position : position + 1] != "]":
            if row:
                if text[position : position + 1] != ",":
                    raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
                position = _skip(text, position + 1)
            value, position = decoder.raw_decode(text, position)
            yield _table_row(f"{name}:{row}", value if isinstance(value, dict) else "not a JSON object")
            position, row = _skip(text, position), row + 1
        if (end := _skip(text, position + 1)) < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except (json.JSONDecodeError, RecursionError) as error:
        raise LimbeckError(f"{file} is not valid JSON ({error}); fix it, or convert it to JSON Lines") from error


def _skip(text: str, position: int) -> int:
    """The position of the next character that is not whitespace."""
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _delimited_rows(file: Path, name: str, delimiter: str, quote: str | None) -> Iterator[TableRow]:
    """CSV (RFC 4180) with a header; every cell is text. Blank lines are skipped."""
    csv.field_size_limit(sys.maxsize)  # of the process: the default refuses documents of 128 KB
    quoting: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    header: list[str] = []
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True, **quoting)
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):  # the rest of the file is in this row
                    raise LimbeckError(
                        f"{file}: the row that begins on line {start} opens a quote that is never closed; close it, or set "
                        "`quote: null` if cells are not quoted"
                    ) from error
                if not header:
                    raise LimbeckError(f"the header of {file} is not CSV: {error}; fix it") from error
                yield TableRow(f"{name}:{start}", {}, f"not CSV: {error}")
                continue
            if not cells:
                continue
            if not header:
                header = cells
                _check_names(str(file), header)
            elif len(cells) != len(header):
                yield TableRow(f"{name}:{start}", {}, f"wrong number of cells: {len(cells)}, the header has {len(header)}")
            else:
                yield _table_row(f"{name}:{start}", dict(zip(header, cells, strict=True)))


def _check_names(where: str, names: list[str]) -> None:
    double = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if double is not None:
        raise LimbeckError(f"{where} has two columns called {double!r}; rename one")
    if any(not _is_unicode(name) for name in names):
        raise LimbeckError(f"the header of {where} is not UTF-8; convert the file")


def _table_row(origin: str, found: Any) -> TableRow:
    """A row from a record, or from the reason why it has no record (None: not UTF-8)."""
    if not isinstance(found, dict):
        return TableRow(origin, {}, found or "not UTF-8")
    record = {}
    for column, value in found.items():
        try:
            record[_plain(str(column))] = _plain(value)
        except UnicodeEncodeError:
            return TableRow(origin, {}, "not UTF-8")
        except RecursionError:
            return TableRow(origin, {}, f"nested too deeply: {column!r}")
        except TypeError as error:
            return TableRow(origin, {}, f"{error}: {column!r}; omit that column from the table")
    return TableRow(origin, record)


_AS_TEXT: dict[type, Callable[[Any], str]] = {
    datetime.datetime: lambda value: str(value.isoformat()),
    datetime.date: lambda value: str(value.isoformat()),
    datetime.time: lambda value: str(value.isoformat()),
    datetime.timedelta: str,
    decimal.Decimal: str,
    uuid.UUID: str,
}


def _plain(value: Any) -> Any:
    """A cell as JSON can hold it."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        value.encode("utf-8")  # JSON can contain an unpaired surrogate
        return value
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    for kind, text in _AS_TEXT.items():
        if isinstance(value, kind):
            return text(value)
    raise TypeError(f"a cell holds {type(value).__name__}")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
