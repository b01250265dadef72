"""Build an index: documents → tokens → suffix arrays → manifest. Every step is atomic; a killed build resumes.

All work happens in the folder `.building` inside the index. When it is complete, the files are moved into place and the
manifest is written last. A build is identified by its settings (`settings.json`): a call with the same settings resumes it, any
other is refused.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from limbeck._infinigram import sampled_keys
from limbeck.corpus.files import publish, replace_json
from limbeck.infinigram import manifest as manifests
from limbeck.infinigram.documents import Source, find_sources
from limbeck.infinigram.encode import Encoding, read_state
from limbeck.infinigram.encode_apart import Encoder
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.memory import free_memory_bytes, give_back
from limbeck.infinigram.tables import Report, make_table
from limbeck.infinigram.tokenizers import FILE_NAME, HuggingFaceTokenizer, load_tokenizer
from limbeck.infinigram.words import MOST_BYTES

WORK = ".building"
SETTINGS = "settings.json"
_DONE = ".built"
_MOST_SHARDS = 4096
_CHUNK_TOKENS = 1 << 19
KEY_STRIDE = 64
_WORDS_SHARE = 4  # 1/4 of the memory budget caches the tokens of words

Dtype = Literal["u8", "u16", "u32"]


@dataclass(frozen=True)
class Settings:
    """How to build. `tokenizer`: as for `load_tokenizer`, or None for documents of token ids. `dtype` None: derived from the
    vocabulary (u16 for token ids). `memory_bytes` None: half of the free memory. `threads` None: all cores."""

    tokenizer: str | None = None
    dtype: Dtype | None = None
    version: Literal[4, 5] = 4
    shards: int = 1
    metadata: bool = True
    text_column: str = "text"
    split: str = "train"
    memory_bytes: int | None = None
    threads: int | None = None


def no_report(step: str, done: int, total: int, unit: str) -> None:
    """Report no progress."""


def build(paths: Iterable[str | Path], out: str | Path, settings: Settings, report: Report = no_report) -> dict[str, Any]:
    """Build the index `out` from the documents of files and folders and return its manifest.

    `report(step, done, total, unit)` is called at intervals. The same call resumes a killed build and returns immediately if it
    has finished. Raises BadIndex if a document cannot be read, an id does not fit, or the folder holds something else or a build
    with other settings. O(tokens) time.
    """
    folder = Path(out)
    sources = find_sources(paths)
    base, content = _base(settings)
    encoding = Encoding(settings.tokenizer, base["dtype"], settings.version, settings.metadata)
    numbers = list(range(settings.shards))
    if not 1 <= settings.shards <= _MOST_SHARDS:
        raise BadIndex(f"shards is {settings.shards}; an index has 1 to {_MOST_SHARDS}")
    with manifests.changing(folder, create=True):
        identity = _identity(base, numbers, sources, settings)
        base["made_from"] = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        finished = _finished(folder, base["made_from"])
        if finished is not None:
            return finished
        (folder / WORK).mkdir(exist_ok=True)
        if content is not None:
            (folder / WORK / FILE_NAME).write_bytes(content)
        return add_shards(folder, base, [], numbers, sources, encoding, settings, report)


def _base(settings: Settings) -> tuple[dict[str, Any], bytes | None]:
    """The index-wide fields of the manifest, and the tokenizer.json to store in the index; does not keep the tokenizer."""
    tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer is not None else None
    base = {
        "format": manifests.FORMAT,
        "dtype": _dtype(settings, tokenizer),
        "version": settings.version,
        "tokenizer": tokenizer.spec if tokenizer is not None else None,
        "eos": tokenizer.eos if tokenizer is not None else None,
        "vocabulary": tokenizer.vocabulary if tokenizer is not None else None,
    }
    return base, tokenizer.content if isinstance(tokenizer, HuggingFaceTokenizer) else None


def add_shards(
    folder: Path,
    base: dict[str, Any],
    present: list[dict[str, Any]],
    numbers: list[int],
    sources: list[Source],
    encoding: Encoding,
    settings: Settings,
    report: Report,
) -> dict[str, Any]:
    """Build shards in the work folder, move them into the index, and write the manifest: `base` plus all shards, old and new.

    Rows without a document are listed in the manifest under `skipped`, for each call that skipped some.
    """
    work = folder / WORK
    work.mkdir(exist_ok=True)
    _check_settings(work, base, numbers, sources, settings)
    if not (work / manifests.NAME).exists():
        threads = settings.threads or len(os.sched_getaffinity(0))
        memory = settings.memory_bytes or free_memory_bytes() // 2
        encoding = replace(encoding, words_bytes=min(MOST_BYTES, memory // _WORDS_SHARE))
        encoder = Encoder(encoding, sources, settings.text_column, settings.split, numbers, threads)
        try:
            encoder.encode(work, memory, report)
        except BadIndex:
            if not present and not read_state(work)["documents"]:  # nothing was encoded: other documents may be given
                shutil.rmtree(work)
            raise
        give_back()
        for number in numbers:
            finish_shard(work, number, encoding.numpy_dtype.itemsize, memory, threads, report)
        entries = [manifests.shard_entry(work, number, encoding.numpy_dtype.itemsize) for number in numbers]
        skipped = [{"shards": numbers, "rows": rows}] if (rows := read_state(work)["skipped"]) else []
        if every := [*base.get("skipped", []), *skipped]:
            base = {**base, "skipped": every}
        replace_json(work / manifests.NAME, {**base, "shards": [*present, *entries]})
    return move_in(folder)


def move_in(folder: Path) -> dict[str, Any]:
    """Move a finished build from the work folder into place, the manifest last; safe to interrupt and to repeat."""
    work = folder / WORK
    manifest: dict[str, Any] = manifests.load_json(work / manifests.NAME)
    names = [name for shard in manifest["shards"] for name in shard["files"]]
    for name in [FILE_NAME, *names]:
        if (work / name).exists():
            publish(work / name, folder / name)
    replace_json(folder / manifests.NAME, manifest)
    clear_built(folder)
    os.rename(work, folder / _DONE)  # atomic: half of a work folder would look like an unfinished build
    clear_built(folder)
    return manifest


def clear_built(folder: Path) -> None:
    """Delete the remains of a finished build's work folder."""
    shutil.rmtree(folder / _DONE, ignore_errors=True)


