"""Errors after which a process is not to be trusted: a death of the engine, not a fault of the run."""

import contextlib
from collections.abc import Iterator

from limbeck.cluster.engines.protocol import EngineDied

SAID_BY_ALLOCATORS = ("can't allocate memory", "cannot allocate memory", "out of memory")
SAID_BY_DEVICES = ("cuda error", "hip error", "device-side assert", "cublas_status", "cudnn_status")  # every later call fails


@contextlib.contextmanager
def deaths_told() -> Iterator[None]:
    """Raise EngineDied where the block runs out of memory, on the host or on a device, or where a device breaks.

    What is left of a process after that is not to be trusted (half a model, a broken context), so its worker is started again: a
    load that fails so three times stops the run, and rows that do so in a batch are tried by halves, down to the row.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if ran_out_of_memory(error):
            raise EngineDied(f"out of memory: {_words(error)}") from error
        if broke_its_device(error):
            raise EngineDied(f"its device failed: {_words(error)}") from error
        raise


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so: Python's own, torch's of a device (a RuntimeError), or that of torch's allocator on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _says(error, SAID_BY_ALLOCATORS)


def broke_its_device(error: BaseException) -> bool:
    """Whether an error leaves the device's context unusable for the rest of the process."""
    return type(error).__name__ == "AcceleratorError" or (isinstance(error, RuntimeError) and _says(error, SAID_BY_DEVICES))


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return any(word in str(error).lower() for word in words)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
