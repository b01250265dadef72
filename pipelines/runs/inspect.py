"""A round's candidates with their scores, decisions and documents, filtered and sorted; reads only the run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from limbeck.corpus.config import nearest
from limbeck.corpus.earlier_runs import dataset_folder, selected_again
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import check_whole, part_names
from limbeck.pipelines.runs.folder import RunFolder, read_lock
from limbeck.pipelines.runs.lost import lost_parts, missing_words, refuse_lost, round_numbers, was_decided
from limbeck.pipelines.runs.opening import existing
from limbeck.pipelines.runs.records import read_selection
from limbeck.pipelines.runs.report_model import BEYOND_TARGET
from limbeck.pipelines.runs.scored import IDS, NOT_SCORES, SOURCE_REFERENCE, Scored, connect_parts, quoted, text
from limbeck.pipelines.runs.select import GENERATOR, UNDECIDED, all_numbers

if TYPE_CHECKING:
    from rich.console import Console

REFUSED = "rejected_text"
"""The text that a generator refused: in the facts of a candidate without an output."""

# Columns that are not scores, in display order; the scores come between these and `prompt`.
FACTS = (
    *("candidate_id", "source_id", "sample", "kept", "rejected_by", "reason", "output", REFUSED, "document", "reference"),
    "origin",
)
OF_SOURCES = ("document", "reference", "origin")
DECIDED = ("kept", "rejected_by", "reason")
LONGEST_TEXT = 400
LONGEST_LIST_SHOWN = 8
MATCHING, PROMPTS, CHOICES = b"matching", b"prompts", b"choices"
COMPARED_PROMPTS = 64
AFTER_SCORES = ("prompt", "input", "finish_reason", "output_tokens")


@dataclass(frozen=True)
class _Decided:
    """Where the decisions of a round, or of a selection of it, are stored, with what the filters recorded."""

    decisions: Path
    scores: Mapping[str, Path]
    choices: Mapping[str, Path]
    """The files with what set-wise filters recorded about the candidates that they were given."""

    filters: frozenset[str]
    """Every filter and set-wise filter that took part."""


@dataclass(frozen=True)
class _Opened:
    """The candidates of a round with the scores of filters, and the evidence of set-wise filters, which stays in its files."""

    scored: Scored
    choices: Mapping[str, Path]

    @cached_property
    def schemas(self) -> dict[str, pa.Schema]:
        """The columns that each filter, then each set-wise filter, recorded."""
        return {**self.scored.reader.scores, **{name: pq.read_schema(file) for name, file in self.choices.items()}}

    @cached_property
    def names(self) -> dict[str, str]:
        """`_unique_names` of all of them."""
        return _unique_names(self.schemas)


def candidates(
    run: Path,
    round: int | None = None,
    rejected_by: str | None = None,
    kept: bool | None = None,
    source: str | None = None,
    sort: str | None = None,
    descending: bool = True,
    limit: int | None = 20,
    selection: str | None = None,
) -> pa.Table:
    """Return candidates joined with scores, decision and source: `FACTS`, then each score, then `AFTER_SCORES`.

    `round` None: the last one with decisions. `selection`: the decisions and scores of `limbeck filter --apply` (None: the run's
    own). `source` is a source_id or a prefix of one. Rows are sorted by source_id and sample, or by the column `sort` with
    missing values last. Scores include what set-wise filters recorded; a candidate without an output has none. A score whose
    name is taken is named `filter.column`. `reference` is the candidate's own, or its source's. The table's metadata says how
    many rows there are without the limit (`matching`). Raises LimbeckError for an unknown name, with the nearest known one.
    """
    folder = existing(run)
    number = decided_round(folder, round)
    decided = _own(folder, number) if selection is None else _selected(folder, number, selection)
    for file in (decided.decisions, *decided.choices.values()):
        check_whole(file)
    with connect_parts(folder.candidates(number), decided.scores, folder.sources("train")) as scored:
        connection, opened = scored.connection, _Opened(scored, decided.choices)
        connection.execute(f"create view decisions as select * from read_parquet({text(str(decided.decisions))})")
        if rejected_by is not None:
            _known(rejected_by, _rejecters(scored, decided, folder), f"round {number} has no filter")
        order = "position" if sort is None else _order(opened, sort, descending)
        asked = {"rejected_by = ?": rejected_by, "kept = ?": kept, "starts_with(s.source_id, ?)": source}
        asked = {condition: value for condition, value in asked.items() if value is not None}
        where = f"where {' and '.join(asked)}" if asked else ""
        end = "" if limit is None else f"limit {int(limit)}"
        tables = f"scored s join decisions d using (candidate_id) {'join sorted using (position)' if 'sorted.' in order else ''}"
        columns = "s.position, d.kept, d.rejected_by, d.reason"
        query = f"select {columns} from {tables} {where} order by {order} {end}"
        found = _rows(opened, connection.sql(query, params=list(asked.values())).to_arrow_table())
        counted = f"select count(*) from scored s join decisions d using (candidate_id) {where}"
        ((rows,),) = connection.execute(counted, list(asked.values())).fetchall()
        of_sets = [shown for shown, stored in opened.names.items() if stored.partition(".")[0] in decided.choices]
        facts = {MATCHING: str(rows), PROMPTS: str(_prompts_differ(scored)), CHOICES: json.dumps(of_sets)}
        found = found.replace_schema_metadata(facts)
    if source is not None and not found.num_rows and rejected_by is None and kept is None:
        raise LimbeckError(f"round {number} of {run} has no candidate of source {source!r}; give a source_id or a prefix of one")
    return found


def scored_round(folder: RunFolder, number: int) -> Scored:
    """Open a round with the scores of all its filters; close it after use."""
    return connect_parts(folder.candidates(number), _own(folder, number).scores, folder.sources("train"))


def score_owners(folder: RunFolder, number: int) -> dict[str, str]:
    """The filter of each score column, by the name under which `candidates` returns the column; without set-wise filters."""
    with scored_round(folder, number) as scored:
        owners = {f"{name}.{column}": name for name, schema in scored.reader.scores.items() for column in schema.names}
        return {shown: owners[stored] for shown, stored in _unique_names(scored.reader.scores).items()}


def _order(opened: _Opened, sort: str, descending: bool) -> str:
    """The SQL order of the rows by a column, missing values last; a column that is not in `scored` is read as `sorted`."""
    scored = opened.scored
    _known(sort, [*FACTS, *opened.names, *AFTER_SCORES], "there is no column")
    stored = opened.names.get(sort)
    if stored in all_numbers(scored):
        column = f"case when s.finish_reason = 'error' then null else nullif(s.{quoted(str(stored))}, 'nan'::double) end"
    else:
        column = f"s.{sort}" if sort in (*IDS, "finish_reason") else f"d.{sort}" if sort in DECIDED else "sorted.value"
        if column == "sorted.value":
            _read_column(opened, sort)
    return f"{column} {'desc' if descending else 'asc'} nulls last, position"


def _read_column(opened: _Opened, sort: str) -> None:
    """Read a column of texts or evidence of all candidates into the table `sorted`, as `value`."""
    scored, made = opened.scored, False
    for batch in _column(opened, sort):
        values = batch[sort]
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
        scored.connection.register("batch", pa.table({"candidate_id": batch["candidate_id"], "value": values}))
        scored.connection.execute(f"{'insert into found' if made else 'create table found as'} select * from batch")
        made = True
    scored.connection.execute("create view sorted as select position, value from scored left join found using (candidate_id)")


def _column(opened: _Opened, name: str) -> Iterator[pa.Table]:
    """Yield {candidate_id, `name`} of all candidates: a text, or evidence of those that have an output."""
    scored, stored = opened.scored, opened.names.get(name)
    made = "" if stored is None else " where finish_reason != 'error'"
    scored.connection.execute(f"create table every as select position from scored{made}")
    if stored is None:
        yield from _texts(scored, "every", [name])
    elif (owner := stored.partition(".")[0]) in opened.choices:
        column = stored.partition(".")[2]
        table = pq.read_table(opened.choices[owner], columns=["candidate_id", column], partitioning=None)
        yield table.rename_columns(["candidate_id", name])
    else:
        for batch in scored.fetch("every", evidence=[stored]):
            yield pa.table({"candidate_id": batch["candidate_id"], name: batch[stored]})


def _texts(
    scored: Scored, chosen: str, wanted: Sequence[str], numbers: Sequence[str] = (), evidence: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield the columns `IDS` and `wanted` of the chosen rows, and scores, as `Scored.fetch` does."""
    of_sources = {SOURCE_REFERENCE if name == "reference" else name: name for name in OF_SOURCES if name in wanted}
    needed = ["facts" if name == REFUSED else name for name in wanted if name not in ("document", "origin")]
    own = [name for name in needed if name in scored.reader.candidates.names]
    for batch in scored.fetch(chosen, own, of_sources, numbers, evidence):
        texts = {name: _text(batch, name) for name in wanted}
        yield pa.table({**{name: batch[name] for name in IDS}, **texts, **{name: batch[name] for name in (*numbers, *evidence)}})


