"""Peak memory and time of selection, a what-if, a sweep, a report and an inspection, by the number of candidates.

    python -m benchmarks.flat_memory /tmp/flat --candidates 1000000 --parts 4000

Makes a run folder with the schemas of a real run, without a model: made-up documents, candidates and scores of four filters. Each
step runs in a process of its own, whose peak memory and seconds are printed. The folder is used again if it exists.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.corpus.parts import write_json
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.folder import RunFolder

SAMPLES = 4
RECIPE: dict[str, Any] = {
    "name": "flat",
    "sources": {"kind": "text", "path": "unused"},
    "teacher": {"kind": "transformers", "model": "unused"},
    "generator": {"kind": "summaries", "samples": SAMPLES},
    "filters": [
        {"kind": "heuristics"},
        {"kind": "length"},
        {"kind": "pmi", "min_faithfulness": "calibrated"},
        {"kind": "privacy"},
    ],
    "select": [{"kind": "duplicates"}, {"kind": "best", "per_source": 2}],
    "calibration": {"pass_rate": 0.25},
    "rounds": 1,
    "student": None,
}
WORDS = [
    f"{stem}{end}"
    for stem in ("read", "serv", "pars", "sign", "draw", "cach", "stor", "plan")
    for end in ("s", "er", "ing", "ed")
]


def make(folder: Path, candidates: int, parts: int) -> None:
    """Write the run folder."""
    run, rng, numbers = RunFolder(folder), random.Random(1), np.random.default_rng(1)
    recipe = recipes.validate(RECIPE, "benchmark").resolved()
    per_part = candidates // parts // SAMPLES
    for part in range(parts):
        sources = _sources(part, per_part, rng)
        drawn = _candidates(sources, rng)
        tables = {run.sources("train"): sources, run.candidates(0): drawn}
        for filter_ in recipe.filters:
            tables[run.scores(0, filter_.name)] = _scores(filter_, drawn["candidate_id"], numbers)
        for place, table in tables.items():
            place.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, place / f"part-{part:05d}.parquet", compression="zstd")
    used = parts * per_part
    counts = {"used": used, "train": used, "dev": 0, "test": 0, "rejected": {}}
    write_json(run.sources("train").parent / "_done.json", {"fingerprint": "x", "rows_in": used, "rows_out": used, **counts})
    stages = {"scores": {}, "decisions": {"select": [], "bounds": {}}}
    recorded = recipe.model_dump(mode="json", serialize_as_any=True)
    write_json(run.lock_file, {"stages": stages, "recipe": {**recorded, "rows": recipe.renderer.model_dump(mode="json")}})


def _sources(part: int, rows: int, rng: random.Random) -> pa.Table:
    found = []
    for row in range(rows):
        number = part * rows + row
        found.append(
            {
                "source_id": f"{number * 2654435761 % 2**48 if part % 7 == 0 else number << 16:016x}",
                "document": " ".join(rng.choices(WORDS, k=90)), "reference": None, "origin": f"made-up:{number}",
                "split": "train", "group": str(number), "document_tokens": 120, "cut_characters": 0, "salient": [0, 4],
            }
        )  # fmt: skip
    return pa.Table.from_pylist(found, schema=SOURCES)


def _candidates(sources: pa.Table, rng: random.Random) -> pa.Table:
    found = []
    for source_id, document in zip(sources["source_id"].to_pylist(), sources["document"].to_pylist(), strict=True):
        for sample in range(SAMPLES):
            failed = rng.random() < 0.01
            found.append(
                {
                    "candidate_id": f"{source_id}-{sample}", "source_id": source_id, "sample": sample, "seed": 7,
                    "prompt": f"Summarise in one sentence:\n{document}", "prompt_tokens": 130, "output_tokens": 22,
                    "output": "" if failed else " ".join(rng.choices(WORDS, k=16)),
                    "finish_reason": "error" if failed else "stop", "error": "the engine said no" if failed else None,
                }
            )  # fmt: skip
    return pa.Table.from_pylist(found, schema=CANDIDATES)


def _scores(filter_: Any, ids: pa.ChunkedArray, numbers: np.random.Generator) -> pa.Table:
    """Scores that pass most of a filter's bounds, and evidence of the privacy filter."""
    rows, evidence = len(ids), ("redacted", "findings")
    columns: dict[str, Any] = {}
    for column in filter_.columns or ():
        values = numbers.normal(0.3, 0.1, rows)
        if filter_.name in ("heuristics", "privacy"):
            values = (numbers.random(rows) < 0.02).astype(float)
        elif column == "output_tokens":
            values = numbers.integers(5, 60, rows).astype(float)
        columns[column] = pa.array(values, from_pandas=True)
    texts = {name: pa.nulls(rows, pa.string()) for name in evidence} if filter_.name == "privacy" else {}
    return pa.table({"candidate_id": ids, "error": pa.nulls(rows, pa.string()), **columns, **texts})


