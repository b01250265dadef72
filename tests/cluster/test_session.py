"""Clusters: a running one is joined and left up, a private one answers on loopback alone and ends with its run."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from helpers.clusters import DRIVER_SETTINGS
from helpers.commands import limbeck, settings, start
from helpers.gates import PATIENCE_SECONDS, Gate, wait_for
from helpers.outcomes import as_text
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_parts, read_table

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
NO_STUDENT = {"rounds": 1, "student": None}


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[tuple[dict[str, str], subprocess.Popen[str]]]:
    """`ray start --head`, ended by its own process id: `ray stop` would end every other cluster of the machine too."""
    place = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # its note of itself is not found by other runs of this machine
    environment = {**settings(), **DRIVER_SETTINGS, "RAY_TMPDIR": place}
    command_line = [*RAY, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false", f"--port={free_port()}"]
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(
            [*command_line, "--object-store-memory=100000000"], env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
    note = Path(place, "ray/ray_current_cluster")
    try:
        wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text() and note.exists(), head)
        yield environment, head
    finally:
        family = descendants(head.pid)
        head.terminate()
        head.wait(timeout=60)
        for process in psutil.wait_procs(family, timeout=15)[1]:
            process.kill()
        shutil.rmtree(place, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_running_cluster_is_joined_and_left_up(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as (environment, head):
        recipe = write_recipe(tmp_path, **NO_STUDENT)
        found = {"RAY_TMPDIR": environment["RAY_TMPDIR"]}  # no address is given
        checked = json.loads(limbeck("check", recipe, "--json", **found).stdout)
        assert "joins the Ray cluster" in checked["cluster"] and checked["problems"] == []
        done = limbeck("run", recipe, "--out", tmp_path / "run", **found)
        assert done.returncode == 0, done.stderr
        assert "joined the Ray cluster" in done.stderr
        wait_for(lambda: nothing_reserved(environment), head)  # Ray reports what is free again with some delay


def nothing_reserved(environment: dict[str, str]) -> bool:
    """Whether the cluster that stands there has all of its processors."""
    status = subprocess.run([*RAY, "status"], env=environment, capture_output=True, text=True, timeout=300)
    assert status.returncode == 0 and "Active" in status.stdout, status.stderr
    return "0.0/2.0 CPU" in status.stdout


@pytest.mark.timeout(300)
def test_a_private_cluster_listens_on_loopback_and_ends_with_its_run(tmp_path: Path) -> None:
    recipe, run = write_recipe(tmp_path, **NO_STUDENT), tmp_path / "run"
    gate = Gate(tmp_path, "rounds/000/candidates/part-00002.parquet$")
    driver = start("run", recipe, "--out", run, faults=gate.plan)
    seen, processes = set(), {}
    while driver.poll() is None:
        at_work = gate.reached
        for process in descendants(driver.pid):
            processes[process.pid] = process
            try:
                seen |= {conn.laddr.ip for conn in process.net_connections("tcp") if conn.status == psutil.CONN_LISTEN}
            except (psutil.Error, OSError):
                continue
        if at_work:
            gate.open()
        time.sleep(0.3)
    assert driver.returncode == 0, driver.stderr.read() if driver.stderr else ""
    outside = {address for address in seen if not address.startswith("127.") and address not in ("::1", "::ffff:127.0.0.1")}
    assert seen and not outside
    _, alive = psutil.wait_procs([process for process in processes.values() if process.pid != driver.pid], PATIENCE_SECONDS)
    assert not [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def descendants(process: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


def run_with(home: Path, name: str, ray_address: str, **cluster: object) -> Path:
    layout = {"rows_per_part": 4, "threads_per_worker": 1, "cpus_per_worker": 0.5, **cluster}
    done = limbeck("run", write_recipe(home, **NO_STUDENT, cluster=layout), "--out", home / name, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home / name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({"critics": {"cpus_per_worker": 0.5}, "parts_in_flight": 3}, id="critics of their own"),
        pytest.param({"workers": 2}, id="two workers"),
        pytest.param({"workers": 2, "parts_in_flight": 2}, id="parts in flight"),
    ],
)
def test_the_rows_do_not_depend_on_where_they_are_computed(
    home: Path, plain_run: Path, ray_address: str, layout: dict[str, object]
) -> None:
    run = run_with(home, f"run-{len(list(home.iterdir()))}", ray_address, **layout)
    for folder in ("candidates", "scores/pmi", "scores/length"):
        mine, theirs = (read_parts(place / "rounds/000" / folder) for place in (run, plain_run))
        assert mine.num_rows and as_text(mine) == as_text(theirs), folder
    for table in ("decisions.parquet", "dataset/data/train-00000-of-00001.parquet"):
        mine, theirs = (read_table(place / "rounds/000" / table) for place in (run, plain_run))
        assert mine.num_rows and as_text(mine) == as_text(theirs), table
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    stages = [event for event in events if event["event"] == "stage_done"]
    assert all(0 <= stage["model_seconds"] <= stage["seconds"] for stage in stages)
    took = events[-1]["time"] - events[0]["time"]
    assert sum(stage["seconds"] for stage in stages) <= took + 0.1 * len(stages), "side by side, yet no more than the clock"
