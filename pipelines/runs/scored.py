"""A round's candidates with their scores, read part by part: memory does not grow with the number of candidates.

Texts and evidence stay in the parts. What selection needs (ids, numbers, why a score is missing) is joined into one narrow table,
`scored` in DuckDB, in the order of source_id and sample. For all parts of a round, that table is kept as a file in the folder
`.cache` of the round: it is built again when a part changes, and may be deleted at any time.
"""

import base64
import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from limbeck.corpus.parts import publishing, stage_state
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.scratch import Scratch
from limbeck.pipelines.runs.reader import PartsReader, Reader, TablesReader

CACHE = ".cache"
IDS = ("candidate_id", "source_id", "sample")
NOTES = ("error", "skipped_by")
"""Columns of a filter's scores that say why a score is missing."""

NOT_SCORES = ("candidate_id", *NOTES)
"""Columns of a score part that are neither scores nor evidence."""

SOURCE_REFERENCE = "source_reference"
"""The reference of a candidate's source, beside the candidate's own."""

BATCH_ROWS = 16_384
_OF_CANDIDATES = (*IDS, "finish_reason", "error")
_FORMAT = 2  # of a cached table


@dataclass(frozen=True)
class Columns:
    """The columns of a filter's scores: numbers, evidence (everything else), and those of `NOTES` that it has."""

    numbers: tuple[str, ...]
    evidence: tuple[str, ...]
    notes: tuple[str, ...]


