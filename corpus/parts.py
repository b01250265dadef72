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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.files import flush, flush_contents, json_text, replace_text

DONE = "_done.json"


@contextlib.contextmanager
def publishing(path: Path, *, once: str | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; what the caller writes there is renamed to `path`, or removed if it raised.

    Works for files and folders. By default, if `path` exists when the caller is done, the new version is dropped: two writers of
    a part write the same. With `once` (the way out, such as "choose another --out"), a `path` that exists, before or after, is a
    LimbeckError, so of several writers exactly one succeeds.
    """
    if once is not None and os.path.lexists(path):
        raise LimbeckError(f"{path} already exists; {once}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        flush_contents(temporary)
        if once is not None:
            _move_once(temporary, path)
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
        _remove(temporary)


def _move_once(temporary: Path, path: Path) -> None:
    """Move a file or folder to a path; raises OSError (EEXIST or ENOTEMPTY) if something is there."""
    if temporary.is_dir():
        os.rename(temporary, path)  # fails unless `path` is free or an empty folder
    else:
        os.link(temporary, path)  # a rename would replace the other file


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


def read_json(path: Path, way_out: str = "delete it and rerun the same command") -> Any:
    """Read a JSON file; raises LimbeckError, which ends with `way_out`, if it is missing or truncated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LimbeckError(f"{path} does not exist; check that {path.parent} is a finished run folder") from error
    except ValueError as error:
        raise LimbeckError(f"{path} is not valid JSON ({error}); {way_out}") from error


def part_path(folder: Path, part: str) -> Path:
    """Path of a part in a stage folder."""
    return folder / f"{part}.parquet"


def part_names(folder: Path) -> list[str]:
    """The names of the published parts of a stage folder, in order."""
    return sorted(path.stem for path in folder.glob("part-*.parquet"))


def write_part(folder: Path, part: str, table: pa.Table, schema: pa.Schema | None = None) -> None:
    """Publish one part; `schema` casts and checks the columns."""
    write_table(part_path(folder, part), table, schema)


def write_table(path: Path, table: pa.Table, schema: pa.Schema | None = None) -> None:
    """Publish one Parquet file; an existing file is left unchanged."""
    if schema is not None:
        table = table.select(schema.names).cast(schema)
    with publishing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_parts(
    folder: Path, table: pa.Table, rows_per_part: int, schema: pa.Schema | None = None, wave_rows: int | None = None
) -> list[str]:
    """Publish a table as parts of up to `rows_per_part` rows and return their names; an empty table has no parts.

    With `wave_rows` a part also ends at every multiple of that number, so that a wave is a whole number of parts.
    """
    names: list[str] = []
    wave_rows = wave_rows or max(1, table.num_rows)
    for wave in range(0, table.num_rows, wave_rows):
        end = min(wave + wave_rows, table.num_rows)
        for start in range(wave, end, rows_per_part):
            names.append(f"part-{len(names):05d}")
            write_part(folder, names[-1], table.slice(start, min(rows_per_part, end - start)), schema)
    return names


def read_table(path: Path) -> pa.Table:
    """Read one Parquet file; raises LimbeckError if it is missing or truncated."""
    try:
        return pq.read_table(path, partitioning=None)
    except FileNotFoundError as error:
        raise LimbeckError(f"{path} does not exist; rerun the same command to create it") from error
    except (pa.ArrowException, OSError) as error:
        raise LimbeckError(
            f"{path} is not a complete Parquet file ({str(error).splitlines()[0]}); delete it and rerun the same command"
        ) from error


def read_part(folder: Path, part: str) -> pa.Table:
    """Read one part."""
    return read_table(part_path(folder, part))


def read_parts(folder: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read every part of a stage folder as one table, in part order; an empty folder yields an empty table of `schema`."""
    tables = [read_part(folder, part) for part in part_names(folder)]
    if not tables:
        return (schema or pa.schema([])).empty_table()
    return pa.concat_tables(tables, promote_options="default")


def count_rows(folder: Path) -> int:
    """Row count of the published parts of a stage folder, without reading them; raises LimbeckError if one is truncated."""
    return sum(check_whole(part_path(folder, part)) for part in part_names(folder))


def register(connection: duckdb.DuckDBPyConnection, name: str, folder: Path, parts: Sequence[str] | None = None) -> None:
    """Make parts of a stage folder (None: all) queryable as the view `name`, without reading them into memory."""
    chosen = part_names(folder) if parts is None else parts
    for part in chosen:
        check_whole(part_path(folder, part))
    files = [str(part_path(folder, part)) for part in chosen] or [str(folder / "part-*.parquet")]
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    connection.execute(f'create or replace view "{name}" as select * from read_parquet([{listed}], union_by_name = true)')


def check_whole(path: Path) -> int:
    """Return the number of rows of a Parquet file; raises LimbeckError if it is truncated."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise LimbeckError(
            f"{path} is not a complete Parquet file ({str(error).splitlines()[0]}); delete it and rerun the same command"
        ) from error


def mark_done(folder: Path, fingerprint: str, **counts: Any) -> None:
    """Write the stage's `_done.json`: its fingerprint, and its row counts in and out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DONE, {"fingerprint": fingerprint, **counts})


def done(folder: Path) -> dict[str, Any] | None:
    """The content of `_done.json`, or None if the stage has not finished."""
    path = folder / DONE
    return dict(read_json(path)) if path.exists() else None


def _remove(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
