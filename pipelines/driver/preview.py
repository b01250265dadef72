"""Run a few documents through everything except training, in this process and in memory."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.generators.contract import TEACHER
from limbeck.generators.runner import Runner
from limbeck.pipelines.driver.jobs import with_sources
from limbeck.pipelines.driver.placing import loads_models
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.calibrate import absolute, calibrate, freeze
from limbeck.pipelines.runs.scored import connect
from limbeck.pipelines.runs.select import decide, joined


def preview(recipe: Recipe, documents: int) -> dict[str, Any]:
    """Draw, score and filter candidates for the first `documents` train sources; nothing is written.

    Calibrated bounds are computed from these few candidates, so they are only a rough indication. If that is impossible, because
    too few pass the other bounds, `problem` says why, and only the other bounds decide.
    """
    from limbeck.cluster.engines.model_cache import Engines
    from limbeck.corpus.sources import prepared
    from limbeck.pipelines.driver.check import find_problems

    recipe = recipe.resolved()
    problems = find_problems(recipe, Path.cwd())
    if problems:
        raise LimbeckError("; ".join(problems))
    if loads_models(recipe):
        import torch

        torch.set_num_threads(recipe.cluster.threads())
    with prepared(recipe.sources, Tokenizer.load(recipe.teacher.folder()), recipe.seed) as found:
        (sources,) = found.sliced(["train"], [(0, documents)])
    engines = Engines()
    runner = Runner(recipe.generator.build(), recipe.seed, 0)
    asked = {TEACHER: recipe.teacher, **recipe.generator.engines}
    candidates = runner.run(sources, {name: engines.get(engine) for name, engine in asked.items()}).drop_columns(["steps"])
    seen = with_sources(candidates, sources)
    scores = {}
    for filter_ in recipe.filters:
        scored = filter_.build(engines).score(seen)
        names = [name for name in scored.column_names if name != "candidate_id"]
        scores[filter_.name] = pa.table({"candidate_id": candidates["candidate_id"], **{name: scored[name] for name in names}})
    connection = connect(candidates, scores, sources)
    bounds = [(filter_.name, filter_.bounds) for filter_ in recipe.filters]
    rows = joined(connection, [filter_.name for filter_ in recipe.filters])
    problem = None
    try:
        calibration = calibrate(rows, bounds, recipe.calibration.pass_rate)
        frozen = freeze(bounds, calibration)
    except LimbeckError as error:
        calibration, frozen, problem = {"bounds": {}, "note": ""}, absolute(bounds), str(error)
    decisions = decide(connection, frozen, [filter_.build() for filter_ in recipe.select_of(0)])
    texts = {row["source_id"]: row for row in sources.to_pylist()}
    shown = [
        {
            "source_id": row["source_id"],
            "document": texts[row["source_id"]]["document"],
            "reference": texts[row["source_id"]]["reference"],
            "prompt": row["prompt"],
            "output": row["output"],
            "scores": {name: value for name, value in row.items() if "." in name and isinstance(value, float)},
            "kept": verdict["kept"],
            "rejected_by": verdict["rejected_by"],
            "reason": verdict["reason"],
        }
        for row, verdict in zip(rows.to_pylist(), decisions.to_pylist(), strict=True)
    ]
    facts = {"bounds": calibration["bounds"], "note": calibration["note"], "problem": problem}
    return {"name": recipe.name, **facts, "candidates": shown}


def show(found: dict[str, Any]) -> None:
    """Print a preview as text."""
    from rich.console import Console
    from rich.text import Text

    console, last = Console(), ""
    for row in found["candidates"]:
        if row["source_id"] != last:
            last = row["source_id"]
            console.rule(Text(f"source {last}"))
            console.print(Text(row["prompt"], style="dim"))
            if row["reference"]:
                console.print(Text(f"reference: {row['reference']}", style="italic"))
        console.print(Text(f"\n  {row['output'] or '(nothing)'}"))
        verdict = (
            Text("  kept", style="green")
            if row["kept"]
            else Text(f"  rejected by {row['rejected_by']}: {row['reason']}", style="red")
        )
        console.print(verdict)
        said = (f"{name.rpartition('.')[2]} {value:z.3g}" for name, value in row["scores"].items() if "log_p" not in name)
        console.print(Text("  " + ", ".join(said), style="dim"))
    kept = sum(row["kept"] for row in found["candidates"])
    how = "by the bounds that are numbers" if found["problem"] else "with bounds calibrated on these few"
    console.print(f"\n{kept} of {len(found['candidates'])} candidates kept, {how}", highlight=False)
