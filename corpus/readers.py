"""Input rows of raw text: a row that cannot be read carries a reason instead of a text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import SUFFIXES, Format, InputFile, find_files, format_by_name, format_of, text_of
from limbeck.corpus.markup.cleaning import clean_text
from limbeck.corpus.tables import Delimited, Table, open_table

KINDS: dict[Format, str] = {"text": "text", "JSON": "jsonl", "CSV": "csv", "Parquet": "parquet"}
"""The kind of sources that reads the documents of each format."""

_WHOLE: dict[Format, str] = {"JSON": "JSON Lines", "CSV": "CSV", "Parquet": "complete Parquet"}


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
    """Yield one row per text file of a file, a folder (its text files, at any depth) or a glob.

    Raises LimbeckError if `path` names a single file that is a table.
    """
    files = find_files(path, SUFFIXES["text"])
    form = format_by_name(files[0].path)
    if len(files) == 1 and form not in (None, "text") and Path(path).expanduser().is_file():
        raise LimbeckError(f"{path} is {form}, with one document per row; set `kind: {KINDS[form]}`")
    for file in files:
        yield text_file_row(file)


def text_file_row(file: InputFile) -> RawRow:
    """The row of a text file."""
    text, reason = text_of(file.path)
    return text_row(file.name, text, None) if reason is None else RawRow(file.name, "", reason=reason)


def document_tables(path: str, form: Format, columns: Sequence[str], delimited: Delimited | None = None) -> Iterator[Table]:
    """Yield every file of a file, folder or glob as a table of this format, with these columns.

    Raises LimbeckError for a file of another format; one whose suffix says nothing about columns, such as .txt, has this format.
    """
    for file in find_files(path, SUFFIXES[form]):
        found = format_of(file.path, form)
        if found not in (form, "text"):
            raise LimbeckError(f"{file.path} is not a {_WHOLE[form]} file but {found}; set `kind: {KINDS[found]}`")
        yield open_table(file, form, delimited or Delimited(), columns)


def read_documents(tables: Iterable[Table], document_column: str, reference_column: str | None) -> Iterator[RawRow]:
    """Yield one row per table row; raises LimbeckError if no row of a table has one of the columns."""
    wanted = [column for column in (document_column, reference_column) if column is not None]
    for table in tables:
        for row in table.rows_with(wanted):
            if row.reason is not None:
                yield RawRow(row.origin, "", reason=row.reason)
            elif document_column not in row.record:
                yield RawRow(row.origin, "", reason=f"no {document_column!r}")
            else:
                reference = row.record.get(reference_column) if reference_column else None
                yield text_row(row.origin, row.record[document_column], reference)


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
