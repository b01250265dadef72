"""Candidates, scores and sources in groups that fit in memory, from the parts of a run or from tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.parts import part_groups, part_names, read_some, stage_schema
from limbeck.corpus.schemas import SOURCES


class Reader(Protocol):
    """Candidates, scores and sources in groups of parts; a part is known by its number."""

    @property
    def candidates(self) -> pa.Schema:
        """The columns of the candidates."""
        ...

    @property
    def scores(self) -> Mapping[str, pa.Schema]:
        """The columns of each filter's scores."""
        ...

    @property
    def has_sources(self) -> bool:
        """Whether the sources are known."""
        ...

    def groups(self) -> Iterator[range]:
        """The numbers of the parts of each group, in order."""
        ...

    def load(self, parts: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Columns of the candidates of some parts, preceded by `part` and `row` (from 0 in each part)."""
        ...

    def load_scores(self, name: str, parts: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Columns of a filter's scores of the candidates of some parts."""
        ...

    def load_sources(self, parts: Sequence[int], source_ids: pa.ChunkedArray, columns: Sequence[str]) -> pa.Table:
        """Columns of the sources of candidates of some parts, one row per id; nulls for an unknown source."""
        ...


class TablesReader:
    """Tables in memory, as one group."""

    def __init__(self, candidates: pa.Table, scores: Mapping[str, pa.Table], sources: pa.Table | None = None) -> None:
        self._candidates, self._scores, self._sources = candidates, scores, sources

    @property
    def candidates(self) -> pa.Schema:
        """The columns of the candidates."""
        return self._candidates.schema

    @property
    def scores(self) -> Mapping[str, pa.Schema]:
        """The columns of each filter's scores."""
        return {name: table.schema for name, table in self._scores.items()}

    @property
    def has_sources(self) -> bool:
        """Whether the sources are known."""
        return self._sources is not None

    def groups(self) -> Iterator[range]:
        """One group of one part."""
        yield range(1)

    def load(self, parts: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """All candidates."""
        return _numbered(self._candidates.select(list(columns)), 0)

    def load_scores(self, name: str, parts: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """All scores of a filter."""
        return self._scores[name].select(list(columns))

    def load_sources(self, parts: Sequence[int], source_ids: pa.ChunkedArray, columns: Sequence[str]) -> pa.Table:
        """The sources of these ids."""
        assert self._sources is not None
        return self._sources.select(list(columns)).take(_index_in(source_ids, self._sources["source_id"]))


class PartsReader:
    """The parts of a run's folders; scores of a part belong to the candidates of the part with the same name."""

    def __init__(
        self,
        candidates: Path,
        scores: Mapping[str, Path],
        sources: Path | None = None,
        parts: Sequence[str] | None = None,
        schemas: Mapping[str, pa.Schema] | None = None,
    ) -> None:
        """`parts` None: all. `schemas`: of each folder, by its path, if they are known; else every part is opened."""
        self._folder, self._scores, self._sources = candidates, scores, sources
        self._parts = tuple(part_names(candidates) if parts is None else parts)
        if schemas is None:
            schemas = {str(folder): stage_schema(folder, self._parts) for folder in (candidates, *scores.values())}
        self.schemas = dict(schemas)
        self._located: pa.Table | None = None

    @property
    def candidates(self) -> pa.Schema:
        """The columns of the candidates."""
        return self.schemas[str(self._folder)]

    @property
    def scores(self) -> Mapping[str, pa.Schema]:
        """The columns of each filter's scores."""
        return {name: self.schemas[str(folder)] for name, folder in self._scores.items()}

    @property
    def has_sources(self) -> bool:
        """Whether the sources are known."""
        return self._sources is not None

    def groups(self) -> Iterator[range]:
        """Consecutive parts of a few mebibytes."""
        first = 0
        for names in part_groups(self._folder, self._parts):
            yield range(first, first + len(names))
            first += len(names)

    def load(self, parts: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Read columns of the candidates."""
        schema = _selected(self.candidates, columns)
        found = read_some(self._folder, self._names(parts), schema)
        tables = [_numbered(table, number) for number, table in zip(parts, found, strict=True)]
        return pa.concat_tables(tables) if tables else _numbered(schema.empty_table(), 0)

    def load_scores(self, name: str, parts: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Read columns of a filter's scores; a part that is not scored has no rows."""
        schema = _selected(self.scores[name], columns)
        return pa.concat_tables([schema.empty_table(), *read_some(self._scores[name], self._names(parts), schema)])

    def load_sources(self, parts: Sequence[int], source_ids: pa.ChunkedArray, columns: Sequence[str]) -> pa.Table:
        """Read the sources, which usually are in the parts of the same name."""
        found = self._read_sources(self._names(parts), columns)
        places = _index_in(source_ids, found["source_id"])
        if places.null_count:
            elsewhere = self._parts_of(source_ids.filter(pc.is_null(places)))
            found = pa.concat_tables([found, self._read_sources(elsewhere, columns)])
            places = _index_in(source_ids, found["source_id"])
        return found.select(list(columns)).take(places)

    def _names(self, parts: Sequence[int]) -> list[str]:
        return [self._parts[number] for number in parts]

    def _read_sources(self, parts: Sequence[str], columns: Sequence[str]) -> pa.Table:
        assert self._sources is not None
        schema = pa.schema([(name, SOURCES.field(name).type) for name in dict.fromkeys(("source_id", *columns))])
        return pa.concat_tables([schema.empty_table(), *read_some(self._sources, parts, schema)])

    def _parts_of(self, source_ids: pa.ChunkedArray) -> list[str]:
        """The parts of the sources that contain any of these ids."""
        assert self._sources is not None
        if self._located is None:
            parts = part_names(self._sources)
            only_ids = pa.schema([("source_id", pa.string())])
            tables = [
                table.append_column("part", pa.repeat(part, table.num_rows))
                for names in part_groups(self._sources, parts)
                for part, table in zip(names, read_some(self._sources, names, only_ids), strict=True)
            ]
            self._located = pa.concat_tables(
                [pa.table({"source_id": pa.array([], pa.string()), "part": pa.array([], pa.string())}), *tables]
            )
        rows = self._located.filter(pc.is_in(self._located["source_id"], source_ids.combine_chunks()))
        return sorted(pc.unique(rows["part"]).to_pylist())


def _numbered(table: pa.Table, part: int) -> pa.Table:
    rows = table.num_rows
    numbers = {"part": pa.repeat(pa.scalar(part, pa.int64()), rows), "row": pa.array(range(rows), pa.int64())}
    return pa.table({**numbers, **{name: table[name] for name in table.column_names}})


def _selected(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """These columns of a folder; a folder without parts has none, so their types do not matter."""
    return pa.schema([schema.field(name) if name in schema.names else pa.field(name, pa.string()) for name in columns])


def _index_in(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray:
    """The position of each id among the known ones, or null."""
    return pc.index_in(ids, known.combine_chunks())
