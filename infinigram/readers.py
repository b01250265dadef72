"""Which services hold an index: each keeps a locked file in `.readers` inside the index that names the state it serves.

The lock ends with its process, so that a crashed service is never listed; one that is suspended is. A service that cannot write
to the folder of an index is not listed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import uuid
import weakref
from dataclasses import dataclass
from pathlib import Path

from limbeck.infinigram import manifest as manifests
from limbeck.infinigram.layout import REMOVED, removed_copies

FOLDER = ".readers"


def state(folder: Path) -> str:
    """A digest of what an index consists of: its manifest and its removed documents."""
    try:
        content = (folder / manifests.NAME).read_bytes()
    except OSError:
        content = b""
    removed = removed_copies(folder).name if (folder / REMOVED).exists() else ""
    return hashlib.sha256(content + removed.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Holder:
    """A process that serves an index."""

    host: str
    pid: int
    state: str


class Reader:
    """Lists this process as a holder of a state of an index, until `close` or the end of this object."""

    def __init__(self, folder: Path, held: str) -> None:
        self._release: weakref.finalize[..., Reader] | None = None
        path = folder / FOLDER / f"{uuid.uuid4().hex}.json"
        line = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "state": held})
        with contextlib.suppress(OSError):  # a folder that this process cannot write to
            path.parent.mkdir(exist_ok=True)
            _holders(folder)
            locked = path.with_suffix(".tmp")  # listed only once it is locked
            descriptor = os.open(locked, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            self._release = weakref.finalize(self, _release, path, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, line.encode())
            os.rename(locked, path)

    def close(self) -> None:
        """Remove the process from the list."""
        if self._release is not None:
            self._release()


def _release(path: Path, descriptor: int) -> None:
    for name in (path, path.with_suffix(".tmp")):
        with contextlib.suppress(OSError):  # deleted with its folder
            name.unlink(missing_ok=True)
    os.close(descriptor)


def behind(folder: Path) -> list[Holder]:
    """The holders of another state than the present one, by host and process."""
    now = state(folder)
    return sorted((one for one in _holders(folder) if one.state != now), key=lambda holder: (holder.host, holder.pid))


def _holders(folder: Path) -> list[Holder]:
    """Every holder of an index; files of processes that have ended are deleted."""
    found = [_holder(path) for path in (folder / FOLDER).glob("*.json")]
    return [one for one in found if one is not None]


def _holder(path: Path) -> Holder | None:
    """The process that holds the lock of a file; None if none does."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return Holder(**json.loads(file.read()))
            path.unlink(missing_ok=True)
    except (OSError, ValueError, TypeError):  # deleted or being written at this moment
        return None
    return None
