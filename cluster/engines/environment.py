"""Secrets in environment variables: on a worker, those of the driver, whose environment the nodes of a cluster do not share.

A value is never part of a config, an argument of a task or actor, a log or an error. The driver hands values over in method calls
(cluster/workers/secrets.py).
"""

import os
from collections.abc import Callable

Ask = Callable[[str], str | None]
"""The driver's current value of a variable; None if the driver has none, or does not respond."""

_ask_driver: Ask | None = None


def ask_driver_with(ask: Ask) -> None:
    """From now on, take variables of this process from the driver first."""
    global _ask_driver
    _ask_driver = ask


def variable(name: str) -> str:
    """The current value of an environment variable, the driver's if it has one; "" if it is not set."""
    found = _ask_driver(name) if _ask_driver is not None else None
    return (found if found is not None else os.environ.get(name, "")).strip()
