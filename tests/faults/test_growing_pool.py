"""Real runs of a generator that reads what earlier waves accepted: workers, part sizes, driving and kill -9 change nothing.

`tests/pipelines/driver/test_waves.py` shows the same within one process, for `make test`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers import toy
from helpers.random_kills import kill_until
from helpers.tiny_run import recipe, write_documents, write_recipe
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SOURCES, KILLS = 256, 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("growing")
    recipe(folder)
    write_documents(folder / "many.jsonl", SOURCES + 2)
    return folder


@pytest.fixture(scope="module")
def site(home: Path) -> dict[str, str]:
    environment = toy.install(home / "site")
    toy.write_distribution(home / "site", "limbeck-five", "1.0", {"five": "helpers.five_steps:FiveStepsConfig"})
    return environment


def growing(home: Path, workers: int, rows_per_part: int, across_callers: bool) -> Path:
    split = {"train": SOURCES, "dev": 1, "test": 1}
    return write_recipe(
        home,
        rounds=1,
        sources={"kind": "jsonl", "path": str(home / "many.jsonl"), "max_source_tokens": 200, "split": split},
        teacher=toy.scripted(home / "model", across_callers=across_callers),
        generator={"kind": "five"},
        filters=[{"kind": "length", "min_output_tokens": 2, "max_compression": 50.0}],
        student=None,
        target={"rows": 200, "wave_sources": 64},
        cluster={"workers": workers, "cpus_per_worker": 0.5, "rows_per_part": rows_per_part, "threads_per_worker": 1},
    )


def run(home: Path, site: dict[str, str], name: str, layout: tuple[int, int, bool], **more: str) -> int:
    done = toy.limbeck("run", growing(home, *layout), "--out", home / name, "--no-panel", **site, **more)
    assert done.returncode in (0, -9), done.stderr[-4000:]
    return done.returncode


def outcome(folder: Path) -> dict[str, Any]:
    found = RunFolder(folder)
    pools = sorted((found.round(0) / "pool").glob("*.parquet"))
    return {
        "candidates": read_parts(found.candidates(0), CANDIDATES).to_pylist(),
        "steps": read_parts(found.steps(0)).to_pylist(),
        "pools": {path.name: read_table(path)["candidate_id"].to_pylist() for path in pools},
        "kept": read_table(found.decisions(0))["kept"].to_pylist(),
    }


@pytest.fixture(scope="module")
def reference(home: Path, site: dict[str, str]) -> dict[str, Any]:
    assert run(home, site, "reference", (1, 8, False)) == 0
    found = outcome(home / "reference")
    sizes = [len(pool) for pool in found["pools"].values()]
    assert len(sizes) >= 2 and sizes[0] == 0 and sizes == sorted(set(sizes)), "the pool grows from wave to wave"
    assert {step["step"] for step in found["steps"]} >= {"instruction", "logprobs", "input", "answer"}
    return found


@pytest.mark.parametrize("layout", [(3, 8, True), (1, 32, True), (3, 32, False)], ids=str)
def test_neither_workers_nor_parts_nor_driving_change_a_row(
    home: Path, site: dict[str, str], reference: dict[str, Any], layout: tuple[int, int, bool]
) -> None:
    name = "-".join(map(str, layout))
    assert run(home, site, name, layout) == 0
    assert outcome(home / name) == reference


@pytest.mark.parametrize("layout", [(1, 8, False), (3, 8, True)], ids=str)
def test_twenty_kills_change_nothing(
    home: Path, site: dict[str, str], reference: dict[str, Any], layout: tuple[int, int, bool]
) -> None:
    """At renames of parts, steps, pools and decisions."""
    parts = [f"rounds/000/{name}/part-{part:05d}" for name in ("candidates", "steps", "scores/length") for part in range(16)]
    chosen = [*parts, "rounds/000/pool/", "rounds/000/decisions.parquet", "sources/_done.json"]
    plan, name = home / f"kills-{layout[0]}.json", f"killed-{layout[0]}"
    kill_until(KILLS, plan, chosen, f"kills {layout}", partial(run, home, site, name, layout))
    assert run(home, site, name, layout) == 0
    assert outcome(home / name) == reference
