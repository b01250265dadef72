"""Shared by all loaders of weights: choice of the device, and one-sentence errors for folders that cannot be loaded."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError

from limbeck.corpus.errors import LimbeckError


def device_of(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of a config; auto is a GPU if there is one. Raises LimbeckError if a requested GPU is missing."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LimbeckError("device is cuda, but this machine has no usable GPU; set device to cpu or auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def loaded_as(folder: Path, what: str) -> Iterator[None]:
    """Turn library errors about a folder that is not a `what` into a LimbeckError with their first line."""
    try:
        yield
    except (ValueError, OSError, SafetensorError, RuntimeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise LimbeckError(f"{folder} cannot be loaded as {what}: {first_line}") from error
