"""Draw exactly N rows: parts are drawn and decided in waves, in order, until the dataset is full or a budget is spent.

The size of a wave depends on the acceptance of earlier waves and never on their speed, so an interrupted run ends with the same
parts and rows. The dataset is the first N accepted rows in the order of parts and rows.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import part_names, part_rows, read_some, write_table
from limbeck.corpus.schemas import POOL
from limbeck.pipelines.driver.context import Context, stream, train_lane
from limbeck.pipelines.runs.events import read_events
from limbeck.pipelines.runs.select import Accepted

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import Lane, WorkerPool
    from limbeck.cluster.workers.worker import PartReport

MARGIN = 1.1  # oversampling margin over the observed acceptance rate, so that few waves are needed
LARGEST_GROWTH = 8  # maximum size of a wave, as a multiple of all parts so far: a rate from few rows is unreliable
Decide = Callable[[Sequence[str]], Accepted]
"""Decides on the candidates of these parts."""


class ShortOfTarget(LimbeckError):
    """The budget or the sources are exhausted before the dataset is full."""

    exit_code = 3


def reach(context: Context, pool: "WorkerPool", number: int, others: Sequence["Lane"], decide: Decide) -> None:
    """Stream parts of a round until its accepted rows reach the recipe's target; `others` are streamed with the first wave.

    Raises ShortOfTarget, with the progress so far, if the budget or the sources are exhausted first.
    """
    target, every = context.recipe.target, part_names(context.folder.sources("train"))
    assert target is not None
    waves = Waves(context, number, every)
    taken: list[str] = []
    decisions: Accepted | None = None
    allowance = Allowance(context, number)
    while True:
        wave = waves.next(len(taken), decisions)
        taken = every[: len(taken) + len(wave)]
        allowance.check()
        lane = train_lane(context, number, wave, waves.pool)
        stream(context, pool, f"round-{number}", [lane, *others], allowance.take)
        others = ()
        context.compact_round(number)
        decisions = decide(taken)
        facts = acceptance(context, number, taken, decisions)
        context.events.emit("acceptance", **facts)
        if facts["accepted"] >= target.rows:
            return
        if len(taken) == len(every):
            raise ShortOfTarget(
                f"the sources are exhausted: {_so_far(facts)}; add documents, raise generator.samples "
                "or relax a bound, in a new run"
            )


class Waves:
    """The parts that a round draws in each wave, and the task pool of each wave."""

    def __init__(self, context: Context, number: int, every: Sequence[str]) -> None:
        """`every`: all train parts, in order."""
        assert context.recipe.target is not None
        self._context, self._number, self._every, self._target = context, number, every, context.recipe.target
        self._wave = -1
        self.pool: Path | None = None

    def next(self, taken: int, decisions: Accepted | None) -> Sequence[str]:
        """The parts of the next wave, after `taken` parts with these decisions; publishes the wave's task pool.

        With `wave_sources`, a wave has that many sources regardless of part size; otherwise its size depends on acceptance.
        """
        self._wave += 1
        if self._context.recipe.generator_of(self._number).grows:
            self.pool = self._context.folder.round(self._number) / "pool" / f"wave-{self._wave:05d}.parquet"
            if not self.pool.exists():  # keep what an earlier process published, even if set-wise filters now decide differently
                write_table(self.pool, self._accepted(decisions), POOL)
        if self._target.wave_sources is not None:
            return self._of_sources(taken, self._target.wave_sources)
        if decisions is None:
            return self._every[: self._context.recipe.calibration.parts]
        accepted = len(decisions.ids)
        return self._every[taken : taken + _next_wave(self._target.rows, accepted, taken)]

    def _of_sources(self, taken: int, sources: int) -> Sequence[str]:
        end, rows = taken, 0
        while end < len(self._every) and rows < sources:
            rows += part_rows(self._context.folder.sources("train"), self._every[end])
            end += 1
        return self._every[taken:end]

    def _accepted(self, decisions: Accepted | None) -> pa.Table:
        """The kept candidates so far as tasks, by part and row."""
        if decisions is None:
            return POOL.empty_table()
        folder = self._context.folder.candidates(self._number)
        kept = decisions.ids.combine_chunks()
        parts = (read_some(folder, [part], POOL)[0] for part in part_names(folder))
        return pa.concat_tables([POOL.empty_table(), *(part.filter(pc.is_in(part["candidate_id"], kept)) for part in parts)])


class Allowance:
    """The remaining budget of a round, over all resumes."""

    def __init__(self, context: Context, number: int) -> None:
        """Count what earlier processes spent."""
        self._context, self._number = context, number
        self._tokens, seconds = spent(context, number)
        self._seconds = defaultdict(float, seconds)

    def take(self, report: "PartReport") -> None:
        """Count the cost of a part; raises ShortOfTarget if the budget is spent. The part itself is kept."""
        if report.stage.startswith(f"round-{self._number}/"):
            self._tokens += report.output_tokens
            self._seconds[report.pool] += report.seconds
            self.check()

    def check(self) -> None:
        """Raise ShortOfTarget if the budget is spent."""
        budget = self._context.recipe.budget
        seconds = _elapsed(self._context, self._seconds)
        for name, used, limit in (("tokens", self._tokens, budget.tokens), ("seconds", seconds, budget.seconds)):
            if limit is not None and used >= limit:
                said = [event for event in read_events(self._context.folder.events) if event["event"] == "acceptance"]
                so_far = _so_far(said[-1]) if said else "no part is complete yet"
                raise ShortOfTarget(
                    f"budget.{name} is spent ({used:.0f} of {limit:g}): {so_far}; raise it and rerun the same command to resume"
                )


def acceptance(context: Context, number: int, parts: Sequence[str], decisions: Accepted) -> dict[str, Any]:
    """The progress of a round: {round, parts, candidates, accepted, target, rate, tokens, tokens_per_accepted, seconds_left}.

    `tokens` are those generated by the teacher. `seconds_left` is extrapolated from the seconds so far.
    """
    accepted = len(decisions.ids)
    target = context.recipe.target.rows if context.recipe.target else 0
    tokens, by_pool = spent(context, number)
    seconds = _elapsed(context, by_pool)
    return {
        "round": number,
        "parts": len(parts),
        "candidates": decisions.candidates,
        "accepted": accepted,
        "target": target,
        "rate": accepted / max(1, decisions.candidates),
        "tokens": tokens,
        "tokens_per_accepted": round(tokens / accepted, 1) if accepted else None,
        "seconds_left": round(max(0, target - accepted) * seconds / accepted, 1) if accepted else None,
    }


def spent(context: Context, number: int) -> tuple[int, dict[str, float]]:
    """Teacher tokens and each pool's seconds of work on the round's train parts, summed over all resumes."""
    seconds, tokens = dict[str, float](), 0
    for event in read_events(context.folder.events):
        if event["event"] == "part_done" and event["stage"].startswith(f"round-{number}/"):
            tokens += event["output_tokens"]
            pool = event.get("pool", "teachers")
            seconds[pool] = seconds.get(pool, 0.0) + event["seconds"]
    return tokens, seconds


def _elapsed(context: Context, seconds: Mapping[str, float]) -> float:
    """Wall-clock seconds of the pools' work: workers of a pool run in parallel, and so do the pools."""
    cluster = context.recipe.cluster
    workers = {"teachers": cluster.workers, "critics": cluster.critics.workers if cluster.critics else 1}
    return max((spent / workers[pool] for pool, spent in seconds.items()), default=0.0)


def _next_wave(target: int, accepted: int, parts: int) -> int:
    """Number of parts to draw next, predicted from the acceptance so far, within bounds."""
    foretold = math.ceil(MARGIN * (target - accepted) * parts / accepted) if accepted else parts
    return max(1, min(foretold, LARGEST_GROWTH * parts))


def _so_far(facts: dict[str, Any]) -> str:
    return f"{facts['accepted']} of {facts['target']} rows accepted, {facts['rate']:.1%} of {facts['candidates']} candidates"
