"""The self-test of judges in whole runs of a tiny model: table, warning, estimate, and resume after kill -9."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck, script
from helpers.outcomes import assert_same_outcome, parts_done
from helpers.paths import TESTS
from helpers.tiny_run import WORDS, write_recipe
from helpers.tiny_students import make_model
from limbeck.corpus.parts import read_parts
from limbeck.filters.corruptions import CORRUPTIONS
from limbeck.pipelines.runs.events import read_events

PAIRS = 4
FILTERS: list[dict[str, Any]] = [
    {"kind": "judge", "compare": "lead", "self_test": PAIRS},
    {"kind": "grade", "aspects": {"summary": {}, "complexity": {}}, "self_test": PAIRS},
    {"kind": "grade", "name": "untested", "self_test": 0},
    {"kind": "grade", "name": "tasks", "aspects": {"clarity": {}}},
]
WHO, WHAT = ("Anna", "Peter", "Maria", "Julia", "Laura", "Robert"), ("reads", "keeps", "makes", "sells", "opens", "writes")

pytestmark = pytest.mark.timeout(1800)


def write_sentences(path: Path) -> None:
    """Dissimilar documents with names, numbers, verbs and clauses."""
    draw, rows = random.Random(0), []

    def some(count: int) -> str:
        return " ".join(draw.choices(WORDS, k=count))

    for number in range(22):
        first = (
            f"In Paris, {draw.choice(WHO)} {draw.choice(WHAT)} {some(4)}, which {draw.choice(WHAT)} {some(3)} in {number + 1900}"
        )
        second = f"{draw.choice(WHO)} {draw.choice(WHAT)} {number + 20} {some(4)} because {some(3)} is good"
        rows.append({"text": f"{first}. {second}. {some(7).capitalize()}.", "summary": some(6)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(recipe: Path, out: Path, ray_address: str, **more: str) -> subprocess.CompletedProcess[str]:
    return script(TESTS / "helpers" / "restating.py", recipe, out, RAY_ADDRESS=ray_address, **more)


@pytest.fixture(scope="module")
def reference(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("self_test")
    write_sentences(home / "documents.jsonl")
    make_model(home / "model", max_position_embeddings=2048)
    done = run(write_recipe(home, rounds=1, student=None, filters=FILTERS), home / "run", ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"


def test_report_and_log_have_the_self_tests(reference: Path) -> None:
    report, page = json.loads((reference / "report.json").read_text()), (reference / "report.html").read_text()
    tests = {one["filter"]: one for one in report["self_tests"]}
    assert list(tests) == ["judge", "grade", "untested", "tasks"]
    for name, by in (("judge", "answers"), ("grade", "scores")):
        one = tests[name]
        assert one["by"] == by and one["verdict"] == "not above chance", "a random model judges at random"
        assert [row["corruption"] for row in one["corruptions"]] == list(CORRUPTIONS)
        assert [row["pairs"] + row["unanswered"] for row in one["corruptions"]] == [PAIRS] * len(CORRUPTIONS)
        assert all(row["unanswered"] == 0 and 0 <= row["answer_a"] <= 1 for row in one["corruptions"])
        assert f"Self-test of {name}" in page and f"{name}: not above chance: right on" in page
    assert tests["untested"]["reason"] == "its self_test is 0" and tests["tasks"]["reason"].startswith(
        "it grades instructions alone"
    )
    assert (
        report["first_line"].startswith("The judge judge does not tell")
        and "The grade grade does not tell" in report["first_line"]
    )
    assert page.index("does not tell outputs") < page.index("Did it learn?")
    assert "its self_test is 0" in page and len(page.encode()) <= 150_000 and "<script" not in page
    events = read_events(reference / "events.jsonl")
    kinds = [event["event"] for event in events]
    assert kinds.index("warning") < kinds.index("selected")
    warned = next(event["words"] for event in events if event["event"] == "warning")
    assert report["first_line"].startswith(warned)
    assert limbeck("status", reference).stdout.startswith(f"warning: {warned}")
    assert "self-test/judge" in report["seconds"]["by_stage"]
    card = (reference / "rounds/000/dataset/README.md").read_text()
    assert "| grade | grade | not above chance" in card


def test_pairs_are_stored_with_their_answers(reference: Path) -> None:
    for name in ("judge", "grade"):
        pairs, answers = (read_parts(reference / f"rounds/000/probes/{name}/{what}") for what in ("pairs", "answers"))
        assert pairs["candidate_id"].equals(answers["candidate_id"]) and pairs["corruption"].equals(answers["corruption"])
        assert answers["error"].null_count == answers.num_rows
    assert {path.name for path in (reference / "rounds/000/probes").iterdir()} == {"judge", "grade"}


def test_the_estimate_counts_the_self_tests(reference: Path) -> None:
    recipe = reference.parent / "recipe.yaml"
    with_tests, without = (
        json.loads(limbeck("check", recipe, "--json", *more).stdout)["estimate"]
        for more in ((), ("--set", "filters.judge.self_test=0", "--set", "filters.grade.self_test=0"))
    )
    prompts = PAIRS * len(CORRUPTIONS) * (2 + 4)
    assert with_tests["self_test_prompts"] == prompts and "self_test_prompts" not in without
    assert with_tests["tokens"]["logprobs"] > without["tokens"]["logprobs"]
    assert f"up to {prompts} of the prompts test the judging filters" in limbeck("check", recipe).stdout


@pytest.mark.slow
def test_a_killed_self_test_resumes_to_the_same_figures(reference: Path, ray_address: str, tmp_path: Path) -> None:
    renames = ("probes/judge/pairs$", "probes/grade/pairs$", "run/self_test.json$", "rounds/000/decisions.parquet")
    plan = tmp_path / "faults.json"
    faults = [{"rename": rename, "when": "before", "victim": "self"} for rename in renames]
    plan.write_text(json.dumps(faults))
    recipe, out = reference.parent / "recipe.yaml", tmp_path / "run"
    for _ in faults:
        assert run(recipe, out, ray_address, FAULTS=str(plan)).returncode == -9
    assert run(recipe, out, ray_address, FAULTS=str(plan)).returncode == 0
    assert (out / "self_test.json").read_text() == (reference / "self_test.json").read_text()
    assert_same_outcome(out, reference, rounds=1)
    done = {part: count for part, count in parts_done(out).items() if part[0].startswith("self-test/")}
    assert set(done) <= {part for part in parts_done(reference) if part[0].startswith("self-test/")}
    assert max(done.values()) == 1, "no part is asked twice"
