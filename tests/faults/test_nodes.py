"""Two raylets, workers on both, and one raylet killed in the middle of a run: it completes, with the same dataset."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from helpers.outcomes import assert_same_outcome, parts_done
from helpers.paths import ROOT
from helpers.tiny_run import command, limbeck, settings, write_recipe
from limbeck.corpus.parts import part_names

LONG_ENOUGH = {
    "rounds": 1,
    "student": None,
    "generator": {"kind": "summaries", "samples": 60, "max_new_tokens": 40},
}
CLUSTER = {"rows_per_part": 1, "cpus_per_worker": 1.0, "threads_per_worker": 1}


@dataclass(frozen=True)
class TwoNodes:
    """A cluster; `raylet` is the process of the second node."""

    address: str
    raylet: int
    process: subprocess.Popen[str]

    def add_node(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("another\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def two_nodes(first_cpus: int, second_cpus: int) -> Iterator[TwoNodes]:
    """A cluster that only those who are told of it join: its note of itself lies in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # sockets need a short path
        environment = {
            **settings(),
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        if (Path.home() / ".ray" / "auth_token").exists():
            environment["RAY_AUTH_MODE"] = "token"
        script = [sys.executable, str(ROOT / "tests/helpers/two_nodes.py"), str(first_cpus), str(second_cpus)]
        process = subprocess.Popen(
            script, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            yield TwoNodes(said["address"], said["raylet"], process)
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            for left in psutil.wait_procs(family, timeout=10)[1]:
                left.kill()
            process.kill()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "another_comes", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no-room-elsewhere", "another-node-comes"]
)
def test_a_node_that_dies_in_the_middle_of_a_run(tmp_path: Path, another_comes: bool) -> None:
    reference = tmp_path / "reference"
    recipe = write_recipe(tmp_path, **LONG_ENOUGH, cluster={**CLUSTER, "workers": 1})
    done = limbeck("run", recipe, "--out", reference)
    assert done.returncode == 0, done.stderr
    recipe, out = write_recipe(tmp_path, **LONG_ENOUGH, cluster={**CLUSTER, "workers": 2}), tmp_path / "run"
    with two_nodes(1, 1) as cluster:
        environment = settings(RAY_ADDRESS=cluster.address)
        driver = subprocess.Popen(
            command("run", recipe, "--out", out), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline = time.monotonic() + 200
        while not worked(out, cluster.raylet):
            assert driver.poll() is None and driver.stdout is not None, driver.stdout.read() if driver.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
        there = {child: " ".join(child.cmdline()) for child in psutil.Process(cluster.raylet).children(recursive=True)}
        workers = [child for child, title in there.items() if "ray::Worker" in title]
        assert workers, there
        assert len(part_names(out / "rounds/000/candidates")) < 12, "the run is in the middle"
        os.kill(cluster.raylet, signal.SIGKILL)
        if another_comes:
            cluster.add_node()
        assert not psutil.wait_procs(workers, timeout=30)[1], "what was on the node ends with it"
        try:
            words, _ = driver.communicate(timeout=400)
        finally:
            driver.kill()
    assert driver.returncode == 0, words
    assert "Traceback" not in words, words
    assert "died" in words, "what happened is said"
    assert_same_outcome(out, reference, rounds=1)
    assert parts_done(out) <= parts_done(reference)


def worked(out: Path, raylet: int) -> bool:
    """Whether a worker on the node has computed anything: the number that its heartbeat holds."""
    told = [beat for process in psutil.Process(raylet).children() for beat in (out / "workers").glob(f"*-{process.pid}")]
    return any(float(beat.read_text() or 0) > 0 for beat in told)


def test_a_process_ends_once_what_started_it_is_gone(tmp_path: Path) -> None:
    """Ray takes it for dead by then, and it would keep its memory."""
    (tmp_path / "run.lock").write_text(json.dumps({"driver": "me"}))
    beats = str(tmp_path / "workers")
    child = (
        f"from pathlib import Path; from limbeck.cluster.workers.worker import heartbeat; heartbeat(Path({beats!r}), 'me', 'w')"
    )
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", script], env=settings())
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("workers/w-*")):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    beating = psutil.Process(parent.pid).children()
    assert len(beating) == 1
    time.sleep(1.5)
    assert beating[0].is_running(), "its parent lives"
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(beating, timeout=30)[1]
    assert not list(tmp_path.glob("workers/w-*")), "and it has fallen silent"
