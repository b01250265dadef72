"""Part names streamed through Ray Data actor pools, in front of workers that hold the models.

A row in Ray is `{"lane": ..., "part": "part-00007", ...}`; the data stays in Parquet. The actors of Ray Data (dispatchers, see
dispatcher.py) are light and exist for one stream; each owns one worker, a plain Ray actor that outlives streams, stages and
rounds, because importing the model stack costs more than most stages of a small run. If filters have their own workers, a part is
sent to them once its candidates are published.
"""

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.cluster import ray_internals
from limbeck.cluster.ray_errors import cause_of
from limbeck.cluster.session import PARTS_IN_FLIGHT, ClusterConfig, amounts
from limbeck.cluster.workers.dispatcher import Dispatcher
from limbeck.cluster.workers.supervisor import RESTART_SECONDS
from limbeck.cluster.workers.worker import PartJob, PartReport, PoolName, Worker
from limbeck.corpus.errors import LimbeckError

STREAM_ATTEMPTS = 3
START_SECONDS = 1800.0  # without any worker the run can only wait for a busy cluster or a slow disk
UNAVAILABLE_SECONDS = 3.0  # grace period for a worker that cannot be scheduled


@dataclass(frozen=True)
class Lane:
    """A chain of jobs that each of `parts` goes through in order; jobs that draw precede jobs that score."""

    jobs: Sequence[PartJob]
    parts: Sequence[str]


