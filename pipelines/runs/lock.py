"""The lock that allows one driver to write a run folder.

Two files. `.run.flock` carries a lock of the kernel (flock): one process has it, whatever its process namespace, and it ends with
that process, however the process ends. `run.lock` says who it is, for people, for `limbeck status`, and for workers, which end
when another driver has taken over; its age is that of the driver's last heartbeat. Only the process with the kernel's lock writes
and removes either. Some shared file systems do not show flock to other machines, so a `run.lock` with a fresh heartbeat from
another machine counts too.

A driver that takes over a folder also begins an epoch in the folder's log (corpus/storage/commits.py). So even a driver that was
paused while its lock went to another, on whatever file system, cannot commit a manifest when it wakes up.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.files import has_types
from limbeck.pipelines.runs.folder import RunFolder

STALE_SECONDS = 5.0  # heartbeats come every second
_PATIENCE_SECONDS = 1.0  # `limbeck status` and others that look take the lock for a moment
_HELD: set[int] = set()
"""Descriptors of the locks of this process: a fork of it must not keep them alive."""


@contextlib.contextmanager
def driving(folder: RunFolder) -> Iterator[str]:
    """Lock the run for this process and yield its driver id; raises LimbeckError if another live driver holds it.

    If an earlier driver was killed, wait until the heartbeats of its workers have stopped: until then they may still write.
    """
    new = not folder.path.exists()
    with _writing(folder):
        folder.path.mkdir(parents=True, exist_ok=True)
    descriptor = _take(folder)
    driver = uuid.uuid4().hex[:12]
    commits = folder.commits(driver)
    follows = folder.lock_file.exists() or folder.run_lock.exists() or commits.claimed()
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder.run_lock, stop), daemon=True)
    try:
        mine = {"driver": driver, "process": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
        with _writing(folder):
            _replace(folder.run_lock, json.dumps(mine))
        _wait_for_orphans(folder)
        if follows:  # a paused driver of this folder may wake up: from now on it cannot commit
            with _writing(folder):
                commits.claim()
        beat.start()
        yield driver
    finally:
        stop.set()
        if beat.ident is not None:
            beat.join()
        with contextlib.suppress(OSError):  # on a disk that has become read-only; the kernel's lock ends all the same
            folder.run_lock.unlink(missing_ok=True)
        _release(folder, descriptor)
        if new:
            with contextlib.suppress(OSError):  # what was refused leaves no empty folder; any other folder is not empty
                folder.path.rmdir()


def lock_holder(folder: RunFolder) -> dict[str, Any] | None:
    """The live driver of the run ({driver, process, host, started}), or None."""
    try:
        descriptor = os.open(folder.run_flock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _holder_without_flock(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # some process has it
        return _recorded(folder) or {"driver": "", "process": 0, "host": socket.gethostname(), "started": 0.0}
    finally:
        os.close(descriptor)
    return _holder_without_flock(folder)


def being_run(folder: RunFolder, holder: Mapping[str, Any]) -> str:
    """That a live driver holds the run, and the way out."""
    who = f"process {holder['process']}" if holder["process"] else "a process"
    return f"{folder.path} is being run by {who} on {holder['host']}; wait for it, or stop it with `limbeck stop {folder.path}`"


def _take(folder: RunFolder) -> int:
    """Take the kernel's lock and return its descriptor; raises LimbeckError if a live driver has it, or it cannot be taken."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with _writing(folder):
            descriptor = os.open(folder.run_flock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _HELD.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, folder.run_flock):  # else its holder removed it after it was opened here
                break
            _close(descriptor)
        except BlockingIOError:
            _close(descriptor)
            if time.monotonic() > deadline:
                raise LimbeckError(
                    being_run(folder, lock_holder(folder) or {"process": 0, "host": socket.gethostname()})
                ) from None
            time.sleep(0.02)
        except OSError as error:
            _close(descriptor)
            raise LimbeckError(
                f"cannot lock the run folder {folder.path}: {error.strerror}; choose an --out on a file system with file locks"
            ) from error
    other = _holder_without_flock(folder)
    if other is not None:
        _release(folder, descriptor)
        raise LimbeckError(being_run(folder, other))
    return descriptor


def _release(folder: RunFolder, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        folder.run_flock.unlink(missing_ok=True)  # whoever waits for this file sees that it is gone, and opens the next
    _close(descriptor)


def _close(descriptor: int) -> None:
    _HELD.discard(descriptor)
    os.close(descriptor)


def _holder_without_flock(folder: RunFolder) -> dict[str, Any] | None:
    """A live driver that the kernel's lock does not show: on another machine, or of a version that had no such lock."""
    holder = _recorded(folder)
    if holder is None:
        return None
    if holder["host"] == socket.gethostname():
        return holder if _alive(holder["process"], holder["started"]) else None
    try:
        age = time.time() - folder.run_lock.stat().st_mtime
    except OSError:
        return None
    return holder if age < 10 * STALE_SECONDS else None


def _recorded(folder: RunFolder) -> dict[str, Any] | None:
    """What run.lock says; None if there is none, or it is damaged, as after a crash of the machine."""
    try:
        holder: Any = json.loads(folder.run_lock.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    types = {"driver": str, "process": int, "host": str, "started": int | float}
    if not has_types(holder, types):
        return None
    process = holder["process"]
    return holder if process > 0 and not isinstance(process, bool) else None  # a signal to 0 or below goes to a whole group


@contextlib.contextmanager
def _writing(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LimbeckError(
            f"cannot write the run folder {folder.path}: {error.strerror}; free some space, correct its permissions, or choose "
            "another --out"
        ) from error


def _replace(path: Path, text: str) -> None:
    """Write a small file so that no reader ever finds it incomplete."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is(descriptor: int, path: Path) -> bool:
    """Whether a path still names an open file."""
    mine = os.fstat(descriptor)
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _wait_for_orphans(folder: RunFolder) -> None:
    while folder.workers.exists():
        beats = list(folder.workers.iterdir())
        for beat in beats:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - beat.stat().st_mtime > STALE_SECONDS:
                    beat.unlink(missing_ok=True)
        if not beats:
            return
        time.sleep(0.2)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        with contextlib.suppress(OSError):
            os.utime(path)


def _alive(process: int, started: float) -> bool:
    return started == _started(process)


def _started(process: int) -> float:
    """Start time of a process in clock ticks since boot (0 if there is none), since process ids are reused."""
    try:
        return float(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        import psutil

        return float(psutil.Process(process).create_time()) if psutil.pid_exists(process) else 0.0


def _forget_in_child() -> None:
    """Close the locks in a fork: it would keep them after the driver's death."""
    for descriptor in tuple(_HELD):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_in_child)
