"""Which files make up an index: the official layouts (with or without shard numbers) and our own manifest beside them."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from limbeck.infinigram import manifest as manifests
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.taken_down import REMOVED, taken_down

_NAME = re.compile(r"(tokenized|table|offset|metadata|metaoff)(?:\.(\d+))?")
_NEEDED = ("tokenized", "table", "offset")
_KINDS = (*_NEEDED, "metadata", "metaoff")
_MOST_OPENINGS = 10
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard and the documents taken down from it; `paths` goes to the engine (kinds in order, then the keys)."""

    folder: Path
    number: int
    paths: tuple[str, ...]
    removed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """What opening an index found: shards in order, those that hold what was taken down, and the manifest (or an empty one)."""

    shards: tuple[ShardFiles, ...]
    removed: tuple[ShardFiles, ...]
    manifest: dict[str, Any]


def locate(paths: Sequence[Path], *, official_order: bool = False, empty: bool = False) -> Layout:
    """Find the shards of one or several index folders; raises BadIndex naming what is missing or differs.

    Shards are ordered by number, or by the official engine's lexicographic order of their names. Shards without a document are
    left out; where no other is left, raises BadIndex unless the index may be `empty`.
    """
    shards: list[ShardFiles] = []
    removed: list[ShardFiles] = []
    known: list[dict[str, Any]] = []
    for path in paths:
        manifest = _manifest_of(path)
        found = _shards_of(path) if manifest is None else _recorded_shards(path, manifest)
        taken = taken_down(path, found)
        if taken is not None:
            found = [_without(shard, taken[1]) for shard in found]
            removed.extend(_shards_of(taken[0]))
        if official_order:
            found.sort(key=lambda shard: Path(shard.paths[0]).name)
        shards.extend(found)
        known.append(manifest or {})
    if not paths:
        raise BadIndex("no folder was given to open; name at least one index folder")
    if not shards and not empty:
        raise BadIndex(f"{paths[0]} holds no document; append some, or build it again")
    for key in ("dtype", "version", "eos", "tokenizer"):
        values = {json.dumps(manifest[key], sort_keys=True) for manifest in known if key in manifest}
        if len(values) > 1:
            raise BadIndex(f"the folders differ in {key} ({', '.join(sorted(values))}); open them one by one")
    merged = {key: value for manifest in known for key, value in manifest.items()}
    return Layout(tuple(shards), tuple(removed), merged)


def _state(paths: Sequence[Path]) -> list[Any]:
    """What changes whenever an index changes on the disk."""
    found: list[Any] = []
    for path in paths:
        try:
            status = (path / manifests.NAME).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns, os.path.realpath(path / REMOVED)))
    return found


def steadily(paths: Sequence[Path], opening: Callable[[], Opened]) -> Opened:
    """What `opening` returns, called again where the folders changed meanwhile (an append, a removal, a compaction).

    Raises BadIndex where a file vanishes and nothing tells why.
    """
    for attempt in range(_MOST_OPENINGS):
        before = _state(paths)
        try:
            opened = opening()
        except BadIndex:
            if _state(paths) == before or attempt + 1 == _MOST_OPENINGS:
                raise
        except OSError as error:
            if _state(paths) == before or attempt + 1 == _MOST_OPENINGS:
                raise BadIndex(f"{paths[0]} changed while it was opened ({error}); open it again") from error
        else:
            if _state(paths) == before:
                break
    return opened


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `manifest.json` of a folder says, {} where there is none; raises BadIndex where it is broken or too new."""
    return manifests.read_manifest(folder) or {}


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    _need_folder(folder)
    return manifests.read_manifest(folder)


def _need_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BadIndex(f"{folder} is not a folder; an index is a folder of files named tokenized.0, table.0, offset.0 and so on")


def _recorded_shards(folder: Path, manifest: dict[str, Any]) -> list[ShardFiles]:
    """The shards of a manifest that hold documents; files that it does not name (say of an append under way) are not looked at.

    Raises BadIndex where a file is missing or has another size than the manifest says; only `verify` compares the bytes.
    """
    found = []
    for shard in sorted(manifest["shards"], key=lambda shard: int(shard["number"])):
        number, files = shard["number"], dict(shard["files"])
        keys = folder / f"keys64.{number}.ig"
        if not keys.exists():
            files.pop(keys.name, None)  # made anew in memory
        _check_sizes(folder, files)
        if shard["tokens"] > 0:
            paths = [str(folder / f"{kind}.{number}") if f"{kind}.{number}" in files else "" for kind in _KINDS]
            found.append(ShardFiles(folder, number, (*paths, str(keys) if keys.name in files else "")))
    return found


def _shards_of(folder: Path) -> list[ShardFiles]:
    _need_folder(folder)
    kinds: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        shard = kinds.setdefault(-1 if match[2] is None else int(match[2]), {})
        if match[1] in shard:
            raise BadIndex(f"{shard[match[1]]} and {path} are the same file of one shard; remove one of them")
        shard[match[1]] = path
    if not kinds:
        raise BadIndex(f"{folder} holds no index (no file named tokenized.0); was the build finished, is it the right folder?")
    if -1 in kinds and len(kinds) > 1:
        raise BadIndex(f"{folder} holds files with and without shard numbers; an index has one kind, so move the others away")
    found = []
    for number, files in sorted(kinds.items()):
        suffix = "" if number < 0 else f".{number}"
        for kind in _NEEDED:
            if kind not in files:
                raise BadIndex(f"{folder / (kind + suffix)} is missing; copy it there or finish the build")
        keys = folder / f"keys64{suffix or '.0'}.ig"
        paths = [str(files[kind]) if kind in files else "" for kind in _KINDS]
        found.append(ShardFiles(folder, max(number, 0), (*paths, str(keys) if keys.is_file() else "")))
    return found


def _check_sizes(folder: Path, files: dict[str, Any]) -> None:
    for name, recorded in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != recorded["bytes"]:
            have = f"has {size} bytes" if size is not None else "is not a file" if path.exists() else "is missing"
            raise BadIndex(f"{path} {have}, its manifest says {recorded['bytes']}; it was cut off or exchanged: build it again")


def _without(shard: ShardFiles, pairs: np.ndarray) -> ShardFiles:
    return ShardFiles(shard.folder, shard.number, shard.paths, pairs[pairs[:, 0] == shard.number, 1].tolist())
