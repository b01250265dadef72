"""Memory available for a build, and returning freed memory to the system."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")


def free_memory_bytes() -> int:
    """Memory that this process could allocate now: what the machine has free, or less if a cgroup limits it."""
    try:
        groups = _OF_PROCESS.read_text(encoding="utf-8")
    except OSError:
        groups = ""
    return max(0, min([int(psutil.virtual_memory().available), *cgroup_free_bytes(groups, _CGROUPS)]))


def cgroup_free_bytes(groups: str, root: Path) -> Iterator[int]:
    """Free memory within each memory cgroup of a process, counting its page cache as free; `groups` is /proc/self/cgroup.

    Supports cgroups v1 and v2; a group without a limit, or one not visible from inside a container, is skipped.
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
            with suppress(OSError, ValueError, KeyError):  # "max" is not a number
                allowed, used = (int((group / name).read_text()) for name in (limit, usage))
                counts = dict(entry.split() for entry in (group / "memory.stat").read_text().splitlines())
                yield allowed - used + int(counts[cache])


def give_back() -> None:
    """Return freed memory to the system, if the C library supports it: memory still held reduces the room for sorting."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
