"""Getting what was written onto the disk, whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


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


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file its name, in the place of a file that had it: its content is on the disk before, the name after."""
    flush(temporary)
    os.replace(temporary, final)
    flush(final.parent)


def replace_text(path: Path, text: str, *, writer: str = "") -> None:
    """Write a small file atomically, in the place of one that was there; raises OSError, and then leaves that one.

    `writer` tells those apart who may write the same file at the same time; without it, what a killed one left is written over.
    """
    temporary = path.with_name(f"{path.name}{writer}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def json_text(value: Any) -> str:
    """A value as indented JSON, as all of our files have it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def replace_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, as `replace_text` does."""
    replace_text(path, json_text(value))
