"""Tables with all their columns: JSON Lines, JSON, CSV, TSV, Parquet and Hugging Face datasets, one record per row.

A row that cannot be read carries a reason instead of a record. Records hold what the format gave; `plain` converts them to what
JSON can hold: dates become ISO 8601 text, decimals text, and numbers that are not finite null.
"""

import contextlib
import csv
import datetime
import decimal
import io
import json
import math
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.config import nearest
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import SUFFIXES, Format, InputFile, find_files, format_of, inner_suffix, open_content

ROWS_PER_BATCH = 1024
TABLES = (*SUFFIXES["JSON"], *SUFFIXES["CSV"], *SUFFIXES["Parquet"])
"""The suffixes of files that hold one record per row; each may be compressed."""

_SPACE = re.compile(r"[ \t\n\r]*")
_DELIMITERS = {".tsv": "\t"}
_ARRAY_CHARACTERS = 1 << 16
_MOST_NAMES = 50
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError)  # what pyarrow raises on broken files


class TableRow(NamedTuple):
    """One row: where it came from, its number (its line, or its row in an array or Parquet file; from 0), and its columns.

    `record` is empty beside a reason.
    """

    origin: str
    row: int
    record: Mapping[str, Any]
    reason: str | None = None


@dataclass
class Table:
    """One file or dataset: what messages call it, and its rows, which can be read once.

    `names`: the columns of the rows read so far, or all if they are `known` before the first row. `bytes_read`: progress in the
    file on disk.
    """

    where: str
    rows: Iterator[TableRow] = field(default_factory=lambda: iter(()))
    names: set[str] = field(default_factory=set)
    known: bool = False
    bytes_read: int = 0

    def rows_with(self, columns: Iterable[str], alternatives: Sequence[str] = (), hint: str = "") -> Iterator[TableRow]:
        """The rows; raises LimbeckError, which ends with `hint`, if no row has one of the columns nor any of `alternatives`."""
        columns = list(columns)
        checked = False
        for row in self.rows:
            if self.known and not checked:
                self._need(columns, alternatives, hint)
                checked = True
            yield row
        self._need(columns, alternatives, hint)

    def _need(self, columns: Iterable[str], alternatives: Sequence[str], hint: str) -> None:
        for column in columns:
            if self.names and column not in self.names and not self.names.intersection(alternatives):
                raise missing_column(self.where, column, self.names, hint)


@dataclass(frozen=True)
class Delimited:
    """How CSV and TSV files are written; `delimiter` None: by the file's name; `quote` None: cells are never quoted.

    `unquoted` is what an error advises for files whose cells are not quoted.
    """

    delimiter: str | None = None
    quote: str | None = '"'
    unquoted: str = "convert the file to JSON Lines"


def open_tables(path: str, delimited: Delimited = Delimited()) -> Iterator[Table]:
    """Yield every file of a file, folder or glob; origins are `file:line`, or `file:row` (from 0) of JSON arrays and Parquet.

    Raises LimbeckError for a file that is missing, of another kind, or broken as a whole.
    """
    for file in find_files(path, TABLES):
        form = format_of(file.path, "text")
        if form == "text":
            raise LimbeckError(f"{file.path} is not a table that can be read; convert it to one of {', '.join(TABLES)}")
        yield open_table(file, form, delimited)


def open_table(file: InputFile, form: Format, delimited: Delimited = Delimited(), columns: Sequence[str] | None = None) -> Table:
    """Open a file of this format (not "text"). With `columns`, those of Parquet are read as bytes, and others not at all."""
    table = Table(str(file.path))
    if form == "Parquet":
        table.rows = parquet_rows(file.path, file.name, table, columns)
    elif form == "CSV":
        delimiter = delimited.delimiter or _DELIMITERS.get(inner_suffix(file.path), ",")
        table.rows = _delimited_rows(file, table, delimiter, delimited)
    elif inner_suffix(file.path) == ".json" and _is_array(file.path):
        table.rows = _array_rows(file, table)
    else:
        table.rows = _line_rows(file, table)
    return table


def open_dataset(dataset: str, name: str | None, split: str, columns: Sequence[str] | None = None) -> Iterator[Table]:
    """Yield one split of a Hugging Face dataset (an id, or a local folder); origins are `dataset[split]:row` (from 0).

    `columns` as in `open_table`.
    """
    loaded = load_dataset(dataset, name, split)
    label = Path(dataset).name if Path(dataset).exists() else dataset
    table = Table(f"{dataset} [{split}]", names=set(loaded.column_names), known=True)
    chosen = [column for column in columns if column in table.names] if columns is not None else None
    shown = (loaded if chosen is None else loaded.select_columns(chosen)).with_format("arrow")
    as_rows = _batch_rows if chosen is None else _byte_rows
    batches = shown.iter(ROWS_PER_BATCH) if chosen != [] else ()
    table.rows = _numbered(f"{label}[{split}]", (row for batch in batches for row in as_rows(batch)))
    if chosen == []:
        table.rows = iter([TableRow("", 0, {})] if len(loaded) else [])  # all columns are missing, which `rows_with` raises
    yield table


