"""Exactly N rows: parts are drawn and judged in waves, in order, until the dataset is full or a budget is spent.

Every wave is sized by what the waves before it kept, never by how fast they were, so an interrupted run ends with the same parts
and the same rows. The dataset is the first N accepted rows in the order of parts and rows.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import part_names
from limbeck.pipelines.driver.context import Context, stream, train_lane
from limbeck.pipelines.runs.events import read_events

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import Lane, WorkerPool
    from limbeck.cluster.workers.worker import PartReport

MARGIN = 1.1  # drawn beyond what the acceptance so far foretells, so that few waves are needed
LARGEST_GROWTH = 8  # of all parts so far: a rate from few rows may be far off
Decide = Callable[[Sequence[str]], pa.Table]
"""Decisions on the candidates of these parts."""


class ShortOfTarget(LimbeckError):
    """The run ended before the dataset was full: its budget or its sources are spent."""

    exit_code = 3


def reach(context: Context, pool: "WorkerPool", number: int, others: Sequence["Lane"], decide: Decide) -> None:
    """Stream parts of a round until its accepted rows reach the recipe's target; `others` are streamed with the first wave.

    Raises ShortOfTarget where the budget or the sources end first, saying how far it came.
    """
    target, every = context.recipe.target, part_names(context.folder.sources("train"))
    assert target is not None
    wave = min(context.recipe.calibration.parts, len(every))
    taken: list[str] = []
    allowance = Allowance(context, number)
    while True:
        taken = every[: len(taken) + wave]
        allowance.check()
        stream(context, pool, f"round-{number}", [train_lane(context, number, taken), *others], allowance.take)
        others = ()
        decisions = decide(taken)
        facts = acceptance(context, number, taken, decisions)
        context.events.emit("acceptance", **facts)
        if facts["accepted"] >= target:
            return
        if len(taken) == len(every):
            raise ShortOfTarget(
                f"the sources are spent: {_so_far(facts)}; add documents, raise generator.samples or loosen a limit, in a new run"
            )
        wave = _next_wave(target, facts["accepted"], len(taken))


class Allowance:
    """What the recipe's budget leaves of a round, over all sittings."""

    def __init__(self, context: Context, number: int) -> None:
        """Count what was spent before."""
        self._context, self._number = context, number
        self._tokens, seconds = spent(context, number)
        self._seconds = defaultdict(float, seconds)

    def take(self, report: "PartReport") -> None:
        """Count what a part took; raises ShortOfTarget where that spends the budget. The part itself is kept."""
        if report.stage.startswith(f"round-{self._number}/"):
            self._tokens += report.output_tokens
            self._seconds[report.pool] += report.seconds
            self.check()

    def check(self) -> None:
        """Raise ShortOfTarget where the budget is spent."""
        budget = self._context.recipe.budget
        seconds = _elapsed(self._context, self._seconds)
        for name, used, limit in (("tokens", self._tokens, budget.tokens), ("seconds", seconds, budget.seconds)):
            if limit is not None and used >= limit:
                said = [event for event in read_events(self._context.folder.events) if event["event"] == "acceptance"]
                so_far = _so_far(said[-1]) if said else "no part is whole yet"
                raise ShortOfTarget(
                    f"budget.{name} is spent ({used:.0f} of {limit:g}): {so_far}; raise it and run again to go on"
                )


def acceptance(context: Context, number: int, parts: Sequence[str], decisions: pa.Table) -> dict[str, Any]:
    """How far a round is: {round, parts, candidates, accepted, target, rate, tokens, tokens_per_accepted, seconds_left}.

    `tokens` are those written by the teacher. `seconds_left` follows from the seconds of work so far.
    """
    accepted = sum(decisions["kept"].to_pylist())
    target = context.recipe.target or 0
    tokens, by_pool = spent(context, number)
    seconds = _elapsed(context, by_pool)
    return {
        "round": number,
        "parts": len(parts),
        "candidates": decisions.num_rows,
        "accepted": accepted,
        "target": target,
        "rate": accepted / max(1, decisions.num_rows),
        "tokens": tokens,
        "tokens_per_accepted": round(tokens / accepted, 1) if accepted else None,
        "seconds_left": round(max(0, target - accepted) * seconds / accepted, 1) if accepted else None,
    }


def spent(context: Context, number: int) -> tuple[int, dict[str, float]]:
    """Tokens that the teacher wrote and each pool's seconds of work on the round's train parts, in all sittings."""
    seconds, tokens = dict[str, float](), 0
    for event in read_events(context.folder.events):
        if event["event"] == "part_done" and event["stage"].startswith(f"round-{number}/"):
            tokens += event["output_tokens"]
            pool = event.get("pool", "teachers")
            seconds[pool] = seconds.get(pool, 0.0) + event["seconds"]
    return tokens, seconds


def _elapsed(context: Context, seconds: Mapping[str, float]) -> float:
    """Seconds on the clock that the pools' work takes: workers of a pool side by side, and the pools beside each other."""
    cluster = context.recipe.cluster
    workers = {"teachers": cluster.workers, "critics": cluster.critics.workers if cluster.critics else 1}
    return max((spent / workers[pool] for pool, spent in seconds.items()), default=0.0)


def _next_wave(target: int, accepted: int, parts: int) -> int:
    """How many parts to take next: what the acceptance so far foretells, within bounds."""
    foretold = math.ceil(MARGIN * (target - accepted) * parts / accepted) if accepted else parts
    return max(1, min(foretold, LARGEST_GROWTH * parts))


def _so_far(facts: dict[str, Any]) -> str:
    return f"{facts['accepted']} of {facts['target']} rows accepted, {facts['rate']:.1%} of {facts['candidates']} candidates"