def _text(batch: pa.Table, name: str) -> pa.ChunkedArray | pa.Array:
    """A column of fetched rows; older versions did not write the nullable ones."""
    missing = pa.nulls(batch.num_rows, pa.string())
    if name == REFUSED:
        facts = batch["facts"].to_pylist() if "facts" in batch.column_names else []
        return pa.array([_refused(fact) for fact in facts], pa.string()) if facts else missing
    found = batch[name] if name in batch.column_names else missing
    return pc.coalesce(found, batch[SOURCE_REFERENCE]) if name == "reference" else found


def _refused(facts: str | None) -> str | None:
    """The refused text in a candidate's facts."""
    found = json.loads(facts).get(REFUSED) if facts else None
    return None if found is None else str(found)


def _rows(opened: _Opened, chosen: pa.Table) -> pa.Table:
    """The rows of `chosen` ({position, kept, rejected_by, reason}), in its order, with the columns of `candidates`."""
    scored = opened.scored
    scored.connection.register("ranked", chosen)
    scored.connection.execute("create table chosen as select position from ranked")
    by_position = pc.sort_indices(chosen["position"])  # rows are read in this order
    stored = [name for name in opened.names.values() if name.partition(".")[0] not in opened.choices]
    numbers = [name for name in stored if name in all_numbers(scored)]
    evidence = [name for name in stored if name not in numbers]
    texts = [name for name in (*FACTS, *AFTER_SCORES) if name not in (*IDS, *DECIDED)]
    table = pa.concat_tables(_texts(scored, "chosen", texts, numbers, evidence))
    for name, file in opened.choices.items():
        table = _beside(table, name, file)
    made = pc.if_else(pc.equal(table["finish_reason"], "error"), None, pa.array(range(table.num_rows), pa.int64()))
    columns = {name: table[name] for name in (*IDS, *texts)}
    columns |= {name: chosen[name].take(by_position) for name in DECIDED}
    types = {f"{name}.{field.name}": field.type for name, schema in opened.schemas.items() for field in schema}
    columns |= {name: _typed(table[stored], types[stored]).take(made) for name, stored in opened.names.items()}
    found = pa.table({name: columns[name] for name in (*FACTS, *opened.names, *AFTER_SCORES)})
    return found.take(pc.sort_indices(by_position))


