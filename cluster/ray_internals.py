"""Everything that Limbeck takes from Ray's private modules: nothing else imports `ray._private` or `ray._raylet`.

Ray may change these in any release: pyproject.toml bounds its version from above, and a test names the attribute that is gone.
"""

import contextlib
import importlib
import os
import time
from collections.abc import Iterator
from typing import Any

PRIVATE = (
    ("ray._private.services", "get_node"),
    ("ray._private.state", "actors"),
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


def waits_for_resources(actor: Any) -> bool:
    """Whether Ray has not found a place for an actor yet, so that it has no process."""
    found = _module("ray._private.state").actors(actor_id=actor._actor_id.hex())
    pending = found.get("State") in ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "RESTARTING")
    return pending and not found["Pid"]  # a queued actor may have the address of the node that queues it


@contextlib.contextmanager
def starting_within(seconds: float) -> Iterator[None]:
    """For the duration of the block, `ray.init` gives a cluster that it starts this long; then it raises TimeoutError.

    Ray's own limit of 30 s for the node is a constant in a function, and the one for the cluster's services a variable.
    """
    services, variable = _module("ray._private.services"), "RAY_gcs_server_port_wait_time_s"
    get_node, before = services.get_node, os.environ.get(variable)
    deadline = time.monotonic() + seconds

    def patient(*arguments: Any, **named: Any) -> Any:
        while True:
            try:
                return get_node(*arguments, **named)
            except RuntimeError as error:  # the node has not registered yet
                if time.monotonic() > deadline:
                    raise TimeoutError(str(error)) from error
                time.sleep(0.1)

    services.get_node = patient
    os.environ[variable] = str(max(1, round(seconds)))
    try:
        yield
    finally:
        services.get_node = get_node
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


def _module(name: str) -> Any:
    return importlib.import_module(name)
