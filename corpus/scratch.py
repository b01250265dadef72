"""Temporary folders on the disk of the data they are made from, and DuckDB connections with a bounded memory that spill there."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
import weakref
from pathlib import Path

import duckdb

SCRATCH = ".scratch"
MEMORY_LIMIT_MIB = 512
MOST_THREADS = 4  # each thread holds buffers of its own


class Scratch:
    """A temporary folder in `near/.scratch`, removed by `close`, at the end of the process, or by a later process after a kill.

    If `near` cannot be written, or has no locks, the folder is in the system's temporary directory.
    """

    def __init__(self, near: Path) -> None:
        """Create the folder, and remove those of killed processes."""
        name = uuid.uuid4().hex
        try:
            self.path = near / SCRATCH / name
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(near)
            lock: int | None = _lock(self.path)  # first, so that nobody takes the folder for an abandoned one
            self.path.mkdir()
        except OSError:
            lock, self.path = None, Path(tempfile.mkdtemp(prefix="limbeck-"))
        self.close = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return an empty in-memory database that keeps at most `MEMORY_LIMIT_MIB` in memory and the rest in this folder."""
        return duckdb.connect(
            config={
                "memory_limit": f"{MEMORY_LIMIT_MIB}MiB",
                "temp_directory": str(self.path / "spilled"),
                "threads": str(min(MOST_THREADS, os.cpu_count() or 1)),
            }
        )


def remove_abandoned(near: Path) -> None:
    """Remove the temporary folders in `near` whose processes have ended."""
    for folder in (near / SCRATCH).iterdir():
        if folder.is_dir():
            with contextlib.suppress(OSError):  # it is in use
                lock = _lock(folder)
                shutil.rmtree(folder, ignore_errors=True)
                _lock_path(folder).unlink(missing_ok=True)
                os.close(lock)


def _lock_path(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _lock(folder: Path) -> int:
    """Lock the name of a folder; raises OSError if another process has it, or the file system has no locks."""
    descriptor = os.open(_lock_path(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path, lock: int | None, owner: int) -> None:
    if os.getpid() != owner:  # a fork
        return
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        _lock_path(folder).unlink(missing_ok=True)
        os.close(lock)
        with contextlib.suppress(OSError):  # others are in use
            folder.parent.rmdir()
