"""Ray Train around a training loop: places the workers, retries a bounded number of times, and fails with one clear sentence."""

import contextlib
import importlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.cluster import ray_internals
from limbeck.cluster.ray_errors import cause_of
from limbeck.cluster.session import amounts
from limbeck.corpus.errors import LimbeckError

POLL_SECONDS = 0.2
QUEUE_GRACE_SECONDS = 3.0  # for a reservation to be granted before the run's own workers are stopped, or a wait is reported
QUEUE_SECONDS = 1_000_000  # for others to release the cluster; Ray's own default is 60
LOST_NODE_SECONDS = 60.0  # for a lost node to return, if without it the reservation can never be granted
Loop = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Placement:
    """Reservation of each training worker, maximum restarts of a dead worker group, its driver, and how the run makes room.

    `give_back` stops the run's own workers; it is called once the trainers' reservation is queued, so that no other run can take
    what becomes free: at once if trainers run `after_workers`, otherwise if the cluster has no room for both. `on_wait` is called
    with what the training waits for.
    """

    cpus_per_worker: float = 1.0
    use_gpu: bool = False
    threads_per_worker: int | None = None  # None: the machine's cores divided by the workers
    max_failures: int = 2
    workers_folder: Path | None = None  # folder for the workers' heartbeats; None: no heartbeats
    driver: str = ""
    after_workers: bool = False
    give_back: Callable[[], None] = lambda: None
    on_wait: Callable[[str], None] = lambda words: None

    def sent(self) -> "Placement":
        """What the training workers get: the functions stay with the driver."""
        return replace(self, give_back=_nothing, on_wait=_nothing)

    def resources(self, workers: int) -> dict[str, float]:
        """What all of them reserve."""
        return {"CPU": workers * self.cpus_per_worker, "GPU": float(workers * self.use_gpu)}


def _nothing(*_: object) -> None:
    """Nothing to do on a training worker."""


def fit(loop: Loop, config: dict[str, Any], workers: int, placement: Placement, storage: Path) -> dict[str, Any]:
    """Run `loop(config)` on `workers` processes that form one torch process group, and return the result of rank 0.

    `loop` must be importable by the workers and find its own last checkpoint, because a group with a dead process is restarted,
    at most `max_failures` times. If other runs hold the cluster, waits for them. A LimbeckError raised by the loop is re-raised
    unchanged and never retried. Other failures raise LimbeckError with their cause. Ray must be connected; `storage` is a folder
    that all nodes see.
    """
    import ray
    from ray.train import TrainingFailedError

    failures = (TrainingFailedError, ray.exceptions.RayError)  # of a worker, or of Ray's controller
    assert ray.is_initialized(), "connect to Ray first"
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it would print stdout that libraries capture
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # delay until Ray sees a training end; default 2 s
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(QUEUE_SECONDS))
    storage.mkdir(parents=True, exist_ok=True)
    wrapped = {"loop": loop, "config": config, "placement": placement, "workers": workers}
    for attempt in range(1, placement.max_failures + 2):
        held = _reservations().keys()
        try:
            outcome = _fit_once(wrapped, storage)
        except failures as error:
            _release(_reservations().keys() - held)
            if attempt > placement.max_failures:
                attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                words = f"training failed after {attempts}: {cause_of(error)}"
                raise LimbeckError(f"{words}; fix the cause and rerun the same command to resume") from error
            continue
        if "refusal" in outcome:
            raise LimbeckError(outcome["refusal"])
        return dict(outcome["result"])
    raise AssertionError("the last attempt returns or raises")