def select(run: RunFolder) -> None:
    """The driver's selection: calibrate, decide, write decisions and dataset."""
    from limbeck.pipelines.driver import round as driver
    from limbeck.pipelines.driver.context import Context
    from limbeck.pipelines.runs.events import Events

    recipe = recipes.validate(RECIPE, "benchmark").resolved()
    stages: dict[str, Any] = {name: {} for name in ("sources", "candidates", "scores", "decisions")}
    rest: Any = (stages, Path(), None, {})
    driver.select(Context(recipe, run, recipe.filters, recipe.select, Events(run.events), *rest), 0)


def what_if(run: RunFolder) -> None:
    """One other bound, compared with the run's own."""
    from limbeck.pipelines.runs.whatif import WhatIf, compare

    trial = WhatIf(run.path)
    compare(trial, trial.decide(["filters.pmi.min_faithfulness=0.35"]), 20)


def sweep(run: RunFolder) -> None:
    """Five values of a bound, without the set-wise filters."""
    from limbeck.pipelines.runs.whatif import WhatIf, parse_sweep
    from limbeck.pipelines.runs.whatif import sweep as try_all

    list(try_all(WhatIf(run.path), ["select=[]"], parse_sweep("filters.pmi.min_faithfulness=0.2:0.4:0.05")))


def report(run: RunFolder) -> None:
    """report.html and report.json."""
    from limbeck.pipelines.report.build import write_report

    write_report(run.path)


def compaction(run: RunFolder) -> None:
    """Every stage of the round, as the driver compacts it."""
    from limbeck.corpus.compaction import compact

    commits = run.commits(uuid.uuid4().hex)
    commits.claim()
    for stage in (run.candidates(0), *sorted((run.round(0) / "scores").iterdir())):
        compact(run.path, stage, commits)


STEPS = {"selection": select, "what-if": what_if, "sweep of 5": sweep, "report": report, "compaction": compaction}


def measured(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak MiB of a process."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=4_000)
    parser.add_argument("--compact", action="store_true", help="afterwards, compact the parts and select again")
    parser.add_argument("--step", choices=list(STEPS), help="run this step alone, in this process")
    arguments = parser.parse_args()
    run = RunFolder(arguments.folder.resolve())
    if arguments.step:
        STEPS[arguments.step](run)
        return
    if not run.lock_file.exists():
        make(run.path, arguments.candidates, arguments.parts)
    undo_selection(run)
    print(f"{'step':34} {'wall s':>8} {'processor s':>12} {'peak MiB':>9}")
    itself = [sys.executable, "-m", "benchmarks.flat_memory", str(run.path), "--step"]
    inspect = [sys.executable, "-m", "limbeck", "inspect", str(run.path), "--sort", "faithfulness"]
    steps = {name: [*itself, name] for name in STEPS if name != "compaction"}
    for name, command in {**steps, "inspect --sort": inspect}.items():
        _print(name, measured(command))
    shutil.rmtree(run.round(0) / ".cache")
    _print("inspect --sort, table built again", measured(inspect))
    if arguments.compact:
        _print("compaction", measured([*itself, "compaction"]))
        undo_selection(run)
        _print("selection, compacted", measured([*itself, "selection"]))


def undo_selection(run: RunFolder) -> None:
    """Remove what selection has written."""
    for name in ("calibration.json", "rounds/000/decisions.parquet", "rounds/000/rows.json"):
        (run.path / name).unlink(missing_ok=True)
    for name in ("dataset", "choices", ".cache"):
        shutil.rmtree(run.round(0) / name, ignore_errors=True)


def _print(name: str, found: tuple[float, float, float]) -> None:
    print(f"{name:34} {found[0]:8.1f} {found[1]:12.1f} {found[2]:9.0f}", flush=True)
    print(json.dumps({"step": name, "seconds": found[0], "processor_seconds": found[1], "peak_mib": found[2]}), file=sys.stderr)


if __name__ == "__main__":
    main()
