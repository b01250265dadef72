"""Errors after which a process cannot be trusted: they terminate the engine, not the run."""

import contextlib
from collections.abc import Iterator

from limbeck.cluster.engines.protocol import EngineDied

ALLOCATOR_MESSAGES = ("can't allocate memory", "cannot allocate memory", "out of memory")
DEVICE_MESSAGES = ("cuda error", "hip error", "device-side assert", "cublas_status", "cudnn_status")  # every later call fails


@contextlib.contextmanager
def as_engine_died() -> Iterator[None]:
    """Raise EngineDied if the block runs out of memory, on the host or on a device, or if a device fails.

    The process cannot be trusted after that (half a model, a broken context), so its worker is restarted: a load that fails three
    times stops the run, and a batch that fails is bisected down to the row.
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
    """Whether it is Python's own MemoryError, torch's error for a device (a RuntimeError), or that of torch's CPU allocator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _says(error, ALLOCATOR_MESSAGES)


def broke_its_device(error: BaseException) -> bool:
    """Whether an error leaves the device's context unusable for the rest of the process."""
    return type(error).__name__ == "AcceleratorError" or (isinstance(error, RuntimeError) and _says(error, DEVICE_MESSAGES))


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return any(word in str(error).lower() for word in words)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
