"""Part names streamed through a Ray Data actor pool, in front of workers that hold the models.

A row in Ray is `{"lane": ..., "part": "part-00007"}`; the data stays in Parquet. The actors of Ray Data (gates) are light and
live for one stream; each owns one worker, a plain Ray actor that outlives streams, stages and rounds, because importing the
model stack costs more than most stages of a small run. A gate counts the deaths of its worker: a part that killed it
twice is bisected down to the row, and that row becomes a stored reason.
"""

import atexit
import contextlib
import json
import os
import time
import warnings
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.engines.protocol import EngineDied
from cluster.session import ClusterConfig, Session, wait_for_room
from cluster.worker import PartJob, PartReport, Worker
from corpus.errors import LimbeckError, last_line

DEATHS_BEFORE_BISECTION = 2
STREAM_ATTEMPTS = 3
STARTS_WITHOUT_SUCCESS = 3
POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Lane:
    """A chain of jobs that every one of `parts` goes through in order."""

    jobs: Sequence[PartJob]
    parts: Sequence[str]


class Gate:
    """The Ray Data actor: takes a part through its lane's jobs on the worker it owns."""

    def __init__(self, workers: list[Any], lanes: list[Lane], stall_seconds: float) -> None:
        import ray

        # a gate holds nothing that needs an orderly end, and Ray's (2.60) can lock itself up and leave the process behind
        atexit.register(os._exit, 0)
        self._lanes, self._stall_seconds = lanes, stall_seconds
        self._me = ray.get_runtime_context().get_actor_id() or str(os.getpid())
        self._worker = next(worker for worker in workers if ray.get(worker.claim.remote(self._me)))
        self._beat = Path(ray.get(self._worker.claim.remote(self._me)))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What each of the lane's jobs did to the row's part, as JSON, and the error that ends the run, or ""."""
        reports, error = [], ""
        try:
            for job in self._lanes[row["lane"]].jobs:
                if not job.finished(row["part"]):
                    reports.append(asdict(self._take(job, row["part"])))
        except LimbeckError as failure:
            error = str(failure)
        return {"reports": json.dumps(reports), "error": error}

    def _take(self, job: PartJob, part: str) -> PartReport:
        """Run a job on a part; after two deaths, by bisection."""
        started, report = time.monotonic(), PartReport(job.stage, part)
        while len(report.deaths) < DEATHS_BEFORE_BISECTION:
            try:
                done = PartReport(**self._call("run", job, part))
                done.seconds, done.deaths = time.monotonic() - started, report.deaths
                return done
            except WorkerDied as death:
                report.deaths.append(str(death))
        table = self._by_halves(job, part, 0, job.rows(part), report)
        report.rows = job.publish(part, table)
        report.seconds = time.monotonic() - started
        return report

    def _compute(self, job: PartJob, part: str, start: int, stop: int, report: PartReport) -> pa.Table:
        """Compute rows together, or by halves where that kills the worker: only a row that kills it alone is given up."""
        try:
            return self._call("compute", job, part, start, stop)
        except WorkerDied as death:
            report.deaths.append(str(death))
            if stop - start > 1:
                return self._by_halves(job, part, start, stop, report)
            reason = f"the worker died each time it worked on this row ({death})"
            report.failed_rows.append(f"{part} row {start}: {reason}")
            return job.failure(part, start, reason)

    def _by_halves(self, job: PartJob, part: str, start: int, stop: int, report: PartReport) -> pa.Table:
        middle = (start + stop + 1) // 2
        halves = [(low, high) for low, high in ((start, middle), (middle, stop)) if low < high]
        tables = [self._compute(job, part, low, high, report) for low, high in halves]
        return pa.concat_tables(tables, promote_options="default")

    def _call(self, method: str, job: PartJob, part: str, *rows: int) -> Any:
        """Call the worker; its death is WorkerDied, any error of its own and its last death a LimbeckError.

        A worker that died has started again by then, and has loaded what the job takes.
        """
        try:
            return self._ask(method, job, part, *rows)
        except WorkerDied as death:
            self._revive(job, part, str(death))
            raise

    def _ask(self, method: str, job: PartJob, *arguments: Any) -> Any:
        import ray

        try:
            return self._answer(getattr(self._worker, method).remote(job, *arguments))
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as death:
            memory = isinstance(death, ray.exceptions.OutOfMemoryError)
            raise WorkerDied(
                "Ray ended it, as the machine ran low on memory" if memory else "it was killed or crashed"
            ) from death
        except ray.exceptions.RayTaskError as failure:
            cause = failure.cause
            if isinstance(cause, LimbeckError):
                raise cause from failure
            if isinstance(cause, EngineDied):
                ray.kill(self._worker, no_restart=False)
                raise WorkerDied(f"its engine ended: {cause}") from failure
            where = f" on {arguments[0]}" if arguments else ""
            raise LimbeckError(f"{job.stage} failed{where}: {last_line(failure)}") from failure

    def _answer(self, call: Any) -> Any:
        """Wait for a call for as long as the worker gets on; ends the worker where it does not."""
        import ray

        seen, since = "", time.monotonic()
        while True:
            ready, _ = ray.wait([call], timeout=min(POLL_SECONDS, self._stall_seconds / 2))
            if ready:
                return ray.get(call)
            with contextlib.suppress(OSError):
                progress = self._beat.read_text()
                if progress and progress != seen:
                    seen, since = progress, time.monotonic()
            if time.monotonic() - since > self._stall_seconds:
                ray.kill(self._worker, no_restart=False)
                raise WorkerDied(f"it computed nothing for {self._stall_seconds:.0f} s and was ended")

    def _revive(self, job: PartJob, part: str, words: str) -> None:
        """Return once the worker is up again with what the job takes: a call sent too early would blame an innocent row.

        Raises LimbeckError where Ray will not start it again, or where it dies each time it loads its models.
        """
        for _ in range(STARTS_WITHOUT_SUCCESS):
            self._await_restart(job.stage, part)
            try:
                self._ask("warm", job)
                return
            except WorkerDied as death:
                words = str(death)
        raise LimbeckError(
            f"the worker of {job.stage} died {STARTS_WITHOUT_SUCCESS} times while it loaded its models, at last: {words}; its "
            "log lies in the run's logs/"
        )

    def _await_restart(self, stage: str, part: str) -> None:
        """Return once the worker answers again; raises LimbeckError where Ray will not start it again."""
        import ray

        while True:
            try:
                self._beat = Path(ray.get(self._worker.claim.remote(self._me), timeout=self._stall_seconds))
                return
            except ray.exceptions.ActorUnavailableError:
                time.sleep(0.2)
            except (ray.exceptions.ActorDiedError, ray.exceptions.GetTimeoutError) as death:
                raise LimbeckError(
                    f"a worker died more often than cluster.max_restarts allows, at last on {stage} {part}: "
                    f"{' '.join(str(death).split())[:400]}"
                ) from death


class WorkerDied(Exception):
    """A worker's process ended while it worked; Ray is restarting it."""


