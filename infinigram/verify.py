"""Verify an index: every file by itself, against the others, and against the manifest if there is one."""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck._infinigram import check_table, sampled_keys
from limbeck.infinigram import manifest as manifests
from limbeck.infinigram.build import KEY_STRIDE, no_report, unigram_counts
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.layout import ShardFiles, locate, taken_down
from limbeck.infinigram.tables import Report

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Verified:
    """What was checked: shards, documents and tokens, and whether checksums were available."""

    shards: int
    documents: int
    tokens: int
    checksums: bool


def verify(folder: str | Path, dtype: str | None = None, samples: int = 0, report: Report = no_report) -> Verified:
    """Check an index; raises BadIndex with the file and position of the first fault.

    Checks sizes, offsets against separators, metadata lines, unigram counts, sampled keys, removed documents, checksums, and that
    each table holds every position once and in order: O(tokens) time, and 4 bytes of memory per token (8 beyond 2^32 tokens).
    With `samples`, only that many random neighbours of each table are compared and checksums are skipped. Official folders have
    no manifest: pass their `dtype` (default u16).
    """
    folder = Path(folder)
    manifest = manifests.read_manifest(folder) or {}
    known = manifest.get("dtype", dtype or "u16")
    if known not in manifests.WIDTH_BYTES or dtype not in (None, known):
        raise BadIndex(f"dtype is {dtype!r}, but {folder} holds {known!r}; omit it")
    layout = locate([folder], empty=True)
    documents = tokens = 0
    for shard in layout.shards:
        found = _check_shard(shard, manifest, manifests.WIDTH_BYTES[known], samples, report)
        documents, tokens = documents + found[0], tokens + found[1]
    for taken in layout.removed:
        _check_shard(taken, {}, manifests.WIDTH_BYTES[known], samples, report)
    taken_down(folder, layout.shards, most_compared=sys.maxsize)
    if manifest and samples == 0:
        _check_sums(folder, manifest, report)
    return Verified(len(layout.shards), documents, tokens, bool(manifest) and samples == 0)


def _check_shard(shard: ShardFiles, manifest: dict[str, Any], width_bytes: int, samples: int, report: Report) -> tuple[int, int]:
    text, table, offset, metadata, metaoff, keys = (Path(path) if path else None for path in shard.paths)
    assert text is not None and table is not None and offset is not None
    size = text.stat().st_size
    if size % width_bytes:
        raise BadIndex(f"{text} has {size} bytes, not a whole number of {width_bytes}-byte tokens; it is truncated")
    begins = _rising(offset, size)
    _check_separators(text, offset, begins, width_bytes, manifest.get("vocabulary"), report)
    if metadata is not None and metaoff is not None:
        _check_metadata(metadata, metaoff, len(begins))
    unigram = text.with_name(text.name.replace("tokenized", "unigram"))
    if unigram.exists():
        expected = "".join(f"{token} {count}\n" for token, count in unigram_counts(text, width_bytes))
        _check_equal(unigram, expected.encode(), f"does not match the token counts of {text}")
    tokens = size // width_bytes
    total = samples or 2 * tokens
    check_table(str(text), width_bytes, str(table), samples, shard.number, lambda done: report("table", done, total, "entries"))
    report("table", total, total, "entries")
    if keys is not None and samples == 0:
        expected_keys = sampled_keys(str(text), width_bytes, str(table), KEY_STRIDE)
        _check_equal(keys, expected_keys, f"does not match the keys of {table}; delete it")
    return len(begins), tokens


def _rising(path: Path, limit: int) -> np.ndarray:
    """The offsets of a file, checked to ascend from 0 and to stay below `limit`."""
    if path.stat().st_size % 8:
        raise BadIndex(f"{path} has {path.stat().st_size} bytes, not a whole number of offsets; it is truncated")
    offsets = np.fromfile(path, dtype="<u8")
    wrong = np.flatnonzero(np.append(offsets[:1] != 0, offsets[1:] <= offsets[:-1]) | (offsets >= limit))
    if len(wrong):
        raise BadIndex(f"{path} is damaged: offset {wrong[0]} is {offsets[wrong[0]]}; must ascend from 0 and stay below {limit}")
    if len(offsets) == 0 and limit > 0:
        raise BadIndex(f"{path} is empty, but {limit} bytes belong to documents; it is truncated")
    return offsets


def _check_separators(
    text: Path, offset: Path, begins: np.ndarray, width_bytes: int, vocabulary: int | None, report: Report
) -> None:
    """Check that every separator is the start of a document, and that no other id is beyond the vocabulary."""
    if text.stat().st_size == 0:
        return
    tokens = np.memmap(text, dtype=f"<u{width_bytes}", mode="r")
    separator = int(np.iinfo(tokens.dtype).max)
    checked = 0
    for start in range(0, len(tokens), _CHUNK):
        chunk = np.array(tokens[start : start + _CHUNK])
        found = np.flatnonzero(chunk == separator) + start
        stop = int(np.searchsorted(begins, (start + len(chunk)) * width_bytes))
        expected = begins[checked:stop] // width_bytes
        if len(found) != len(expected) or np.any(found != expected) or np.any(begins[checked:stop] % width_bytes):
            same = min(len(found), len(expected))
            differs = np.flatnonzero(found[:same] != expected[:same])
            document = checked + int(differs[0] if len(differs) else same)
            raise BadIndex(f"{text} and {offset} disagree about where document {document} begins; one of them is damaged")
        checked = stop
        strange = np.flatnonzero((chunk >= (vocabulary or separator)) & (chunk != separator))
        if len(strange):
            at = start + int(strange[0])
            raise BadIndex(f"{text} is damaged: token {at} is {tokens[at]}, the vocabulary ends at {vocabulary}")
        report("text", start + len(chunk), len(tokens), "tokens")


def _check_metadata(metadata: Path, metaoff: Path, documents: int) -> None:
    size = metadata.stat().st_size
    begins = _rising(metaoff, size)
    if len(begins) != documents:
        raise BadIndex(f"{metaoff} has {len(begins)} offsets for {documents} documents; one of the files is truncated")
    with open(metadata, "rb") as file:
        for line, (begin, end) in enumerate(itertools.pairwise([*begins.tolist(), size])):
            content = file.read(end - begin)
            if content.find(b"\n") != len(content) - 1:
                raise BadIndex(f"{metadata} and {metaoff} disagree about line {line}; one of them is damaged")


def _check_equal(path: Path, expected: bytes, what: str) -> None:
    if path.read_bytes() != expected:
        raise BadIndex(f"{path} is damaged: it {what}")


def _check_sums(folder: Path, manifest: dict[str, Any], report: Report) -> None:
    files = {name: entry for shard in manifest["shards"] for name, entry in shard["files"].items()}
    for done, (name, recorded) in enumerate(files.items()):
        report("checksums", done, len(files), "files")
        if not (folder / name).exists():
            raise BadIndex(f"{folder / name} is missing, though its manifest lists it; restore it, or rebuild the index")
        if manifests.file_entry(folder / name) != recorded:
            raise BadIndex(f"{folder / name} differs from the checksum in its manifest; restore it, or rebuild the index")
    report("checksums", len(files), len(files), "files")
