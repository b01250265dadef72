"""Mix components into one dataset: read each once to count its rows, choose by seed, read again and write what was chosen.

What is chosen depends on the seed, the component's name and each row's content, not on the order of rows or files. Memory holds
two numbers per row; texts are streamed.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing, write_json
from limbeck.corpus.readers import reason_without_details
from limbeck.corpus.seeds import derive_seed
from limbeck.pipelines.runs.card import DATA, ROWS_PER_GROUP, table
from limbeck.pipelines.runs.mixture.components import TURNS, MixedRow, Opened, of_component
from limbeck.pipelines.runs.mixture.config import Proportions
from limbeck.pipelines.runs.mixture.facts import FACTS, MixedComponent, MixtureFacts, RunOfRows
from limbeck.pipelines.runs.mixture.shares import Share, counts_of, weights_of
from limbeck.pipelines.runs.scored import text

Numbers = npt.NDArray[np.uint64]
_ORDER = "_order"
_SCALARS: dict[type, pa.DataType] = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


@dataclass(frozen=True)
class Counted:
    """A component that was read once: a digest per usable row, in order, and why others are unusable."""

    opened: Opened
    digests: Numbers  # [usable]
    unusable: Counter[str] = field(default_factory=Counter)
    first_unusable: str = ""

    @property
    def share(self) -> Share:
        """The component as the rounding sees it."""
        own = self.opened.component
        return Share(own.name, len(self.digests), own.weight, own.cap)

    @property
    def digest(self) -> str:
        """Of all usable rows, in any order."""
        return hashlib.blake2b(np.sort(self.digests).tobytes(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What a mixture will have: the components, how many rows each gives, and its exact share."""

    name: str
    seed: int
    proportions: Proportions
    counted: tuple[Counted, ...]
    counts: tuple[int, ...]
    shares: tuple[float, ...]

    @property
    def facts(self) -> MixtureFacts:
        """What is recorded of it."""
        stated = all(each.share.weight is not None for each in self.counted)
        return MixtureFacts(
            name=self.name,
            seed=self.seed,
            rows=sum(self.counts),
            temperature=None if stated else self.proportions.tempered,
            components=[_facts(*each) for each in zip(self.counted, self.counts, self.shares, strict=True)],
            runs=list(_distinct(run for each in self.counted for run in each.opened.runs)),
        )


def planned(name: str, seed: int, proportions: Proportions, components: Sequence[Opened]) -> Plan:
    """Read every component once, and decide how many rows it gives.

    Raises LimbeckError if a component cannot be read, has no usable row or too few, or if the components' columns differ.
    """
    counted = tuple(count(each) for each in components)
    shares = [each.share for each in counted]
    for each in counted:
        if not len(each.digests):
            raise _no_row(each.opened, each.first_unusable)
    counts = counts_of(shares, proportions.size, proportions.tempered, proportions.max_repeats)
    weights = weights_of(shares, proportions.tempered)
    total = sum(weights)
    return Plan(name, seed, proportions, counted, tuple(counts), tuple(float(weight / total) for weight in weights))


def first_usable(component: Opened) -> None:
    """Read a component up to its first usable row; raises LimbeckError if there is none, or its rows have another form."""
    why = ""
    for row in _read(component):
        if row.reason is None:
            return
        why = why or _first(row)
    raise _no_row(component, why)


def _first(row: MixedRow) -> str:
    return f"the first, {row.origin}: {row.reason}"


def _no_row(component: Opened, why: str) -> LimbeckError:
    shown = f" ({why})" if why else ""
    return LimbeckError(
        f"component {component.component.name!r} of the mixture has no usable row{shown}; correct it, or remove it"
    )


def count(component: Opened) -> Counted:
    """Read a component once."""
    digests, unusable, first = [np.empty(0, np.uint64)], Counter[str](), ""
    batch: list[int] = []
    for row in _read(component):
        if row.reason is not None:
            first = first or _first(row)
            unusable[reason_without_details(row.reason)] += 1
            continue
        batch.append(_digest(row))
        if len(batch) == ROWS_PER_GROUP:
            digests.append(np.array(batch, np.uint64))
            batch = []
    return Counted(component, np.concatenate([*digests, np.array(batch, np.uint64)]), unusable, first)


