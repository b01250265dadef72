"""The files of an index: the official layouts (with or without shard numbers) and our own manifest."""

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

_NAME = re.compile(r"(tokenized|table|offset|metadata|metaoff)(?:\.(\d+))?")
_NEEDED = ("tokenized", "table", "offset")
_KINDS = (*_NEEDED, "metadata", "metaoff")
_MOST_OPENINGS = 10
REMOVED = "removed"  # the index of copies of removed documents
PAIRS = "removed.ig"  # the list of these documents
_COMPARED_DOCUMENTS = 256  # byte by byte on opening; `verify` compares all, with no limit
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class ShardFiles:
    """The files of one shard and its removed documents; `paths` is passed to the engine (kinds in order, then the keys)."""

    folder: Path
    number: int
    paths: tuple[str, ...]
    removed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """The result of locating an index: shards in order, shards of removed documents, and the manifest (or an empty one)."""

    shards: tuple[ShardFiles, ...]
    removed: tuple[ShardFiles, ...]
    manifest: dict[str, Any]


def locate(paths: Sequence[Path], *, official_order: bool = False, empty: bool = False) -> Layout:
    """Find the shards of one or several index folders; raises BadIndex if something is missing or differs.

    Shards are ordered by number, or by the official engine's lexicographic order of names. Shards without documents are omitted;
    if no other shard remains, raises BadIndex unless the index may be `empty`.
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
        raise BadIndex("no index folder was given; name at least one")
    if not shards and not empty:
        raise BadIndex(f"{paths[0]} holds no documents; append some, or rebuild it")
    for key in ("dtype", "version", "eos", "tokenizer"):
        values = {json.dumps(manifest[key], sort_keys=True) for manifest in known if key in manifest}
        if len(values) > 1:
            raise BadIndex(f"the folders differ in {key} ({', '.join(sorted(values))}); open them separately")
    merged = {key: value for manifest in known for key, value in manifest.items()}
    return Layout(tuple(shards), tuple(removed), merged)


def state(paths: Sequence[Path]) -> list[Any]:
    """A value that changes whenever the index changes on disk: its manifest, else its files, and its removed documents."""
    found: list[Any] = []
    for path in paths:
        removed = str(removed_copies(path))
        try:
            found.append((removed, _identity((path / manifests.NAME).stat())))
        except FileNotFoundError:
            found.append((removed, file_states(path)))
        except OSError:  # of a link that is replaced at this moment too
            found.append(None)
    return found


def removed_copies(folder: Path) -> Path:
    """The folder of copies of removed documents, its link followed; the link's own path if it is missing or vanishes meanwhile.

    Following a link takes two system calls (is it one, and where to), and a compaction may remove it between them.
    """
    try:
        return (folder / REMOVED).resolve()
    except OSError:
        return folder / REMOVED


def file_states(folder: Path) -> list[Any]:
    """Names, identities and sizes of the files of all shards in a folder; empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            named = [(entry.name, entry.stat()) for entry in entries if _NAME.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted((name, *_identity(status), status.st_size) for name, status in named)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns


def steadily(paths: Sequence[Path], opening: Callable[[], Opened]) -> Opened:
    """Return the result of `opening`, retried if the folders changed meanwhile (append, removal, compaction).

    Raises BadIndex if a file vanishes without such a change.
    """
    for attempt in range(_MOST_OPENINGS):
        before = state(paths)
        try:
            opened = opening()
        except BadIndex:
            if state(paths) == before or attempt + 1 == _MOST_OPENINGS:
                raise
        except OSError as error:
            if state(paths) == before or attempt + 1 == _MOST_OPENINGS:
                raise BadIndex(f"{paths[0]} changed while it was being opened ({error}); retry") from error
        else:
            if state(paths) == before:
                break
    return opened


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of `manifest.json` in a folder, {} if it is missing; raises BadIndex if it is broken or too new."""
    return manifests.read_manifest(folder) or {}


def _manifest_of(folder: Path) -> dict[str, Any] | None:
    _need_folder(folder)
    return manifests.read_manifest(folder)


def _need_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BadIndex(f"{folder} is not a folder; an index is a folder of files named tokenized.0, table.0, offset.0 and so on")


def _recorded_shards(folder: Path, manifest: dict[str, Any]) -> list[ShardFiles]:
    """The shards of a manifest that hold documents; files not in the manifest (for example of an append in progress) are ignored.

    Raises BadIndex if a file is missing or its size differs from the manifest; only `verify` compares content.
    """
    found = []
    for shard in sorted(manifest["shards"], key=lambda shard: int(shard["number"])):
        number, files = shard["number"], dict(shard["files"])
        keys = folder / f"keys64.{number}.ig"
        if not keys.exists():
            files.pop(keys.name, None)  # recomputed in memory
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
            raise BadIndex(f"{shard[match[1]]} and {path} are the same shard file; remove one")
        shard[match[1]] = path
    if not kinds:
        raise BadIndex(f"{folder} holds no index (no file named tokenized.0); check the path, or rerun the build")
    if -1 in kinds and len(kinds) > 1:
        raise BadIndex(f"{folder} holds files with and without shard numbers; an index has one kind; move the others elsewhere")
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
            raise BadIndex(f"{path} {have}, but the manifest records {recorded['bytes']} bytes; restore it, or rebuild the index")


def _without(shard: ShardFiles, pairs: np.ndarray) -> ShardFiles:
    return ShardFiles(shard.folder, shard.number, shard.paths, pairs[pairs[:, 0] == shard.number, 1].tolist())


def taken_down(
    folder: Path, shards: Sequence[ShardFiles], most_compared: int = _COMPARED_DOCUMENTS
) -> tuple[Path, np.ndarray] | None:
    """The index of documents removed from a folder, and its pairs (shard, document), [pairs, 2]; None if nothing was removed.

    Both are links that `remove` switches atomically, so one of them is resolved. Raises BadIndex if the pairs are not ascending
    or the copies differ from the documents: in number or length, or in the content of the first `most_compared`. O(removed
    """
    copies = removed_copies(folder)
    path = next((path for path in (copies / PAIRS, folder / PAIRS) if path.exists()), None)
    if path is None:
        broken = next((name for name in (REMOVED, PAIRS) if os.path.lexists(folder / name)), None)
        if broken is not None:
            raise BadIndex(f"{folder / broken} does not point to a list of removed documents; restore it, or remove them again")
        return None
    if not path.is_file():
        raise BadIndex(f"{path} is not a file; restore it, or remove the documents again")
    pairs = read_pairs(path)
    rising = (pairs[1:, 0] > pairs[:-1, 0]) | ((pairs[1:, 0] == pairs[:-1, 0]) & (pairs[1:, 1] > pairs[:-1, 1]))
    if not rising.all() or not set(pairs[:, 0].tolist()) <= {shard.number for shard in shards}:
        raise BadIndex(f"{path} is not an ascending list of documents of its shards; it is damaged")
    if len(pairs) == 0:
        return None
    _compare(path, copies, shards, pairs, most_compared)
    return copies, pairs


def read_pairs(path: Path) -> np.ndarray:
    """The documents that a list names: [documents, 2] uint64 of shard and number; raises BadIndex if the file is truncated."""
    data = path.read_bytes()
    if len(data) % 16 != 0:
        raise BadIndex(f"{path} has {len(data)} bytes, not a whole number of (shard, document) pairs; it is truncated")
    return np.frombuffer(data, "<u8").reshape(-1, 2)


def _compare(path: Path, copies: Path, shards: Sequence[ShardFiles], pairs: np.ndarray, most_compared: int) -> None:
    """Check that `copies` holds the documents of the pairs: same lengths and, for the first few, same content."""
    own_begins, own_text = _mapped(copies / "offset.0", "<u8"), _mapped(copies / "tokenized.0", "u1")
    if len(own_begins) != len(pairs):
        raise BadIndex(f"{path} lists {len(pairs)} documents, but {copies} holds {len(own_begins)}; remove them again")
    own_sizes = np.diff(own_begins.astype(np.int64), append=len(own_text))
    compared = 0
    for shard in shards:
        rows = np.flatnonzero(pairs[:, 0] == shard.number)
        if len(rows) == 0:
            continue
        begins, text = _mapped(Path(shard.paths[2]), "<u8"), _mapped(Path(shard.paths[0]), "u1")
        documents = pairs[rows, 1]
        if documents[-1] >= len(begins):
            raise BadIndex(
                f"{path} lists document {documents[-1]} of shard {shard.number}, which has {len(begins)}; it is damaged"
            )
        firsts = begins[documents].astype(np.int64)
        lasts = np.append(begins[documents[:-1] + 1], begins[documents[-1] + 1] if documents[-1] + 1 < len(begins) else len(text))
        wrong, where = np.flatnonzero(lasts.astype(np.int64) - firsts != own_sizes[rows]).tolist(), shard.paths[2]
        for at in [] if wrong else range(min(len(rows), most_compared - compared)):
            size, own = int(own_sizes[rows[at]]), int(own_begins[rows[at]])
            if not np.array_equal(text[firsts[at] : firsts[at] + size], own_text[own : own + size]):
                wrong, where = [at], shard.paths[0]
                break
        if wrong:
            document = documents[wrong[0]]
            raise BadIndex(f"{where} and {copies} disagree about document {document} of shard {shard.number}; one is damaged")
        compared += len(rows)


def _mapped(path: Path, dtype: str) -> np.ndarray:
    """A file as a mapped array; empty if the file is missing or empty; a trailing partial item is ignored."""
    try:
        opened = path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        return np.zeros(0, dtype)
    with opened:  # size and content of the same file, even if another one is published under its name meanwhile
        size = os.fstat(opened.fileno()).st_size // np.dtype(dtype).itemsize
        return np.memmap(opened, dtype=dtype, mode="r", shape=(size,)) if size else np.zeros(0, dtype)
