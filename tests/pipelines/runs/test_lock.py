"""The lock of a run folder: one of several drivers has it, a dead one does not, and nobody else removes it."""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.paths import child_environment
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.lock import STALE_SECONDS, driving, lock_holder

HOLD = """
import sys
from pathlib import Path
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.lock import driving

with driving(RunFolder(Path(sys.argv[1]))) as driver:
    print(driver, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "one")  # the parent does not exist either


@contextlib.contextmanager
def another_driver(folder: RunFolder) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the lock until its standard input ends, with its driver id."""
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=child_environment(), **pipes) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; fail after a timeout."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def write_lock(folder: RunFolder, *, seconds_ago: float = 0.0, **changes: Any) -> None:
    """A lock as this process would write it, with the given changes."""
    with driving(folder):
        holder = json.loads(folder.run_lock.read_text())
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.run_lock.write_text(json.dumps({**holder, **changes}))
    set_age(folder.run_lock, seconds_ago)


def set_age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_holder_is_on_disk_while_the_run_is_driven_and_nothing_is_left_of_it(folder: RunFolder) -> None:
    assert lock_holder(folder) is None
    with driving(folder) as driver:
        holder = lock_holder(folder)
        assert holder is not None and len(driver) == 12
        assert (holder["driver"], holder["process"], holder["host"]) == (driver, os.getpid(), socket.gethostname())
        assert sorted(path.name for path in folder.path.iterdir()) == [".run.flock", "run.lock"]
        grown = mmap.mmap(-1, 256 << 20)  # a driver that needs more memory is the same driver
        assert lock_holder(folder) == holder
        grown.close()
    assert lock_holder(folder) is None and not folder.path.exists(), "an empty folder that it made is removed"
    with driving(folder) as again:
        assert again != driver


def test_a_run_that_fails_gives_the_lock_back(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), driving(folder):
        (folder.path / "begun").touch()
        raise ZeroDivisionError
    assert [path.name for path in folder.path.iterdir()] == ["begun"]


def test_a_second_driver_is_refused_and_takes_nothing_from_the_first(folder: RunFolder) -> None:
    with another_driver(folder) as (process, driver):
        for _ in range(2):  # a refusal changes nothing
            with pytest.raises(LimbeckError) as refused, driving(folder):
                pass
            assert f"{folder.path} is being run by process {process.pid} on {socket.gethostname()}" in str(refused.value)
            assert f"limbeck stop {folder.path}" in str(refused.value)
            holder = lock_holder(folder)
            assert holder is not None and holder["driver"] == driver
            assert sorted(path.name for path in folder.path.iterdir()) == [".run.flock", "run.lock"]


def test_a_killed_driver_holds_nothing(folder: RunFolder) -> None:
    with another_driver(folder) as (process, driver):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads(folder.run_lock.read_text())["driver"] == driver and lock_holder(folder) is None
        with driving(folder) as mine:
            holder = lock_holder(folder)
            assert holder is not None and holder["driver"] == mine != driver