def finish_shard(work: Path, number: int, width_bytes: int, memory_bytes: int, threads: int, report: Report) -> None:
    """Make the unigram counts, the table and the sampled keys of an encoded shard, skipping those that exist."""
    text, unigram, table = (work / f"{kind}.{number}" for kind in ("tokenized", "unigram", "table"))
    if not unigram.exists():
        temporary = unigram.with_name(f"{unigram.name}.tmp")
        temporary.write_text(
            "".join(f"{token} {count}\n" for token, count in unigram_counts(text, width_bytes)), encoding="ascii"
        )
        publish(temporary, unigram)
    if not table.exists():
        make_table(text, width_bytes, table, memory_bytes, threads, report)
    keys = work / f"keys64.{number}.ig"
    if not keys.exists():
        temporary = keys.with_name(f"{keys.name}.tmp")
        temporary.write_bytes(sampled_keys(str(text), width_bytes, str(table), KEY_STRIDE))
        publish(temporary, keys)


def _dtype(settings: Settings, tokenizer: Any) -> str:
    if settings.version not in (4, 5):
        raise BadIndex(f"version is {settings.version}; it must be 4, or 5 for reversed documents")
    if settings.dtype is not None and settings.dtype not in manifests.WIDTH_BYTES:
        raise BadIndex(f"dtype is {settings.dtype!r}; it must be u8, u16 or u32")
    if settings.dtype is not None or tokenizer is None:
        return settings.dtype or "u16"
    return "u8" if tokenizer.vocabulary <= 255 else "u16" if tokenizer.vocabulary <= 65535 else "u32"


def _finished(folder: Path, made_from: str) -> dict[str, Any] | None:
    """The manifest if this build has finished, None if not; raises BadIndex if the folder belongs to another build."""
    clear_built(folder)
    if (folder / WORK).is_dir():
        return None
    manifest = manifests.read_manifest(folder)
    if manifest is not None and manifest.get("made_from") == made_from:
        return manifest
    if manifest is not None:
        raise BadIndex(f"{folder} holds a finished index; build into another folder, or append to it")
    strange = next((path.name for path in folder.iterdir()), None)
    if strange is not None:
        raise BadIndex(f"{folder} is not empty ({strange}); build into a new folder")
    return None


def _identity(base: dict[str, Any], numbers: list[int], sources: list[Source], settings: Settings) -> dict[str, Any]:
    """All settings that determine the content of the index."""
    return {
        **{name: value for name, value in base.items() if name not in ("made_from", "skipped")},
        "shards": numbers,
        "metadata": settings.metadata,
        "text_column": settings.text_column,
        "split": settings.split,
        "documents": [source.fingerprint for source in sources],
    }


def _check_settings(work: Path, base: dict[str, Any], numbers: list[int], sources: list[Source], settings: Settings) -> None:
    """Record the settings of this build, or compare them with those of the unfinished one."""
    wanted = json.loads(json.dumps(_identity(base, numbers, sources, settings)))
    path = work / SETTINGS
    if not path.exists():
        replace_json(path, wanted)
        return
    recorded = manifests.load_json(path)
    differing = [name for name in wanted if recorded.get(name) != wanted[name]]
    if differing:
        name = differing[0]
        was = "" if name in ("documents", "tokenizer") else f" (it was {recorded.get(name)!r}, now {wanted[name]!r})"
        raise BadIndex(
            f"{work.parent} holds an unfinished build with another setting of {', '.join(differing)}{was}; "
            f"resume it with its own settings, or delete {work}"
        )


def unigram_counts(text: Path, width_bytes: int) -> list[tuple[int, int]]:
    """Occurrences of each token id in a text, ascending by id; reads the text once, a few MiB at a time."""
    if text.stat().st_size == 0:
        return []
    counts: dict[int, int] = {}
    tokens = np.memmap(text, dtype=f"<u{width_bytes}", mode="r")
    dense = np.zeros(1 << 8 * width_bytes, dtype=np.int64) if width_bytes < 4 else None
    for begin in range(0, len(tokens), _CHUNK_TOKENS):
        chunk = np.array(tokens[begin : begin + _CHUNK_TOKENS])
        if dense is not None:
            dense += np.bincount(chunk, minlength=len(dense))
        else:
            for token, count in zip(*(part.tolist() for part in np.unique(chunk, return_counts=True)), strict=True):
                counts[token] = counts.get(token, 0) + count
    if dense is not None:
        counts = {int(token): int(dense[token]) for token in np.flatnonzero(dense)}
    return sorted(counts.items())
