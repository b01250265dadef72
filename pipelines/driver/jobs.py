"""The jobs of a part, pickled and sent to workers: draw candidates, score them with one filter, test a filter on pairs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from limbeck.cluster.engines.journal import JournaledEngine
from limbeck.cluster.engines.protocol import Completion, Engine, Pair, Request, Usage
from limbeck.cluster.workers.worker import PoolName
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.other_documents import OtherDocuments
from limbeck.corpus.parts import has_part, part_names, part_rows, read_part, read_table, write_part
from limbeck.corpus.salience import own_salient_spans
from limbeck.corpus.schemas import CANDIDATES, OTHERS, SCORED_INPUT, SOURCES, STEPS
from limbeck.corpus.seeds import derive_seed
from limbeck.filters.config import FilterConfig, Nulls
from limbeck.filters.contract import PROBED, Bound, ProbedFilter
from limbeck.generators.asking import AskingConfig
from limbeck.generators.contract import TEACHER, GeneratorConfig, Task
from limbeck.generators.runner import Runner

if TYPE_CHECKING:
    from limbeck.cluster.engines.config import EngineConfig
    from limbeck.cluster.engines.model_cache import Engines


@dataclass(frozen=True)
class GenerateJob:
    """Draw the candidates of a part's sources, and record the steps that made them."""

    stage: str
    sources: Path
    out: Path
    generator: GeneratorConfig | AskingConfig
    run_seed: int
    round: int
    engine: "EngineConfig"
    accepted: Path | None = None  # the task pool of this wave, in addition to the generator's seeds
    subject: str = ""
    pool: ClassVar[PoolName] = "teachers"

    @property
    def engines(self) -> Mapping[str, "EngineConfig"]:
        """Every engine that the script may use: name → config."""
        return {TEACHER: self.engine, **self.generator.engines}

    @property
    def concurrent(self) -> bool:
        """Whether it may run concurrently with other jobs of its process."""
        return all(engine.batches_across_callers for engine in self.engines.values())

    def finished(self, part: str) -> bool:
        """Whether the part's candidates are published."""
        return has_part(self.out, part)

    def rows(self, part: str) -> int:
        """The number of sources in the part."""
        return part_rows(self.sources, part)

    def warm(self, engines: "Engines") -> None:
        """Load the engines."""
        for config in self.engines.values():
            engines.get(config)

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """The candidates of rows `start` to `stop`, with a column `steps`; at least one row per source."""
        sources = read_part(self.sources, part)
        asked = {name: self._asked(engines.get(config), config, part) for name, config in self.engines.items()}
        runner = self._runner(whole=start == 0 and stop == sources.num_rows)
        return runner.run(sources.slice(start, stop - start), asked)

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """Rows with an error for a source that cannot be processed."""
        failing = {name: FailingEngine(reason) for name in self.engines}
        return self._runner(whole=False).run(read_part(self.sources, part).slice(row, 1), failing)

    def publish(self, part: str, table: pa.Table) -> int:
        """Write the steps, then the candidates, whose file marks the part as finished."""
        write_part(self.out.parent / "steps", part, _steps(table), STEPS)
        write_part(self.out, part, table, CANDIDATES)
        self._journal(part).unlink(missing_ok=True)
        return int(table.num_rows)

    def _runner(self, whole: bool) -> Runner:
        accepted = () if self.accepted is None else read_pool(self.accepted)
        return Runner(self.generator.build(), self.run_seed, self.round, self.concurrent, whole, accepted)

    def _asked(self, engine: Engine, config: "EngineConfig", part: str) -> Engine:
        return JournaledEngine(engine, self._journal(part)) if config.paid else engine

    def _journal(self, part: str) -> Path:
        return self.out.parent / "journal" / f"{part}.jsonl"


def read_pool(path: Path) -> tuple[Task, ...]:
    """The tasks of a published task pool, in order."""
    return tuple(
        Task(row["prompt"], row["output"], row["input"], json.loads(row["facts"]) if row["facts"] else {})
        for row in read_table(path).to_pylist()
    )