def parquet_rows(path: Path, name: str, table: Table, columns: Sequence[str] | None = None) -> Iterator[TableRow]:
    """Yield the rows of one Parquet file, with origin `name:row` (from 0); raises LimbeckError if it is truncated."""
    with _seekable(path) as whole:
        try:
            with pq.ParquetFile(whole) as opened:
                names = opened.schema_arrow.names
                _check_names(str(path), names)
                table.names, table.known = set(names), True
                chosen = None if columns is None else [column for column in columns if column in table.names]
                as_rows = _batch_rows if chosen is None else _byte_rows
                size, count = path.stat().st_size, opened.metadata.num_rows
                batches = opened.iter_batches(ROWS_PER_BATCH, columns=chosen)
                for row in _numbered(name, (row for batch in batches for row in as_rows(batch))):
                    table.bytes_read = size * (row.row + 1) // count
                    yield row
        except LimbeckError:
            raise
        except _BROKEN as error:
            message = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise LimbeckError(f"{path} is not a complete Parquet file ({message}); copy or download it again") from error


@contextlib.contextmanager
def _seekable(path: Path) -> Iterator[Path | IO[bytes]]:
    """The path, or a temporary file with the content of a compressed file."""
    with tempfile.TemporaryFile() as whole:
        with open_content(path) as content:
            if content.compressed:
                shutil.copyfileobj(content.stream, whole)
        whole.seek(0)
        yield whole if content.compressed else path


def _numbered(name: str, records: Iterable[Any]) -> Iterator[TableRow]:
    for row, record in enumerate(records):
        yield TableRow(f"{name}:{row}", row, *((record, None) if isinstance(record, dict) else ({}, record)))


