"""The manifest of an index (`manifest.json`, written last): size and SHA-256 of every file, and how the index was made."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.open_files import limit_words

NAME = "manifest.json"
FORMAT = 1
WIDTH_BYTES = {"u8": 1, "u16": 2, "u32": 4}
KINDS = ("tokenized", "offset", "metadata", "metaoff", "unigram", "table")


def shard_files(number: int) -> list[str]:
    """The names of all files that a shard may have."""
    return [*(f"{kind}.{number}" for kind in KINDS), f"keys64.{number}.ig"]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None if it is missing; raises BadIndex if it is broken or too new."""
    path = folder / NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadIndex(f"{path} cannot be read ({error}); restore it, or rebuild the index") from error
    wrong = _wrong_field(manifest)
    if wrong is not None:
        raise BadIndex(f"{path} is not an index manifest ({wrong} is wrong); restore it, or rebuild the index")
    assert isinstance(manifest, dict)
    if manifest["format"] > FORMAT:
        raise BadIndex(f"{path} has format {manifest['format']}, but this version reads up to {FORMAT}; update limbeck")
    return manifest


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _wrong_field(manifest: Any) -> str | None:
    """The first field with a wrong value, None if all are right."""
    if not isinstance(manifest, dict):
        return "all of it"
    eos, tokenizer = manifest.get("eos"), manifest.get("tokenizer")
    fine = {
        "format": _is_count(manifest.get("format")),
        "dtype": manifest.get("dtype") in list(WIDTH_BYTES),
        "version": manifest.get("version") in (4, 5),
        "eos": eos is None or _is_count(eos),
        "vocabulary": manifest.get("vocabulary") is None or _is_count(manifest["vocabulary"]),
        "tokenizer": tokenizer is None or isinstance(tokenizer, dict),
        "shards": isinstance(manifest.get("shards"), list),
    }
    wrong = next((name for name, is_fine in fine.items() if not is_fine), None)
    if wrong is not None:
        return wrong
    width_bytes = WIDTH_BYTES[manifest["dtype"]]
    return next((what for shard in manifest["shards"] if (what := _wrong_shard(shard, width_bytes))), None)


def _wrong_shard(shard: Any, width_bytes: int) -> str | None:
    if not isinstance(shard, dict) or not all(_is_count(shard.get(name)) for name in ("number", "documents", "tokens")):
        return "a shard"
    files, known = shard.get("files"), shard_files(shard["number"])
    if not isinstance(files, dict) or not {known[0], known[1], known[5]} <= set(files) <= set(known):
        return f"the list of files of shard {shard['number']}"
    whole = all(isinstance(entry, dict) and _is_count(entry.get("bytes")) for entry in files.values())
    if (
        not whole
        or files[known[0]]["bytes"] != shard["tokens"] * width_bytes
        or files[known[1]]["bytes"] != shard["documents"] * 8
    ):
        return f"the size of a file of shard {shard['number']}"
    return None


def need_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; raises BadIndex if it is missing."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise BadIndex(f"{folder} has no {NAME}; only finished indexes built by limbeck can be changed")
    return manifest


def shard_entry(folder: Path, number: int, width_bytes: int) -> dict[str, Any]:
    """The manifest entry of a shard with its files in `folder`; reads each file once."""
    names = [name for name in shard_files(number) if (folder / name).exists()]
    return {
        "number": number,
        "documents": (folder / f"offset.{number}").stat().st_size // 8,
        "tokens": (folder / f"tokenized.{number}").stat().st_size // width_bytes,
        "files": {name: file_entry(folder / name) for name in names},
    }


def file_entry(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    with open(path, "rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def load_json(path: Path) -> Any:
    """Read a small JSON file of ours."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def changing(folder: Path, *, create: bool = False) -> Iterator[None]:
    """Lock an index against changes by other processes; raises BadIndex if it is locked. The lock ends with its process.

    System errors meanwhile, such as a full disk, become a BadIndex. `create` makes the folder.
    """
    with writing(folder):
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BadIndex(f"another process is building or changing {folder}; wait for it to finish") from error
            yield
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn system errors while an index is written into a BadIndex with a remedy."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        raise BadIndex(
            f"{error.filename or folder}: {what} while writing {folder}; {_remedy(error)}, then repeat the call to resume"
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{limit_words()}: raise the limit, or build fewer shards at once"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space or use another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "correct the permissions or use another folder"
    return "check the disk, or use another folder"
