"""Waves of a run within one process: parts are computed as by workers, and a kill may come after any published part."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from limbeck.cluster.engines.protocol import Engine
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.pipelines.driver import target
from limbeck.pipelines.driver.context import Context
from limbeck.pipelines.driver.round import judged
from limbeck.pipelines.runs.folder import RunFolder


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Engines:
    """What a worker has, with one engine for every config."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def get(self, config: Any) -> Engine:
        return self.engine


def in_process(engine: Engine, workers: int, kill_at: int | None) -> Any:
    """Stands for the pool: parts are taken by `workers` in an order that no part may depend on; dies after `kill_at` files."""
    order, published = random.Random(workers * 1000 + (kill_at or 0)), iter(range(1, 1 << 30))

    def stream(context: Context, pool: Any, stage: str, lanes: Sequence[Any], on_report: Any = None) -> None:
        for lane in lanes:
            for part in order.sample(lane.parts, len(lane.parts)) if workers > 1 else lane.parts:
                for job in lane.jobs:
                    if job.finished(part):
                        continue
                    table = job.compute(part, 0, job.rows(part), Engines(engine))
                    if next(published) == kill_at:
                        raise Killed
                    job.publish(part, table)

    return stream


def outcome(folder: Path) -> dict[str, Any]:
    run = RunFolder(folder)
    return {
        "candidates": read_parts(run.candidates(0), CANDIDATES).to_pylist(),
        "steps": read_parts(run.steps(0)).to_pylist(),
        "pools": {path.name: read_table(path).to_pylist() for path in sorted((run.round(0) / "pool").glob("*.parquet"))},
    }


def draw_round(
    context: Context, engine: Engine, monkeypatch: pytest.MonkeyPatch, workers: int, kill_at: int | None = None
) -> None:
    """Draw round 0 up to its target; raises Killed after `kill_at` parts."""
    monkeypatch.setattr(target, "stream", in_process(engine, workers, kill_at))
    target.reach(context, None, 0, [], lambda parts: judged(context, 0, parts))  # type: ignore[arg-type]
