"""Join the Ray cluster that is there, or start a private one; stop only what was started here."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from limbeck.cluster import ray_internals
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError

PARTS_IN_FLIGHT = 8  # where an engine batches across callers


class CriticWorkers(Config):
    """Processes that score, beside those that draw: a part is scored while the next ones are drawn."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1.0, ge=0)
    gpus_per_worker: float = Field(0.0, ge=0)


class ClusterConfig(Config):
    """Where a run computes, and how its work is laid out on processes."""

    address: str | None = Field(
        None,
        description="a Ray cluster to join; null: RAY_ADDRESS, else one that `ray start` left running here, else a private one",
    )
    workers: int = Field(1, ge=1, description="processes that hold models")
    cpus_per_worker: float = Field(1.0, ge=0, description="what each worker reserves in Ray")
    gpus_per_worker: float = Field(0.0, ge=0)
    threads_per_worker: int | None = Field(None, ge=1, description="null: the machine's cores divided by all workers")
    parts_in_flight: int | None = Field(
        None,
        ge=1,
        description="parts that a worker takes at once; models in its process work on one at a time. null: 1, and "
        f"{PARTS_IN_FLIGHT} where an engine batches across callers (vllm, endpoint)",
    )
    critics: CriticWorkers | None = Field(
        None, description="workers of the critics' own; null: critics compute on the teachers' workers"
    )
    rows_per_part: int = Field(32, ge=1, description="sources in a part: the unit of work, retry and resume")
    max_restarts: int = Field(12, ge=0, description="how often one worker may die before the run stops")
    stall_seconds: float = Field(
        1800.0,
        gt=0,
        description="a worker whose model computes nothing for so long is ended and started again; loading takes part",
    )
    object_store_bytes: int = Field(150_000_000, ge=80_000_000, description="of a private cluster; parts travel on disk")

    def threads(self) -> int:
        """Threads of each worker's model."""
        return self.threads_per_worker or max(1, (os.cpu_count() or 1) // self.all_workers)

    @property
    def all_workers(self) -> int:
        """Processes that hold models: teachers' and critics'."""
        return self.workers + (self.critics.workers if self.critics else 0)

    @property
    def cpus(self) -> float:
        """What all workers reserve."""
        critics = self.critics.workers * self.critics.cpus_per_worker if self.critics else 0.0
        return self.workers * self.cpus_per_worker + critics

    @property
    def gpus(self) -> float:
        """What all workers reserve."""
        critics = self.critics.workers * self.critics.gpus_per_worker if self.critics else 0.0
        return self.workers * self.gpus_per_worker + critics


@dataclass(frozen=True)
class Session:
    """A connection to Ray. `owned`: this process started the cluster and stops it."""

    address: str
    owned: bool
    cpus: float
    gpus: float


def running_cluster(config: ClusterConfig) -> str | None:
    """The address of the cluster a run would join, or None where it would start its own.

    Clusters that other drivers started for themselves are never joined: they end with their driver.
    """
    named = config.address or os.environ.get("RAY_ADDRESS")
    if named:
        return None if named == "local" else named
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"  # written by `ray start` only
    if not note.exists():
        return None
    address = note.read_text().strip()
    return address if _answers(address) else None  # None: left behind by a cluster that is gone


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[Session]:
    """Connect to Ray for the length of the block."""
    # no telemetry, and no progress bars or notices of Ray's own among ours
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    address = running_cluster(config)
    if address is None or address.startswith("127."):
        # a private cluster answers to this machine alone; Ray turns a 127.0.0.1 given in any other way into an outside address
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if address and "://" not in address and not _answers(address):  # Ray itself would try for minutes
        raise LimbeckError(f"cannot reach the Ray cluster at {address}: nothing answers there; start it, or set cluster.address")
    if address and _has_token():
        # `ray start` asks for the token wherever one lies ready, but a driver that joins does not think of sending it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    on_terminate = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "limbeck"}
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=config.object_store_bytes,
                **options,
            )
        else:
            ray.init(address=address, **options)
    except Exception as error:
        where = f"the Ray cluster at {address}" if address else "a private Ray cluster"
        raise LimbeckError(f"cannot reach {where}: {_first_line(error)}; start it, or set cluster.address") from error
    ray_internals.silence_deaths()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray puts one of its own there, which ends the process without a word
    try:
        total = ray.cluster_resources()
        yield Session(address or "local", address is None, float(total.get("CPU", 0)), float(total.get("GPU", 0)))
    finally:
        ray.shutdown()  # a driver that joined only disconnects


def wait_for_room(cpus: float, gpus: float, timeout_seconds: float = 60.0) -> bool:
    """Wait until the cluster has so much free; False where it never will."""
    import ray

    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        free = ray.available_resources()
        if free.get("CPU", 0) >= cpus and free.get("GPU", 0) >= gpus:
            return True
        time.sleep(0.2)
    return False


def _has_token() -> bool:
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3):
            return True
    except (OSError, ValueError):
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