class WorkerPool:
    """The workers of a run, started at once and kept until `close`."""

    def __init__(self, config: ClusterConfig, workers_folder: Path, driver: str) -> None:
        self._config, self._workers_folder, self._driver = config, str(workers_folder), driver
        self._workers: list[Any] = []
        self.start()

    def start(self) -> None:
        """Start the workers where they are not running; they come up in the background."""
        import ray

        config = self._config
        remote = ray.remote(Worker).options(
            num_cpus=config.cpus_per_worker, num_gpus=config.gpus_per_worker, max_restarts=config.max_restarts, max_task_retries=0
        )
        arguments = (config.threads(), self._workers_folder, self._driver)
        self._workers = self._workers or [remote.remote(index, *arguments) for index in range(config.workers)]

    def make_room(self, session: Session, cpus: float, gpus: float) -> None:
        """End the workers if the cluster cannot hold them beside something that reserves so much; `stream` starts them again."""
        left_cpus = session.cpus - self._config.workers * self._config.cpus_per_worker
        left_gpus = session.gpus - self._config.workers * self._config.gpus_per_worker
        if left_cpus < cpus or left_gpus < gpus:
            self.close()
            if not wait_for_room(cpus, gpus):
                raise LimbeckError(
                    f"training wants {cpus:g} CPUs and {gpus:g} GPUs, and the cluster has {session.cpus:g} and "
                    f"{session.gpus:g} in all, or others hold them; lower student.workers or free the cluster"
                )

    def stream(self, lanes: Sequence[Lane]) -> Generator[PartReport]:
        """Take every part of every lane through its jobs; yield what each job did, as parts finish.

        Raises LimbeckError with the worker's last words where a job fails or a worker is out of restarts.
        """
        import ray

        for attempt in range(STREAM_ATTEMPTS):
            try:
                yield from self._stream(lanes)
                return
            except ray.exceptions.RayError as death:  # a gate, not a worker: what it had published is skipped next time
                if attempt == STREAM_ATTEMPTS - 1:
                    raise LimbeckError(
                        f"Ray lost the stream {STREAM_ATTEMPTS} times, at last with: {last_line(death)}"
                    ) from death

    def _stream(self, lanes: Sequence[Lane]) -> Generator[PartReport]:
        items = [{"lane": i, "part": part} for i, lane in enumerate(lanes) for part in lane.parts if not _finished(lane, part)]
        if not items:
            return
        import ray
        import ray.data

        _quiet(ray.data.DataContext.get_current())
        self.start()
        ray.get([worker.claim.remote("") for worker in self._workers])
        gates = min(len(self._workers), len(items))
        with warnings.catch_warnings():  # Ray has no other way to bound an actor's restarts, and warns of this one
            warnings.simplefilter("ignore")
            stream = ray.data.from_items(items, override_num_blocks=len(items)).map(
                Gate,
                fn_constructor_args=(self._workers, list(lanes), self._config.stall_seconds),
                compute=ray.data.ActorPoolStrategy(size=gates, max_tasks_in_flight_per_actor=1),
                num_cpus=0,
                max_restarts=0,
                max_task_retries=0,
            )
        # without prefetching: iter_rows would hold each part's report back until the next part is done
        batches = stream.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        # closed at once after a failure: Ray's executor is a thread, and one that meets a Ray shut down ends the process
        with contextlib.closing(iter(batches)) as open_batches:
            for batch in open_batches:
                for row in batch.to_pylist():
                    yield from (PartReport(**report) for report in json.loads(row["reports"]))
                    if row["error"]:
                        raise LimbeckError(row["error"])

    def close(self) -> None:
        """End the workers and free what they reserved."""
        import ray

        for worker in self._workers:
            ray.kill(worker, no_restart=True)
        self._workers = []


def _finished(lane: Lane, part: str) -> bool:
    return all(job.finished(part) for job in lane.jobs)


def _quiet(context: Any) -> None:
    import logging

    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    logging.getLogger("ray.data").setLevel(logging.ERROR)
