"""kill -9 anywhere: the same command resumes the run, and the dataset equals the uninterrupted run's, row for row."""

import json
import subprocess
from pathlib import Path

import pytest

from helpers.commands import limbeck, script
from helpers.outcomes import assert_same_outcome
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES

# every stage's last act is a rename; "before" leaves only a temporary file, "after" a published one that was not reported
DRIVER_FAULTS = [
    ("sources/train/part-00001", "before"),
    ("sources/_done.json", "before"),
    ("rounds/000/scores/pmi/part-00000", "after"),
    ("rounds/000/candidates/part-00001", "before"),
    ("calibration.json", "before"),
    ("rounds/000/decisions.parquet", "before"),
    ("rounds/000/dataset$", "before"),
    ("rounds/000/training/checkpoints/[^/]*$", "before"),
    ("rounds/000/student$", "before"),
    ("rounds/000/evaluation.json", "before"),
    ("rounds/000/stop.json", "before"),
    ("rounds/001/candidates/part-00002", "after"),
    ("rounds/001/decisions.parquet", "after"),
    ("rounds/001/student$", "after"),
    ("evaluation/test/student-001/scores/pmi/part-00000", "before"),
    ("evaluation/test.json", "before"),
]
WORKER_FAULTS = [
    ("rounds/000/candidates/part-00001", "before"),
    ("rounds/000/scores/pmi/part-00001", "before"),
    ("rounds/000/training/checkpoints/[^/]*$", "before"),
    ("rounds/001/candidates/part-00000", "after"),
    ("rounds/001/student$", "before"),
    ("evaluation/test/student-000/candidates/part-00000", "before"),
]


def plan(path: Path, faults: list[tuple[str, str]], victim: str) -> Path:
    path.write_text(json.dumps([{"rename": rename, "when": when, "victim": victim} for rename, when in faults]))
    return path


