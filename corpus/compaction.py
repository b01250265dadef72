"""Compaction: the small files of finished parts become a few large ones.

The steps are: write a large file, commit a manifest that names it, remove the small files. A kill between any two of them leaves
a folder that reads the same: a large file that no manifest names is ignored, and so is a small file beside a manifest that names
its part. The next compaction removes both.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import Layout, check_whole, layout, part_groups, part_path, publishing, read_some, stage_schema
from limbeck.corpus.storage.commits import Commits
from limbeck.corpus.storage.manifest import Location, Manifest

AT_LEAST_PARTS = 64
FILE_PARTS = 512
FILE_BYTES = 256 << 20
EPOCH = re.compile(r"-epoch(\d+)\.parquet$")
GROUP_ROWS = 4096  # a row group ends with the part that reaches this, so reading a part decodes few other rows


def compact(run: Path, folder: Path, commits: Commits, at_least: int | None = None) -> bool:
    """Compact the parts of a stage folder of a run, if at least so many (None: `AT_LEAST_PARTS`) have files of their own.

    Returns whether it did. All parts in it must be finished, and no process may be writing them. Raises LimbeckError if another
    driver owns the run.
    """
    try:
        return _compact(run, folder, commits, AT_LEAST_PARTS if at_least is None else at_least)
    except OSError as error:
        raise LimbeckError(f"cannot compact {folder}: {error.strerror}; free some space and rerun the same command") from error


def _compact(run: Path, folder: Path, commits: Commits, at_least: int) -> bool:
    found = layout(folder)
    waiting = sorted(found.own - _doubled(found))
    if len(waiting) < at_least:
        _remove_unused(found, commits.epoch)
        return False
    epoch = commits.own()
    located = {part: where for part, where in found.manifest.parts.items() if (folder / where.file).exists()}
    for parts in _chunks(folder, waiting):
        located |= _write(folder, parts, epoch)
    commits.commit(folder.relative_to(run).as_posix(), Manifest(found.manifest.generation + 1, located))
    _remove_unused(layout(folder), epoch)
    return True


def _doubled(found: Layout) -> set[str]:
    """The parts that are in a large file too: their own files are left over from a compaction that was killed."""
    return {part for part, where in found.manifest.parts.items() if part in found.own and (found.folder / where.file).exists()}


def _remove_unused(found: Layout, epoch: int) -> None:
    """Remove the small files of parts that the manifest names, and what earlier epochs left unfinished.

    Files of this and later epochs stay: a driver that has lost the run must not remove what the next one is about to commit.
    """
    for part in _doubled(found):
        part_path(found.folder, part).unlink(missing_ok=True)
    named = {where.file for where in found.manifest.parts.values()}
    for file in found.folder.glob("parts-*.parquet"):
        made_in = EPOCH.search(file.name)
        if file.name not in named and made_in is not None and int(made_in.group(1)) < epoch:
            file.unlink(missing_ok=True)


def _chunks(folder: Path, parts: Sequence[str]) -> Iterator[list[str]]:
    """Divide parts into the contents of large files."""
    chunk: list[str] = []
    size = 0
    for part in parts:
        chunk.append(part)
        size += part_path(folder, part).stat().st_size
        if len(chunk) == FILE_PARTS or size >= FILE_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _write(folder: Path, parts: Sequence[str], epoch: int) -> dict[str, Location]:
    """Write one large file and return where its parts are."""
    sizes = {part: part_path(folder, part).stat().st_size for part in parts}
    digest = hashlib.blake2b(repr(sizes).encode(), digest_size=6).hexdigest()
    name = f"parts-{parts[0].removeprefix('part-')}-{parts[-1].removeprefix('part-')}-{digest}-epoch{epoch}.parquet"
    schema, located = stage_schema(folder, parts), dict[str, Location]()
    with publishing(folder / name) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        group, rows, waiting = 0, 0, list[pa.Table]()
        for part, table in _tables(folder, parts, schema):
            located[part] = Location(name, group, rows, table.num_rows, sizes[part])
            waiting.append(table)
            rows += table.num_rows
            if rows >= GROUP_ROWS or (rows and part == parts[-1]):
                writer.write_table(pa.concat_tables(waiting), row_group_size=rows)
                group, rows, waiting = group + 1, 0, []
    assert check_whole(folder / name) == sum(where.rows for where in located.values()), f"{folder / name} lacks rows"
    return located


def _tables(folder: Path, parts: Sequence[str], schema: pa.Schema) -> Iterator[tuple[str, pa.Table]]:
    """Yield parts with their rows; a few are read at a time."""
    for group in part_groups(folder, parts):
        yield from zip(group, read_some(folder, group, schema), strict=True)
