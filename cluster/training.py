"""Ray Train around a training loop: places the workers, retries a bounded number of times, and fails with one clear sentence."""

import importlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.cluster import ray_internals
from limbeck.corpus.errors import LimbeckError, last_line

Loop = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Placement:
    """Reservation of each training worker, maximum restarts of a dead worker group, and its driver."""

    cpus_per_worker: float = 1.0
    use_gpu: bool = False
    threads_per_worker: int | None = None  # None: the machine's cores divided by the workers
    max_failures: int = 2
    workers_folder: Path | None = None  # folder for the workers' heartbeats; None: no heartbeats
    driver: str = ""


def fit(loop: Loop, config: dict[str, Any], workers: int, placement: Placement, storage: Path) -> dict[str, Any]:
    """Run `loop(config)` on `workers` processes that form one torch process group, and return the result of rank 0.

    `loop` must be importable by the workers and find its own last checkpoint, because a group with a dead process is restarted,
    at most `max_failures` times. A LimbeckError raised by the loop is re-raised unchanged and never retried. Other failures raise
    LimbeckError with their exit message. Ray must be connected; `storage` is a folder that all nodes see.
    """
    import ray
    from ray.train import TrainingFailedError

    failures = (TrainingFailedError, ray.exceptions.RayError)  # of a worker, or of Ray's controller
    assert ray.is_initialized(), "connect to Ray first"
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it would print stdout that libraries capture
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # delay until Ray sees a training end; default 2 s
    storage.mkdir(parents=True, exist_ok=True)
    wrapped = {"loop": loop, "config": config, "placement": placement, "workers": workers}
    for attempt in range(1, placement.max_failures + 2):
        held = _reservations()
        try:
            outcome = _fit_once(wrapped, storage)
        except failures as error:
            _release(_reservations() - held)
            if attempt > placement.max_failures:
                attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                words = f"training failed after {attempts}: {exit_message(error)}"
                raise LimbeckError(f"{words}; fix the cause and rerun the same command to resume") from error
            continue
        if "refusal" in outcome:
            raise LimbeckError(outcome["refusal"])
        return dict(outcome["result"])
    raise AssertionError("the last attempt returns or raises")


def _fit_once(wrapped: dict[str, Any], storage: Path) -> dict[str, Any]:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    placement: Placement = wrapped["placement"]
    resources = {"CPU": placement.cpus_per_worker, **({"GPU": 1.0} if placement.use_gpu else {})}
    name = f"ray-{uuid.uuid4().hex}"
    trainer = TorchTrainer(
        _guarded,
        train_loop_config=wrapped,
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
    try:
        return dict(trainer.fit().return_value)
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)


def _reservations() -> set[str]:
    """The ids of the placement groups of this driver's job."""
    import ray

    job = ray.get_runtime_context().get_job_id()  # the last bytes of every id created by a job
    table = ray.util.placement_group_table()
    return {group for group, entry in table.items() if group.endswith(job) and entry["state"] != "REMOVED"}


def _release(groups: set[str]) -> None:
    """Release the resources of a failed controller; otherwise the next attempt would wait for them forever."""
    from ray.util.placement_group import remove_placement_group

    for group in groups:
        remove_placement_group(ray_internals.placement_group(group))


def warm_up() -> None:
    """Import in the background what `fit` needs on the driver (including torch), while workers draw and score."""
    threading.Thread(target=importlib.import_module, args=("ray.train.torch",), daemon=True).start()


def exit_message(error: BaseException) -> str:
    """The most informative line of a training failure: of the first worker that failed by itself."""
    failures = getattr(error, "worker_failures", None) or {0: getattr(error, "controller_failure", None) or error}
    texts = [last_line(failure) for _, failure in sorted(failures.items())]
    if "low on memory" in str(error):  # Ray reports it in the first line, followed by a page on debugging
        texts = [next(line for line in str(error).splitlines() if "low on memory" in line)[:400]]
    # when one rank dies, the others only report a broken connection
    own = [text for text in texts if "onnection closed by peer" not in text and "onnection reset by peer" not in text]
    return (own or texts)[0]


def _guarded(wrapped: dict[str, Any]) -> dict[str, Any]:
    """Run the loop on a worker; user errors are returned as a value, so that Ray does not retry them."""
    placement: Placement = wrapped["placement"]
    if placement.workers_folder is not None:
        from limbeck.cluster.workers.worker import heartbeat

        beat = (placement.workers_folder, placement.driver, "trainer")
        threading.Thread(target=heartbeat, args=beat, daemon=True).start()
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
