"""Self-Instruct and Alpaca, measured: how well step 2 tells classification tasks from others, and where the texts of a run go.

    python -m benchmarks.instructions classify [--model M] [--by-text]    60 labelled instructions, and those tuned on
    python -m benchmarks.instructions yield RUN                           responses, tasks by rule, kept rows, of each round

A yield is a count of what passed rules. It says nothing about quality: the rules let texts through that are no tasks.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.critics import auroc
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Pair, Request
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.seed_texts import read_seed_tasks
from limbeck.generators.instruction_tasks import REASONS, SEED_TASKS
from limbeck.generators.self_instruct import parsing, prompts
from limbeck.generators.self_instruct.decoding import ClassificationStep
from limbeck.pipelines.runs.folder import RunFolder

TESTS = Path(__file__).resolve().parent.parent / "tests/generators"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    classify = commands.add_parser("classify")
    classify.add_argument("--model", default="embedded:smollm2-135m-instruct")
    classify.add_argument("--by-text", action="store_true", help="also the paper's form, which generates the word")
    commands.add_parser("yield").add_argument("run", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "classify":
        measure_classification(arguments.model, arguments.by_text)
    else:
        show_yield(RunFolder(arguments.run))


def measure_classification(model: str, by_text: bool) -> None:
    engine = Engines().get(TransformersConfig(model=model))
    sets = {name: _labelled(name) for name in ("instructions_labelled", "instructions_tuned_on")}
    for name, rows in {**sets, "seed tasks": read_seed_tasks(SEED_TASKS)}.items():
        truth = np.array([row["is_classification"] for row in rows])
        tasks = [row["instruction"].strip() for row in rows]
        pairs = [Pair(prompts.task_list(kind), f" {task}") for task in tasks for kind in (True, False)]
        scores = [float(values.sum()) for values in engine.logprobs(pairs)]
        margins = np.array(scores[::2]) - np.array(scores[1::2])
        print(f"{len(rows)} {name}, {truth.sum()} classification; model {model}")
        said = margins > ClassificationStep().threshold
        print(f"logprobs: AUROC {auroc(margins[truth], margins[~truth]):.3f}; {_counts(said, truth)}")
        if by_text:
            asked = [prompts.is_classification(task) for task in tasks]
            sampling = ClassificationStep().sampling
            requests = [Request(str(place), text, sampling, place) for place, text in enumerate(asked)]
            found = {int(done.request_id): done.text for done in engine.complete(requests)}
            print(f"text: {_counts(np.array([parsing.says_yes(found[place]) for place in range(len(rows))]), truth)}")


def _labelled(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TESTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _counts(said: np.ndarray, truth: np.ndarray) -> str:
    right = int((said == truth).sum())
    return f"{right} of {len(truth)} right, yes to {(said & truth).sum()} of {truth.sum()} and to {(said & ~truth).sum()} others"


def show_yield(folder: RunFolder) -> None:
    number = 0
    if not folder.decisions(0).exists():
        raise SystemExit(f"{folder.path} has no decisions: name the folder of a run that has selected")
    while folder.decisions(number).exists():
        rows = read_parts(folder.candidates(number), CANDIDATES).to_pylist()
        decided = {row["candidate_id"]: row for row in read_table(folder.decisions(number)).to_pylist()}
        facts = [json.loads(row["facts"] or "{}") for row in rows]
        rules = Counter(fact.get("rule", "other error") for row, fact in zip(rows, facts, strict=True) if row["error"])
        made = [row for row in rows if not row["error"]]
        kept = [row for row in made if decided[row["candidate_id"]]["kept"]]
        print(f"round {number}: {len({row['source_id'] for row in rows})} responses, {len(rows)} rows\n")
        print("| | rows |\n|---|---|")
        for rule in [*REASONS, "other error"]:
            if rules[rule]:
                print(f"| rejected: {REASONS.get(rule, rule)} | {rules[rule]} |")
        for name, count in Counter(decided[row["candidate_id"]]["rejected_by"] for row in made).items():
            print(f"| {'kept' if name is None else f'rejected by {name}'} | {count} |")
        print(f"\n{len(made)} instances of {_instructions(made)} instructions passed the rules of the generator.")
        with_input = sum(bool(row["input"]) for row in kept)
        classification = sum(json.loads(row["facts"] or "{}").get("classification", False) for row in kept)
        print(f"{len(kept)} instances of {_instructions(kept)} instructions were kept: {with_input} with an input, ", end="")
        print(f"{classification} of classification tasks.")
        number += 1


def _instructions(rows: Sequence[Mapping[str, Any]]) -> int:
    return len({row["prompt"] for row in rows})


if __name__ == "__main__":
    main()
