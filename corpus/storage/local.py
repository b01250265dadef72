"""A store on a local disk or a shared file system: names are created with link and rename."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from limbeck.corpus.files import flush, flush_contents

SEGMENT_BYTES = 8 << 20


class LocalStore:
    """The files below a folder. Names of files in progress begin with a dot and are not listed."""

    def __init__(self, root: Path) -> None:
        """The folder is created with its first object."""
        self._root = root

    def put(self, name: str, content: bytes) -> bool:
        """Create a file with this content."""
        temporary = self._temporary(name)
        temporary.write_bytes(content)
        return self.publish(name, temporary)

    def publish(self, name: str, source: Path) -> bool:
        """Move a file or folder to its name, after flushing it to disk."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        flush_contents(source)
        try:
            move_once(source, path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR):
                raise
            return False
        finally:
            remove(source)
        flush(path.parent)
        return True

    def read(self, name: str) -> bytes:
        """The content of a file."""
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise KeyError(name) from None

    def names(self, prefix: str = "") -> list[str]:
        """Every file whose path begins with `prefix`."""
        start = self._root / prefix.rpartition("/")[0]
        found = []
        for place, folders, files in os.walk(start):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            relative = Path(place).relative_to(self._root)
            found += [(relative / file).as_posix() for file in files if not file.startswith(".")]
        return sorted(name for name in found if name.startswith(prefix))

    def remove(self, name: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (self._root / name).unlink()

    def append(self, name: str, record: bytes) -> None:
        """Write a line to the file `name`; a full one is first renamed to `STEM-NNNNNN.SUFFIX`, a segment that is complete."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= SEGMENT_BYTES:
                os.rename(path, path.with_name(f"{path.stem}-{len(self._segments(path)) + 1:06d}{path.suffix}"))
        with open(path, "ab+") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # a crash cut off the record before
            file.write(record + b"\n")

    def records(self, name: str) -> Iterator[bytes]:
        """The lines of all segments."""
        path = self._root / name
        for segment in (*self._segments(path), path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), open(segment, "rb") as file:
                for line in file:
                    yield line.rstrip(b"\n")

    def _segments(self, path: Path) -> list[Path]:
        return sorted(path.parent.glob(f"{path.stem}-[0-9][0-9][0-9][0-9][0-9][0-9]{path.suffix}"))

    def _temporary(self, name: str) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def move_once(source: Path, path: Path) -> None:
    """Move a file or folder to a path; raises OSError (EEXIST or ENOTEMPTY) if something is there."""
    if source.is_dir():
        os.rename(source, path)  # fails unless `path` is free or an empty folder
    else:
        os.link(source, path)  # a rename would replace the other file


def remove(path: Path) -> None:
    """Remove a file or folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
