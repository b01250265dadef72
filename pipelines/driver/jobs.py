"""The two jobs of a part: draw candidates, and score them with one filter. Both are carried to workers by pickle."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from limbeck.cluster.engines.protocol import Completion, Engine, Pair, Request, Usage
from limbeck.cluster.workers.worker import PoolName
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import check_whole, part_path, read_part, write_part
from limbeck.corpus.schemas import CANDIDATES, SCORED_INPUT
from limbeck.filters.contract import Bound, Filter

if TYPE_CHECKING:
    from limbeck.cluster.engines.config import EngineConfig
    from limbeck.cluster.engines.model_cache import Engines

BATCH_ACROSS_CALLERS = ("vllm", "endpoint")  # engines that several jobs of a process may ask at once, and ought to


@dataclass(frozen=True)
class GenerateJob:
    """Sources of a part → its candidates."""

    stage: str
    sources: Path
    out: Path
    generator: Any  # a generator's config: `build(run_seed, round)`
    run_seed: int
    round: int
    engine: "EngineConfig"
    pool: ClassVar[PoolName] = "teachers"

    @property
    def concurrent(self) -> bool:
        """Whether it may run beside other jobs of its process."""
        return self.engine.kind in BATCH_ACROSS_CALLERS

    def finished(self, part: str) -> bool:
        """Whether the candidates are published."""
        return part_path(self.out, part).exists()

    def rows(self, part: str) -> int:
        """Sources of the part."""
        return check_whole(part_path(self.sources, part))

    def warm(self, engines: "Engines") -> None:
        """Load the engine."""
        engines.get(self.engine)

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """Candidates of some sources, `samples` rows each."""
        sources = read_part(self.sources, part).slice(start, stop - start)
        return self._generate(sources, engines.get(self.engine))

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """The candidates of a source that cannot be worked on: rows with an error."""
        return self._generate(read_part(self.sources, part).slice(row, 1), FailingEngine(reason))

    def publish(self, part: str, table: pa.Table) -> int:
        """Write the candidates."""
        write_part(self.out, part, table, CANDIDATES)
        return int(table.num_rows)

    def _generate(self, sources: pa.Table, engine: Engine) -> pa.Table:
        candidates: pa.Table = self.generator.build(self.run_seed, self.round).generate(sources, engine)
        return candidates


class FailingEngine:
    """Stand-in engine that fails every request: it records the reason for a source that crashes its worker."""

    context_tokens = 0

    def __init__(self, reason: str) -> None:
        """Answer with `reason`."""
        self._reason = reason
        self.usage = Usage()

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield an error for each request."""
        return (Completion(request.request_id, "", (), "error", 0, self._reason) for request in requests)

    def logprobs(self, pairs: Sequence[Pair]) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        """Return not-a-number for each pair."""
        return [np.array([np.nan], np.float32) for _ in pairs]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return 0 for each text: there is none."""
        return [0] * len(texts)


@dataclass(frozen=True)
class Cheaper:
    """A filter that was computed before: where its scores lie, and its bounds as far as they are known."""

    name: str
    scores: Path
    bounds: Sequence[Bound]


@dataclass(frozen=True)
class ScoreJob:
    """Candidates of a part → one filter's scores of them.

    Rows that one of `cheaper` rejects are not scored: null, and `skipped_by` names that filter.
    """

    stage: str
    sources: Path
    candidates: Path
    out: Path
    filter: Any  # a filter's config (`build(engines)`), or a Filter that a user passed as an object
    cheaper: Sequence[Cheaper] = ()
    pool: ClassVar[PoolName] = "critics"

    @property
    def concurrent(self) -> bool:
        """Whether it may run beside other jobs of its process: a filter that is built for each part, and only asks an engine."""
        engine = getattr(self.filter, "engine", None)
        return hasattr(self.filter, "build") and getattr(engine, "kind", None) in BATCH_ACROSS_CALLERS

    def finished(self, part: str) -> bool:
        """Whether the scores are published."""
        return part_path(self.out, part).exists()

    def rows(self, part: str) -> int:
        """Candidates of the part."""
        return check_whole(part_path(self.candidates, part))

    def warm(self, engines: "Engines") -> None:
        """Build the filter, with the models that it asks."""
        if hasattr(self.filter, "build"):
            self.filter.build(engines)

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """`candidate_id`, `error`, `skipped_by` and the filter's own columns, one row a candidate, in order."""
        candidates = read_part(self.candidates, part).slice(start, stop - start)
        skipped_by = self._skipped_by(part, start, stop)
        wanted = [place for place, name in enumerate(skipped_by) if name is None]
        built: Filter = self.filter.build(engines) if hasattr(self.filter, "build") else self.filter
        scores = built.score(with_sources(candidates.take(wanted), read_part(self.sources, part)))
        if scores.num_rows != len(wanted):
            raise ValueError(f"filter {built.name!r} returned {scores.num_rows} rows for {len(wanted)} candidates")
        for bound in built.bounds:
            if bound.column not in scores.column_names:
                raise ValueError(f"filter {built.name!r} returned no column {bound.column!r}, which its bounds need")
        rows = dict(zip(wanted, range(len(wanted)), strict=True))
        places = pa.array([rows.get(place) for place in range(candidates.num_rows)], pa.int64())  # null: skipped
        if "skipped_by" in scores.column_names:  # the filter itself found a cheap reason not to ask its model
            own = iter(scores["skipped_by"].to_pylist())
            skipped_by = [next(own) if name is None else name for name in skipped_by]
        names = [name for name in scores.column_names if name not in ("candidate_id", "error", "skipped_by")]
        if hasattr(self.filter, "columns"):  # what `check` holds recipes to
            known = {name for column in self.filter.columns for name in (column, f"{column}_null")}
            assert known.issuperset(names), f"{self.filter.kind} does not declare {sorted(set(names) - known)}"
        return pa.table(
            {
                "candidate_id": candidates["candidate_id"],
                "error": pa.nulls(candidates.num_rows, pa.string()),
                "skipped_by": pa.array(skipped_by, pa.string()),
                **{name: _stored(scores[name]).take(places) for name in names},
            }
        )

    def _skipped_by(self, part: str, start: int, stop: int) -> list[str | None]:
        """For each row the first of `cheaper` that rejects it, or None."""
        found: list[str | None] = [None] * (stop - start)
        for cheaper in self.cheaper:
            scores = read_part(cheaper.scores, part).slice(start, stop - start)
            for bound in cheaper.bounds:
                for place, value in enumerate(scores[bound.column].cast(pa.float64()).to_pylist()):
                    if found[place] is None and rejects(bound, value):
                        found[place] = cheaper.name
        return found

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """A candidate that cannot be scored: no score at all, and the reason."""
        candidate = read_part(self.candidates, part).slice(row, 1)
        missing = {bound.column: pa.nulls(1, pa.float64()) for bound in self.filter.bounds}
        return pa.table({"candidate_id": candidate["candidate_id"], "error": [reason], **missing})

    def publish(self, part: str, table: pa.Table) -> int:
        """Write the scores."""
        write_part(self.out, part, table)
        return int(table.num_rows)


def rejects(bound: Bound, score: float | None) -> bool:
    """Whether a known limit rejects a score. One that is missing is left for selection to judge."""
    if score is None or math.isnan(score):
        return False
    return (bound.minimum is not None and score < bound.minimum) or (bound.maximum is not None and score > bound.maximum)


def _stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A score as float64; evidence as it is."""
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return column.cast(pa.float64()) if is_number else column


def with_sources(candidates: pa.Table, sources: pa.Table) -> pa.Table:
    """What a filter is handed (`SCORED_INPUT`): each candidate with its document, reference and salient spans, in order."""
    missing = [name for name in SCORED_INPUT.names if name not in candidates.column_names and name not in sources.column_names]
    if missing:
        raise LimbeckError(f"the sources have no column {missing[0]!r}: an older version made this run; choose another --out")
    positions = {source_id: i for i, source_id in enumerate(sources["source_id"].to_pylist())}
    indices = pa.array([positions[source_id] for source_id in candidates["source_id"].to_pylist()], pa.int64())
    joined = candidates
    for name in SCORED_INPUT.names:
        if name not in candidates.column_names:
            joined = joined.append_column(SCORED_INPUT.field(name), sources[name].take(indices))
    return joined.select(SCORED_INPUT.names)
