"""Durable, atomic file writes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def flush(path: Path) -> None:
    """Flush a file's content, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_contents(path: Path) -> None:
    """Flush the content of a file, or of every file below a folder, to disk."""
    for file in [below for below in path.rglob("*") if below.is_file()] if path.is_dir() else [path]:
        flush(file)


def publish(temporary: Path, final: Path) -> None:
    """Rename a finished file to `final`, replacing any existing file: content is flushed before, the name after."""
    flush(temporary)
    os.replace(temporary, final)
    flush(final.parent)


def replace_text(path: Path, text: str, *, writer: str = "") -> None:
    """Write a small file atomically, replacing an existing one; raises OSError, and then leaves the existing one unchanged.

    `writer` distinguishes concurrent writers of the same file; without it, the temporary file of a killed writer is overwritten.
    """
    temporary = path.with_name(f"{path.name}{writer}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def json_text(value: Any) -> str:
    """A value as indented JSON, in the format of all our files."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def replace_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, like `replace_text`."""
    replace_text(path, json_text(value))


def has_types(value: Any, types: Mapping[str, Any]) -> bool:
    """Whether the value of a JSON text is an object that has these keys, with values of these types."""
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in types.items())
