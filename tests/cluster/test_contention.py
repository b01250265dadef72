"""Runs that share a cluster wait for each other: what one holds, another gets when it is given back."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.clusters import DRIVER_SETTINGS, ray_cluster
from helpers.commands import limbeck, settings, start
from helpers.gates import Gate, wait_for
from helpers.tiny_run import write_recipe
from limbeck.pipelines.runs.events import read_events

CLUSTER = {"rows_per_part": 4, "threads_per_worker": 1}


def waits(out: Path) -> list[str]:
    return [event["words"] for event in read_events(out / "events.jsonl") if event["event"] == "waiting"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_runs_with_students_on_two_cpus_both_finish(tmp_path: Path) -> None:
    """Each has a worker, and wants to train at the same time: both stop their worker, and both trainers find a CPU."""
    homes = [tmp_path / name for name in ("first", "second")]
    gates, drivers = [], []
    with ray_cluster({"num_cpus": 2}) as cluster:
        for home in homes:
            home.mkdir()
            recipe, gate = write_recipe(home, rounds=1, cluster=CLUSTER), Gate(home, "rounds/000/decisions.parquet$")
            gates.append(gate)
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            command = ("run", recipe, "--out", home / "run", "--no-panel")
            drivers.append(start(*command, faults=gate.plan, **pipes, RAY_ADDRESS=cluster.address))
        try:
            for gate, driver in zip(gates, drivers, strict=True):
                wait_for(lambda gate=gate: gate.reached, driver, seconds=900)
            for gate in gates:  # both have drawn, and hold a worker
                gate.open()
            printed = [driver.communicate(timeout=1200)[0] for driver in drivers]
        finally:
            for driver in drivers:
                driver.kill()
    for driver, words in zip(drivers, printed, strict=True):
        assert driver.returncode == 0, words
        assert "Traceback" not in words
    for home in homes:
        assert (home / "run/rounds/000/student/training.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_says_what_it_waits_for_and_goes_on_when_it_is_free(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    gate = Gate(first, "rounds/000/candidates/part-00001.parquet$")
    one = write_recipe(first, rounds=1, student=None, cluster=CLUSTER)
    two = write_recipe(second, rounds=1, student=None, cluster=CLUSTER)
    with ray_cluster({"num_cpus": 1}, FAULTS=str(gate.plan)) as cluster:
        holding = start("run", one, "--out", first / "run", RAY_ADDRESS=cluster.address)
        waiting = None
        try:
            wait_for(lambda: gate.reached, holding)
            waiting = start("run", two, "--out", second / "run", "--no-panel", RAY_ADDRESS=cluster.address)
            wait_for(lambda: bool(waits(second / "run")), waiting)
            assert waits(second / "run") == ["waiting for 1 CPU for a worker: others use the cluster (1 CPU)"]
            shown = limbeck("status", second / "run")
            assert "waiting for 1 CPU for a worker" in shown.stdout
            gate.open()
            ended = [process.communicate(timeout=900)[1] for process in (holding, waiting)]
        finally:
            holding.kill()
            if waiting is not None:
                waiting.kill()
    assert holding.returncode == 0 and waiting.returncode == 0, ended
    assert "waiting for 1 CPU for a worker" in ended[1]
    assert len(waits(second / "run")) == 1


HOLDING = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
held = ray.util.placement_group([{"CPU": 1}])
assert held.wait(120)
print("holding", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_cpu(address: str) -> Iterator[None]:
    """Another job that holds a CPU of the cluster."""
    command = [sys.executable, "-c", HOLDING, address]
    other = subprocess.Popen(
        command, env={**settings(), **DRIVER_SETTINGS}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == "holding\n"
        yield
    finally:
        other.stdin.close()
        other.wait(timeout=120)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_training_waits_for_others_and_can_be_interrupted_meanwhile(tmp_path: Path) -> None:
    student = {"kind": "sft", "epochs": 1, "batch_size": 4, "micro_batch_size": 1, "checkpoint_steps": 1, "workers": 2}
    recipe, out = write_recipe(tmp_path, rounds=1, cluster=CLUSTER, student=student), tmp_path / "run"
    command = ("run", recipe, "--out", out, "--no-panel")
    with ray_cluster({"num_cpus": 2}) as cluster:
        with held_cpu(cluster.address):
            driver = start(*command, RAY_ADDRESS=cluster.address)
            try:
                wait_for(lambda: bool(waits(out)), driver, seconds=900)
                driver.send_signal(signal.SIGINT)
                words = driver.communicate(timeout=300)[1]
            finally:
                driver.kill()
        assert driver.returncode == 130, words
        assert waits(out) == ["training waits for 2 CPUs: others use the cluster (2 CPUs)"]
        done = limbeck(*command, RAY_ADDRESS=cluster.address)
    assert done.returncode == 0, done.stderr
