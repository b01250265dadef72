"""Getting what was written onto the disk."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_contents(path: Path) -> None:
    """Wait until the content of a file, or of every file below a folder, is on the disk."""
    for file in [below for below in path.rglob("*") if below.is_file()] if path.is_dir() else [path]:
        flush(file)
