"""Join an existing Ray cluster or start a private one; stop only what was started here."""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field

from limbeck.cluster import ray_internals
from limbeck.cluster.address import PRIVATE, answers, cluster_address, on_loopback
from limbeck.cluster.ray_errors import cause_of
from limbeck.corpus.config import MOST_PROCESSES, Config
from limbeck.corpus.errors import LimbeckError

PARTS_IN_FLIGHT = 8  # if an engine batches across callers
PATIENT = 4  # times start_seconds, for the second attempt to start a private cluster
_DRIVER: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "limbeck"}


class CriticWorkers(Config):
    """Separate processes for filters: a part is scored while the next ones are drawn."""

    workers: int = Field(1, ge=1, le=MOST_PROCESSES)
    cpus_per_worker: float = Field(1.0, ge=0)
    gpus_per_worker: float = Field(0.0, ge=0)


class ClusterConfig(Config):
    """The cluster of a run, and the layout of its processes."""

    address: str | None = Field(
        None,
        description="a Ray cluster to join, as host:port; auto: the one that runs on this machine; local: a private one; null: "
        "RAY_ADDRESS, else one started here with `ray start`, else a private one",
    )
    workers: int = Field(1, ge=1, le=MOST_PROCESSES, description="processes that hold models")
    cpus_per_worker: float = Field(1.0, ge=0, description="CPUs that each worker reserves in Ray")
    gpus_per_worker: float = Field(0.0, ge=0)
    threads_per_worker: int | None = Field(
        None, ge=1, le=MOST_PROCESSES, description="null: the machine's cores divided by all workers"
    )
    parts_in_flight: int | None = Field(
        None,
        ge=1,
        le=MOST_PROCESSES,
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
    start_seconds: float = Field(
        30.0, gt=0, description=f"for a private cluster to start; if it does not, once more with {PATIENT} times as long"
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
    """The address of the cluster a run would join, or None if it would start its own; raises LimbeckError for a wrong one."""
    return cluster_address(config.address)


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[Session]:
    """Connect to Ray for the duration of the block."""
    # disable telemetry, progress bars and notices of Ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    address = running_cluster(config)
    if address is None or on_loopback(address):
        # a private cluster listens on this machine only; Ray turns a 127.0.0.1 given in any other way into an external address
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    on_terminate = signal.getsignal(signal.SIGTERM)
    if address is None:
        _start_private(config)
    else:
        _join(address)
    import ray

    ray_internals.silence_deaths()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray installs its own handler, which exits silently
    try:
        total = ray.cluster_resources()
        yield Session(address or "local", address is None, float(total.get("CPU", 0)), float(total.get("GPU", 0)))
    finally:
        ray.shutdown()  # a driver that joined a cluster only disconnects


def _join(address: str) -> None:
    if not answers(address):  # Ray itself would retry for minutes
        raise LimbeckError(f"cannot reach the Ray cluster at {address}: no response; start it, or set cluster.address")
    if _has_token():
        # `ray start` requires the token if one exists, but a joining driver does not send it by default
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    try:
        ray.init(address=address, **_DRIVER)
    except Exception as error:
        raise LimbeckError(
            f"cannot reach the Ray cluster at {address}: {cause_of(error)}; start it, or set cluster.address"
        ) from error


def _start_private(config: ClusterConfig) -> None:
    """Start a private cluster; on a machine too busy to do so in time, once more with more time."""
    import ray

    for seconds in (config.start_seconds, PATIENT * config.start_seconds):
        running = _children()
        try:
            with ray_internals.starting_within(seconds):
                ray.init(
                    address="local",
                    num_cpus=os.cpu_count(),
                    include_dashboard=False,
                    object_store_memory=config.object_store_bytes,
                    labels={PRIVATE: "true"},
                    **_DRIVER,
                )
            return
        except Exception as error:
            _end(_children() - running)
            words = cause_of(error)
            if not isinstance(error, TimeoutError) and not re.search("timed out|onnect to GCS", words):
                raise LimbeckError(
                    f"cannot start a private Ray cluster: {words}; fix this, or set cluster.address to join a running cluster"
                ) from error
    raise LimbeckError(
        f"cannot start a private Ray cluster: it did not start within {config.start_seconds:g} s, nor within {seconds:g} s at a "
        "second attempt; the machine is overloaded or short of memory: free it, raise cluster.start_seconds, or set "
        "cluster.address to join a running cluster"
    )


def _children() -> set[psutil.Process]:
    """The processes of Ray that this one has started; those below them end with their node."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any("/ray/" in word for word in child.cmdline()):
                found.add(child)
    return found


def _end(processes: set[psutil.Process]) -> None:
    """Kill what a failed start leaves behind."""
    import ray

    ray.shutdown()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def amounts(resources: Mapping[str, float]) -> str:
    """Resources as text, without those that are not needed: "1 CPU and 2 GPUs"."""
    counts = {name: count for name, count in resources.items() if count} or dict(resources)
    return " and ".join(f"{count:g} {name}" if count == 1 else f"{count:g} {name}s" for name, count in counts.items())


def _has_token() -> bool:
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()
