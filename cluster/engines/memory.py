"""Running out of memory: a death of the engine, not a fault of the run."""

import contextlib
from collections.abc import Iterator

from cluster.engines.protocol import EngineDied

SAID_BY_ALLOCATORS = ("can't allocate memory", "cannot allocate memory", "out of memory")


@contextlib.contextmanager
def memory_watched() -> Iterator[None]:
    """Raise EngineDied where the block runs out of memory, on the host or on a device.

    What is left of a process after that is not to be trusted (half a model, a fragmented device), so its worker is started again:
    a load that fails so three times stops the run, and rows that do so in a batch are tried by halves, down to the row.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        raise EngineDied(f"out of memory: {' '.join(str(error).split())[:300] or type(error).__name__}") from error


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so: Python's own, torch's of a device (a RuntimeError), or that of torch's allocator on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID_BY_ALLOCATORS)
