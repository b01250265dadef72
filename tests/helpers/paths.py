"""The location of this checkout, and the search path of Python processes that tests start."""

import os
from pathlib import Path

import limbeck

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
PACKAGE = Path(str(limbeck.__file__)).parent  # src/limbeck, or its copy with a sanitized extension
SEARCH_PATH = os.pathsep.join([str(PACKAGE.parent), str(TESTS)])


def child_environment(**more: str) -> dict[str, str]:
    """This process's environment, with the tested `limbeck`, the helpers and `tests/sitecustomize.py` on the path."""
    return {**os.environ, "PYTHONPATH": SEARCH_PATH, **more}
