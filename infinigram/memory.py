"""How much memory there is to build with, and giving back what is not needed any more."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")


def free_memory_bytes() -> int:
    """The memory that this process could get now: what the machine has to give, or less where a cgroup allows less."""
    try:
        groups = _OF_PROCESS.read_text(encoding="utf-8")
    except OSError:
        groups = ""
    return max(0, min([int(psutil.virtual_memory().available), *cgroup_free_bytes(groups, _CGROUPS)]))


def cgroup_free_bytes(groups: str, root: Path) -> Iterator[int]:
    """What each memory cgroup of a process leaves free, its page cache counted as free; `groups` as /proc/self/cgroup says it.

    Both versions of cgroups; a group without a limit, or that cannot be seen from here (inside a container), is passed over.
    """
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, usage, cache = root, "memory.max", "memory.current", "file"
        elif "memory" in controllers.split(","):
            top, limit, usage, cache = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"
        else:
            continue
        folder = top / path.lstrip("/")
        for group in [folder, *folder.parents]:
            if not group.is_relative_to(top):
                break
            with suppress(OSError, ValueError, KeyError):  # "max" is no number
                allowed, used = (int((group / name).read_text()) for name in (limit, usage))
                counts = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
                yield allowed - used + int(counts[cache])


def give_back() -> None:
    """Return the memory that has been freed to the system, where the C library can: sorting counts what is held."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
