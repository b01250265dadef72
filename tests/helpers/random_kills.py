"""Runs that are killed at renames drawn at random, before and after, driver and worker, until enough kills have struck."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path


def kill_until(least: int, plan: Path, renames: Sequence[str], seed: str, run: Callable[..., int]) -> None:
    """Call `run(FAULTS=...)`, the exit status of a run, until it ends well or `least` kills have struck; fewer are an error.

    A fault that comes while its victim is dead already does not strike, so `renames` has to hold more than `least`.
    """
    moments = random.Random(seed)
    faults = [
        {"rename": rename, "when": moments.choice(("before", "after")), "victim": moments.choice(("driver", "self"))}
        for rename in moments.sample(renames, len(renames))
    ]
    plan.write_text(json.dumps(faults))

    def struck() -> int:
        return sum(Path(f"{plan}.{index}").exists() for index in range(len(faults)))

    while struck() < least and run(FAULTS=str(plan)) == -9:
        pass
    assert struck() >= least