def _beside(table: pa.Table, name: str, file: Path) -> pa.Table:
    """Candidates with what a set-wise filter recorded about them; the file is not read into memory."""
    rows = ds.dataset(file).to_table(filter=ds.field("candidate_id").isin(table["candidate_id"].combine_chunks()))
    places = pc.index_in(table["candidate_id"], rows["candidate_id"].combine_chunks())
    for column in (column for column in rows.column_names if column not in NOT_SCORES):
        table = table.append_column(f"{name}.{column}", rows[column].take(places))
    return table


def _prompts_differ(scored: Scored) -> bool:
    """Whether candidates have prompts of their own, from some of the first: else each is the same words and a document."""
    made = "from scored where finish_reason != 'error'"
    scored.connection.execute(
        f"create table compared as select position {made} and part = (select min(part) {made}) and row < {COMPARED_PROMPTS}"
    )
    rows = pa.concat_tables(_texts(scored, "compared", ["prompt", "document"])).to_pylist()
    words = {_without(row["prompt"], row["document"]) for row in rows}
    if len({row["source_id"] for row in rows}) > 1:
        return len(words) > 1
    return not any(row["document"] and row["document"] in row["prompt"] for row in rows)


def _without(prompt: str, document: str) -> str:
    """A prompt whose document is shown elsewhere."""
    return prompt.replace(document, "[document]") if document else prompt


