"""Compiled extensions of DeepSpeed: built once per machine, under a lock that ends with its process.

torch builds an extension in a folder shared by all programs of a user, and marks it by a file. A process that is killed while it
compiles leaves the file, and every later one waits for it, forever and silently. So trainings build in a folder of their own, of
which one process at a time holds a lock of the kernel: a file that it finds there belongs to a dead process.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limbeck.corpus.parts import write_json

ROOT = "TORCH_EXTENSIONS_DIR"


def build_safely(progress: Path | None) -> None:
    """From now on, build extensions of this process under the lock; `progress` is the file that says so meanwhile, if any."""
    from torch.utils import cpp_extension

    os.environ[ROOT] = str(_root(os.environ.get(ROOT) or cpp_extension.get_default_build_root()))
    torchs: Any = cpp_extension
    torchs.load = _locked(getattr(torchs.load, "__wrapped__", torchs.load), progress)


def _root(given: str) -> Path:
    """A folder of this machine's trainings below the given one, which may be shared with other machines and programs."""
    import torch

    folder = f"limbeck-{socket.gethostname()}-torch{torch.__version__}"
    return Path(given) if Path(given).name == folder else Path(given) / folder


def _locked(load: Any, progress: Path | None) -> Any:
    @functools.wraps(load)
    def build(name: str, *arguments: Any, **named: Any) -> Any:
        folder = Path(os.environ[ROOT]) / name
        folder.mkdir(parents=True, exist_ok=True)
        with _compiling(name, progress), _kernel_lock(folder.with_name(f"{name}.flock")):
            if (folder / "lock").exists():  # of a process that was killed while it compiled
                shutil.rmtree(folder)
                folder.mkdir()
            return load(name, *arguments, **named)

    return build


@contextlib.contextmanager
def _compiling(name: str, progress: Path | None) -> Iterator[None]:
    if progress is not None:
        write_json(progress, {"words": f"compiling {name}, an extension of DeepSpeed"}, replace=True)
    try:
        yield
    finally:
        if progress is not None:
            progress.unlink(missing_ok=True)


@contextlib.contextmanager
def _kernel_lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
