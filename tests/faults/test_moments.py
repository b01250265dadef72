"""kill -9 of the driver, and of a process that Ray started, at random moments of a run with training: nothing lost or done twice.

Moments are spread over the duration of an uninterrupted run and stored relative to an event, so that they are comparable on a
slower machine. LIMBECK_SEED draws different ones.
"""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from helpers.commands import limbeck, start
from helpers.gates import PATIENCE_SECONDS, Gate, wait_for
from helpers.outcomes import assert_same_outcome, milestones, parts_done
from helpers.tiny_run import write_recipe
from limbeck.pipelines.runs.events import read_events

SEED = int(os.environ.get("LIMBECK_SEED", "20261122"))
pytestmark = pytest.mark.slow  # test_crash.py kills a driver and a worker for `make test`
MOMENTS = range(5)
NOT_OURS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE")


@dataclass(frozen=True)
class Reference:
    """The uninterrupted run: its recipe, its folder, and at how many seconds it reached each milestone."""

    recipe: Path
    run: Path
    seconds: list[float]


@dataclass(frozen=True)
class Moment:
    """A time after the n-th milestone (0: after the cluster was started)."""

    milestones: int
    seconds: float


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    home = tmp_path_factory.mktemp("moments")
    recipe, run = write_recipe(home, rounds=1), home / "reference"
    done = limbeck("run", recipe, "--out", run)
    assert done.returncode == 0, done.stderr
    events = read_events(run / "events.jsonl")
    began = next(event["time"] for event in events if event["event"] == "cluster")
    return Reference(recipe, run, [0.0, *(event["time"] - began for event in milestones(run))])


def moment(reference: Reference, number: int, victim: str) -> Moment:
    """A moment in the given fifth of the run, so that five moments cover the run."""
    fifth = reference.seconds[-1] / 5
    at = fifth * (number + random.Random(f"{SEED} {victim} {number}").random())
    before = sum(seconds <= at for seconds in reference.seconds) - 1
    return Moment(before, at - reference.seconds[before])


def started(reference: Reference, out: Path, when: Moment) -> tuple[subprocess.Popen[str], Gate]:
    """A run that has reached the moment, or waits at the gate before its end because it was faster than the reference."""
    gate = Gate(out.parent, "evaluation/test.json$")
    driver = start("run", reference.recipe, "--out", out, faults=gate.plan)
    wait_for(lambda: (stands(out) and len(milestones(out)) >= when.milestones) or gate.reached, driver, seconds=600)
    until = time.monotonic() + when.seconds
    wait_for(lambda: time.monotonic() >= until or gate.reached, driver)
    return driver, gate


def stands(out: Path) -> bool:
    return any(event["event"] == "cluster" for event in read_events(out / "events.jsonl"))


def published(out: Path) -> dict[str, tuple[int, int]]:
    """Every published part and stage, with its inode and modification time."""
    files = [
        path for path in out.glob("*/*/**/*") if path.suffix in (".parquet", ".safetensors") and "checkpoints" not in path.parts
    ]
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def assert_nothing_twice(out: Path, reference: Reference, before: dict[str, tuple[int, int]]) -> None:
    """No part is reported more often than in the uninterrupted run, and files published before the kill are unchanged."""
    assert parts_done(out) <= parts_done(reference.run), parts_done(out) - parts_done(reference.run)
    after = published(out)
    assert {path: after.get(path) for path in before} == before
    assert set(after) == set(published(reference.run))
    assert not list(out.glob("run.lock"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", MOMENTS)
def test_a_driver_killed_at_a_random_moment(reference: Reference, tmp_path: Path, number: int) -> None:
    when, out = moment(reference, number, "driver"), tmp_path / "run"
    driver, gate = started(reference, out, when)
    print(f"LIMBECK_SEED={SEED}: the driver is killed at {when}, of {len(reference.seconds)} milestones")
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    assert driver.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    gate.open()
    assert not psutil.wait_procs(family, timeout=PATIENCE_SECONDS)[1], "its workers end, with what they had in hand published"
    before = published(out)
    done = limbeck("run", reference.recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    assert_same_outcome(out, reference.run, rounds=1)
    assert_nothing_twice(out, reference, before)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", MOMENTS)
def test_a_ray_worker_killed_at_a_random_moment(reference: Reference, tmp_path: Path, number: int) -> None:
    """Any of them: a process that holds models or dispatches parts, the training controller or its worker."""
    when, out = moment(reference, number, "worker"), tmp_path / "run"
    driver, gate = started(reference, out, when)
    wait_for(lambda: ray_workers(driver.pid), driver)
    victims = ray_workers(driver.pid)
    victim, before = random.Random(f"{SEED} {number}").choice(victims), published(out)
    print(f"LIMBECK_SEED={SEED}: {victim.cmdline()[0]} is killed at {when}, of {len(victims)} workers")
    victim.kill()
    gate.open()
    _, words = driver.communicate(timeout=600)
    assert driver.returncode == 0, words
    assert_same_outcome(out, reference.run, rounds=1)
    assert_nothing_twice(out, reference, before)


def ray_workers(driver: int) -> list[psutil.Process]:
    """The processes that Ray started for this run, by their titles, in a fixed order."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            title = process.cmdline()[0] if process.cmdline() else ""
        except psutil.Error:
            continue
        if title.startswith("ray::") and not title.startswith(NOT_OURS):
            found.append((title, process.pid, process))
    return [process for *_, process in sorted(found, key=lambda each: each[:2])]