def _typed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A score in the type of its parts."""
    return column if pa.types.is_null(kind) else column.cast(kind)


def _unique_names(schemas: Mapping[str, pa.Schema]) -> dict[str, str]:
    """The scores by the name under which they are shown: the column, or `filter.column` if that name is taken."""
    found: dict[str, str] = {}
    for name, schema in schemas.items():
        for column in (column for column in schema.names if column not in NOT_SCORES):
            unique = f"{name}.{column}" if column in (*FACTS, *AFTER_SCORES, *found) else column
            found[unique] = f"{name}.{column}"
    return found


def score_columns(table: pa.Table) -> list[str]:
    """The names of the score columns of a table that `candidates` returned."""
    return [name for name in table.column_names if name not in FACTS and name not in AFTER_SCORES]


def matching(table: pa.Table) -> int:
    """How many candidates there are without the limit of the table that `candidates` returned."""
    return int((table.schema.metadata or {}).get(MATCHING, table.num_rows))


def show(table: pa.Table, console: Console | None = None) -> None:
    """Print candidates, one panel each: decision, texts, scores; model text is never parsed as markup.

    Prompts are shown if they are the candidates' own. The last line says how many are shown, of how many.
    """
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = console or Console()
    for row, lines in zip(table.to_pylist(), _lines(table), strict=True):
        body = Text("kept", "green") if row["kept"] else Text(f"rejected by {row['rejected_by']}: {row['reason']}", "red")
        for label, words, styles in lines:
            body.append(f"\n{label:<10}", styles[0])
            body.append(words, styles[1])
        console.print(Panel(body, title=Text(f"{row['source_id']} · sample {row['sample']}"), title_align="left"))
    total = matching(table)
    some = f"{table.num_rows} of " if table.num_rows < total else ""
    console.print(Text(f"{some}{total} candidate{'' if total == 1 else 's'}"))


def _lines(table: pa.Table) -> Iterator[list[tuple[str, str, tuple[str, str]]]]:
    """Yield (label, words, their styles) of each line that a candidate has, after its decision."""
    facts = table.schema.metadata or {}
    own, of_sets = facts.get(PROMPTS) != b"False", json.loads(facts.get(CHOICES, b"[]"))
    for row in table.to_pylist():
        document, shown = row["document"] or "", ("bold cyan", "bold")
        scores = {name: row[name] for name in score_columns(table) if name not in of_sets or row[name] not in (None, [])}
        refused = "" if row["output"] else row[REFUSED]
        lines = [
            ("prompt", _short(_without(row["prompt"], document)) if own else "", ("bold green", "")),
            ("input", _short(row["input"] or "") if row["input"] != document else "", ("bold green", "")),
            ("refused", _short(refused or ""), shown) if refused else ("output", row["output"] or "(no output)", shown),
            ("document", _short(document), ("bold magenta", "")),
            ("reference", _short(row["reference"] or ""), ("bold magenta", "")),
        ]
        if row["finish_reason"] != "error":
            lines.append(("scores", "  ".join(f"{name} {_figure(value)}" for name, value in scores.items()), ("bold", "dim")))
        yield [line for line in lines if line[1]]


def _short(words: str) -> str:
    """The start of a text, on one line."""
    words = " ".join(words.split())
    return words[:LONGEST_TEXT] + (" …" if len(words) > LONGEST_TEXT else "")


def decided_round(folder: RunFolder, wanted: int | None) -> int:
    """The round to read (None: the last with decisions); raises LimbeckError if it has none, or has lost a part."""
    decided = [number for number in round_numbers(folder) if was_decided(folder, number)]
    if not decided:
        raise LimbeckError(f"{folder.path} has no decisions yet; resume the run with `limbeck run`")
    number = decided[-1] if wanted is None else wanted
    if number not in decided:
        raise LimbeckError(f"round {number} of {folder.path} has no decisions; the last round with decisions is {decided[-1]}")
    if not folder.decisions(number).exists():
        lost = missing_words(folder, folder.decisions(number))
        raise LimbeckError(f"round {number} of {folder.path} has no decisions: {lost}")
    refuse_lost(folder, lost_parts(folder, number))
    return number


def decided_files(folder: RunFolder, number: int, selection: str | None) -> _Decided:
    """Where a round's decisions and scores are stored, or those of a selection of it."""
    return _own(folder, number) if selection is None else _selected(folder, number, selection)


