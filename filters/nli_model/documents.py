"""The documents that NLI pairs are made from: the installed packages' descriptions, or any files that the corpus readers read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from limbeck.corpus import readers
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import SUFFIXES, find_files, format_of
from limbeck.corpus.packages import read_packages
from limbeck.corpus.readers import RawRow, text_file_row
from limbeck.corpus.tables import open_table

_SUFFIXES = [suffix for suffixes in SUFFIXES.values() for suffix in suffixes]
_MOST_CHARACTERS = 30_000_000  # read from all files together; a few thousand pairs need far less


def read_documents(paths: Sequence[str], text_column: str) -> tuple[list[str], str]:
    """Read documents from files, folders or globs (empty: the installed packages' descriptions); also return a name for them.

    At most 30 million characters are read. Raises LimbeckError if a path or the column is missing, or there is no text.
    """
    if not paths:
        documents = [row.text for row in read_packages() if row.text]
        return documents, "the descriptions of the installed Python packages"
    documents, characters = [], 0
    for row in _rows(paths, text_column):
        if row.text:
            documents.append(row.text)
            characters += len(row.text)
        if characters > _MOST_CHARACTERS:
            break
    if not documents:
        raise LimbeckError(f"there is no text in {', '.join(paths)}; name another --corpus")
    return documents, ", ".join(Path(path).name for path in paths)


def _rows(paths: Sequence[str], text_column: str) -> Iterator[RawRow]:
    for path in paths:
        for file in find_files(path, _SUFFIXES):
            if (form := format_of(file.path, "text")) == "text":
                yield text_file_row(file)
            else:
                yield from readers.read_documents([open_table(file, form, columns=[text_column])], text_column, None)
