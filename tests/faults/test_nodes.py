"""Two raylets, workers on both, and one raylet killed in the middle of a run: it completes, with the same dataset."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers.clusters import ray_cluster
from helpers.commands import limbeck, settings, start
from helpers.gates import PATIENCE_SECONDS, Gate, wait_for
from helpers.outcomes import assert_same_outcome, parts_done
from helpers.tiny_run import write_recipe

TINY = {"rounds": 1, "student": None}
CLUSTER = {"rows_per_part": 1, "cpus_per_worker": 1.0, "threads_per_worker": 1}


@pytest.fixture(scope="module")
def reference(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows, computed by one undisturbed worker."""
    home = tmp_path_factory.mktemp("nodes")
    recipe = write_recipe(home, **TINY, cluster={**CLUSTER, "workers": 1})
    done = limbeck("run", recipe, "--out", home / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("another_comes", [False, True], ids=["no-room-elsewhere", "another-node-comes"])
def test_a_node_that_dies_in_the_middle_of_a_run(reference: Path, tmp_path: Path, another_comes: bool) -> None:
    recipe, out = write_recipe(tmp_path, **TINY, cluster={**CLUSTER, "workers": 2}), tmp_path / "run"
    gate = Gate(tmp_path, "rounds/000/candidates/part-000(0[4-9]|1[01]).parquet$")  # so that the run does not end before the kill
    with ray_cluster({"num_cpus": 1}, {"num_cpus": 1}, FAULTS=str(gate.plan)) as cluster:
        raylet = cluster.raylets[1]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        driver = start("run", recipe, "--out", out, **pipes, RAY_ADDRESS=cluster.address)
        try:
            wait_for(lambda: gate.reached and worked(out, raylet), driver)
            there = {child: " ".join(child.cmdline()) for child in psutil.Process(raylet).children(recursive=True)}
            workers = [child for child, title in there.items() if "ray::Worker" in title]
            assert workers, there
            os.kill(raylet, signal.SIGKILL)
            if another_comes:
                cluster.add_node()
            assert not psutil.wait_procs(workers, timeout=PATIENCE_SECONDS)[1], "what was on the node ends with it"
            gate.open()
            words, _ = driver.communicate(timeout=600)
        finally:
            driver.kill()
    assert driver.returncode == 0, words
    assert "Traceback" not in words, words
    assert "died" in words, "what happened is said"
    assert_same_outcome(out, reference, rounds=1)
    assert parts_done(out) <= parts_done(reference)


def worked(out: Path, raylet: int) -> bool:
    """Whether a worker on the node has computed anything, according to its heartbeat."""
    told = [beat for process in psutil.Process(raylet).children() for beat in (out / "workers").glob(f"*-{process.pid}")]
    return any(float(beat.read_text() or 0) > 0 for beat in told)


@pytest.mark.parametrize("fault", ["missing", "a folder", "truncated", "not a mapping", "a dead link"])
def test_an_unreadable_moment_of_the_lock_ends_nothing_and_a_long_one_does(tmp_path: Path, fault: str) -> None:
    lock, kept = tmp_path / "run.lock", tmp_path / "kept"
    lock.write_text(json.dumps({"driver": "me"}))
    limit = tmp_path / "limit"
    limit.write_text("3600")
    script = f"""
import threading, time
from pathlib import Path
from limbeck.cluster.workers import worker
def limit():
    while True:
        worker.LOCK_SECONDS = float(Path({str(limit)!r}).read_text())
        time.sleep(0.1)
worker.LOCK_SECONDS = 3600.0
threading.Thread(target=limit, daemon=True).start()
worker.heartbeat(Path({str(tmp_path / "workers")!r}), "me", "w")
"""
    child = subprocess.Popen([sys.executable, "-c", script], env=settings())
    try:
        wait_for_beats(tmp_path, child)
        lock.rename(kept)
        if fault == "a folder":
            lock.mkdir()
        elif fault == "a dead link":
            lock.symlink_to(tmp_path / "nothing")
        elif fault != "missing":
            lock.write_text({"truncated": '{"driver": "m', "not a mapping": "[1]"}[fault])
        wait_for_beats(tmp_path, child)
        if fault == "a folder":
            lock.rmdir()
        kept.rename(lock)
        wait_for_beats(tmp_path, child)
        lock.unlink()
        limit.with_suffix(".new").write_text("0.5")
        limit.with_suffix(".new").rename(limit)
        child.wait(timeout=PATIENCE_SECONDS)
    finally:
        child.kill()
        child.wait()
    assert not list(tmp_path.glob("workers/w-*"))


def wait_for_beats(folder: Path, child: subprocess.Popen[str]) -> None:
    """Wait until the process has looked at the lock twice more; each look writes its heartbeat."""
    for _ in range(2):
        before = newest_beat(folder)
        wait_for(lambda before=before: newest_beat(folder) > before, child)


def newest_beat(folder: Path) -> int:
    return max((beat.stat().st_mtime_ns for beat in folder.glob("workers/w-*")), default=0)


def test_a_process_ends_once_what_started_it_is_gone(tmp_path: Path) -> None:
    """Ray considers it dead by then, but it would still hold its memory."""
    (tmp_path / "run.lock").write_text(json.dumps({"driver": "me"}))
    beats = str(tmp_path / "workers")
    child = (
        f"from pathlib import Path; from limbeck.cluster.workers.worker import heartbeat; heartbeat(Path({beats!r}), 'me', 'w')"
    )
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", script], env=settings())
    wait_for(lambda: list(tmp_path.glob("workers/w-*")), parent)
    beating = psutil.Process(parent.pid).children()
    assert len(beating) == 1
    time.sleep(1.5)
    assert beating[0].is_running(), "its parent lives"
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(beating, timeout=PATIENCE_SECONDS)[1]
    assert not list(tmp_path.glob("workers/w-*")), "and it has fallen silent"
