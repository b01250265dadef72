"""Do chosen answers beat rejected ones under measures that made no pair: salient recall, and invented names and numbers?

No model is loaded. Pairs are made of a finished run's stored scores, as `limbeck export --format preferences` makes them. Of the
answers of a pair with a document, the one with the higher recall of the document's salient words wins, or the one without an
invented name or number if the other has one; ties count half. Salient words are those that the run's sources recorded. Each
prompt counts once, with the mean of its pairs; intervals are of a bootstrap over prompts. `share` counts all pairs, `decided`
those that are no tie; `difference` is chosen minus rejected.

    python -m benchmarks.preferences RUN [--round N] [--set rows.by=pmi.pmi] [--set rows.pairs=all] [--json]
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import SOURCES
from limbeck.pipelines.runs.export_pairs import paired
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.inspect import decided_files, decided_round
from limbeck.pipelines.runs.opening import existing
from limbeck.pipelines.runs.preference_pairs import Tally, summary
from limbeck.pipelines.runs.preferences import preference_rows
from limbeck.pipelines.runs.scored import connect_parts
from limbeck.students.evaluation.statistics import interval, inventions, salient_recalls

Floats = npt.NDArray[np.float64]
HIGHER_IS_BETTER = {"salient_recall": True, "invention": False}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--round", type=int)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="how answers are paired")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        found = measured(existing(arguments.run), arguments.round, arguments.settings or ["rows.by=pmi.pmi"])
    except LimbeckError as error:
        sys.exit(f"preferences: {error}")
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(found["pairs"])
    for name, figures in found["measures"].items():
        print(f"{name:15} " + "; ".join(f"{key} {_shown(value)}" for key, value in figures.items()))


def measured(folder: RunFolder, number: int | None, settings: Sequence[str]) -> dict[str, Any]:
    """The pairs in words, and per measure the shares of wins and the mean difference with their intervals, and the counts."""
    number = decided_round(folder, number)
    recipe, rows = paired(folder, settings)
    decided, tally = decided_files(folder, number, None), Tally(rows)
    with connect_parts(folder.candidates(number), decided.scores, folder.sources("train")) as scored:
        table = pa.concat_tables(preference_rows(scored, recipe, rows, decided.decisions, tally))
    sources = read_parts(folder.sources("train"), SOURCES).to_pylist()
    salient = {row["source_id"]: row["salient"] for row in sources if row["document"]}
    pairs = [row for row in table.to_pylist() if row["source_id"] in salient]
    prompts = [json.dumps([row["source_id"], row["prompt"]]) for row in pairs]
    sides = {side: values_of(pairs, side, salient) for side in ("chosen", "rejected")}
    measures = {
        name: compared(sides["chosen"][name], sides["rejected"][name], prompts, higher=higher)
        for name, higher in HIGHER_IS_BETTER.items()
    }
    return {"pairs": summary(tally.facts()), "prompts": len(set(prompts)), "measures": measures}


def values_of(pairs: Sequence[dict[str, Any]], side: str, salient: dict[str, list[int]]) -> dict[str, Floats]:
    """Both measures of one side's answers.  # each [pairs]"""
    documents = [row["document"] for row in pairs]
    texts = [row[side] if isinstance(row[side], str) else row[side][-1]["content"] for row in pairs]
    recalls = salient_recalls(documents, [salient[row["source_id"]] for row in pairs], texts)
    return {"salient_recall": recalls, "invention": inventions(documents, texts)}


def compared(chosen: Floats, rejected: Floats, prompts: Sequence[str], *, higher: bool) -> dict[str, Any]:
    """How often the chosen answer is the better one, each prompt once."""
    better = (chosen - rejected) * (1 if higher else -1)
    known = np.isfinite(better)
    wins = np.where(better > 0, 1.0, np.where(better == 0, 0.5, 0.0))
    return {
        "share": _interval(wins, prompts, known),
        "decided": _interval(wins, prompts, known & (better != 0)),
        "difference": _interval(chosen - rejected, prompts, known),
        "pairs": int(known.sum()),
        "decided_pairs": int((known & (better != 0)).sum()),
    }


def _interval(values: Floats, prompts: Sequence[str], counted: npt.NDArray[np.bool_]) -> dict[str, float] | None:
    """Mean over prompts of the means of their counted pairs, with its interval; None if no pair counts."""
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for value, prompt, counts in zip(values, prompts, counted, strict=True):
        if counts:
            by_prompt[prompt].append(value)
    found = interval(np.array([np.mean(one) for one in by_prompt.values()])) if by_prompt else None
    return None if found is None else found.model_dump()


def _shown(value: Any) -> str:
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if isinstance(value, dict) else str(value)


if __name__ == "__main__":
    main()
