"""Refuses the former package names, under which packages could be imported twice from the repository's root."""

import importlib.abc
import sys

OLD_NAMES = frozenset({"corpus", "infinigram", "generators", "filters", "students", "cluster", "pipelines", "_infinigram"})


class RefuseOldNames(importlib.abc.MetaPathFinder):
    """The first import finder; it raises instead of finding."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise for an old name; leave all others to the next finders."""
        if path is None and fullname in OLD_NAMES:
            raise ImportError(f"{fullname!r} is an old name: import limbeck.{fullname}")


def refuse_old_names() -> None:
    """Install the finder in first position, once per process."""
    if not any(isinstance(finder, RefuseOldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, RefuseOldNames())
