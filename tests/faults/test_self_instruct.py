"""Real runs of Self-Instruct on an engine without weights: kill -9 of driver and workers changes neither the pool nor a row."""

from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from helpers import toy
from helpers.random_kills import kill_until
from helpers.tiny_run import write_recipe
from helpers.tiny_students import make_model
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.generators.instruction_tasks import SEED_TASKS, seed_tasks
from limbeck.pipelines import recipe_files
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SOURCES, WAVE, TARGET, KILLS = 96, 32, 300, 10


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instructing")
    make_model(folder / "model", max_position_embeddings=4096)  # `check` counts the few-shot prompts
    return folder


@pytest.fixture(scope="module")
def site(home: Path) -> dict[str, str]:
    environment = toy.install(home / "site")
    kinds = {"instructing": "helpers.instructing_engine:InstructingConfig"}
    toy.write_distribution(home / "site", "limbeck-instructing", "1.0", kinds)
    return environment


def run(home: Path, site: dict[str, str], name: str, workers: int, **more: str) -> int:
    shipped = recipe_files.read(recipe_files.find("self-instruct"))
    path = write_recipe(
        home,
        **{key: shipped[key] for key in ("generator", "rows", "filters", "select")},
        rounds=1,
        sources={"kind": "draws", "count": SOURCES + 4, "split": {"train": SOURCES, "dev": 2, "test": 2}},
        teacher={"kind": "instructing", "model": str(home / "model"), "across_callers": workers > 1},
        student=None,
        target={"rows": TARGET, "wave_sources": WAVE},
        cluster={"workers": workers, "cpus_per_worker": 0.5, "rows_per_part": 8, "threads_per_worker": 1},
    )
    done = toy.limbeck("run", path, "--out", home / name, "--no-panel", **site, **more)
    assert done.returncode in (0, -9), done.stderr[-4000:]
    return done.returncode


def outcome(folder: Path) -> dict[str, Any]:
    found = RunFolder(folder)
    pools = sorted((found.round(0) / "pool").glob("*.parquet"))
    return {
        "candidates": read_parts(found.candidates(0), CANDIDATES).to_pylist(),
        "pools": {path.name: read_table(path).to_pylist() for path in pools},
        "decisions": read_table(found.decisions(0)).to_pylist(),
    }


@pytest.fixture(scope="module")
def reference(home: Path, site: dict[str, str]) -> dict[str, Any]:
    assert run(home, site, "reference", 1) == 0
    return outcome(home / "reference")


def test_the_dataset_has_the_target_s_rows_and_no_two_near_instructions(home: Path, reference: dict[str, Any]) -> None:
    kept = {row["candidate_id"] for row in reference["decisions"] if row["kept"]}
    assert len(kept) == TARGET and len(reference["pools"]) >= 2
    new = dict.fromkeys(row["prompt"] for row in reference["candidates"] if row["candidate_id"] in kept)
    texts = [*(task.prompt for task in seed_tasks(SEED_TASKS)), *new]
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    assert max(scorer.score(a, b)["rougeL"].fmeasure for a, b in combinations(texts, 2)) <= 0.7, "all pairs, seeds included"
    held_out = read_parts(home / "reference/evaluation/test/inputs/candidates", CANDIDATES).to_pylist()
    assert {row["source_id"] for row in held_out}.isdisjoint(row["source_id"] for row in reference["candidates"])


@pytest.mark.parametrize("workers", [1, 3])
def test_kills_change_neither_the_pool_nor_a_row(
    home: Path, site: dict[str, str], reference: dict[str, Any], workers: int
) -> None:
    parts = [f"rounds/000/{name}/part-{part:05d}" for name in ("candidates", "steps", "scores/instructions") for part in range(8)]
    chosen = [*parts, "rounds/000/pool/", "rounds/000/decisions.parquet"]
    plan, name = home / f"kills-{workers}.json", f"killed-{workers}"
    kill_until(KILLS, plan, chosen, f"kills {workers}", partial(run, home, site, name, workers))
    assert run(home, site, name, workers) == 0
    assert outcome(home / name) == reference
