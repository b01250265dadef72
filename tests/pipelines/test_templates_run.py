"""Runs of the generator `templates` by the command line: caps, held-out questions, accuracies, and their rows in a mixture."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from benchmarks.templates import answers_of, rows_by_task, states, summary
from helpers.commands import limbeck
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.pipelines import recipe_files
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.folder import RunFolder

CAP = 7


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Path:
    """A run of the shipped recipe's sections on a tiny model, without a student."""
    home = tmp_path_factory.mktemp("templates")
    shipped = recipe_files.read(recipe_files.find("templates"))
    path = write_recipe(
        home,
        **{key: shipped[key] for key in ("generator", "filters")},
        rounds=1,
        sources={
            "kind": "local-labels", "tables": {"arithmetic": 60, "packages": 20},
            "split": {"train": 0.7, "dev": 0.1, "test": 0.2},
        },
        task={**shipped["task"], "answer_tokens": 6},
        select=[shipped["select"][0], {"kind": "cap", "by": "task", "most": CAP}],
        student=None,
        rows={"kind": "chat"},
        cluster={"rows_per_part": 30, "threads_per_worker": 1},
    )  # fmt: skip
    done = limbeck("run", path, "--out", home / "run", "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"


def test_no_task_is_above_its_cap_and_no_held_out_template_is_trained_on(run: Path) -> None:
    rows = [json.loads(facts) for facts in read_table(run / "rounds/000/dataset" / DATA)["facts"].to_pylist()]
    counts = Counter(row["task"] for row in rows)
    assert counts == rows_by_task(RunFolder(run)) and max(counts.values()) == CAP
    assert not any("held_out" in row for row in rows)
    found = json.loads((run / "rounds/000/rows.json").read_text())
    assert found["kept"] + sum(found["rejected_by"].values()) == found["candidates"] and found["rejected_by"]["cap"] > 0


def test_held_out_questions_are_frozen_with_their_references(run: Path) -> None:
    inputs = read_parts(run / "evaluation/test/inputs/candidates", CANDIDATES).to_pylist()
    facts = [json.loads(row["facts"]) for row in inputs if row["error"] is None]
    assert {one["held_out"] for one in facts} == {"template", "task"}
    frozen = read_parts(run / "evaluation/test/inputs/sources", SOURCES).to_pylist()
    assert {row["source_id"]: row["reference"] for row in frozen} == {
        row["source_id"]: row["reference"] for row in inputs if row["error"] is None
    }
    asked = {row["prompt"] for row in read_parts(run / "rounds/000/candidates", CANDIDATES).to_pylist()}
    assert not asked & {row["prompt"] for row in inputs if row["prompt"]}


def test_accuracies_are_those_of_the_filter(run: Path) -> None:
    answers = answers_of(RunFolder(run))
    figures = summary(answers, rows_by_task(RunFolder(run)))
    scores = read_parts(run / "evaluation/test/teacher/scores/answer")["correct"].to_pylist()
    samples = len(scores) / len(answers["teacher"])
    groups = {row["group"]: row for row in figures["accuracies"]}
    both = [groups["held-out templates of seen tasks"], groups["a held-out task"]]
    assert sum(row["questions"] for row in both) * samples == len(scores)
    assert sum(row["questions"] * row["exact"][0] for row in both) * samples == pytest.approx(sum(scores), abs=0.01)
    assert figures["most_rows"] == CAP


def test_templated_rows_can_be_mixed_into_another_dataset(run: Path, tmp_path: Path) -> None:
    mixture = {"name": "m", "size": 5, "components": [{"kind": "run", "name": "templates", "run": str(run)}]}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(mixture))
    done = limbeck("mix", tmp_path / "mix.yaml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert read_table(tmp_path / "out" / DATA)["component"].to_pylist() == ["templates"] * 5


@pytest.mark.parametrize(
    ("output", "reference", "choices", "right"),
    [
        ("54 + 78 is 132.", "132", None, True),
        ("132 or 133", "132", None, False),
        ("no number", "132", None, False),
        ("It is their Sum.", "sum", ["sum", "product"], True),
        ("sum or product", "sum", ["sum", "product"], False),
        ("I know nothing", "no", ["yes", "no"], False),
    ],
)
def test_an_answer_states_the_number_or_just_the_right_choice(
    output: str, reference: str, choices: list[str] | None, right: bool
) -> None:
    assert states(output, reference, choices) == right


@pytest.mark.recipes
@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(3600)
def test_the_toy_runs_to_its_report(tmp_path: Path, ray_address: str) -> None:
    out = tmp_path / "run"
    done = limbeck("run", "templates", "--with", "toy", "--out", out, "--no-panel", timeout=1800, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    assert max(rows_by_task(RunFolder(out)).values()) <= 16
    answers = answers_of(RunFolder(out))
    assert list(answers) == ["teacher", "student-000"] and set(answers["teacher"]) == set(answers["student-000"])
