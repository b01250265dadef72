"""Limbeck at an earlier commit, unpacked from the history, for tests that compare new code with old."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from helpers.paths import ROOT

BEFORE_THE_MOVE = "5a636afc6bce5b22803be6a1d7d1811f33fa133d"
"""The last commit whose packages were imported by their folders' names."""


def unpack(commit: str, folder: Path) -> Path:
    """Write the tree of a commit to `folder`; skips the test if the history is missing (an sdist, a shallow clone)."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=False)
    except OSError as error:
        pytest.skip(f"git cannot be run ({error.strerror}), and the earlier code is in its history")
    if done.returncode:
        pytest.skip(f"commit {commit[:7]} is not in the history at hand: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def run_earlier(
    tree: Path, cwd: Path, *arguments: str, faults: Path | None = None, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """The earlier command line, `python -m pipelines.cli`, without this checkout on its path."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIMBECK_TEST")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tree), str(tree / "tests/faults")]), "HF_HUB_OFFLINE": "1"}
    environment |= {"FAULTS": str(faults)} if faults else {}
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=environment)
