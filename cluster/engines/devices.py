"""What every loader of weights does alike: choose the device, and say in one sentence why a folder cannot be loaded."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError

from limbeck.corpus.errors import LimbeckError


def device_of(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device a config asks for; auto is a GPU where there is one. Raises LimbeckError for a GPU that is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LimbeckError("device is cuda, but this machine has no usable GPU; set device to cpu or auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def loaded_as(folder: Path, what: str) -> Iterator[None]:
    """Turn what the libraries raise over a folder that is no `what` into a LimbeckError with their first line."""
    try:
        yield
    except (ValueError, OSError, SafetensorError, RuntimeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise LimbeckError(f"{folder} cannot be loaded as {what}: {first_line}") from error
