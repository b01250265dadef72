"""Which files make up an index: the official layouts (with or without shard numbers) and our own manifest beside them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infinigram import manifest as manifests
from infinigram.errors import BadIndex

_NAME = re.compile(r"(tokenized|table|offset|metadata|metaoff)(?:\.(\d+))?")
_NEEDED = ("tokenized", "table", "offset")
_KINDS = (*_NEEDED, "metadata", "metaoff")


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


def locate(paths: Sequence[Path], *, official_order: bool = False) -> Layout:
    """Find the shards of one or several index folders; raises BadIndex naming what is missing or differs.

    Shards are ordered by number, or by the official engine's lexicographic order of their names.
    """
    shards: list[ShardFiles] = []
    removed: list[ShardFiles] = []
    manifests: list[dict[str, Any]] = []
    for path in paths:
        found = _shards_of(path)
        manifest = read_manifest(path)
        _check_manifest(path, manifest)
        taken = _taken_down(path, found)
        if taken is not None:
            found = [_without(shard, taken[1]) for shard in found]
            removed.extend(_shards_of(taken[0]))
        if official_order:
            found.sort(key=lambda shard: Path(shard.paths[0]).name)
        shards.extend(found)
        manifests.append(manifest)
    if not shards:
        raise BadIndex("no folder was given to open; name at least one index folder")
    for key in ("dtype", "version", "eos", "tokenizer"):
        values = {json.dumps(manifest[key], sort_keys=True) for manifest in manifests if key in manifest}
        if len(values) > 1:
            raise BadIndex(f"the folders differ in {key} ({', '.join(sorted(values))}); open them one by one")
    merged = {key: value for manifest in manifests for key, value in manifest.items()}
    return Layout(tuple(shards), tuple(removed), merged)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `manifest.json` of a folder says, {} where there is none; raises BadIndex where it is broken or too new."""
    return manifests.read_manifest(folder) or {}


def _shards_of(folder: Path) -> list[ShardFiles]:
    if not folder.is_dir():
        raise BadIndex(f"{folder} is not a folder; an index is a folder of files named tokenized.0, table.0, offset.0 and so on")
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


def _check_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare the sizes that the manifest records with the files; raises BadIndex for the first that differs."""
    for shard in manifest.get("shards", []):
        for name, recorded in shard.get("files", {}).items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else None
            if size != recorded["bytes"]:
                have = "is missing" if size is None else f"has {size} bytes"
                raise BadIndex(
                    f"{path} {have}, its manifest says {recorded['bytes']}; it was cut off or exchanged: build it again"
                )


def _taken_down(folder: Path, shards: list[ShardFiles]) -> tuple[Path, np.ndarray] | None:
    """The index of what was taken down from a folder, and its pairs (shard, document), [pairs, 2]; None where nothing was.

    Raises BadIndex where the pairs are not ascending. Both are links that `remove` exchanges at once, so one of them is followed.
    """
    copies = (folder / "removed").resolve()
    path = next((path for path in (copies / "removed.ig", folder / "removed.ig") if path.exists()), None)
    if path is None:
        return None
    data = path.read_bytes()
    if len(data) % 16 != 0:
        raise BadIndex(f"{path} has {len(data)} bytes, not whole pairs of shard and document; it was cut off")
    pairs = np.frombuffer(data, "<u8").reshape(-1, 2)
    rising = (pairs[1:, 0] > pairs[:-1, 0]) | ((pairs[1:, 0] == pairs[:-1, 0]) & (pairs[1:, 1] > pairs[:-1, 1]))
    if not rising.all() or not set(pairs[:, 0].tolist()) <= {shard.number for shard in shards}:
        raise BadIndex(f"{path} is no ascending list of documents of the shards beside it; it is damaged")
    return (copies, pairs) if len(pairs) else None


def _without(shard: ShardFiles, pairs: np.ndarray) -> ShardFiles:
    return ShardFiles(shard.folder, shard.number, shard.paths, pairs[pairs[:, 0] == shard.number, 1].tolist())