def _steps(table: pa.Table) -> pa.Table:
    """The steps of a part, extracted from its rows."""
    rows = [step for steps in table["steps"].to_pylist() for step in steps or ()]
    return pa.Table.from_pylist(rows, schema=STEPS)


class FailingEngine:
    """A stand-in engine that fails every request with the same reason, for a source that kills its worker."""

    context_tokens = 0

    def __init__(self, reason: str) -> None:
        """Fail every request with `reason`."""
        self._reason = reason
        self.usage = Usage()

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield an error for each request."""
        return (Completion(request.request_id, "", (), "error", 0, self._reason) for request in requests)

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        """Return NaN for each pair."""
        return [np.array([np.nan], np.float32) for _ in pairs]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return 0 for each text."""
        return [0] * len(texts)


@dataclass(frozen=True)
class Cheaper:
    """A filter that is scored earlier: the folder of its scores, and its bounds that are known so far."""

    name: str
    scores: Path
    bounds: Sequence[Bound]


class _FilterJob:
    """What jobs that ask one filter about a part have in common; `out` is where its answers are published."""

    filter: FilterConfig
    out: Path
    pool: ClassVar[PoolName] = "critics"

    @property
    def concurrent(self) -> bool:
        """Whether it may run concurrently with other jobs of its process: true if the filter only calls an engine."""
        return self.filter.asks is not None and self.filter.asks.batches_across_callers

    def finished(self, part: str) -> bool:
        """Whether the part's answers are published."""
        return has_part(self.out, part)

    def warm(self, engines: "Engines") -> None:
        """Build the filter and load its models."""
        self.filter.build(engines)

    def publish(self, part: str, table: pa.Table) -> int:
        """Write the answers."""
        write_part(self.out, part, table)
        return int(table.num_rows)