def missed(plan: Path, faults: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The faults that have not been triggered yet."""
    return [fault for index, fault in enumerate(faults) if not Path(f"{plan}.{index}").exists()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crash")


def uninterrupted(home: Path, name: str, **changes: object) -> tuple[Path, Path]:
    recipe, run = write_recipe(home, **changes), home / name
    done = limbeck("run", recipe, "--out", run)
    assert done.returncode == 0, done.stderr
    return recipe, run


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_driver_killed_in_every_stage(home: Path) -> None:
    recipe, reference = uninterrupted(home, "reference")
    faults, run = plan(home / "driver.json", DRIVER_FAULTS, "driver"), home / "driver-killed"
    while left := missed(faults, DRIVER_FAULTS):
        killed = limbeck("run", recipe, "--out", run, faults=faults)
        assert killed.returncode == -9, f"not killed, {left} are left: {killed.stderr[-2000:]}"
        assert len(missed(faults, DRIVER_FAULTS)) == len(left) - 1, "one fault a run"
    done = limbeck("run", recipe, "--out", run, faults=faults)
    assert done.returncode == 0, done.stderr
    assert_same_outcome(run, reference, rounds=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_workers_and_trainers_killed_in_every_stage(home: Path) -> None:
    recipe, reference = uninterrupted(home, "reference")  # the run of the previous test, if it exists
    faults, run = plan(home / "worker.json", WORKER_FAULTS, "self"), home / "worker-killed"
    done = limbeck("run", recipe, "--out", run, faults=faults)
    assert done.returncode == 0, done.stderr
    assert not missed(faults, WORKER_FAULTS)
    assert_same_outcome(run, reference, rounds=2)


@pytest.mark.timeout(600)
def test_a_driver_and_a_worker_killed_while_candidates_are_drawn(tmp_path: Path, plain_run: Path) -> None:
    """A short version of the two long tests: one round, no student."""
    recipe, faults, run = plain_run.parent / "recipe.yaml", tmp_path / "faults.json", tmp_path / "killed"
    faults.write_text(
        json.dumps(
            [
                {"rename": "rounds/000/candidates/part-00000", "when": "before", "victim": "self"},
                {"rename": "rounds/000/decisions.parquet", "when": "before", "victim": "driver"},
            ]
        )
    )
    assert limbeck("run", recipe, "--out", run, faults=faults).returncode == -9
    leftovers = list(run.rglob("*.tmp"))
    assert leftovers, "a kill before the rename leaves the temporary file"
    done = limbeck("run", recipe, "--out", run, faults=faults)
    assert done.returncode == 0, done.stderr
    assert_same_outcome(run, plain_run, rounds=1)


FATAL_FILTER = """
import os, signal, time
import pyarrow as pa
from limbeck.cluster.engines.protocol import EngineDied
from limbeck.filters.contract import Bound
from limbeck.pipelines.recipe import load
from limbeck.pipelines.run import run

class Fatal:
    name = "fatal"
    bounds = (Bound("length", minimum=0),)
    def score(self, candidates):
        victim = {victim!r} or candidates["candidate_id"][0].as_py()
        if victim in candidates["candidate_id"].to_pylist():
            fault()
        return pa.table({{"length": [float(len(text)) for text in candidates["output"].to_pylist()]}})

class NeverLoads(Fatal):
    def build(self, engines):
        fault()

def fault():
    if {fault!r} == "hang":
        time.sleep(3600)
    if {fault!r} == "engine":
        raise EngineDied("CUDA error: an illegal memory access was encountered")
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    run(load({recipe!r}), {run!r}, filters=[{filter}()])
"""


def run_with_fatal_filter(
    folder: Path, recipe: Path, ray_address: str, victim: str, fault: str = "kill", filter: str = "Fatal"
) -> subprocess.CompletedProcess[str]:
    """Run a user script whose filter crashes its worker on one candidate; victim "": on every candidate."""
    mine = folder / "mine.py"
    mine.write_text(FATAL_FILTER.format(victim=victim, recipe=str(recipe), run=str(folder / "run"), fault=fault, filter=filter))
    return script(mine, RAY_ADDRESS=ray_address)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("kill", "it was killed or crashed"),
        ("hang", "it made no progress for 6 s and was killed"),
        ("engine", "its engine exited: CUDA error: an illegal memory access"),
    ],
)
def test_a_row_that_always_ends_its_worker_becomes_a_reason(
    tmp_path: Path, plain_run: Path, ray_address: str, fault: str, words: str
) -> None:
    cluster = {"rows_per_part": 4, "threads_per_worker": 1, "stall_seconds": 6.0 if fault == "hang" else 1800.0}
    recipe = write_recipe(tmp_path, rounds=1, student=None, cluster=cluster)
    victim = read_parts(plain_run / "rounds/000/candidates", CANDIDATES)["candidate_id"].to_pylist()[5]
    done = run_with_fatal_filter(tmp_path, recipe, ray_address, victim, fault)
    assert done.returncode == 0, done.stderr
    decisions = {row["candidate_id"]: row for row in read_table(tmp_path / "run/rounds/000/decisions.parquet").to_pylist()}
    theirs = {row["candidate_id"]: row for row in read_table(plain_run / "rounds/000/decisions.parquet").to_pylist()}
    assert decisions[victim]["rejected_by"] in ("fatal", theirs[victim]["rejected_by"])
    assert not decisions[victim]["kept"]
    scores = {row["candidate_id"]: row for row in read_parts(tmp_path / "run/rounds/000/scores/fatal").to_pylist()}
    assert scores[victim]["length"] is None and words in scores[victim]["error"]
    others = [row for candidate, row in scores.items() if candidate != victim]
    assert len(others) == len(theirs) - 1 and all(row["length"] is not None for row in others)
    notes = [line for line in (tmp_path / "run/events.jsonl").read_text().splitlines() if '"note"' in line]
    assert any("its worker died" in note and words in note for note in notes), "the exit message is kept"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_dies_whenever_it_loads_stops_the_run(tmp_path: Path, ray_address: str) -> None:
    recipe = write_recipe(tmp_path, rounds=1, student=None)
    done = run_with_fatal_filter(tmp_path, recipe, ray_address, victim="", filter="NeverLoads")
    assert done.returncode != 0
    assert "died 3 times while it loaded its models, last with: it was killed or crashed" in done.stderr
    assert read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES).num_rows == 12, "the part before is kept"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_always_dies_stops_the_run_with_its_last_words(tmp_path: Path, ray_address: str) -> None:
    recipe = write_recipe(tmp_path, rounds=1, student=None, cluster={"rows_per_part": 12, "max_restarts": 2})
    done = run_with_fatal_filter(tmp_path, recipe, ray_address, victim="")
    assert done.returncode != 0
    assert "max_restarts" in done.stderr and "round-0/scores/fatal" in done.stderr
    assert read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES).num_rows == 36
