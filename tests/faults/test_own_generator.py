"""What a user's generator of a dozen lines gets from the runner: resume after kill -9, bisection, steps, estimate, report."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from helpers.commands import script
from helpers.paths import ROOT
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.generators.own import own_generator
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.check import estimate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FATAL = """
import os, signal
import own_generator as example

def questions(source, draw, pool):
    if source.source_id == {victim!r}:
        yield draw("fatal", "Anything.", example.SAMPLING)
        os.kill(os.getpid(), signal.SIGKILL)
    return (yield from example.questions(source, draw, pool))

if __name__ == "__main__":
    generator = example.own_generator("questions", questions, completions=2, chat=False)
    example.run(example.load({recipe!r}), {run!r}, generator=generator)
"""
SETTINGS = {"rounds": 1, "student": None, "filters": [{"kind": "length", "min_output_tokens": 1}]}


def run(recipe: Path, out: Path, ray_address: str, **more: str) -> subprocess.CompletedProcess[str]:
    return script(ROOT / "examples" / "own_generator.py", recipe, out, RAY_ADDRESS=ray_address, **more)


@pytest.fixture(scope="module")
def reference(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("own")
    done = run(write_recipe(home, **SETTINGS), home / "run", ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"


def test_a_killed_run_resumes_to_the_same_rows(reference: Path, ray_address: str, tmp_path: Path) -> None:
    renames = ("rounds/000/candidates/_done.json", "rounds/000/scores/length/_done.json", "rounds/000/decisions.parquet")
    plan = tmp_path / "faults.json"
    plan.write_text(json.dumps([{"rename": rename, "when": "before", "victim": "self"} for rename in renames]))
    recipe, out = reference.parent / "recipe.yaml", tmp_path / "run"
    for _ in renames:
        assert run(recipe, out, ray_address, FAULTS=str(plan)).returncode == -9
    assert run(recipe, out, ray_address, FAULTS=str(plan)).returncode == 0
    for folder in ("candidates", "steps"):
        mine, theirs = (read_parts(home / "rounds/000" / folder) for home in (out, reference))
        assert mine.equals(theirs)


def test_a_source_that_kills_its_worker_costs_that_source(reference: Path, ray_address: str, tmp_path: Path) -> None:
    sources = read_parts(reference / "rounds/000/sources/train", SOURCES)["source_id"].to_pylist()
    mine = tmp_path / "mine.py"
    mine.write_text(FATAL.format(victim=sources[5], recipe=str(reference.parent / "recipe.yaml"), run=str(tmp_path / "run")))
    (tmp_path / "own_generator.py").write_text((ROOT / "examples" / "own_generator.py").read_text())
    done = script(mine, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    rows = {row["source_id"]: row for row in read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES).to_pylist()}
    theirs = {row["source_id"]: row for row in read_parts(reference / "rounds/000/candidates", CANDIDATES).to_pylist()}
    assert "it was killed or crashed" in rows[sources[5]]["error"]
    assert all(rows[source] == theirs[source] for source in sources if source != sources[5])


def test_steps_estimate_and_report(reference: Path) -> None:
    steps = Counter(read_parts(reference / "rounds/000/steps")["step"].to_pylist())
    assert steps["question"] == 12 and 0 < steps["answer"] <= 12
    report = json.loads((reference / "report.json").read_text())
    assert report["finished"] and report["rounds"][0]["task"]["inputs"] == "inputs"
    assert report["rounds"][0]["rows"]["candidates"] == 12
    recipe = recipes.load(reference.parent / "recipe.yaml")
    counts = {"train": 12, "dev": 4, "test": 6, "used": 22, "document_tokens": 22 * 30}
    own = own_generator("questions", lambda source, draw, pool: iter(()), completions=2, chat=False)
    found = estimate(recipe.model_copy(update={"generator": own}), counts, parameters=1_000_000)
    assert found["completions"] == 12 * 2 + 4 * 1 + 6 * 2 and found["seconds"]["total"] > 0
