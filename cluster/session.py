"""Join an existing Ray cluster or start a private one; stop only what was started here."""

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

PARTS_IN_FLIGHT = 8  # if an engine batches across callers


class CriticWorkers(Config):
    """Separate processes for filters: a part is scored while the next ones are drawn."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1.0, ge=0)
    gpus_per_worker: float = Field(0.0, ge=0)


class ClusterConfig(Config):
    """The cluster of a run, and the layout of its processes."""

    address: str | None = Field(
        None,
        description="a Ray cluster to join; null: RAY_ADDRESS, else one started here with `ray start`, else a private one",
    )
    workers: int = Field(1, ge=1, description="processes that hold models")
    cpus_per_worker: float = Field(1.0, ge=0, description="CPUs that each worker reserves in Ray")
    gpus_per_worker: float = Field(0.0, ge=0)
    threads_per_worker: int | None = Field(None, ge=1, description="null: the machine's cores divided by all workers")
    parts_in_flight: int | None = Field(
        None,
        ge=1,
        description="parts that a worker takes at once; models in its process compute one at a time. null: 1, or "
        f"{PARTS_IN_FLIGHT} if an engine batches across callers (vllm, endpoint)",
    )
    critics: CriticWorkers | None = Field(
        None, description="separate workers for filters; null: filters run on the teachers' workers"
    )
    rows_per_part: int = Field(32, ge=1, description="sources in a part: the unit of work, retry and resume")
    max_restarts: int = Field(12, ge=0, description="how often one worker may die before the run stops")
    stall_seconds: float = Field(
        1800.0,
        gt=0,
        description="restart a worker whose model makes no progress for this long; includes loading",
    )
    object_store_bytes: int = Field(150_000_000, ge=80_000_000, description="of a private cluster; parts are passed on disk")

    def threads(self) -> int:
        """Threads of each worker's model."""
        return self.threads_per_worker or max(1, (os.cpu_count() or 1) // self.all_workers)

    @property
    def all_workers(self) -> int:
        """Processes that hold models: teachers' and filters'."""
        return self.workers + (self.critics.workers if self.critics else 0)

    @property
    def cpus(self) -> float:
        """CPUs that all workers reserve."""
        critics = self.critics.workers * self.critics.cpus_per_worker if self.critics else 0.0
        return self.workers * self.cpus_per_worker + critics

    @property
    def gpus(self) -> float:
        """GPUs that all workers reserve."""
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
    """The address of the cluster a run would join, or None if it would start its own.

    Private clusters of other drivers are never joined: they stop with their driver.
    """
    named = config.address or os.environ.get("RAY_ADDRESS")
    if named:
        return None if named == "local" else named
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"  # only written by `ray start`
    if not note.exists():
        return None
    address = note.read_text().strip()
    return address if _answers(address) else None  # None: stale file of a stopped cluster


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[Session]:
    """Connect to Ray for the duration of the block."""
    # disable telemetry, progress bars and notices of Ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    address = running_cluster(config)
    if address is None or address.startswith("127."):
        # a private cluster listens on this machine only; Ray turns a 127.0.0.1 given in any other way into an external address
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if address and "://" not in address and not _answers(address):  # Ray itself would retry for minutes
        raise LimbeckError(f"cannot reach the Ray cluster at {address}: no response; start it, or set cluster.address")
    if address and _has_token():
        # `ray start` requires the token if one exists, but a joining driver does not send it by default
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
        failed = f"reach the Ray cluster at {address}" if address else "start a private Ray cluster"
        remedy = "start it, or set cluster.address" if address else "fix this, or set cluster.address to join a running cluster"
        raise LimbeckError(f"cannot {failed}: {_first_line(error)}; {remedy}") from error
    ray_internals.silence_deaths()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray installs its own handler, which exits silently
    try:
        total = ray.cluster_resources()
        yield Session(address or "local", address is None, float(total.get("CPU", 0)), float(total.get("GPU", 0)))
    finally:
        ray.shutdown()  # a driver that joined a cluster only disconnects


def wait_for_room(cpus: float, gpus: float, timeout_seconds: float = 60.0) -> bool:
    """Wait until the cluster has this much free; False if it never will."""
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
