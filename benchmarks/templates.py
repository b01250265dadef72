"""The accuracy of every model of a finished run of the generator `templates` on held-out templates and held-out tasks.

No model is loaded. Two accuracies: `exact`, the filter `answer` of the run (the whole answer is the reference, or what follows
"answer is"), and `stated`: the last number is the reference's, or of the choices the output names just the right one. What they
differ by is form. Intervals are of a bootstrap over questions; differences are of the same questions. `most rows` is the largest
number of training rows that a task has.

    python -m benchmarks.templates RUN [--json]
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.text.answers.reading import Reader
from limbeck.generators.templates.tasks import HELD_OUT
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.lost import round_numbers
from limbeck.pipelines.runs.opening import existing

RESAMPLES = 2000
TEACHER = "teacher"
GROUPS = {"template": "held-out templates of seen tasks", "task": "a held-out task"}
_NUMBER = Reader("last_number", "number")


@dataclass(frozen=True)
class Asked:
    """One held-out question: what is known of it, and the share of a model's answers that are right."""

    facts: Mapping[str, Any]
    exact: float
    stated: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        folder = existing(arguments.run)
        figures = summary(answers_of(folder), rows_by_task(folder))
    except LimbeckError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(figures) if arguments.json else shown(figures))


def answers_of(folder: RunFolder, split: str = "test") -> dict[str, dict[str, Asked]]:
    """Model → question → its answers; raises LimbeckError if the run has no held-out templates."""
    inputs = folder.evaluation(split, "inputs") / "candidates"
    drawn = read_parts(inputs, CANDIDATES).to_pylist()
    known = {row["source_id"]: (json.loads(row["facts"] or "{}"), row["reference"]) for row in drawn if row["error"] is None}
    if not any("template" in facts for facts, _ in known.values()):
        raise LimbeckError(f"{inputs} has no template; name a finished run of the generator templates")
    found = {}
    for model in (TEACHER, *(f"student-{number:03d}" for number in round_numbers(folder))):
        home = folder.evaluation(split, model)
        if not (home / "candidates").exists():
            continue
        correct = {row["candidate_id"]: row["correct"] for row in read_parts(home / "scores" / "answer").to_pylist()}
        rows = read_parts(home / "candidates", CANDIDATES).to_pylist()
        of_questions: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            of_questions.setdefault(row["source_id"], []).append(row)
        found[model] = {asked: _asked(answers, *known[asked], correct) for asked, answers in of_questions.items()}
    return found


def _asked(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], reference: str, correct: Mapping[str, float]) -> Asked:
    exact = [correct[row["candidate_id"]] == 1 for row in rows]
    stated = [states(row["output"], reference, facts.get("choices")) for row in rows]
    return Asked(facts, sum(exact) / len(rows), sum(stated) / len(rows))


def states(output: str, reference: str, choices: Sequence[str] | None) -> bool:
    """Whether an output names just the right choice, or its last number is the reference's."""
    if choices:
        return [choice for choice in choices if re.search(rf"\b{re.escape(choice)}\b", output, re.IGNORECASE)] == [reference]
    expected, answer = _NUMBER.read_reference(reference), _NUMBER.read(output)
    return expected is not None and answer is not None and expected.key == answer.key


def rows_by_task(folder: RunFolder) -> Counter[str]:
    """How many training rows each task has in the first round."""
    return Counter(json.loads(facts)["task"] for facts in read_table(folder.dataset(0) / DATA)["facts"].to_pylist())


def summary(answers: Mapping[str, Mapping[str, Asked]], rows: Mapping[str, int]) -> dict[str, Any]:
    """Accuracies of every model by group and by task, with the difference to the first model (the teacher)."""
    teacher = next(iter(answers.values()))
    groups: list[tuple[str, list[str]]] = []
    for value, name in GROUPS.items():
        groups.append((name, [asked for asked, one in teacher.items() if one.facts.get(HELD_OUT) == value]))
    for task in sorted({one.facts["task"] for one in teacher.values()}):
        groups.append((task, [asked for asked, one in teacher.items() if one.facts["task"] == task]))
    lines = []
    for name, asked in groups:
        for model, own in answers.items():
            line: dict[str, Any] = {"group": name, "model": model, "questions": len(asked)}
            for measure in ("exact", "stated"):
                right = np.array([getattr(own[one], measure) for one in asked], float)
                before = np.array([getattr(teacher[one], measure) for one in asked], float)
                line[measure] = interval(right)
                line[f"{measure}_difference"] = interval(right - before) if own is not teacher else None
            lines.append(line)
    return {"accuracies": lines, "rows": dict(sorted(rows.items())), "most_rows": max(rows.values(), default=0)}


def interval(values: np.ndarray[Any, Any]) -> list[float] | None:
    """A mean with its bootstrap 95 % interval; None without values.  # [questions]"""
    if not len(values):
        return None
    places = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    return [round(float(one), 4) for one in (values.mean(), *np.quantile(values[places].mean(axis=1), (0.025, 0.975)))]


def shown(figures: Mapping[str, Any]) -> str:
    """The figures as a table."""
    lines = ["| asked | model | questions | exact (95 %) | minus teacher, points | stated (95 %) | minus teacher, points |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in figures["accuracies"]:
        cells = [_percent(row[name]) for name in ("exact", "exact_difference", "stated", "stated_difference")]
        lines.append(f"| {row['group']} | {row['model']} | {row['questions']} | {' | '.join(cells)} |")
    rows = ", ".join(f"{task} {count}" for task, count in figures["rows"].items())
    return "\n".join([*lines, "", f"Training rows by task: {rows}; most rows: {figures['most_rows']}"])


def _percent(values: Sequence[float] | None) -> str:
    return "–" if values is None else "{:.1f} ({:.1f}–{:.1f})".format(*(100 * value for value in values))


if __name__ == "__main__":
    main()
