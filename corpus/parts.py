"""Parts on disk: immutable Parquet files, written whole or not at all. Nothing else knows the row format.

A part is written under a temporary name that no reader opens, flushed to disk, and renamed into place; publishing an existing
part is a no-op, so two writers of the same part (the last worker of a killed run and its successor) cannot conflict. A stage
folder ends with `_done.json`, written last.
"""

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.files import flush, flush_contents, json_text, replace_text
from limbeck.corpus.storage.local import move_once, remove
from limbeck.corpus.storage.manifest import Location, Manifest, newest, read_manifest

DONE = "_done.json"
COMPUTED_AGAIN = "`limbeck run` with the run's recipe computes it again"
"""The way out for what a run folder has lost; it holds for unfinished and for finished runs."""

DELETE_IT = f"delete it, and {COMPUTED_AGAIN}"
NOT_MADE_AGAIN = "it cannot be made again: restore it, or start again with another --out"
GROUP_BYTES = 4 << 20
READING_THREADS = 4


@contextlib.contextmanager
def publishing(path: Path, *, once: str | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; what the caller writes there is renamed to `path`, or removed if it raised.

    Works for files and folders. By default, if `path` exists when the caller is done, the new version is dropped: two writers of
    a part write the same. With `once` (the way out, such as "choose another --out"), a `path` that exists, before or after, is a
    LimbeckError, so of several writers exactly one succeeds.
    """
    if once is not None and os.path.lexists(path):
        raise LimbeckError(f"{path} already exists; {once}")
    make_folder(path.parent, path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        flush_contents(temporary)
        if once is not None:
            move_once(temporary, path)
        elif not path.exists():
            try:
                os.rename(temporary, path)
            except OSError:  # a folder that was published by another writer meanwhile
                if not path.exists():
                    raise
        flush(path.parent)
    except OSError as error:
        if once is not None and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise LimbeckError(f"{path} was written by another process meanwhile; {once}") from error

        raise LimbeckError(f"cannot write {path}: {error.strerror or error}; free some space or choose another --out") from error
    finally:
        remove(temporary)


def make_folder(folder: Path, output: Path) -> None:
    """Create the folder for an output; raises LimbeckError, which names the output, if that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(parent for parent in (folder, *folder.parents) if parent.exists() or parent.is_symlink())
        raise LimbeckError(f"cannot write {output}: {file} is not a folder; choose another path") from error
    except OSError as error:
        raise LimbeckError(f"cannot write {output}: {error.strerror or error}; choose another path") from error


def write_text(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a small file atomically; `replace` overwrites (for derived files, such as a report)."""
    if replace and path.exists():
        try:
            replace_text(path, text, writer=f".{uuid.uuid4().hex}")
        except OSError as error:
            raise LimbeckError(
                f"cannot write {path}: {error.strerror or error}; free some space or choose another --out"
            ) from error
        return
    with publishing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, replace: bool = False) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json_text(value), replace=replace)


def read_json(path: Path, way_out: str = DELETE_IT) -> Any:
    """Read a JSON file; raises LimbeckError, which ends with `way_out`, if it is missing or truncated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LimbeckError(f"{path} does not exist; {COMPUTED_AGAIN}") from error
    except OSError as error:
        raise LimbeckError(f"cannot read {path}: {error.strerror or error}; {way_out}") from error
    except (ValueError, RecursionError) as error:
        raise LimbeckError(f"{path} is not valid JSON ({error}); {way_out}") from error


def read_object(path: Path, way_out: str = DELETE_IT) -> dict[str, Any]:
    """Read a JSON file that holds an object; raises LimbeckError as `read_json` does, and if it holds another value."""
    value = read_json(path, way_out)
    if not isinstance(value, dict):
        raise LimbeckError(f"{path} is not a JSON object; {way_out}")
    return value


def part_path(folder: Path, part: str) -> Path:
    """Path of a part's own file in a stage folder; it is gone once the part has been compacted."""
    return folder / f"{part}.parquet"


@dataclass(frozen=True)
class Layout:
    """Where the parts of a stage folder are at one moment: in files of their own, or in the files of the manifest."""

    folder: Path
    own: frozenset[str]
    manifest: Manifest
    located: Mapping[str, Location]
    """Parts without a file of their own. A part of a file that is lost is not published."""

    @property
    def names(self) -> list[str]:
        """All parts, in order."""
        return sorted({*self.own, *self.located})

    def file(self, part: str) -> Path:
        """The file with a published part."""
        return part_path(self.folder, part) if part in self.own else self.folder / self.located[part].file


def layout(folder: Path) -> Layout:
    """Look where the parts of a stage folder are."""
    while True:
        manifest = read_manifest(folder)
        try:
            names = set(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            names = set()
        if newest(names) == manifest.generation:  # else parts may have moved into files between the two looks
            own = {name.removesuffix(".parquet") for name in names if name.startswith("part-") and name.endswith(".parquet")}
            found = {part: where for part, where in manifest.parts.items() if part not in own and where.file in names}
            return Layout(folder, frozenset(own), manifest, found)


def part_names(folder: Path) -> list[str]:
    """The names of the published parts of a stage folder, in order."""
    return layout(folder).names


def has_part(folder: Path, part: str) -> bool:
    """Whether a part is published."""
    return part_path(folder, part).exists() or part in layout(folder).located


def part_rows(folder: Path, part: str) -> int:
    """The number of rows of a part; raises LimbeckError if it is missing or truncated."""
    if not part_path(folder, part).exists():
        found = layout(folder).located.get(part)
        if found is not None:
            return found.rows
    return check_whole(part_path(folder, part))


def write_part(folder: Path, part: str, table: pa.Table, schema: pa.Schema | None = None) -> None:
    """Publish one part, unless it is published; `schema` casts and checks the columns."""
    if part in layout(folder).located:
        return
    write_table(part_path(folder, part), table, schema)


def write_table(path: Path, table: pa.Table, schema: pa.Schema | None = None) -> None:
    """Publish one Parquet file; an existing file is left unchanged."""
    if schema is not None:
        table = table.select(schema.names).cast(schema)
    with publishing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def part_bounds(rows: int, rows_per_part: int, wave_rows: int | None = None) -> list[tuple[int, int]]:
    """The [first, last) row of each part of up to `rows_per_part` of `rows` rows.

    With `wave_rows` a part also ends at every multiple of that number, so that a wave is a whole number of parts.
    """
    wave_rows = wave_rows or max(1, rows)
    ends = [(begin, min(begin + wave_rows, rows)) for begin in range(0, rows, wave_rows)]
    return [(start, min(start + rows_per_part, end)) for begin, end in ends for start in range(begin, end, rows_per_part)]


def write_parts(
    folder: Path, table: pa.Table, rows_per_part: int, schema: pa.Schema | None = None, wave_rows: int | None = None
) -> list[str]:
    """Publish a table as the parts that `part_bounds` cuts, and return their names; an empty table has no parts."""
    names: list[str] = []
    for start, end in part_bounds(table.num_rows, rows_per_part, wave_rows):
        names.append(f"part-{len(names):05d}")
        write_part(folder, names[-1], table.slice(start, end - start), schema)
    return names


def read_table(path: Path) -> pa.Table:
    """Read one Parquet file; raises LimbeckError if it is missing or truncated."""
    try:
        return pq.read_table(path, partitioning=None)
    except FileNotFoundError as error:
        raise LimbeckError(f"{path} does not exist; {COMPUTED_AGAIN}") from error
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error


def read_slice(files: Sequence[Path], start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    """Rows `start` to `stop` of Parquet files that follow one another, reading only the row groups that hold them.

    Columns that the files do not have are left out. Raises LimbeckError if a file is missing or truncated.
    """
    found, before = list[pa.Table](), 0
    for path in files:
        check_whole(path)
        with _opened(path) as file:
            names = [name for name in columns if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                first, last = max(start - before, 0), min(stop - before, rows)
                if first < last:
                    found.append(_row_group(file, group, names).slice(first, last - first))
                before += rows
    return pa.concat_tables(found) if found else pa.table({})


def read_part(folder: Path, part: str) -> pa.Table:
    """Read one part."""
    if not part_path(folder, part).exists():
        found = layout(folder).located.get(part)
        if found is not None:
            with _opened(folder / found.file) as file:
                return _row_group(file, found.group, None).slice(found.first, found.rows)
    return read_table(part_path(folder, part))


def read_parts(folder: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read every part of a stage folder as one table, in part order; an empty folder yields an empty table of `schema`."""
    tables = [read_part(folder, part) for part in part_names(folder)]
    if not tables:
        return (schema or pa.schema([])).empty_table()
    return pa.concat_tables(tables, promote_options="default")


def read_some(folder: Path, parts: Sequence[str], schema: pa.Schema) -> list[pa.Table]:
    """Read the columns of `schema` of some parts, one table per part.

    A column that a part does not have is null; a part that is not published has no rows.
    """
    located, found = layout(folder).located, dict[str, pa.Table]()
    compacted = [part for part in parts if part in located]
    for file, of_file in groupby(compacted, key=lambda part: located[part].file):
        with _opened(folder / file) as opened:
            columns = [name for name in schema.names if name in opened.schema_arrow.names]
            for group, of_group in groupby(of_file, key=lambda part: located[part].group):
                whole = _row_group(opened, group, columns)
                found.update((part, whole.slice(located[part].first, located[part].rows)) for part in of_group)
    own = [part for part in parts if part not in found]
    with ThreadPoolExecutor(READING_THREADS) as threads:
        found.update(zip(own, threads.map(lambda part: _read_own(folder, part, schema.names), own), strict=True))
    return [_conformed(found[part], schema) for part in parts]


def _read_own(folder: Path, part: str, names: Sequence[str]) -> pa.Table:
    """Columns of a part in a file of its own; without rows if there is none."""
    path = part_path(folder, part)
    try:
        with _opened(path) as opened:
            return opened.read([name for name in names if name in opened.schema_arrow.names], use_threads=False)
    except FileNotFoundError:
        if not has_part(folder, part):
            return pa.table({})
        table = read_part(folder, part)  # compacted a moment ago
        return table.select([name for name in names if name in table.column_names])
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error


def _row_group(file: pq.ParquetFile, group: int, columns: Sequence[str] | None) -> pa.Table:
    """A row group; a file of parts without rows has none."""
    if group >= file.num_row_groups:
        return file.schema_arrow.empty_table()
    return file.read_row_group(group, columns, use_threads=False)


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` of a table, in its types; a missing column is null."""
    rows, has = table.num_rows, set(table.column_names)
    columns = [table[field.name].cast(field.type) if field.name in has else pa.nulls(rows, field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def stage_schema(folder: Path, parts: Sequence[str]) -> pa.Schema:
    """The columns of all of these parts; raises LimbeckError if one is truncated, or if types differ."""
    files = stage_files(folder, parts)
    distinct: list[pa.Schema] = []
    with ThreadPoolExecutor(READING_THREADS) as threads:
        for schema in threads.map(_schema_of, files):
            if not any(schema.equals(known) for known in distinct):
                distinct.append(schema)
    try:
        return pa.unify_schemas(distinct, promote_options="permissive") if distinct else pa.schema([])
    except pa.ArrowException as error:
        raise LimbeckError(f"the parts of {folder} have columns of different types ({error}); choose another --out") from error


def _schema_of(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path).remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error


def stage_files(folder: Path, parts: Sequence[str]) -> list[Path]:
    """The files that hold these parts, as far as they are published, in the order of the parts."""
    found = layout(folder)
    return list(dict.fromkeys(found.file(part) for part in parts if part in found.own or part in found.located))


def part_groups(folder: Path, parts: Sequence[str]) -> Iterator[list[str]]:
    """Divide parts into consecutive groups of about `GROUP_BYTES` (compressed)."""
    located, group, size = layout(folder).located, list[str](), 0
    for part in parts:
        size += located[part].bytes if part in located else _size(part_path(folder, part))
        group.append(part)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def stage_state(folder: Path) -> str:
    """Text that changes when a part of a stage folder is added, removed or replaced, without opening any."""
    try:
        with os.scandir(folder) as entries:
            files = sorted((entry.name, entry.stat()) for entry in entries if entry.name.endswith((".parquet", ".json")))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return "\n".join(f"{name} {state.st_size} {state.st_mtime_ns} {state.st_ino}" for name, state in files if name != DONE)


def count_rows(folder: Path) -> int:
    """Row count of the published parts of a stage folder, without reading them; raises LimbeckError if one is truncated."""
    found = layout(folder)
    for file in {where.file for where in found.located.values()}:
        check_whole(folder / file)
    with ThreadPoolExecutor(READING_THREADS) as threads:
        own = sum(threads.map(lambda part: check_whole(part_path(folder, part)), sorted(found.own)))
    return own + sum(where.rows for where in found.located.values())


def check_whole(path: Path) -> int:
    """Return the number of rows of a Parquet file; raises LimbeckError if it is missing or truncated."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except FileNotFoundError as error:
        raise LimbeckError(f"{path} does not exist; {COMPUTED_AGAIN}") from error
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """An open Parquet file; raises LimbeckError if it is truncated, and FileNotFoundError if there is none."""
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error
    with file:
        yield file


def _not_whole(path: Path, error: Exception) -> LimbeckError:
    why = str(error).splitlines()[0]
    way_out = NOT_MADE_AGAIN if path.parent.parent.name == "sources" else DELETE_IT
    return LimbeckError(f"{path} is not a complete Parquet file ({why}); {way_out}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # compacted a moment ago
        return 0


def mark_done(folder: Path, fingerprint: str, **counts: Any) -> None:
    """Write the stage's `_done.json`: its fingerprint, and its row counts in and out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DONE, {"fingerprint": fingerprint, **counts})


def done(folder: Path) -> dict[str, Any] | None:
    """The content of `_done.json`, or None if the stage has not finished."""
    path = folder / DONE
    return read_object(path) if path.exists() else None
