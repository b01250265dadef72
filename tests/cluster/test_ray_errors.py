"""Errors that Ray wraps, made by real tasks, actors, streams and trainings, are reported by their cause."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.clusters import ray_cluster
from helpers.dispatcher_jobs import NotingJob, pool_of, streamed
from limbeck.cluster.ray_errors import LONGEST, cause_of, one_line
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.cluster.training import Placement, fit
from limbeck.cluster.workers.pool import WorkerPool
from limbeck.corpus.errors import LimbeckError


@pytest.fixture(scope="module", autouse=True)
def cluster(ray_address: str) -> Iterator[None]:
    with connected(ClusterConfig(address=ray_address)):
        yield


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def breaks() -> None:
    raise ValueError("the real\n\n   cause: of it")


def breaks_below() -> None:
    import ray

    ray.get(ray.remote(num_cpus=0)(breaks).remote())


def breaks_with_a_cause() -> None:
    try:
        _ = dict[str, str]()["no such key"]
    except KeyError as error:
        raise RuntimeError("the index is broken") from error


def refuses() -> None:
    raise LimbeckError("the folder is full; free some space")


def breaks_unpicklably() -> None:
    raise Unpicklable("cannot be", "sent")


def breaks_in_a_group() -> None:
    raise ExceptionGroup("several", [OSError(28, "No space left on device"), ValueError("later")])


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Broken:
    """Fails as an actor of a stream: when it starts, or on its row."""

    def __init__(self, start: str) -> None:
        if start:
            raise ValueError(start)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"item": json.loads(row["item"])}


def failed(call: Callable[[], object]) -> str:
    with pytest.raises(Exception) as failure:
        call()
    return cause_of(failure.value)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (breaks, "ValueError: the real cause: of it"),
        (breaks_below, "ValueError: the real cause: of it"),
        (breaks_with_a_cause, "RuntimeError: the index is broken"),
        (refuses, "the folder is full; free some space"),
        (breaks_unpicklably, "Unpicklable: cannot be sent"),
        (breaks_in_a_group, "OSError: [Errno 28] No space left on device"),
    ],
    ids=lambda value: getattr(value, "__name__", "words"),
)
def test_a_task(task: Callable[[], None], words: str) -> None:
    import ray

    assert failed(lambda: ray.get(ray.remote(num_cpus=0)(task).remote())) == words


def test_a_process_that_is_killed_has_ray_s_words() -> None:
    import ray

    words = failed(lambda: ray.get(ray.remote(num_cpus=0, max_retries=0)(is_killed).remote()))
    assert "SIGKILL" in words or "unexpected" in words, words
    assert len(words) <= LONGEST


def test_an_actor_that_cannot_start() -> None:
    import ray

    actor = ray.remote(num_cpus=0)(Broken).remote("no such model; set teacher.model")
    assert failed(lambda: ray.get(actor.__call__.remote({}))) == "ValueError: no such model; set teacher.model"


@pytest.mark.parametrize(
    ("start", "words"),
    [("cannot start here", "ValueError: cannot start here"), ("", "JSONDecodeError: Expecting value: line 1 column 1 (char 0)")],
)
def test_a_stream_of_ray_data(start: str, words: str) -> None:
    import ray.data

    def stream() -> None:
        pool = ray.data.ActorPoolStrategy(size=1)
        ray.data.from_items(["not json"]).map(Broken, fn_constructor_args=(start,), compute=pool, num_cpus=0).take_all()

    assert failed(stream) == words


def test_a_stage_that_fails_says_its_cause_alone(tmp_path: Path) -> None:
    """Not the advice that Ray Data puts after it."""
    job = NotingJob(tmp_path, victim=("part-00000", None), fault="raise", seconds=0.0)
    with pool_of(tmp_path) as pool, pytest.raises(LimbeckError) as failure:
        streamed(pool, [job], parts=1)
    assert str(failure.value) == "stage failed on part-00000: KeyError: 'a token that no vocabulary has'"


def test_workers_that_cannot_start_say_why(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the workers' logs should be")
    config = ClusterConfig(cpus_per_worker=0.1, workers=2, max_restarts=0)
    (tmp_path / "run.lock").write_text(json.dumps({"driver": "me"}))
    pool = WorkerPool(config, tmp_path / "workers", "me")
    try:
        with pytest.raises(LimbeckError, match="no worker responded: the last worker died: FileExistsError: .*logs"):
            streamed(pool, [NotingJob(tmp_path)], parts=1)
    finally:
        pool.close()


@pytest.mark.slow
def test_a_training_that_fails(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="^training failed after 1 attempt: ValueError: the real cause: of it; fix the cause"):
        fit(_breaks, {}, 1, Placement(max_failures=0), tmp_path)


def _breaks(config: dict[str, Any]) -> dict[str, Any]:
    breaks()
    return {}


def test_the_rank_that_failed_by_itself_is_reported() -> None:
    class Failure(Exception):
        worker_failures = {0: RuntimeError("gloo: Connection closed by peer [127.0.0.1]"), 1: ValueError("x\nno such layer")}

    assert cause_of(Failure()) == "ValueError: x no such layer"
    assert cause_of(RuntimeError("")) == "RuntimeError"


def test_a_long_message_keeps_both_ends() -> None:
    words = one_line(f"begins here {'x ' * 1000} ends here")
    assert words.startswith("begins here") and words.endswith("ends here") and len(words) == LONGEST


@pytest.mark.slow
def test_a_cluster_that_goes_away_is_said_in_one_line() -> None:
    """Errors of Ray itself, without an exception behind them."""
    import ray

    with ray_cluster({"num_cpus": 1}, {"num_cpus": 0, "resources": {"there": 1}}) as cluster:
        ray.shutdown()
        with connected(ClusterConfig(address=cluster.address)):
            actor = ray.remote(num_cpus=0, resources={"there": 1})(Broken).remote("")
            assert ray.get(actor.__call__.remote({"item": "1"})) == {"item": 1}
            os.kill(cluster.raylets[1], signal.SIGKILL)
            words = ""
            deadline = time.monotonic() + 60
            while not words and time.monotonic() < deadline:
                try:
                    ray.get(actor.__call__.remote({"item": "1"}))
                except ray.exceptions.RayError as error:
                    words = cause_of(error)
    assert words and "\n" not in words and len(words) <= LONGEST
