"""Change a finished index: `append` adds shards, `remove` takes effect at once, `compact` rebuilds without removed documents.

Removed documents are kept in a separate folder, itself an index of exactly those documents, with their shards and numbers as
pairs in `removed.ig`. The index has two links: `removed` to the newest of these folders, and `removed.ig` to its list; one rename
of the first changes both, so a reader sees the old or the new state.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.corpus.files import flush, publish, replace_json
from limbeck.infinigram import manifest as manifests
from limbeck.infinigram.build import SETTINGS, WORK, Settings, add_shards, clear_built, finish_shard, move_in, no_report
from limbeck.infinigram.documents import find_sources
from limbeck.infinigram.encode import Encoding
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.layout import PAIRS, REMOVED, read_pairs
from limbeck.infinigram.memory import free_memory_bytes
from limbeck.infinigram.tables import Report


def append(folder: str | Path, paths: Iterable[str | Path], settings: Settings, report: Report = no_report) -> dict[str, Any]:
    """Add the documents of files and folders to an index as `settings.shards` new shards and return the new manifest.

    Tokenizer, dtype and version are those of the index. The same call resumes a killed one. Raises as `build` does.
    """
    folder = Path(folder)
    manifest = manifests.need_manifest(folder)
    with manifests.changing(folder):
        given = [name for name in ("tokenizer", "dtype") if getattr(settings, name) is not None]
        if given:
            raise BadIndex(f"{folder} already has a {given[0]}, which new documents must share; omit {given[0]}")
        numbers, present = _new_numbers(folder, manifest["shards"], settings.shards)
        described = all(f"metadata.{shard['number']}" in shard["files"] for shard in present)
        settings = replace(settings, version=manifest["version"], metadata=described)
        base = {name: value for name, value in manifest.items() if name != "shards"}
        spec = manifest["tokenizer"]
        encoding = Encoding(str(folder) if spec is not None else None, manifest["dtype"], manifest["version"], described, spec)
        return add_shards(folder, base, present, numbers, find_sources(paths), encoding, settings, report)


def _new_numbers(folder: Path, shards: list[dict[str, Any]], wanted: int) -> tuple[list[int], list[dict[str, Any]]]:
    """The numbers of the shards to add, and the existing shards; those of a killed append even if the manifest has them."""
    first = max((shard["number"] for shard in shards), default=-1) + 1
    begun = folder / WORK / SETTINGS
    numbers = manifests.load_json(begun)["shards"] if begun.exists() else list(range(first, first + wanted))
    if len(numbers) != wanted:
        raise BadIndex(
            f"an append with shards={len(numbers)} to {folder} is unfinished; rerun it with that value, or delete {folder / WORK}"
        )
    return numbers, [shard for shard in shards if shard["number"] not in numbers]


def removed_documents(folder: str | Path) -> np.ndarray:
    """The removed documents of an index: [documents, 2] uint64 of shard and number in the shard, ascending."""
    path = Path(folder) / PAIRS
    return read_pairs(path) if path.exists() else np.zeros((0, 2), dtype="<u8")


def remove(folder: str | Path, documents: Iterable[int], report: Report = no_report) -> int:
    """Remove documents by their numbers in the index (shards in order) and return how many are removed in total; atomic.

    O(tokens removed). Raises BadIndex for numbers that the index does not have.
    """
    folder = Path(folder)
    manifest = manifests.need_manifest(folder)
    with manifests.changing(folder):
        _refuse_unfinished(folder)
        counts = [shard["documents"] for shard in manifest["shards"]]
        numbers = np.array([shard["number"] for shard in manifest["shards"]], dtype=np.uint64)
        wanted = np.unique(np.array(list(documents), dtype=np.int64))
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= sum(counts)):
            wrong = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise BadIndex(f"{folder} has no document {wrong}; its documents are 0 to {sum(counts) - 1}")
        begins = np.cumsum([0, *counts])
        shard = np.searchsorted(begins, wanted, side="right") - 1
        new = np.stack([numbers[shard], (wanted - begins[shard]).astype(np.uint64)], axis=1)
        old = removed_documents(folder)
        pairs = np.unique(np.concatenate([old, new]), axis=0)
        if len(pairs) > len(old):
            _take_down(folder, manifest, pairs.astype("<u8"), report)
        return len(pairs)


def compact(folder: str | Path, settings: Settings, report: Report = no_report) -> dict[str, Any]:
    """Rebuild an index without removed documents and return its manifest; only memory and threads of `settings` are used.

    The new index grows beside the old one, which stays in use, and replaces it by renames; the same call finishes a killed one.
    Open readers keep the old files until they close them. O(tokens) of the shards that lose documents.
    """
    folder = Path(folder).absolute()
    beside = folder.with_name(f".{folder.name}.compacting")
    before = folder.with_name(f".{folder.name}.before")
    if before.exists() and not folder.exists():  # killed between the renames
        os.rename(beside, folder)
    shutil.rmtree(before, ignore_errors=True)
    manifest = manifests.need_manifest(folder)
    with manifests.changing(folder):
        _refuse_unfinished(folder)
        pairs = removed_documents(folder)
        if len(pairs) == 0:
            return manifest
        state = {"removed": pairs.tolist(), "shards": manifest["shards"]}
        if _state_of(beside) != state:
            shutil.rmtree(beside, ignore_errors=True)
            (beside / WORK).mkdir(parents=True)
            replace_json(beside / "compacting.json", state)
        if manifests.read_manifest(beside) is None or (beside / WORK).exists():
            _without_removed(folder, beside, manifest, pairs, settings, report)
        (beside / "compacting.json").unlink(missing_ok=True)
        clear_built(beside)
        os.rename(folder, before)
        os.rename(beside, folder)
        flush(folder.parent)
        shutil.rmtree(before)
    return manifests.need_manifest(folder)


def _refuse_unfinished(folder: Path) -> None:
    clear_built(folder)
    if (folder / WORK).is_dir():
        raise BadIndex(f"an append to {folder} is unfinished; rerun that append, or delete {folder / WORK}")


def _state_of(beside: Path) -> Any:
    path = beside / "compacting.json"
    return manifests.load_json(path) if path.exists() else None


def _take_down(folder: Path, manifest: dict[str, Any], pairs: np.ndarray, report: Report) -> None:
    """Index the documents of the pairs in a new folder and switch the links to it."""
    number = 1 + max((int(path.suffix[1:]) for path in folder.glob(f"{REMOVED}.*") if path.suffix[1:].isdigit()), default=0)
    target = folder / f"{REMOVED}.{number}"
    target.mkdir()
    for shard in manifest["shards"]:
        chosen = pairs[pairs[:, 0] == shard["number"], 1].astype(np.int64)
        for kind in ("tokenized", "offset"):
            (target / f"{kind}.0").touch()
        copy_documents(folder, shard["number"], chosen, target, 0, ("tokenized", "offset"))
    width_bytes = manifests.WIDTH_BYTES[manifest["dtype"]]
    finish_shard(target, 0, width_bytes, free_memory_bytes() // 2, len(os.sched_getaffinity(0)), report)
    pairs.tofile(target / PAIRS)
    for path in target.iterdir():
        flush(path)
    flush(target)
    _link(target.name, folder / REMOVED)
    _link(f"{REMOVED}/{PAIRS}", folder / PAIRS)
    for stale in folder.glob(f"{REMOVED}.*"):
        if stale.is_dir() and stale != target:
            shutil.rmtree(stale)


def _link(to: str, path: Path) -> None:
    """Change a link atomically; a folder or file that a copying tool made from the link is moved away first."""
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(to)
    if path.is_dir() and not path.is_symlink():
        os.rename(path, path.with_name(f"{path.name}.0"))
    os.replace(temporary, path)
    flush(path.parent)


def copy_documents(source: Path, shard: int, documents: np.ndarray, target: Path, number: int, kinds: tuple[str, str]) -> None:
    """Append documents of a shard (ascending numbers) to shard `number` in another folder: content and offsets."""
    content_path, begins_path = (source / f"{kind}.{shard}" for kind in kinds)
    begins = np.fromfile(begins_path, dtype="<u8").astype(np.int64)
    ends = np.append(begins[1:], content_path.stat().st_size)
    lengths = (ends - begins)[documents]
    with (
        open(content_path, "rb") as content,
        open(target / f"{kinds[0]}.{number}", "ab") as out,
        open(target / f"{kinds[1]}.{number}", "ab") as out_begins,
    ):
        out_begins.write((out.tell() + np.cumsum(lengths) - lengths).astype("<u8").tobytes())
        for run in np.split(documents, np.flatnonzero(np.diff(documents) != 1) + 1):  # neighbours at once
            if len(run) == 0:
                continue
            content.seek(begins[run[0]])
            left = int(ends[run[-1]] - begins[run[0]])
            while left > 0:
                piece = content.read(min(left, 1 << 24))
                if not piece:
                    raise BadIndex(f"{content_path} is shorter than {begins_path} records; verify {source}")
                out.write(piece)
                left -= len(piece)


def _without_removed(
    folder: Path, beside: Path, manifest: dict[str, Any], pairs: np.ndarray, settings: Settings, report: Report
) -> None:
    """Make the new index in `beside`: unaffected shards are linked, the others copied and sorted again."""
    work = beside / WORK
    if (work / manifests.NAME).exists():
        move_in(beside)
        return
    width_bytes = manifests.WIDTH_BYTES[manifest["dtype"]]
    threads = settings.threads or len(os.sched_getaffinity(0))
    memory = settings.memory_bytes or free_memory_bytes() // 2
    entries = []
    for shard in manifest["shards"]:
        number = shard["number"]
        gone = pairs[pairs[:, 0] == number, 1].astype(np.int64)
        if len(gone) == 0:
            for name in shard["files"]:
                _link_or_copy(folder / name, work / name)
            entries.append(shard)
            continue
        if not (work / f"copied.{number}").exists():
            kept = np.delete(np.arange(shard["documents"]), gone)
            for kinds in (("tokenized", "offset"), ("metadata", "metaoff")):
                if f"{kinds[0]}.{number}" not in shard["files"]:
                    continue
                for kind in kinds:
                    (work / f"{kind}.{number}").write_bytes(b"")
                copy_documents(folder, number, kept, work, number, kinds)
                for kind in kinds:
                    flush(work / f"{kind}.{number}")
            (work / f"copied.{number}").touch()
        finish_shard(work, number, width_bytes, memory, threads, report)
        entries.append(manifests.shard_entry(work, number, width_bytes))
    for path in folder.glob("tokenizer.json"):
        _link_or_copy(path, work / path.name)
    replace_json(work / manifests.NAME, {**manifest, "shards": entries})
    move_in(beside)


def _link_or_copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target.with_name(f"{target.name}.tmp"))
        publish(target.with_name(f"{target.name}.tmp"), target)