def test_of_many_drivers_that_start_at_once_one_wins(folder: RunFolder) -> None:
    """All try at once, and the winner holds the lock until all others were refused."""
    start, refused = threading.Barrier(8), threading.Semaphore(0)
    won: list[str] = []
    lost: list[str] = []

    def drive() -> None:
        start.wait(60)
        try:
            with driving(folder) as driver:
                won.append(driver)
                for _ in range(7):
                    assert refused.acquire(timeout=60)
        except LimbeckError as error:
            lost.append(str(error))
            refused.release()

    threads = [threading.Thread(target=drive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # the folder itself stays if one of the refused made it: the winner removes only what it made
    left = list(folder.path.iterdir()) if folder.path.exists() else []
    assert len(won) == 1 and len(lost) == 7 and not left


def test_a_process_id_that_is_used_again_does_not_hold_the_run(folder: RunFolder) -> None:
    """The dead driver's process id now belongs to this process, which has another start time."""
    with another_driver(folder) as (process, _):
        started = json.loads(folder.run_lock.read_text())["started"]
        process.kill()
        process.wait()
    write_lock(folder, started=started)
    assert lock_holder(folder) is None
    write_lock(folder)
    assert lock_holder(folder) is not None


def test_the_start_of_a_process_is_that_of_the_operating_system(folder: RunFolder) -> None:
    """The start times of two processes differ in the lock as in psutil, which computes them from the same clock ticks."""
    with another_driver(folder) as (process, _):
        theirs, theirs_by_psutil = json.loads(folder.run_lock.read_text())["started"], psutil.Process(process.pid).create_time()
        process.kill()
        process.wait()
    with driving(folder):
        mine = json.loads(folder.run_lock.read_text())["started"]
    apart = (theirs - mine) / os.sysconf("SC_CLK_TCK")
    assert apart == pytest.approx(theirs_by_psutil - psutil.Process().create_time(), abs=0.05) and theirs > mine


@pytest.mark.parametrize("content", ["", '{"driver": "a1b2', "\x00"])
def test_a_lock_that_was_cut_off_is_taken_over(folder: RunFolder, content: str) -> None:
    folder.path.mkdir(parents=True)
    folder.run_lock.write_text(content)
    assert lock_holder(folder) is None
    with driving(folder) as driver:
        assert json.loads(folder.run_lock.read_text())["driver"] == driver


def test_a_driver_on_another_machine_holds_the_run_for_as_long_as_its_lock_is_fresh(folder: RunFolder) -> None:
    """Its process cannot be checked; clocks differ and file servers lag, so several heartbeats may be missing."""
    write_lock(folder, host="elsewhere", process=1, started=0.0, seconds_ago=9 * STALE_SECONDS)
    holder = lock_holder(folder)
    assert holder is not None and holder["host"] == "elsewhere"
    with pytest.raises(LimbeckError, match="process 1 on elsewhere"), driving(folder):
        pass
    set_age(folder.run_lock, 11 * STALE_SECONDS)
    assert lock_holder(folder) is None
    with driving(folder):
        pass


def test_the_age_of_a_lock_does_not_matter_on_the_machine_where_its_driver_lives(folder: RunFolder) -> None:
    write_lock(folder, seconds_ago=1000 * STALE_SECONDS)
    assert lock_holder(folder) is not None  # a suspended driver, or a laptop that was asleep


def test_heartbeats_keep_the_lock_fresh_and_survive_one_that_cannot_be_written(folder: RunFolder) -> None:
    before = set(threading.enumerate())
    with driving(folder):
        set_age(folder.run_lock, 3600)
        until(lambda: time.time() - folder.run_lock.stat().st_mtime < 600)
        content = folder.run_lock.read_text()
        folder.run_lock.unlink()
        time.sleep(1.5)  # one heartbeat at least finds no file
        folder.run_lock.write_text(content)
        set_age(folder.run_lock, 3600)
        until(lambda: time.time() - folder.run_lock.stat().st_mtime < 600)
    assert set(threading.enumerate()) <= before, "the heartbeat ends with the run"


def test_workers_of_a_killed_driver_are_waited_for_until_they_fall_silent(folder: RunFolder) -> None:
    folder.workers.mkdir(parents=True)
    silent, beating, slow = (folder.workers / name for name in ("silent", "beating", "slow"))
    for beat in (silent, beating, slow):
        beat.touch()
    set_age(silent, STALE_SECONDS + 1)
    set_age(beating, -3600)  # in the future, so that it does not expire by itself
    set_age(slow, -3600)
    entered, leave = threading.Event(), threading.Event()

    def drive() -> None:
        with driving(folder):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=drive)
    thread.start()
    until(lambda: not silent.exists())
    assert folder.run_lock.exists() and beating.exists()  # the lock is taken first, so that no third driver can start in between
    set_age(beating, STALE_SECONDS + 1)
    until(lambda: not beating.exists())
    assert not entered.wait(0.6) and slow.exists()
    set_age(slow, STALE_SECONDS + 1)
    assert entered.wait(60) and not any(folder.workers.iterdir())
    leave.set()
    thread.join(60)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LimbeckError, match=f"{tmp_path / name}: .*--out"), driving(RunFolder(tmp_path / name)):
        pass


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LimbeckError, match=f"{folder.path}: {os.strerror(fault)}; choose an --out"), driving(folder):
        pass


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only_is_one_sentence_and_leaves_no_lock(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def write_text(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", write_text)
        with pytest.raises(LimbeckError, match=f"{folder.path}: {os.strerror(fault)}; free some space"), driving(folder):
            pass
    assert lock_holder(folder) is None and not folder.path.exists()
    with driving(folder):
        pass


def test_a_fork_of_the_driver_does_not_keep_the_run(folder: RunFolder) -> None:
    """A process that the driver forked outlives it: the run is free."""
    hold = HOLD.replace("    print(driver", "    import os, time\n    child = os.fork() or time.sleep(600)\n    print(driver")
    command = [sys.executable, "-c", hold, str(folder.path)]
    with subprocess.Popen(command, text=True, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        children = psutil.Process(process.pid).children()
        try:
            process.kill()
            process.wait()
            assert all(child.is_running() for child in children) and children
            with driving(folder):
                pass
        finally:
            for child in children:
                child.kill()


def test_a_driver_in_another_process_namespace_holds_the_run(folder: RunFolder) -> None:
    """There its process id is 1 or 2, which here is another process, under the same host name."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not allow process namespaces")
    command = [*unshare, sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, text=True, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        holder = lock_holder(folder)
        assert holder is not None and holder["process"] < 10 and holder["host"] == socket.gethostname()
        with pytest.raises(LimbeckError, match=f"process {holder['process']} on"), driving(folder):
            pass
        process.kill()
        process.wait()
    until(lambda: lock_holder(folder) is None)


def test_a_lock_that_cannot_be_read_for_a_moment_is_held_all_the_same(folder: RunFolder) -> None:
    with another_driver(folder) as (_, driver):
        content = folder.run_lock.read_text()
        for broken in ("", content[:20], "[]", "{}"):
            folder.run_lock.write_text(broken)
            assert lock_holder(folder) is not None
            with pytest.raises(LimbeckError, match="is being run by a process"), driving(folder):
                pass
        folder.run_lock.unlink()
        assert lock_holder(folder) is not None
        folder.run_lock.write_text(content)
        holder = lock_holder(folder)
        assert holder is not None and holder["driver"] == driver


CONTEND = """
import os, sys
from pathlib import Path
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.runs import lock
from limbeck.pipelines.runs.folder import RunFolder

lock._PATIENCE_SECONDS = float(sys.argv[3])
folder, inside = RunFolder(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    try:
        with lock.driving(folder):
            handle = os.open(inside, os.O_CREAT | os.O_EXCL)  # fails if another driver is inside
            os.close(handle)
            print("inside", flush=True)
            if sys.stdin.readline() == "end\\n":
                inside.unlink()
            else:
                os.kill(os.getpid(), 9)
    except LimbeckError as error:
        print("refused", flush=True)
"""


def contender(folder: RunFolder, inside: Path, patience: float) -> subprocess.Popen[str]:
    """A process that tries to drive at every line of its standard input."""
    command = [sys.executable, "-c", CONTEND, str(folder.path), str(inside), str(patience)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 1}
    process = subprocess.Popen(command, text=True, env=child_environment(), **pipes)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("restarts", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_after_kills_never_two_of_three_contenders_are_inside(folder: RunFolder, tmp_path: Path, restarts: int) -> None:
    """Three drivers start at once, again and again; the one inside is killed, or ends, and another takes its place."""
    inside = tmp_path / "inside"
    processes = [contender(folder, inside, 0.3) for _ in range(3)]
    try:
        for number in range(restarts):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("try\n")
            said = [process.stdout.readline().strip() for process in processes if process.stdout]
            assert sorted(said) == ["inside", "refused", "refused"], (number, said)
            winner = processes[said.index("inside")]
            assert winner.stdin is not None
            if number % 2:
                winner.stdin.write("end\n")
                until(lambda: not inside.exists())
                continue
            winner.stdin.write("die\n")
            winner.wait(60)
            inside.unlink()
            processes[said.index("inside")] = contender(folder, inside, 0.3)
    finally:
        for process in processes:
            process.kill()
            process.wait()
