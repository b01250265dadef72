"""The manifest of a stage folder: which file, and which rows of it, hold each part that was compacted.

A manifest is complete and immutable; the one with the highest generation counts. A part may also be a file of its own: it is one
until a manifest names it, and for a moment afterwards.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from limbeck.corpus.errors import LimbeckError

MANIFEST = re.compile(r"_manifest\.(\d{6})\.json")


@dataclass(frozen=True)
class Location:
    """Where a compacted part is stored: `rows` rows from row `first` of a row group of `file`."""

    file: str
    group: int
    first: int
    rows: int
    bytes: int
    """Size of the part's own file, as a measure for readers that share work."""


@dataclass(frozen=True)
class Manifest:
    """The compacted parts of a folder."""

    generation: int
    parts: Mapping[str, Location]

    def to_json(self) -> str:
        """Its content."""
        rows = {part: [found.file, found.group, found.first, found.rows, found.bytes] for part, found in self.parts.items()}
        return json.dumps({"generation": self.generation, "parts": rows})


NONE = Manifest(0, {})
"""The manifest of a folder without one."""


def manifest_name(generation: int) -> str:
    """The name of a manifest in its folder."""
    return f"_manifest.{generation:06d}.json"


def newest(names: Iterable[str]) -> int:
    """The highest generation among the names of a folder's files; 0 if there is no manifest."""
    return max((int(found.group(1)) for name in names if (found := MANIFEST.fullmatch(name))), default=0)


def read_manifest(folder: Path) -> Manifest:
    """The newest manifest of a folder, or `NONE`; raises LimbeckError if it is damaged."""
    while True:
        try:
            generation = newest(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return NONE
        if not generation:
            return NONE
        path = folder / manifest_name(generation)
        try:
            state = path.stat()
            return _parsed(path, (state.st_ino, state.st_mtime_ns, state.st_size))
        except FileNotFoundError:  # a newer one has replaced it meanwhile
            continue


@lru_cache(maxsize=64)
def _parsed(path: Path, _: tuple[int, int, int]) -> Manifest:
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(content: bytes, where: str) -> Manifest:
    """A manifest from its content; raises LimbeckError, naming `where` it is from, if it is damaged."""
    try:
        data = json.loads(content)
        return Manifest(int(data["generation"]), {part: Location(*row) for part, row in data["parts"].items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LimbeckError(
            f"{where} is damaged ({error}), so the parts of its folder cannot be found; restore it from a copy"
        ) from error