class Scored:
    """A connection with the table `scored`, and access to the texts and the evidence of its rows; close it after use.

    `scored` has `IDS`, `finish_reason`, `error`, `position` (from 0, by source_id and sample), `part` and `row`, and for each
    filter its numbers as `filter.column` (double), `filter.error` and `filter.skipped_by`.
    """

    def __init__(self, reader: Reader, near: Path | None = None, cached: Path | None = None) -> None:
        """Build the table from `reader`, or take the file `cached`; temporary files are created in the folder `near`.

        `near` None: everything is in memory.
        """
        self.reader = reader
        self.columns = {name: _columns(schema) for name, schema in reader.scores.items()}
        self._scratch = None if near is None else Scratch(near)
        self.connection = duckdb.connect() if self._scratch is None else self._scratch.connect()
        self._names = 0
        if cached is not None:
            self._view(cached)
            return
        unsorted = self.new_name()
        self._join(unsorted)
        order = "source_id, sample, part, row"
        if self._scratch is None:
            query = f"select *, row_number() over (order by {order}) - 1 as position from {unsorted} order by position"
            self.connection.execute(f"create table scored as {query}")
        else:
            self.file = self.new_file()
            told = {f"schema:{name}": _packed(schema) for name, schema in {"": reader.candidates, **reader.scores}.items()}
            self.write(f"select * from {unsorted} order by {order}", self.file, told)
            self._view(self.file)
        self.connection.execute(f"drop table {unsorted}")

    def __enter__(self) -> "Scored":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connection and remove its temporary files."""
        self.connection.close()
        if self._scratch is not None:
            self._scratch.close()

    @property
    def num_rows(self) -> int:
        """The number of candidates."""
        return int(self.connection.execute("select count(*) from scored").fetchall()[0][0])

    def new_name(self) -> str:
        """An unused name for a table."""
        self._names += 1
        return f"table_{self._names}"

    def new_file(self) -> Path:
        """An unused path for a temporary file."""
        assert self._scratch is not None, "tables in memory have no folder"
        return self._scratch.path / f"{self.new_name()}.parquet"

    def stream(self, query: str) -> Iterator[pa.RecordBatch]:
        """Yield the result of a query in batches, without holding all of it in memory."""
        cursor = self.connection.cursor()
        try:
            yield from cursor.sql(query).to_arrow_reader(BATCH_ROWS)
        finally:
            cursor.close()

    def write(self, query: str, file: Path, metadata: Mapping[str, bytes] | None = None, schema: pa.Schema | None = None) -> None:
        """Write the result of a query as a Parquet file, batch by batch; `schema` casts its columns."""
        cursor = self.connection.cursor()
        reader = cursor.sql(query).to_arrow_reader(BATCH_ROWS)
        written = (schema or reader.schema).with_metadata(metadata)
        # statistics leave NaN out, and with them DuckDB takes isnan() of such a column for false without reading it
        measured = not any(pa.types.is_floating(field.type) for field in written)
        with pq.ParquetWriter(file, written, compression="zstd", write_statistics=measured) as writer:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                writer.write_table((table if schema is None else table.cast(schema)).replace_schema_metadata(metadata))

    def fetch(
        self,
        chosen: str,
        texts: Sequence[str] = (),
        sources: Mapping[str, str] | None = None,
        numbers: Sequence[str] = (),
        evidence: Sequence[str] = (),
    ) -> Iterator[pa.Table]:
        """Yield the rows whose `position` is in the table `chosen`, in that order, in batches; the first one is empty.

        `texts`: further columns of the candidates. `sources`: columns of their sources, by the name under which they are
        returned. `numbers` and `evidence`: `filter.column`. Parts are read in their order; if that is another order, the rows
        are sorted on disk.
        """
        texts = [name for name in texts if name not in IDS]
        sources = sources or {}
        schema = self._schema(texts, sources, numbers, evidence)
        yield schema.empty_table()
        (in_order,) = self.connection.execute(
            "select coalesce(bool_and(position > before), true) from (select position, lag(position, 1, -1) over "
            f"(order by part, row) as before from scored where position in (select position from {chosen}))"
        ).fetchall()[0]
        batches = self._by_part(chosen, texts, sources, numbers, evidence)
        if in_order:
            yield from (batch.select(schema.names).cast(schema) for batch in batches)
            return
        staged = self.new_name()
        self._store(staged, batches)
        for found in self.stream(f"select {', '.join(map(quoted, schema.names))} from {staged} order by position"):
            yield pa.Table.from_batches([found]).cast(schema)
        self.connection.execute(f"drop table {staged}")

    def _schema(
        self, texts: Sequence[str], sources: Mapping[str, str], numbers: Sequence[str], evidence: Sequence[str]
    ) -> pa.Schema:
        """The columns of the fetched rows."""
        own = self.reader.candidates
        others = {f"{name}.{field.name}": field.type for name, schema in self.reader.scores.items() for field in schema}
        fields = [(name, own.field(name).type) for name in (*IDS, *texts)]
        fields += [(name, SOURCES.field(column).type) for name, column in sources.items()]
        fields += [(name, pa.float64()) for name in numbers]
        return pa.schema([*fields, *((name, others[name]) for name in evidence)])

    def _by_part(
        self, chosen: str, texts: Sequence[str], sources: Mapping[str, str], numbers: Sequence[str], evidence: Sequence[str]
    ) -> Iterator[pa.Table]:
        """Yield the chosen rows by part and row, one table per group of parts."""
        columns = ", ".join(map(quoted, ("position", "part", "row", *IDS, *numbers)))
        query = f"select {columns} from scored where position in (select position from {chosen}) order by part, row"
        waiting = _Waiting(self.stream(query))
        for parts in self.reader.groups():
            rows = waiting.below(parts.stop)
            if rows is None or not rows.num_rows:
                continue
            used = pc.unique(rows["part"]).to_pylist()
            if texts:
                table = self.reader.load(used, texts)
                rows = _beside(rows, table.select(list(texts)).take(_places(table, rows)))
            if sources:
                found = self.reader.load_sources(used, rows["source_id"], list(sources.values()))
                rows = _beside(rows, found.rename_columns(list(sources)))
            for name in self.columns:
                asked = [column for column in self.columns[name].evidence if f"{name}.{column}" in evidence]
                if asked:
                    scores = self.reader.load_scores(name, used, ["candidate_id", *asked])
                    places = pc.index_in(rows["candidate_id"], scores["candidate_id"].combine_chunks())
                    rows = _beside(rows, scores.select(asked).take(places).rename_columns([f"{name}.{c}" for c in asked]))
            yield rows

    def _store(self, name: str, batches: Iterator[pa.Table]) -> None:
        for number, batch in enumerate(batches):
            self.connection.register("batch", batch)
            self.connection.execute(f"{f'insert into {name}' if number else f'create table {name} as'} select * from batch")
            self.connection.unregister("batch")

    def _join(self, name: str) -> None:
        """Create the table of all candidates with their scores, one group of parts after another."""
        columns = [*(f"c.{column}" for column in ("part", "row", *_OF_CANDIDATES))]
        joins = []
        for filter_, (view, found) in self._views().items():
            columns += [f"{view}.{quoted(column)}::double as {quoted(f'{filter_}.{column}')}" for column in found.numbers]
            columns += [f"{view}.{column} as {quoted(f'{filter_}.{column}')}" for column in found.notes]
            joins.append(f"left join {view} on {view}.candidate_id = c.candidate_id")
        query = f"select {', '.join(columns)} from c {' '.join(joins)}"
        candidates = 0
        for number, parts in enumerate([range(0), *self.reader.groups()]):
            table = self.reader.load(parts, _OF_CANDIDATES)
            candidates += table.num_rows if number else 0
            self.connection.register("c", table)
            for filter_, (view, found) in self._views().items():
                wanted = ["candidate_id", *found.numbers, *found.notes]
                self.connection.register(view, self.reader.load_scores(filter_, parts, wanted))
            if number:
                self.connection.execute(f"insert into {name} {query}")
            else:
                self.connection.execute(f"create table {name} as {query} limit 0")
        for view in ("c", *(view for view, _ in self._views().values())):
            self.connection.unregister(view)
        query = f"select count(*), count(distinct candidate_id) from {name}"
        rows, distinct = self.connection.execute(query).fetchall()[0]
        assert rows == distinct == candidates, f"{candidates} candidates, {rows} decisions on {distinct} of them"

    def _views(self) -> dict[str, tuple[str, Columns]]:
        return {name: (f"s{index}", found) for index, (name, found) in enumerate(self.columns.items())}

    def _view(self, file: Path) -> None:
        self.connection.execute(
            "create view scored as select * rename (file_row_number as position) "
            f"from read_parquet({text(str(file))}, file_row_number = true)"
        )


def connect(candidates: pa.Table, scores: Mapping[str, pa.Table], sources: pa.Table | None = None) -> Scored:
    """Open tables in memory."""
    return Scored(TablesReader(candidates, scores, sources))


def connect_parts(
    candidates: Path, scores: Mapping[str, Path], sources: Path | None = None, parts: Sequence[str] | None = None
) -> Scored:
    """Open the parts in these folders (None: all); raises LimbeckError for a truncated one.

    The table of all parts is kept in, and taken from, the folder `.cache` beside `candidates`, or beside the scores of a what-if.
    """
    near = candidates.parent
    if parts is not None:
        return Scored(PartsReader(candidates, scores, sources, parts), near)
    folders = {"": candidates, **scores}
    which = _digest(sorted(f"{name}:{os.path.relpath(folder, near)}" for name, folder in folders.items()))
    state = _digest([str(_FORMAT), *(stage_state(folders[name]) for name in sorted(folders))])
    other = next((folder.parent for folder in scores.values() if folder.parent != near / "scores"), near)  # of a what-if
    cached = other / CACHE / f"{which}-{state}.scored"
    schemas = _recorded_schemas(cached, folders)
    if schemas is not None:
        return Scored(PartsReader(candidates, scores, sources, schemas=schemas), near, cached)
    found = Scored(PartsReader(candidates, scores, sources), near)
    if os.access(near, os.W_OK):  # the run of another user may be read-only
        _remove_earlier(cached.parent, which)
        with publishing(cached) as temporary:
            try:
                os.link(found.file, temporary)
            except OSError:  # another disk, since this one has no locks
                shutil.copyfile(found.file, temporary)
    return found


def _remove_earlier(folder: Path, which: str) -> None:
    """Remove the tables of earlier states of these folders, and what a process that was killed an hour ago left."""
    for earlier in folder.glob(f"{which}-*"):
        earlier.unlink(missing_ok=True)
    for unfinished in folder.glob(f".{which}-*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - unfinished.stat().st_mtime > 3600:
                unfinished.unlink()


def _recorded_schemas(cached: Path, folders: Mapping[str, Path]) -> dict[str, pa.Schema] | None:
    """The schemas of the folders, by path, that a cached table was made from; None if there is no such table."""
    try:
        told = pq.read_schema(cached).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return {str(folder): _unpacked(told[f"schema:{name}".encode()]) for name, folder in folders.items()}


def _packed(schema: pa.Schema) -> bytes:
    return base64.b64encode(schema.serialize().to_pybytes())


def _unpacked(packed: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(packed)))


def _digest(values: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(values).encode(), digest_size=8).hexdigest()


def _columns(schema: pa.Schema) -> Columns:
    kinds = {field.name: field.type for field in schema if field.name not in NOT_SCORES}
    numbers = tuple(name for name, kind in kinds.items() if _is_number(kind))
    evidence = tuple(name for name in kinds if name not in numbers)
    return Columns(numbers, evidence, tuple(name for name in NOTES if name in schema.names))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind))


class _Waiting:
    """Batches of rows in the order of their parts, taken part by part."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rest: list[pa.RecordBatch] = []

    def below(self, part: int) -> pa.Table | None:
        """The next rows, up to the parts before `part`; None if there are none."""
        while not self._rest or not self._rest[-1].num_rows or self._rest[-1]["part"][-1].as_py() < part:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._rest.append(batch)
        if not self._rest:
            return None
        table = pa.Table.from_batches(self._rest)
        end = int(np.searchsorted(table["part"].to_numpy(), part))
        self._rest = table.slice(end).to_batches()
        return table.slice(0, end)


def _places(table: pa.Table, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Where rows with `part` and `row` are in a table that is ordered by both."""
    keys, wanted = (part["part"].to_numpy() << 32 | part["row"].to_numpy() for part in (table, rows))
    found: npt.NDArray[np.int64] = np.searchsorted(keys, wanted)
    return found


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for field in right.schema:
        left = left.append_column(field, right[field.name])
    return left


def quoted(identifier: str) -> str:
    """An SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def text(value: str) -> str:
    """An SQL string."""
    return "'" + value.replace("'", "''") + "'"
