"""Whole runs whose driver is killed, then restarted by two or three drivers at once: one gets in, and the dataset is the same."""

import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.commands import limbeck, start
from helpers.outcomes import assert_same_outcome
from helpers.tiny_run import write_recipe
from limbeck.pipelines.runs.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
RUNS, UNTIL_SECONDS = 20, 300


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("contended"), rounds=1, student=None, evaluation={"samples": 1, "dev_samples": 1})


@pytest.fixture(scope="module")
def reference(recipe: Path, ray_address: str) -> Path:
    done = limbeck("run", recipe, "--out", recipe.parent / "reference", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return recipe.parent / "reference"


def kill_after(recipe: Path, run: Path, events: int, **environment: str) -> None:
    """Start a driver and kill it once the run has recorded that many events, or has ended."""
    with start("run", recipe, "--out", run, stdout=subprocess.DEVNULL, **environment) as driver:
        end = time.monotonic() + UNTIL_SECONDS
        while driver.poll() is None and len(read_events(run / "events.jsonl")) < events:
            assert time.monotonic() < end, "the run recorded too few events"
            time.sleep(0.01)
        driver.kill()


def together(recipe: Path, run: Path, count: int, apart_seconds: float, **environment: str) -> list[tuple[int, str]]:
    """(exit status, standard error) of drivers that start at about the same moment."""
    drivers = []
    for _ in range(count):
        drivers.append(start("run", recipe, "--out", run, stdout=subprocess.DEVNULL, **environment))
        time.sleep(apart_seconds)
    said = [driver.communicate(timeout=UNTIL_SECONDS)[1] for driver in drivers]
    return [(driver.returncode, text) for driver, text in zip(drivers, said, strict=True)]


def assert_never_two_inside(events: Sequence[str], entered: int) -> None:
    """From the first restart on, every start is followed by its end before the next start."""
    inside = [event for event in events if event in ("run_started", "run_done")]
    restarts = inside[len(inside) - 2 * entered :]
    assert restarts == ["run_started", "run_done"] * entered, inside


@pytest.mark.parametrize("number", range(RUNS))
def test_restarts_at_the_same_moment_let_one_driver_in(
    recipe: Path, reference: Path, ray_address: str, tmp_path: Path, number: int
) -> None:
    drawn, run = random.Random(f"contended {number}"), tmp_path / "run"
    whole = len(read_events(reference / "events.jsonl"))
    kill_after(recipe, run, drawn.randint(1, whole - 2), RAY_ADDRESS=ray_address)
    done = together(recipe, run, drawn.choice((2, 3)), drawn.choice((0.0, 0.001, 0.003, 0.3)), RAY_ADDRESS=ray_address)
    refused = [text for status, text in done if status != 0]
    assert all("is being run by" in text for text in refused), refused
    entered = len(done) - len(refused)
    assert entered >= 1
    assert_never_two_inside([event["event"] for event in read_events(run / "events.jsonl")], entered)
    assert_same_outcome(run, reference, rounds=1)
