"""Share of a run's wall-clock time that is not forward, backward or sampling, from its events.jsonl.

    python benchmarks/overhead.py runs/quickstart

Imports, loading, process starts, Ray, reading, writing, statistics and the report all count as overhead. With several workers a
stage's seconds are divided by their number, so a waiting worker (a filter that waits for candidates, say) counts as overhead too.
Parts in flight at the same time share the seconds of their worker.
"""

import argparse
import json
from pathlib import Path

from limbeck.pipelines.runs.events import read_events, seconds_by_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds = seconds_by_stage(read_events(arguments.run / "events.jsonl"))
    share = (seconds["total"] - seconds["model"]) / seconds["total"]
    if arguments.json:
        print(json.dumps({**seconds, "overhead": share}, indent=2))
        return
    print(f"{'stage':34} {'total s':>9} {'model s':>9} {'other s':>9}")
    for name, stage in seconds["by_stage"].items():
        print(f"{name:34} {stage['total']:9.1f} {stage['model']:9.1f} {stage['total'] - stage['model']:9.1f}")
    named = sum(stage["total"] for stage in seconds["by_stage"].values())
    print(f"{'between stages':34} {seconds['total'] - named:9.1f} {0:9.1f} {seconds['total'] - named:9.1f}")
    print(f"{'run':34} {seconds['total']:9.1f} {seconds['model']:9.1f} {seconds['total'] - seconds['model']:9.1f}")
    print(f"overhead: {share:.1%}")


if __name__ == "__main__":
    main()
