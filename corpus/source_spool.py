"""Input rows on disk, so that reading sources needs memory for numbers only, not for texts."""

import marshal
import os
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.readers import RawRow


class StoredRow(NamedTuple):
    """A `RawRow` whose record is JSON text."""

    origin: str
    text: str
    reference: str | None
    reason: str | None
    record: str | None
    related: str | None


class Spool:
    """A list of rows in a file without a name: appended in order, then read at random; it vanishes with the process."""

    def __init__(self, folder: Path | None) -> None:
        """Open an empty list in a folder; None: in the folder for temporary files."""
        self._folder = folder
        self._ends = array("Q", [0])
        with writing(folder):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `close`)

    def append(self, row: RawRow, record: str | None) -> None:
        """Add a row; `record` is its record as JSON."""
        data = marshal.dumps((row.origin, row.text, row.reference, row.reason, record, row.related))
        with writing(self._folder):
            self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def flush(self) -> None:
        """Make all rows readable."""
        with writing(self._folder):
            self._file.flush()

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> StoredRow:
        """A row, after `flush`."""
        begin, end = self._ends[row], self._ends[row + 1]
        return StoredRow(*marshal.loads(os.pread(self._file.fileno(), end - begin, begin)))

    def close(self) -> None:
        """Delete the rows."""
        self._file.close()


@contextmanager
def writing(folder: Path | None) -> Iterator[None]:
    """Raise system errors, such as a full disk, as LimbeckError."""
    try:
        yield
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise LimbeckError(
            f"cannot write to {where}: {error.strerror or error}; free some space or choose another folder"
        ) from error