def _fit_once(wrapped: dict[str, Any], storage: Path) -> dict[str, Any]:
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    placement: Placement = wrapped["placement"]
    resources = {name: count for name, count in placement.resources(1).items() if count or name == "CPU"}
    name = f"ray-{uuid.uuid4().hex}"
    room = storage / name / "room"
    room.parent.mkdir()
    trainer = TorchTrainer(
        _guarded,
        train_loop_config={**wrapped, "placement": placement.sent(), "room": room.resolve()},
        torch_config=TorchConfig(timeout_s=7200),
        scaling_config=ScalingConfig(num_workers=wrapped["workers"], use_gpu=placement.use_gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            # `fit` retries itself: Ray gives up at once if a worker dies while the loop starts
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    queue = Queue(placement, wrapped["workers"], _reservations().keys(), room)
    # Ray replaces the handler of Ctrl-C in the main thread by one that waits for its controller, which waits for the reservation
    training = Background(lambda: dict(trainer.fit().return_value))
    try:
        while not training.wait(POLL_SECONDS):
            queue.look()
        return training.result()
    finally:
        if not training.wait(0.0):  # interrupted, or refused: without a reservation, nothing of it starts any more
            with contextlib.suppress(ray.exceptions.RayError):  # the cluster is gone, too
                _release(queue.reserved().keys())
        shutil.rmtree(storage / name, ignore_errors=True)


class Background:
    """A function that runs in a thread of its own."""

    def __init__(self, function: Callable[[], dict[str, Any]]) -> None:
        self._result: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most this long; returns whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> dict[str, Any]:
        """Its result; raises its error."""
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def _run(self, function: Callable[[], dict[str, Any]]) -> None:
        try:
            self._result = function()
        except BaseException as error:
            self._error = error


class Queue:
    """The place of a training in the cluster's queue: its reservation, which Ray grants in the order of requests."""

    def __init__(self, placement: Placement, workers: int, others: Set[str], room: Path) -> None:
        """`others`: this driver's reservations before; `room` is created once the training workers may start."""
        self._placement, self._needed, self._others, self._room = placement, placement.resources(workers), others, room
        self._since: float | None = None
        self._gave_back = self._told = False

    def reserved(self) -> dict[str, str]:
        """The reservations of this training and their states."""
        return {group: state for group, state in _reservations().items() if group not in self._others}

    def look(self) -> None:
        """Make room if the reservation needs it; raises LimbeckError if the cluster has become too small to ever grant it."""
        states = self.reserved().values()
        if self._room.exists() or not states:
            return
        if self._placement.after_workers and not self._gave_back:
            self._make_room()
        if "PENDING" not in states:
            self._room.touch()
            return
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since < QUEUE_GRACE_SECONDS:
            return
        if not self._gave_back:
            self._make_room()
        else:
            self._wait(now - self._since)

    def _make_room(self) -> None:
        self._gave_back, self._since = True, None
        self._placement.give_back()

    def _wait(self, seconds: float) -> None:
        import ray

        total = ray.cluster_resources()
        needed = {name: count for name, count in self._needed.items() if count}
        has = {name: float(total.get(name, 0)) for name in needed}
        if any(has[name] < count for name, count in needed.items()) and seconds > LOST_NODE_SECONDS:
            raise LimbeckError(
                f"training needs {amounts(needed)}, but the cluster has {amounts(has)} in total; lower student.workers, or "
                "restore the cluster and rerun the same command to resume"
            )
        if not self._told:
            self._told = True
            self._placement.on_wait(f"training waits for {amounts(needed)}: others use the cluster ({amounts(has)})")


def _reservations() -> dict[str, str]:
    """The ids of the placement groups of this driver's job, and their states."""
    import ray

    job = ray.get_runtime_context().get_job_id()  # the last bytes of every id created by a job
    table = ray.util.placement_group_table()
    return {group: entry["state"] for group, entry in table.items() if group.endswith(job) and entry["state"] != "REMOVED"}


def _release(groups: Set[str]) -> None:
    """Release the resources of a failed controller; otherwise the next attempt would wait for them forever."""
    from ray.util.placement_group import remove_placement_group

    for group in groups:
        remove_placement_group(ray_internals.placement_group(group))


def warm_up() -> None:
    """Import in the background what `fit` needs on the driver (including torch), while workers draw and score."""
    threading.Thread(target=importlib.import_module, args=("ray.train.torch",), daemon=True).start()


def _guarded(wrapped: dict[str, Any]) -> dict[str, Any]:
    """Run the loop on a worker; user errors are returned as a value, so that Ray does not retry them."""
    placement: Placement = wrapped["placement"]
    if placement.workers_folder is not None:
        from limbeck.cluster.workers.worker import heartbeat

        beat = (placement.workers_folder, placement.driver, "trainer")
        threading.Thread(target=heartbeat, args=beat, daemon=True).start()
    while not wrapped["room"].exists():  # the run's own workers still hold memory
        time.sleep(0.05)
    if wrapped["workers"] == 1:
        # a single worker needs no distributed wrapper around the model, which these variables would trigger
        for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK"):
            os.environ.pop(variable, None)
    import torch

    # Ray sets OMP_NUM_THREADS to the reserved CPUs, which is unrelated to the number of cores
    torch.set_num_threads(placement.threads_per_worker or max(1, (os.cpu_count() or 1) // wrapped["workers"]))
    try:
        return {"result": wrapped["loop"](wrapped["config"])}
    except LimbeckError as refusal:
        return {"refusal": str(refusal)}