def _own(folder: RunFolder, number: int) -> _Decided:
    """What the run itself decided."""
    scores, made = folder.round(number) / "scores", folder.round(number) / "choices"
    scored = {path.name: path for path in sorted(scores.glob("*")) if part_names(path)}
    recorded = read_lock(folder)["stages"].get("decisions", {})
    names = frozenset([*scored, *recorded.get("bounds", {}), *recorded.get("select", {})])
    return _Decided(folder.decisions(number), scored, _files(made), names)


def _selected(folder: RunFolder, number: int, selection: str) -> _Decided:
    """What a selection decided, with the scores that its bounds were applied to."""
    home = dataset_folder(folder.path, number, selection).parent
    decisions = home / "decisions.parquet"
    if not decisions.exists():
        raise LimbeckError(f"{decisions} is missing; {selected_again(selection)}")
    recorded, own = read_selection(home), _own(folder, number)
    names = recorded.names
    if recorded.scores is not None:
        scores = {name: folder.round(number) / path for name, path in recorded.scores.items()}
    else:  # an older version did not record them: leave out those that may have been computed for the selection
        computed = folder.selection(number, ".scores")
        scores = {name: path for name, path in own.scores.items() if name in names and not any(computed.glob(f"{name}-*"))}
    scored = {name: path for name, path in scores.items() if part_names(path)}
    return _Decided(decisions, scored, _files(home / "choices"), frozenset([*names, *scores]))


def _files(choices: Path) -> dict[str, Path]:
    """The evidence of each set-wise filter that recorded some."""
    return {path.stem: path for path in sorted(choices.glob("*.parquet"))}


def _rejecters(scored: Scored, decided: _Decided, folder: RunFolder) -> list[str]:
    """All that may have rejected a row, whether or not it did."""
    seen = scored.connection.execute("select distinct rejected_by from decisions where rejected_by is not null").fetchall()
    target = read_lock(folder)["stages"].get("decisions", {}).get("target")
    others = {GENERATOR, UNDECIDED, *((BEYOND_TARGET,) if target else ())}
    return sorted({*others, *decided.filters, *(row[0] for row in seen)})


def _known(name: str, known: Sequence[str], fault: str) -> str:
    if name in known:
        return name
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
    raise LimbeckError(f"{fault} {name!r}; {hint}")


def _figure(value: Any) -> str:
    if isinstance(value, list) and len(value) > LONGEST_LIST_SHOWN:
        return f"({len(value)} values)"
    if isinstance(value, list) and all(isinstance(one, float) for one in value):
        return f"[{', '.join(map(_figure, value))}]"
    return "–" if value is None or value != value else f"{value:z.3g}" if isinstance(value, float) else str(value)
