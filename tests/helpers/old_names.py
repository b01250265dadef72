"""Refuses the names under which the rooms can be imported from the repository's root: each would be a second copy."""

import importlib.abc
import sys

OLD_NAMES = frozenset({"corpus", "infinigram", "generators", "filters", "students", "cluster", "pipelines", "_infinigram"})


class RefuseOldNames(importlib.abc.MetaPathFinder):
    """An import finder that goes first and finds nothing, loudly."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise for an old name; leave every other to the finders that follow."""
        if path is None and fullname in OLD_NAMES:
            raise ImportError(f"{fullname!r} is an old name: import limbeck.{fullname}")


def refuse_old_names() -> None:
    """Put the finder in front, once per process."""
    if not any(isinstance(finder, RefuseOldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, RefuseOldNames())
