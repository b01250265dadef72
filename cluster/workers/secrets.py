"""Hands environment variables that hold keys from the driver to the workers of a cluster, whose nodes do not have them.

Ray shows a job's runtime environment to everyone on its dashboard, and keeps the arguments of actors in its control store. So the
values are passed in method calls only: the driver pushes them to an actor in memory, and workers ask that actor, when they start
and when a server refuses a key. A value that changes in the driver's environment is seen within seconds.
"""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from limbeck.cluster.engines.environment import Ask

PUSH_SECONDS = 1.0
ASK_SECONDS = 60.0  # for the driver's next push; a restarted holder has no values before it


class Holder:
    """The actor: holds values in memory, for as long as the run is connected."""

    def __init__(self) -> None:
        """Hold nothing until the first push."""
        self._values: dict[str, str] = {}
        self._pushes, self._pushed = 0, asyncio.Condition()

    def __repr__(self) -> str:
        """Ray puts this into its logs."""
        return "Holder()"

    async def push(self, values: dict[str, str]) -> None:
        """Replace the values by the driver's current ones."""
        async with self._pushed:
            self._values = values
            self._pushes += 1
            self._pushed.notify_all()

    async def value(self, name: str) -> str | None:
        """The value of a variable in the driver's next push: a key that was just rotated is not missed."""
        async with self._pushed:
            seen = self._pushes
            await self._pushed.wait_for(lambda: self._pushes > seen)
            return self._values.get(name)


@contextmanager
def shared(names: Sequence[str]) -> Iterator[Any]:
    """Share these variables of this process with the workers that get the yielded handle; None if there are no names."""
    if not names:
        yield None
        return
    import ray

    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 1000, "scheduling_strategy": here}
    holder = ray.remote(Holder).options(**options).remote()
    stop = threading.Event()
    pushing = threading.Thread(target=_push, args=(holder, names, stop), daemon=True)
    pushing.start()
    try:
        yield holder
    finally:
        stop.set()
        pushing.join()
        ray.kill(holder, no_restart=True)


def _push(holder: Any, names: Sequence[str], stop: threading.Event) -> None:
    import ray

    while True:
        with suppress(ray.exceptions.RayError):  # it is being restarted, or the cluster is gone, which others report
            holder.push.remote({name: os.environ[name] for name in names if name in os.environ})
        if stop.wait(PUSH_SECONDS):
            return


def asking(holder: Any) -> Ask:
    """A function that asks the holder, for `ask_driver_with` on a worker."""

    def ask(name: str) -> str | None:
        import ray

        with suppress(ray.exceptions.RayError):
            value: str | None = ray.get(holder.value.remote(name), timeout=ASK_SECONDS)
            return value
        return None

    return ask