@dataclass(frozen=True)
class ScoreJob(_FilterJob):
    """Score the candidates of a part with one filter.

    Rows that one of `cheaper` rejects are not scored: their scores are null, and `skipped_by` names that filter. `nulls`: the
    candidates that are also scored with another document of the split; "some" are chosen among the sources of `checked` (None:
    of all parts).
    """

    stage: str
    sources: Path
    candidates: Path
    out: Path
    filter: FilterConfig
    cheaper: Sequence[Cheaper] = ()
    subject: str = ""
    nulls: Nulls = "none"
    checked: tuple[str, ...] | None = None

    def rows(self, part: str) -> int:
        """The number of candidates in the part."""
        return part_rows(self.candidates, part)

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """`candidate_id`, `error`, `skipped_by` and the filter's columns, one row per candidate, in input order."""
        candidates = read_part(self.candidates, part).slice(start, stop - start)
        skipped_by = self._skipped_by(part, start, stop)
        wanted = [position for position, name in enumerate(skipped_by) if name is None]
        if not wanted:  # the filter is not called: an empty table has no types to infer
            return self._unscored(candidates["candidate_id"], skipped_by)
        built = self.filter.build(engines)
        chosen = candidates.take(pa.array(wanted, pa.int64()))
        scores = built.score(self._crossed(with_sources(chosen, read_part(self.sources, part))))
        # a faulty filter stops the run: bisection is for faulty rows
        if scores.num_rows != len(wanted):
            raise LimbeckError(
                f"filter {built.name!r} returned {scores.num_rows} rows for {len(wanted)} candidates; fix its score()"
            )
        for bound in built.bounds:
            if bound.column not in scores.column_names:
                raise LimbeckError(
                    f"filter {built.name!r} returned no column {bound.column!r}, which its bounds need; fix its score() or bounds"
                )
        rows = dict(zip(wanted, range(len(wanted)), strict=True))
        positions = pa.array([rows.get(position) for position in range(candidates.num_rows)], pa.int64())  # null: skipped
        if "skipped_by" in scores.column_names:  # the filter itself skipped its model for these rows
            own = iter(scores["skipped_by"].to_pylist())
            skipped_by = [next(own) if name is None else name for name in skipped_by]
        names = [name for name in scores.column_names if name not in ("candidate_id", "error", "skipped_by")]
        if self.filter.columns is not None:  # `check` validates recipes against these columns
            known = {name for column in self.filter.columns for name in (column, f"{column}_null")}
            assert known.issuperset(names), f"{self.filter.kind} does not declare {sorted(set(names) - known)}"
        return pa.table(
            {
                "candidate_id": candidates["candidate_id"],
                "error": pa.nulls(candidates.num_rows, pa.string()),
                "skipped_by": pa.array(skipped_by, pa.string()),
                **{name: _stored(scores[name]).take(positions) for name in names},
            }
        )

    def _crossed(self, candidates: pa.Table) -> pa.Table:
        """The candidates, with the columns `OTHER` if mismatched pairs are scored, and `OTHERS` if documents are compared."""
        if self.filter.others:
            several = OtherDocuments.of(self.sources).several(candidates, self.filter.others)
            candidates = candidates.append_column(OTHERS, several[OTHERS.name])
        if self.nulls == "none":
            return candidates
        wanted = [True] * candidates.num_rows
        if self.nulls == "some":
            chosen = checked_sources(self.sources, self.checked)
            drawn = zip(candidates["source_id"].to_pylist(), candidates["sample"].to_pylist(), strict=True)
            wanted = [source in chosen and sample < MISMATCHED_PAIRS // len(chosen) for source, sample in drawn]
        others = OtherDocuments.of(self.sources).crossed(candidates, wanted)
        return pa.table({name: table[name] for table in (candidates, others) for name in table.column_names})

    def _skipped_by(self, part: str, start: int, stop: int) -> list[str | None]:
        """For each row the first of `cheaper` that rejects it, or None."""
        found: list[str | None] = [None] * (stop - start)
        for cheaper in self.cheaper:
            scores = read_part(cheaper.scores, part).slice(start, stop - start)
            for bound in cheaper.bounds:
                known = scores[bound.column].cast(pa.float64()).to_numpy()  # null: NaN
                for position in np.flatnonzero(bound.mask(known, unscored=False)):  # missing scores are handled by selection
                    found[position] = found[position] or cheaper.name
        return found

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """A row without scores, with the reason why the candidate cannot be scored."""
        candidate = read_part(self.candidates, part).slice(row, 1)
        return self._unscored(candidate["candidate_id"], None, reason)

    def _unscored(self, ids: pa.ChunkedArray, skipped_by: Sequence[str | None] | None, error: str | None = None) -> pa.Table:
        """Rows without scores: null in every bounded column."""
        count = len(ids)
        return pa.table(
            {
                "candidate_id": ids,
                "error": pa.array([error] * count, pa.string()),
                **({} if skipped_by is None else {"skipped_by": pa.array(skipped_by, pa.string())}),
                **{bound.column: pa.nulls(count, pa.float64()) for bound in self.filter.bounds},
            }
        )


@dataclass(frozen=True)
class ProbeJob(_FilterJob):
    """Ask a filter about pairs of true and corrupted outputs (`pipelines.driver.self_test`)."""

    stage: str
    pairs: Path
    out: Path
    filter: FilterConfig
    subject: str = ""

    def rows(self, part: str) -> int:
        """The number of pairs in the part."""
        return part_rows(self.pairs, part)

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """The identity of each pair, `error`, and the columns `PROBED`, in input order."""
        pairs = read_part(self.pairs, part).slice(start, stop - start)
        built = self.filter.build(engines)
        if not isinstance(built, ProbedFilter):
            raise LimbeckError(f"filter {built.name!r} has no probe(), which its config's probing needs; add it")
        answers = built.probe(pairs)
        if answers.num_rows != pairs.num_rows:
            raise LimbeckError(
                f"filter {built.name!r} returned {answers.num_rows} rows for {pairs.num_rows} pairs; fix its probe()"
            )
        return self._answered(pairs, None, {name: answers[name].cast(pa.float64()) for name in PROBED.names})

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """A pair without an answer, with the reason."""
        pair = read_part(self.pairs, part).slice(row, 1)
        return self._answered(pair, reason, {name: pa.nulls(1, pa.float64()) for name in PROBED.names})

    def _answered(self, pairs: pa.Table, error: str | None, columns: Mapping[str, pa.ChunkedArray]) -> pa.Table:
        identity = {name: pairs[name] for name in ("candidate_id", "source_id", "corruption")}
        return pa.table({**identity, "error": pa.array([error] * pairs.num_rows, pa.string()), **columns})


MISMATCHED_PAIRS = 128
"""How many mismatched pairs are scored to check a calibrated bound, about: a constant cost, whatever the size of the run."""


@lru_cache(maxsize=8)
def checked_sources(folder: Path, parts: tuple[str, ...] | None) -> frozenset[str]:
    """The sources whose candidates are paired to check bounds: those of these parts (None: all) whose ids hash lowest.

    Of each, the first `MISMATCHED_PAIRS // number of these sources` samples are paired.
    """
    chosen: list[str] = []
    for part in part_names(folder) if parts is None else parts:
        chosen += read_part(folder, part)["source_id"].to_pylist()
        chosen = sorted(chosen, key=lambda id_: derive_seed("checked", id_))[:MISMATCHED_PAIRS]
    return frozenset(chosen)


def _stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Scores as float64; evidence unchanged."""
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return column.cast(pa.float64()) if is_number else column


def with_sources(candidates: pa.Table, sources: pa.Table) -> pa.Table:
    """The input of a filter (`SCORED_INPUT`): each candidate with its document, reference and salient spans, in order.

    A candidate's own `input` and `reference` replace those of its source.
    """
    for name in CANDIDATES.names:
        if name not in candidates.column_names:  # nullable columns that older versions did not write
            assert CANDIDATES.field(name).nullable, name
            nulls = pa.nulls(candidates.num_rows, CANDIDATES.field(name).type)
            candidates = candidates.append_column(CANDIDATES.field(name), nulls)
    of_source = [name for name in SCORED_INPUT.names if name in SOURCES.names and name not in ("source_id", "reference")]
    missing = [name for name in of_source if name not in sources.column_names]
    if missing:
        raise LimbeckError(
            f"the sources have no column {missing[0]!r}, since an older version made this run; choose another --out"
        )
    positions = {source_id: i for i, source_id in enumerate(sources["source_id"].to_pylist())}
    indices = pa.array([positions[source_id] for source_id in candidates["source_id"].to_pylist()], pa.int64())
    columns = {name: candidates[name] for name in CANDIDATES.names}
    columns |= {name: sources[name].take(indices) for name in of_source}
    columns["reference"] = pc.coalesce(columns["reference"], sources["reference"].take(indices))
    if columns["input"].null_count < candidates.num_rows:
        columns |= _of_inputs(columns)
    return pa.table(columns).select(SCORED_INPUT.names).cast(SCORED_INPUT)


def _salient(given: str | None, document: str, salient: list[int]) -> list[int]:
    if given is None:
        return salient
    return [] if document else own_salient_spans(given)


def _of_inputs(columns: Mapping[str, pa.ChunkedArray]) -> dict[str, pa.Array]:
    """`document` and dependent columns: another input replaces the document, and `following` is then empty.

    So is `salient`, unless the source has no document, and the input is therefore the only one.
    """
    rows = range(len(columns["input"]))
    document, tokens, following, salient = (
        columns[n].to_pylist() for n in ("document", "document_tokens", "following", "salient")
    )
    same = zip(columns["input"].to_pylist(), document, strict=True)
    given: list[Any] = [None if text == own else text for text, own in same]
    return {
        "document": pa.array([document[i] if given[i] is None else given[i] for i in rows], pa.string()),
        "document_tokens": pa.array([tokens[i] if given[i] is None else len(given[i].split()) for i in rows], pa.int32()),
        "following": pa.array([following[i] if given[i] is None else None for i in rows], pa.string()),
        "salient": pa.array([_salient(given[i], document[i], salient[i]) for i in rows], pa.list_(pa.int32())),
    }
