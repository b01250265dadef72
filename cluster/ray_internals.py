"""Everything that Limbeck takes from Ray's private modules: nothing else imports `ray._private` or `ray._raylet`.

Ray may change these in any release: pyproject.toml bounds its version from above, and a test names the attribute that is gone.
"""

import importlib
from typing import Any

PRIVATE = (
    ("ray._private.worker", "print_to_stdstream"),
    ("ray._raylet", "PlacementGroupID"),
)
"""(module, attribute) of all that is used below."""


def silence_deaths() -> None:
    """Suppress Ray's long messages about dead workers and nodes: the pool reports them itself."""
    _module("ray._private.worker").print_to_stdstream = lambda *_, **__: None


def placement_group(identifier: str) -> Any:
    """The handle of a placement group, by its id in hex as in `ray.util.placement_group_table`."""
    from ray.util.placement_group import PlacementGroup

    return PlacementGroup(_module("ray._raylet").PlacementGroupID(bytes.fromhex(identifier)))


def _module(name: str) -> Any:
    return importlib.import_module(name)
