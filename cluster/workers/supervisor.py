"""Thread-safe calls to one worker; when it dies, all callers see the error and one of them restarts it."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.protocol import EngineDied, ServerGone
from limbeck.cluster.ray_errors import cause_of
from limbeck.cluster.workers.worker import PartJob
from limbeck.corpus.errors import LimbeckError

STARTS_WITHOUT_SUCCESS = 3
RESTART_SECONDS = 120.0  # a starting worker imports its stack, and loads no model
POLL_SECONDS = 5.0


class WorkerDied(Exception):
    """A worker's process died while it worked; it has been restarted by now, or another thread is restarting it.

    `first`: this call is the first to report this death. `alone`: no other call was in flight.
    """

    def __init__(self, words: str, first: bool = True, alone: bool = True) -> None:
        """Store the exit message."""
        super().__init__(words)
        self.first, self.alone = first, alone


class WorkerLost(Exception):
    """A worker died and was not restarted: its node is gone, and no other node has room."""


class JobRaised(LimbeckError):
    """A job raised an error and its worker is alive; `words` is the error's own message."""

    def __init__(self, sentence: str, words: str) -> None:
        """Store the error's own message beside the sentence that the run ends with if no row is at fault."""
        super().__init__(sentence)
        self.words = words


class WorkerSupervisor:
    """The handle of one dispatcher on its worker, which Ray restarts when it dies."""

    def __init__(self, workers: list[Any], stall_seconds: float) -> None:
        """Claim the first free worker."""
        import ray

        self._stall_seconds = stall_seconds
        self._me = ray.get_runtime_context().get_actor_id() or str(os.getpid())
        self._worker = next(worker for worker in workers if ray.get(worker.claim.remote(self._me)))
        self._beat = Path(ray.get(self._worker.claim.remote(self._me)))
        self._changed = threading.Condition()
        self._incarnation = 0  # counts the worker's processes
        self._exits: dict[int, tuple[str, bool]] = {}  # incarnation → exit message, and whether one call alone was in flight
        self._killed: Path | None = None  # heartbeat file of a process that was killed here; it may still answer for a moment
        self._in_flight, self._recovering = 0, False
        self._without_server: set[int] = set()  # incarnations that lost their server, since the last successful call
        self._over: LimbeckError | WorkerLost | None = None  # why it will not be restarted

    def call(self, method: str, job: PartJob, part: str, *rows: int) -> Any:
        """Call the worker; raises WorkerDied when it dies, and LimbeckError for any other error and when it is out of restarts.

        The first call that sees a death returns once the worker has been restarted and has loaded what the job needs: a call sent
        earlier would blame an innocent row. No other call is sent before that.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._recovering)
            if self._over:
                raise self._over
            incarnation = self._incarnation
            self._in_flight += 1
        try:
            return self._ask(incarnation, method, job, part, *rows)
        except WorkerDied as death:
            raise self._recover(incarnation, str(death), job, part) from death
        finally:
            with self._changed:
                self._in_flight -= 1

    def _recover(self, incarnation: int, words: str, job: PartJob, part: str) -> WorkerDied:
        """Restart the worker, unless another call is doing so; returns the error for this call to raise."""
        with self._changed:
            words, alone = self._exits.setdefault(incarnation, (words, self._in_flight == 1))
            if incarnation != self._incarnation or self._recovering or self._over:
                return WorkerDied(words, first=False, alone=False)
            self._recovering = True
        try:
            self._restart(job, part, words)
            return WorkerDied(words, first=True, alone=alone)
        except (LimbeckError, WorkerLost) as error:
            self._over = error
            raise
        finally:
            with self._changed:
                self._recovering = False
                self._changed.notify_all()

    def _restart(self, job: PartJob, part: str, words: str) -> None:
        """Return once the worker, whose exit message was `words`, has restarted and has loaded what the job needs.

        Raises LimbeckError if Ray gives it up or if it dies each time it loads its models, WorkerLost if it does not come back.
        """
        for _ in range(STARTS_WITHOUT_SUCCESS):
            self._await_restart(job.stage, part, words)
            with self._changed:
                self._incarnation += 1
            try:
                self._ask(self._incarnation, "warm", job)
                return
            except WorkerDied as death:
                words = str(death)
        raise LimbeckError(
            f"the worker of {job.stage} died {STARTS_WITHOUT_SUCCESS} times while it loaded its models, last with: {words}; its "
            "log is in the run's logs/"
        )

    def _ask(self, incarnation: int, method: str, job: PartJob, *arguments: Any) -> Any:
        import ray

        try:
            answer = self._answer(incarnation, getattr(self._worker, method).remote(job, *arguments))
            if method != "warm":
                self._without_server.clear()
            return answer
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as death:
            known = isinstance(death, ray.exceptions.OutOfMemoryError) or death.actor_init_failed
            raise WorkerDied(cause_of(death) if known else "it was killed or crashed") from death
        except ray.exceptions.RayTaskError as failure:
            cause = failure.cause
            if isinstance(cause, LimbeckError):
                raise cause from failure
            if isinstance(cause, ServerGone):
                self._count_without_server(incarnation, job.stage, cause)
            if isinstance(cause, EngineDied):
                raise self._end(incarnation, f"its engine exited: {cause}") from failure
            where = f" on {arguments[0]}" if arguments else ""
            raise JobRaised(f"{job.stage} failed{where}: {cause_of(failure)}", cause_of(failure)) from failure

    def _count_without_server(self, incarnation: int, stage: str, cause: ServerGone) -> None:
        """Raise LimbeckError, from now on for every call, if the server was unreachable several times in a row."""
        with self._changed:
            self._without_server.add(incarnation)
            if len(self._without_server) >= STARTS_WITHOUT_SUCCESS:
                self._over = self._over or LimbeckError(
                    f"the engine of {stage} was started {STARTS_WITHOUT_SUCCESS} times, but its server did not respond, "
                    f"last with: {cause}; rerun the same command once it is back"
                )
                raise self._over

    def _answer(self, incarnation: int, call: Any) -> Any:
        """Wait for a call while the worker makes progress; kill the worker if it stalls."""
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
                raise self._end(incarnation, f"it made no progress for {self._stall_seconds:.0f} s and was killed")

    def _end(self, incarnation: int, words: str) -> WorkerDied:
        """Kill the worker's process, unless that incarnation has exited already."""
        import ray

        with self._changed:
            if incarnation == self._incarnation and incarnation not in self._exits:
                self._exits[incarnation] = (words, self._in_flight == 1)
                self._killed = self._beat
                ray.kill(self._worker, no_restart=False)
        return WorkerDied(words)

    def _await_restart(self, stage: str, part: str, words: str) -> None:
        """Return once the worker answers again; raises WorkerLost if it does not, LimbeckError if Ray gives it up."""
        import ray

        deadline = time.monotonic() + RESTART_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                beat = Path(ray.get(self._worker.claim.remote(self._me), timeout=left))
                if beat != self._killed:
                    self._beat = beat
                    return
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
                pass
            except ray.exceptions.ActorDiedError as death:
                raise LimbeckError(
                    f"a worker died more often than cluster.max_restarts allows, last on {stage} {part}: {words} "
                    f"({cause_of(death)}); see its log in the run's logs/, fix the cause and rerun to resume"
                ) from death
            time.sleep(0.2)
        raise WorkerLost(f"a worker died on {stage} {part} and did not restart within {RESTART_SECONDS:.0f} s")
