"""The process that holds models and computes parts, and the contract of its jobs."""

import contextlib
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import pyarrow as pa

from limbeck.cluster.engines.environment import ask_driver_with
from limbeck.cluster.engines.fatal_errors import as_engine_died
from limbeck.cluster.workers.secrets import asking
from limbeck.corpus.extras import installed

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines, Lease

PoolName = Literal["teachers", "critics"]
Result = TypeVar("Result")


class PartJob(Protocol):
    """One step in the processing of a part, sent to the worker by pickle. It reads and writes Parquet itself."""

    @property
    def stage(self) -> str:
        """Its name in events, e.g. "round-0/candidates"."""
        ...

    @property
    def subject(self) -> str:
        """The model or control whose rows it computes, if several pass through the same stage; otherwise empty."""
        ...

    @property
    def pool(self) -> PoolName:
        """The pool that computes it, if filters have their own workers."""
        ...

    @property
    def concurrent(self) -> bool:
        """Whether it may run beside other jobs of the same process."""
        ...

    def finished(self, part: str) -> bool:
        """Whether the part's output is published."""
        ...

    def rows(self, part: str) -> int:
        """Number of input rows of the part."""
        ...

    def warm(self, engines: "Engines") -> None:
        """Load the models of the job."""
        ...

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """The output of input rows `start` to `stop`, not yet published."""
        ...

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """The output of a row that cannot be computed: its reason, in the columns of the output."""
        ...

    def publish(self, part: str, table: pa.Table) -> int:
        """Write the part's output; returns its number of rows. A no-op if it exists."""
        ...


@dataclass
class PartReport:
    """The result of a job on a part.

    `seconds` of jobs that ran concurrently on a worker are divided among them, so that they add up to the worker's time. Engine
    usage is reported once: of concurrent jobs that share an engine, the first to finish reports its usage until then.
    """

    stage: str
    part: str
    pool: PoolName = "teachers"
    subject: str = ""
    rows: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    load_seconds: float = 0.0
    output_tokens: int = 0
    forwarded_tokens: int = 0
    deaths: list[str] = field(default_factory=list)  # exit message of each death of the worker on this part
    failed_rows: list[str] = field(default_factory=list)

    def take(self, done: dict[str, Any]) -> None:
        """Add engine usage: some of MEASURES."""
        for name in MEASURES:
            setattr(self, name, getattr(self, name) + done[name])


LOCK_SECONDS = 5.0
MEASURES = ("model_seconds", "load_seconds", "output_tokens", "forwarded_tokens")