def chosen(digests: Numbers, rows: int, seed: int, name: str) -> npt.NDArray[np.int64]:
    """How many times each row is taken: all equally often, and of the rest those that come first in an order drawn by the seed.

    The order depends on the rows' content, so it is the same for rows in another order; equal rows keep theirs.  # [rows read]
    """
    times = np.full(len(digests), rows // max(1, len(digests)), np.int64)
    keys = np.fromiter((derive_seed(seed, "mixture", name, int(digest)) for digest in digests), np.uint64, len(digests))
    times[np.argsort(keys, kind="stable")[: rows % max(1, len(digests))]] += 1
    return times


def write_mixture(folder: Path, plan: Plan, once: str | None = None) -> MixtureFacts:
    """Publish a mixture as a dataset folder with its card and mixture.json, and return its facts.

    Rows have the columns to train on, `component` (in a mixture of mixtures "outer/inner") and `origin`, in an order drawn by the
    seed. An existing folder is left unchanged; with `once` (the way out) it is an error. Raises LimbeckError if a component
    changed while it was read.
    """
    facts = plan.facts
    with publishing(folder, once=once) as temporary:
        (temporary / "data").mkdir(parents=True)
        unordered, writer, schema = temporary / "unordered.parquet", None, pa.schema([])
        for batch in _batches(_rows(plan)):
            found = _schema(batch[0])
            if writer is None:
                schema = found
                writer = pq.ParquetWriter(unordered, schema, compression="lz4")
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
        assert writer is not None, "a mixture has rows"
        writer.close()
        with duckdb.connect() as connection:
            ordered = f"select * exclude ({_ORDER}) from read_parquet({text(str(unordered))}) order by {_ORDER}"
            copying = f"copy ({ordered}) to {text(str(temporary / DATA))} (format parquet, row_group_size {ROWS_PER_GROUP})"
            connection.execute(f"set temp_directory = {text(str(temporary / 'sorting'))}")
            connection.execute(copying)
        shutil.rmtree(temporary / "sorting", ignore_errors=True)
        unordered.unlink()
        written = pq.ParquetFile(temporary / DATA).metadata.num_rows
        assert written == facts.rows, f"{written} rows were written, not {facts.rows}"
        write_json(temporary / FACTS, facts.model_dump(mode="json"))
        (temporary / "README.md").write_text(card(schema.remove(0), facts), encoding="utf-8")
    return facts


def _read(component: Opened) -> Iterator[MixedRow]:
    try:
        yield from component.rows()
    except LimbeckError as error:
        raise of_component(component.component.name, error) from error


def _rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """The rows of a mixture, component by component, each with its place in the final order."""
    kinds: dict[str, tuple[str, str]] = {}
    for counted, rows in zip(plan.counted, plan.counts, strict=True):
        name = counted.opened.component.name
        times, place, equal = chosen(counted.digests, rows, plan.seed, name), -1, Counter[int]()
        for row in _read(counted.opened) if rows else ():
            if row.reason is not None:
                continue
            place += 1
            if place >= len(times) or _digest(row) != counted.digests[place]:
                raise LimbeckError(f"component {name!r} of the mixture changed while it was read; run the same command again")
            _same_form(kinds, name, row)
            inner, digest = f"{name}/{row.inner}" if row.inner else name, int(counted.digests[place])
            for _ in range(times[place]):
                equal[digest] += 1
                order = derive_seed(plan.seed, "mixture order", name, digest, equal[digest])
                yield {_ORDER: order, **row.values, "component": inner, "origin": row.origin}


def _same_form(kinds: dict[str, tuple[str, str]], name: str, row: MixedRow) -> None:
    """Raise LimbeckError if a column of a row has another type than in the component that came first."""
    for column, value in row.values.items():
        form = type(value).__name__
        before, first = kinds.setdefault(column, (form, name))
        if form != before:
            raise LimbeckError(
                f"component {name!r} of the mixture has a {column!r} of type {form} ({row.origin}), but {first!r} has {before}; "
                "convert one of them"
            )


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_PER_GROUP:
            yield batch
            batch = []
    if batch:
        yield batch


def _schema(row: dict[str, Any]) -> pa.Schema:
    types = {name: TURNS if isinstance(value, list) else _SCALARS[type(value)] for name, value in row.items()}
    return pa.schema([pa.field(name, pa.uint64() if name == _ORDER else type_) for name, type_ in types.items()])


def _digest(row: MixedRow) -> int:
    """64 bits of the hash of a row's columns."""
    content = json.dumps(row.values, ensure_ascii=False, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little")


def _distinct(runs: Iterator[RunOfRows]) -> Iterator[RunOfRows]:
    seen: list[RunOfRows] = []
    for run in runs:
        if run not in seen:
            seen.append(run)
            yield run


def _facts(counted: Counted, rows: int, share: float) -> MixedComponent:
    own, usable = counted.opened.component, len(counted.digests)
    return MixedComponent(
        name=own.name,
        kind=own.kind,
        given=own.given,
        rows_read=usable + counted.unusable.total(),
        usable=usable,
        unusable=dict(sorted(counted.unusable.items())),
        weight=own.weight,
        cap=own.cap,
        share=share,
        rows=rows,
        distinct_rows=min(rows, usable),
        digest=counted.digest,
    )


def card(schema: pa.Schema, facts: MixtureFacts) -> str:
    """The card of a mixture: YAML front matter for the Hugging Face loaders, then Markdown."""
    front = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA}]}],
        "license": "unknown",
        "pretty_name": facts.name,
        "tags": ["mixture"],
    }
    stated = "by stated weights" if facts.temperature is None else f"by size to the power 1/{facts.temperature:g}"
    header = ["component", "from", "rows read", "usable", "cap", "share asked", "rows", "different rows"]
    lines = [
        [one.name, one.given, one.rows_read, one.usable, one.cap or "", f"{one.share:.2%}", one.rows, one.distinct_rows]
        for one in facts.components
    ]
    unusable = [[one.name, reason, rows] for one in facts.components for reason, rows in one.unusable.items()]
    runs = [[run.run, "" if run.round is None else run.round, run.selection or ""] for run in facts.runs]
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {facts.name}",
        f"{facts.rows} rows mixed by Limbeck {stated} (seed {facts.seed}). Each row names its `component` and its `origin`.",
        "## Components",
        table(header, lines),
        *(["## Rows that cannot be used", table(["component", "reason", "rows"], unusable)] if unusable else []),
        *(["## Runs that rows come from", table(["run", "round", "selection"], runs)] if runs else []),
        "## Columns",
        table(["column", "type"], [[f"`{each.name}`", f"`{each.type}`"] for each in schema]),
        "## Licence",
        "Unknown: the licences of the components are not recorded here. Check each of them before you share this data.",
    ]
    return "\n\n".join(sections) + "\n"