class WorkerPool:
    """The workers of a run, started at once and kept until `close`."""

    def __init__(
        self,
        config: ClusterConfig,
        workers_folder: Path,
        driver: str,
        keep: int = 2,
        local_models: bool = True,
        holder: Any = None,
        on_wait: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Start the workers; each holds at most `keep` engines. Unless `local_models`, no job loads a model into them.

        `holder` has the driver's keys (secrets.py). `on_wait` is called with what the run waits for, if it has to wait.
        """
        self._config, self._keep, self._local_models = config, keep, local_models
        self._holder, self._on_wait = holder, on_wait
        self._workers_folder, self._driver = str(workers_folder), driver
        self._workers: dict[PoolName, list[Any]] = {}
        self._unavailable: set[int] = set()  # workers that did not answer when a stream began
        self._queued_since: float | None = None  # since when the workers wait for resources, and whether that was reported
        self._told = False
        self.notes: list[str] = []  # what happened to workers, for the event log
        self.start()

    def start(self) -> None:
        """Start the workers if they are not running; they come up in the background."""
        if self._workers:
            return
        config = self._config
        self._workers = {"teachers": self._started("teacher", config.workers, config.cpus_per_worker, config.gpus_per_worker)}
        if config.critics is not None:
            own = config.critics
            self._workers["critics"] = self._started("critic", own.workers, own.cpus_per_worker, own.gpus_per_worker)

    def _started(self, name: str, workers: int, cpus: float, gpus: float) -> list[Any]:
        import ray

        remote = ray.remote(Worker).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=self._config.max_restarts,
            max_task_retries=0,
            max_concurrency=self._config.parts_in_flight or PARTS_IN_FLIGHT,
            scheduling_strategy="DEFAULT" if gpus else "SPREAD",
        )
        arguments = (self._config.threads(), self._keep, self._workers_folder, self._driver, self._local_models, self._holder)
        return [remote.remote(f"{name}-{index}", *arguments) for index in range(workers)]

    def stream(self, lanes: Sequence[Lane]) -> Generator[PartReport]:
        """Take every part of every lane through its jobs; yield what each job did, as parts finish.

        Raises LimbeckError with the worker's exit message if a job fails or a worker is out of restarts.
        """
        import ray

        attempts = 0
        while True:
            try:
                for report in self._stream(lanes):
                    attempts = 0
                    yield report
                return
            except ray.exceptions.RayError as death:  # a dispatcher or a worker is lost: published parts are skipped next time
                attempts += 1
                if attempts == STREAM_ATTEMPTS:
                    raise LimbeckError(
                        f"Ray Data failed {STREAM_ATTEMPTS} times in a row, last with: {cause_of(death)}; "
                        "rerun the same command to resume"
                    ) from death
                words = f"a node or a dispatcher died ({cause_of(death)})"
                self.notes.append(f"{words}; the stream was restarted with the unpublished parts")

    def _stream(self, lanes: Sequence[Lane]) -> Generator[PartReport]:
        items: list[dict[str, Any]] = [
            {"lane": i, "part": part, "reports": "[]", "error": ""}
            for i, lane in enumerate(lanes)
            for part in lane.parts
            if not _finished(lane.jobs, part)
        ]
        if not items:
            return
        import ray
        import ray.data

        _quiet(ray.data.DataContext.get_current())
        self.start()
        stream = ray.data.from_items(items, override_num_blocks=len(items))
        for pool, workers in self._workers.items():
            chains = [[job for job in lane.jobs if self._pool_of(job) == pool] for lane in lanes]
            at_work = sum(not _finished(chains[item["lane"]], item["part"]) for item in items)
            if at_work:
                stream = self._through(stream, pool, self._answering(workers)[:at_work], chains)
        # without prefetching: iter_rows would hold each part's report back until the next part is done
        batches = stream.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        # closed at once after a failure: Ray's executor is a thread, and one that meets a Ray shut down ends the process
        with contextlib.closing(iter(batches)) as open_batches:
            for batch in open_batches:
                for row in batch.to_pylist():
                    yield from (PartReport(**report) for report in json.loads(row["reports"]))
                    if row["error"]:
                        raise LimbeckError(row["error"])

    def _through(self, stream: Any, pool: PoolName, workers: list[Any], chains: list[list[PartJob]]) -> Any:
        """The stream, going through dispatchers in front of these workers."""
        import ray
        import ray.data

        config = self._config
        batches_across_callers = any(job.concurrent for chain in chains for job in chain)
        in_flight = config.parts_in_flight or (PARTS_IN_FLIGHT if batches_across_callers else 1)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        with warnings.catch_warnings():  # Ray has no other way to bound an actor's restarts, and warns of this one
            warnings.simplefilter("ignore")
            return stream.map(
                Dispatcher,
                fn_constructor_args=(workers, chains, pool, config.stall_seconds),
                compute=ray.data.ActorPoolStrategy(
                    size=len(workers),
                    max_tasks_in_flight_per_actor=in_flight,
                    max_concurrent_calls_per_actor=in_flight,
                    enable_true_multi_threading=True,
                ),
                num_cpus=0,
                scheduling_strategy=here,  # dispatchers are light, and the run ends with this node
                max_restarts=0,
                max_task_retries=0,
            )

    def _answering(self, workers: list[Any]) -> list[Any]:
        """Release the workers once they have finished the calls of an earlier stream; skips and notes those that do not respond.

        Raises LimbeckError if no worker responds.
        """
        import ray

        self._queued_since, self._told = None, False
        began, ready, cause = time.monotonic(), list[Any](), "the cluster has no room, or its nodes are gone; see `ray status`"
        calls = {worker.claim.remote(""): worker for worker in workers}
        while calls and time.monotonic() - began < self._patience_seconds(ready, list(calls.values())):
            if not ready and self._queued(list(calls.values())):
                began = time.monotonic()  # others hold the cluster: they may take as long as they need
            for call in ray.wait(list(calls), timeout=1.0)[0]:
                worker = calls.pop(call)
                try:
                    ray.get(call)
                    ready.append(worker)
                except ray.exceptions.ActorUnavailableError:  # restarting
                    time.sleep(0.2)
                    calls[worker.claim.remote("")] = worker
                except ray.exceptions.ActorDiedError as death:
                    cause = f"{'the only' if len(workers) == 1 else 'the last'} worker died: {cause_of(death)}"
        if not ready:
            raise LimbeckError(f"no worker responded: {cause}; rerun the same command once the cluster is healthy")
        self._unavailable = (self._unavailable | {id(worker) for worker in workers}) - {id(worker) for worker in ready}
        if len(ready) < len(workers):
            gone = f"{len(workers) - len(ready)} of {len(workers)} workers"
            self.notes.append(f"{gone} are unavailable (dead or still starting); continuing with the rest")
        return ready

    def _patience_seconds(self, ready: list[Any], missing: list[Any]) -> float:
        """How long to wait for workers that do not respond: short if they did not before, or if no node has room for them."""
        import ray

        if not ready:
            return START_SECONDS
        total = ray.cluster_resources()
        no_room = total.get("CPU", 0.0) < self._config.cpus or total.get("GPU", 0.0) < self._config.gpus
        no_room = no_room or all(ray_internals.waits_for_resources(worker) for worker in missing)  # others hold it
        return UNAVAILABLE_SECONDS if no_room or {id(worker) for worker in missing} <= self._unavailable else RESTART_SECONDS

    def _queued(self, workers: list[Any]) -> bool:
        """Whether all of these workers wait for resources that others hold; reports it, once per wait."""
        import ray

        total, config = ray.cluster_resources(), self._config
        critics = workers[0] in self._workers.get("critics", []) and config.critics
        each = critics or config
        needed = {"CPU": each.cpus_per_worker, "GPU": each.gpus_per_worker}
        fits = all(total.get(name, 0.0) >= count for name, count in needed.items())  # else a node is lost
        queued = fits and all(ray_internals.waits_for_resources(worker) for worker in workers)
        now = time.monotonic()
        self._queued_since = (self._queued_since or now) if queued else None
        if self._queued_since and not self._told and now - self._queued_since > UNAVAILABLE_SECONDS:
            self._told = True
            has = {name: total[name] for name, count in needed.items() if count}
            self._on_wait(f"waiting for {amounts(needed)} for a worker: others use the cluster ({amounts(has)})")
        return queued

    def _pool_of(self, job: PartJob) -> PoolName:
        return job.pool if job.pool in self._workers else "teachers"

    def close(self) -> None:
        """Stop the workers and release their reservations."""
        import ray

        for worker in [worker for workers in self._workers.values() for worker in workers]:
            ray.kill(worker, no_restart=True)
        self._workers = {}


def _finished(jobs: Sequence[PartJob], part: str) -> bool:
    return all(job.finished(part) for job in jobs)


def _quiet(context: Any) -> None:
    import logging

    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the error that ends a stream is also raised