class Worker:
    """A process that holds models and computes parts; wrapped by `ray.remote` in `WorkerPool`, and called from several threads.

    Jobs that are not `concurrent` run one after another on a dedicated thread.
    """

    def __init__(
        self, name: str, threads: int, keep: int, workers_folder: str, driver: str, local_models: bool, holder: Any = None
    ) -> None:
        """Hold at most `keep` engines; a model in this process computes with `threads` threads.

        `local_models`: some job will load one, so torch is imported now, while the driver reads the sources. `holder` is asked
        for environment variables of the driver.
        """
        if holder is not None:
            ask_driver_with(asking(holder))
        if local_models and installed("torch"):
            importlib.import_module("torch")
        from limbeck.cluster.engines.model_cache import Engines

        self._threads, self._alone = threads, ThreadPoolExecutor(1)
        self._limit_threads()
        _log_to(Path(workers_folder).parent / "logs" / f"{name}.log")
        self._engines = Engines(keep)
        self._owner, self._calls, self._ended = "", 0, threading.Condition()
        self._beat = str(heartbeat_file(Path(workers_folder), name))
        beat = threading.Thread(target=heartbeat, args=(Path(workers_folder), driver, name, self._progress), daemon=True)
        beat.start()

    def claim(self, dispatcher: str) -> str:
        """Assign this worker to the first dispatcher that asks and return the path of its heartbeat file; "" for any other.

        Dispatcher "" releases it, once the calls of the earlier dispatcher are finished.
        """
        with self._ended:
            if not dispatcher:
                self._ended.wait_for(lambda: not self._calls)
            elif self._owner not in ("", dispatcher):
                return ""
            self._owner = dispatcher
            return self._beat

    def warm(self, job: PartJob) -> None:
        """Load the models of a job."""
        with self._lease() as engines:
            self._in_turn(job, lambda: job.warm(engines))

    def run(self, job: PartJob, part: str) -> dict[str, Any]:
        """Compute and publish a whole part; returns its row count and engine usage."""

        def compute() -> int:
            return job.publish(part, job.compute(part, 0, job.rows(part), engines))

        with self._lease() as engines:
            return {"rows": self._in_turn(job, compute), **_measured(engines)}

    def compute(self, job: PartJob, part: str, start: int, stop: int) -> tuple[pa.Table, dict[str, Any]]:
        """Compute some rows of a part without publishing them (for bisection); returns them and the engine usage."""
        with self._lease() as engines:
            return self._in_turn(job, lambda: job.compute(part, start, stop, engines)), _measured(engines)

    def _in_turn(self, job: PartJob, work: Callable[[], Result]) -> Result:
        with as_engine_died():
            return work() if job.concurrent else self._alone.submit(self._limited, work).result()

    def _limited(self, work: Callable[[], Result]) -> Result:
        self._limit_threads()
        return work()

    def _limit_threads(self) -> None:
        """Bound torch's threads in the calling thread, if anything has imported torch."""
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(self._threads)

    @contextlib.contextmanager
    def _lease(self) -> Iterator["Lease"]:
        with self._ended:
            self._calls += 1
        try:
            with self._engines.lease() as lease:
                yield lease
        finally:
            with self._ended:
                self._calls -= 1
                self._ended.notify_all()

    def _progress(self) -> float:
        """A number that changes while a model computes."""
        usage = self._engines.usage()
        return usage.forwarded_tokens + usage.output_tokens + usage.model_seconds


def _measured(engines: "Lease") -> dict[str, Any]:
    usage = engines.take_usage()
    return {name: getattr(usage, name) for name in MEASURES}


def heartbeat_file(folder: Path, name: str) -> Path:
    """Heartbeat file of this process."""
    return folder / f"{name}-{os.getpid()}"


def heartbeat(folder: Path, driver: str, name: str, progress: Callable[[], float] = time.time) -> None:
    """Write the progress to a file every second, and exit once another driver has the run, or the raylet is gone.

    Ray considers a process with a dead raylet dead and may replace it: this one would keep memory and GPU.
    A restarted driver waits until the workers of the killed one have fallen silent; its dispatcher uses
    the heartbeat to detect a stalled worker. A run lock that cannot be read for a moment, as happens on shared file systems, ends
    nothing; one that cannot be read for LOCK_SECONDS does.
    """
    mine, lock, raylet = heartbeat_file(folder, name), folder.parent / "run.lock", os.getppid()
    unreadable_since: float | None = None  # since the first failure, not the last success: one read may hang for long, then fail
    while True:
        owner = driver
        try:
            owner, unreadable_since = json.loads(lock.read_text())["driver"], None
        except (OSError, ValueError, KeyError, TypeError):
            unreadable_since = unreadable_since or time.monotonic()
        unreadable = unreadable_since is not None and time.monotonic() - unreadable_since > LOCK_SECONDS
        if owner != driver or unreadable or os.getppid() != raylet:
            with contextlib.suppress(OSError):
                mine.unlink(missing_ok=True)
            os._exit(1)
        with contextlib.suppress(OSError):  # neither a full disk nor a stale handle may stop the heartbeat
            mine.parent.mkdir(parents=True, exist_ok=True)
            mine.write_text(str(progress()))
        time.sleep(1.0)


def _log_to(path: Path) -> None:
    """Redirect log records, warnings, and every thread's stack after a crash to a file in the run folder.

    Standard output and error go there too, including those of child processes (vLLM), so that the cause of a crash can be read
    there.
    """
    import faulthandler
    import logging

    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("a", buffering=1)  # open for the lifetime of the process
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(asctime)s %(process)d %(name)s: %(message)s", force=True)
    logging.captureWarnings(True)
    faulthandler.enable(stream)
    for standard in (1, 2):
        os.dup2(stream.fileno(), standard)