def _batch_rows(batch: pa.RecordBatch | pa.Table) -> list[Any]:
    """The rows of a batch, in place of each one that cannot be read the reason."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError):  # invalid UTF-8 is a ValueError
        return [_one(batch.slice(row, 1)) for row in range(batch.num_rows)]


def _one(batch: pa.RecordBatch | pa.Table) -> Any:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return "not UTF-8"
    except (ValueError, OverflowError) as error:
        return f"a cell cannot be read: {error}"


def _byte_rows(batch: pa.RecordBatch | pa.Table) -> Iterable[dict[str, Any]]:
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
    if not columns:
        return [{}] * batch.num_rows
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _line_rows(file: InputFile, table: Table) -> Iterator[TableRow]:
    """JSON Lines, without the blank lines; a line that is not a JSON object has a reason."""
    with open_content(file.path) as content:
        for number, line in enumerate(content.stream):
            if not line.strip():
                continue
            table.bytes_read = content.position()
            record, reason = _line_record(line)
            table.names.update(record)
            yield TableRow(f"{file.name}:{number + 1}", number, record, reason)


def _line_record(line: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return {}, "not UTF-8"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON: {str(error)[:80]}"
    return (value, None) if isinstance(value, dict) else ({}, "not a JSON object")


def _is_array(path: Path) -> bool:
    with open_content(path) as content:
        return content.stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array_rows(file: InputFile, table: Table) -> Iterator[TableRow]:
    """One JSON array of objects, a buffer at a time. A broken row cannot be skipped: the start of the next one is unknown."""
    with open_content(file.path) as content:
        lines = io.TextIOWrapper(content.stream, "utf-8-sig", errors="surrogateescape", newline="")
        row = 0
        try:
            for row, value in enumerate(_array_values(lines)):
                table.bytes_read = content.position()
                record, reason = (value, None) if isinstance(value, dict) else ({}, "not a JSON object")
                table.names.update(record)
                yield TableRow(f"{file.name}:{row}", row, record, reason)
        except (json.JSONDecodeError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
            raise LimbeckError(
                f"{file.path} is not valid JSON ({what}, near row {row}); fix it, or convert it to JSON Lines"
            ) from error


def _array_values(lines: io.TextIOBase) -> Iterator[Any]:
    """The values of a JSON array; raises JSONDecodeError. Time linear in the text: the buffer doubles until a value fits."""
    decoder = json.JSONDecoder()
    text = lines.read(_ARRAY_CHARACTERS)
    position, first, ended = _skip(text, 0) + 1, True, False  # behind the bracket
    while True:
        position = _skip(text, position)
        begin = position
        try:
            if not first and text[begin : begin + 1] == ",":
                begin = _skip(text, begin + 1)
            elif text[begin : begin + 1] == "]":
                break
            elif not first and begin < len(text):
                raise json.JSONDecodeError("Expecting ',' delimiter", "", 0)
            value, end = decoder.raw_decode(text, begin)
            if end == len(text) and not ended:
                raise json.JSONDecodeError("Unterminated value", "", 0)  # of a number, more digits may follow
        except json.JSONDecodeError:
            if ended:
                raise
            more = lines.read(max(_ARRAY_CHARACTERS, len(text) - position))
            text, position, ended = text[position:] + more, 0, not more
            continue
        yield value
        position, first = end, False
    rest = text[position + 1 :]
    while rest:
        if _skip(rest, 0) < len(rest):
            raise json.JSONDecodeError("Extra data", "", 0)
        rest = lines.read(_ARRAY_CHARACTERS)


def _skip(text: str, position: int) -> int:
    """The position of the next character that is not whitespace."""
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _delimited_rows(file: InputFile, table: Table, delimiter: str, delimited: Delimited) -> Iterator[TableRow]:
    """CSV (RFC 4180) with a header; every cell is text. Blank lines are skipped."""
    csv.field_size_limit(sys.maxsize)  # of the process: the default refuses documents of 128 KB
    quoting: dict[str, Any] = {"quotechar": delimited.quote} if delimited.quote else {"quoting": csv.QUOTE_NONE}
    with open_content(file.path) as content:
        lines = io.TextIOWrapper(content.stream, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(lines, delimiter=delimiter, strict=True, **quoting)
        header: list[str] = []
        while True:
            start = reader.line_num
            origin = f"{file.name}:{start + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                _refuse_unreadable_rest(file.path, start + 1, header, error, delimited.unquoted)
                yield TableRow(origin, start, {}, f"not CSV: {error}")
                continue
            table.bytes_read = content.position()
            if not cells or not (header or any(map(str.strip, cells))):  # a blank line, also before the header
                continue
            if not header:
                header = cells
                _check_names(str(file.path), header)
                table.names, table.known = set(header), True
            elif len(cells) != len(header):
                yield TableRow(origin, start, {}, f"wrong number of cells: {len(cells)}, the header has {len(header)}")
            else:
                yield TableRow(origin, start, dict(zip(header, cells, strict=True)))


def _refuse_unreadable_rest(path: Path, line: int, header: list[str], error: csv.Error, unquoted: str) -> None:
    """Raise LimbeckError if an error of a row is one of all rows that follow."""
    if "unexpected end" in str(error):  # the rest of the file is in this row
        raise LimbeckError(
            f"{path}: the row that begins on line {line} opens a quote that is never closed; close it, or {unquoted} if cells "
            "are not quoted"
        ) from error
    if not header:
        raise LimbeckError(f"the header of {path} is not CSV: {error}; fix it") from error


def _check_names(where: str, names: list[str]) -> None:
    double = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if double is not None:
        raise LimbeckError(f"{where} has two columns called {double!r}; rename one")
    if not all(map(_is_unicode, names)):
        raise LimbeckError(f"the header of {where} is not UTF-8; convert the file")


def missing_column(where: str, column: str, names: Iterable[str], hint: str = "") -> LimbeckError:
    """The error for a column that a table does not have, with the nearest name and all existing ones."""
    ordered = sorted(name if name.isprintable() else ascii(name) for name in names)
    near = nearest(column, ordered)
    shown = ", ".join([*ordered[:_MOST_NAMES], *(["..."] if len(ordered) > _MOST_NAMES else [])])
    words = f"did you mean {near!r}? It has {shown}" if near else f"it has {shown or 'no columns'}"
    return LimbeckError(f"{where} has no column {column!r}; {words}{hint}")


def plain(row: TableRow) -> TableRow:
    """The row with a record that JSON can hold, or with a reason if it has a cell that JSON cannot."""
    record = {}
    for column, value in row.record.items():
        try:
            record[_plain(str(column))] = _plain(value)
        except UnicodeEncodeError:
            return row._replace(record={}, reason="not UTF-8")
        except RecursionError:
            return row._replace(record={}, reason=f"nested too deeply: {column!r}")
        except TypeError as error:
            return row._replace(record={}, reason=f"{error}: {column!r}; omit that column from the table")
    return row._replace(record=record)


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
