"""The process that holds models and computes parts, and the contract of the work it is given."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from cluster.engines.provider import Engines


class PartJob(Protocol):
    """One step of a part's journey, carried to the worker by pickle. It reads and writes Parquet itself."""

    @property
    def stage(self) -> str:
        """What events call it, e.g. "round-0/candidates"."""
        ...

    def finished(self, part: str) -> bool:
        """Whether the part's output is published."""
        ...

    def rows(self, part: str) -> int:
        """How many rows the part's input has."""
        ...

    def warm(self, engines: "Engines") -> None:
        """Load what the job computes with."""
        ...

    def compute(self, part: str, start: int, stop: int, engines: "Engines") -> pa.Table:
        """The output of input rows `start` to `stop`, not yet published."""
        ...

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        """The output of a row that cannot be computed: its reason, in the output's own columns."""
        ...

    def publish(self, part: str, table: pa.Table) -> int:
        """Write the part's output; returns its number of rows. A no-op where it exists."""
        ...


@dataclass
class PartReport:
    """What a job did to a part."""

    stage: str
    part: str
    rows: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    load_seconds: float = 0.0
    output_tokens: int = 0
    forwarded_tokens: int = 0
    deaths: list[str] = field(default_factory=list)  # the last words of each death of the worker on this part
    failed_rows: list[str] = field(default_factory=list)


class Worker:
    """A process that holds models and computes parts; wrapped by `ray.remote` in `WorkerPool`."""

    def __init__(self, index: int, threads: int, workers_folder: str, driver: str) -> None:
        import torch

        from cluster.engines.provider import Engines

        torch.set_num_threads(threads)
        _log_to(Path(workers_folder).parent / "logs" / f"worker-{index}.log")
        self._engines = Engines()
        self._owner = ""
        name = f"worker-{index}"
        self._beat = str(heartbeat_file(Path(workers_folder), name))
        beat = threading.Thread(target=heartbeat, args=(Path(workers_folder), driver, name, self._progress), daemon=True)
        beat.start()

    def claim(self, gate: str) -> str:
        """Let the first gate that asks own this worker, and say where its heartbeat lies; "" for any other. Gate "" frees it."""
        if gate and self._owner not in ("", gate):
            return ""
        self._owner = gate
        return self._beat

    def warm(self, job: PartJob) -> None:
        """Load what a job computes with."""
        job.warm(self._engines)

    def run(self, job: PartJob, part: str) -> dict[str, Any]:
        """Compute and publish a whole part."""
        report, before = PartReport(job.stage, part), self._engines.usage()
        table = job.compute(part, 0, job.rows(part), self._engines)
        report.rows = job.publish(part, table)
        return self._close(report, before)

    def compute(self, job: PartJob, part: str, start: int, stop: int) -> pa.Table:
        """Compute some rows of a part without publishing them (for bisection)."""
        return job.compute(part, start, stop, self._engines)

    def _progress(self) -> float:
        """A number that changes for as long as a model computes."""
        usage = self._engines.usage()
        return usage.forwarded_tokens + usage.output_tokens + usage.model_seconds

    def _close(self, report: PartReport, before: Any) -> dict[str, Any]:
        after = self._engines.usage()
        report.model_seconds = after.model_seconds - before.model_seconds
        report.load_seconds = after.load_seconds - before.load_seconds
        report.output_tokens = after.output_tokens - before.output_tokens
        report.forwarded_tokens = after.forwarded_tokens - before.forwarded_tokens
        return asdict(report)


def heartbeat_file(folder: Path, name: str) -> Path:
    """Where this process leaves its heartbeat."""
    return folder / f"{name}-{os.getpid()}"


def heartbeat(folder: Path, driver: str, name: str, progress: Callable[[], float] = time.time) -> None:
    """Write how far the work is to a file every second, and end the process once its driver's run lock is gone.

    A restarted driver waits until the workers of the killed one have fallen silent; a gate reads whether its worker gets on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine, lock = heartbeat_file(folder, name), folder.parent / "run.lock"
    while True:
        try:
            owner = json.loads(lock.read_text())["driver"]
        except (OSError, ValueError, KeyError):
            owner = None
        if owner != driver:
            mine.unlink(missing_ok=True)
            os._exit(1)
        with contextlib.suppress(OSError):  # a full disk must not end the beat
            mine.write_text(str(progress()))
        time.sleep(1.0)


def _log_to(path: Path) -> None:
    """Send the process's warnings, log records and, where it crashes, every thread's stack to a file in the run folder."""
    import faulthandler
    import logging

    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("a", buffering=1)  # open for the length of the process
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(asctime)s %(process)d %(name)s: %(message)s", force=True)
    logging.captureWarnings(True)
    faulthandler.enable(stream)
