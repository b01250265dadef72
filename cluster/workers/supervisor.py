"""Calls to a worker from several threads: its death is noticed by all of them, and mended by one."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.protocol import EngineDied, ServerGone
from limbeck.cluster.workers.worker import PartJob
from limbeck.corpus.errors import LimbeckError, last_line

STARTS_WITHOUT_SUCCESS = 3
RESTART_SECONDS = 120.0  # a worker's start imports its stack, and loads no model
POLL_SECONDS = 5.0


class WorkerDied(Exception):
    """A worker's process ended while it worked; it is up again by now, or another thread sees to that.

    `first`: no other call was told of this death before. `alone`: no other call was under way then.
    """

    def __init__(self, words: str, first: bool = True, alone: bool = True) -> None:
        """Keep the worker's last words."""
        super().__init__(words)
        self.first, self.alone = first, alone


class WorkerLost(Exception):
    """A worker's process ended, and no other is started in its place: its node is gone, and there is no room elsewhere."""


class JobRaised(LimbeckError):
    """A job raised an error of its own, and its worker lives; `words` are the error's."""

    def __init__(self, sentence: str, words: str) -> None:
        """Keep the error's words beside the sentence that the run ends with if no row is at fault."""
        super().__init__(sentence)
        self.words = words


class OwnedWorker:
    """A worker that only one gate calls; Ray starts it again where it dies."""

    def __init__(self, workers: list[Any], stall_seconds: float) -> None:
        """Claim the first that is free."""
        import ray

        self._stall_seconds = stall_seconds
        self._me = ray.get_runtime_context().get_actor_id() or str(os.getpid())
        self._worker = next(worker for worker in workers if ray.get(worker.claim.remote(self._me)))
        self._beat = Path(ray.get(self._worker.claim.remote(self._me)))
        self._changed = threading.Condition()
        self._life = 0  # counts the worker's processes
        self._last_words: dict[int, tuple[str, bool]] = {}  # life → how it ended, and whether one call alone was under way then
        self._killed: Path | None = None  # the heartbeat of a process that was ended from here, and may answer a moment longer
        self._under_way, self._mending = 0, False
        self._gone: set[int] = set()  # lives that ended for want of a server, since a call was last answered
        self._over: LimbeckError | WorkerLost | None = None  # why it will not start again

    def call(self, method: str, job: PartJob, part: str, *rows: int) -> Any:
        """Call the worker; its death is WorkerDied, any error of its own and its last death a LimbeckError.

        The first call that is told of a death returns once the worker is up again with what its job takes: one sent too early
        would blame an innocent row. No other is sent before that.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._mending)
            if self._over:
                raise self._over
            life = self._life
            self._under_way += 1
        try:
            return self._ask(life, method, job, part, *rows)
        except WorkerDied as death:
            raise self._mend(life, str(death), job, part) from death
        finally:
            with self._changed:
                self._under_way -= 1

    def _mend(self, life: int, words: str, job: PartJob, part: str) -> WorkerDied:
        """Start the worker again, unless another call sees to that; returns the death as this call is to know it."""
        with self._changed:
            words, alone = self._last_words.setdefault(life, (words, self._under_way == 1))
            if life != self._life or self._mending or self._over:
                return WorkerDied(words, first=False, alone=False)
            self._mending = True
        try:
            self._revive(job, part, words)
            return WorkerDied(words, first=True, alone=alone)
        except (LimbeckError, WorkerLost) as error:
            self._over = error
            raise
        finally:
            with self._changed:
                self._mending = False
                self._changed.notify_all()

    def _revive(self, job: PartJob, part: str, words: str) -> None:
        """Return once the worker, whose last words were `words`, is up again with what the job takes.

        Raises LimbeckError where Ray gives it up or where it dies each time it loads its models, WorkerLost where it stays away.
        """
        for _ in range(STARTS_WITHOUT_SUCCESS):
            self._await_restart(job.stage, part, words)
            with self._changed:
                self._life += 1
            try:
                self._ask(self._life, "warm", job)
                return
            except WorkerDied as death:
                words = str(death)
        raise LimbeckError(
            f"the worker of {job.stage} died {STARTS_WITHOUT_SUCCESS} times while it loaded its models, at last: {words}; its "
            "log lies in the run's logs/"
        )

    def _ask(self, life: int, method: str, job: PartJob, *arguments: Any) -> Any:
        import ray

        try:
            answer = self._answer(life, getattr(self._worker, method).remote(job, *arguments))
            if method != "warm":
                self._gone.clear()
            return answer
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as death:
            memory = isinstance(death, ray.exceptions.OutOfMemoryError)
            raise WorkerDied(
                "Ray ended it, as the machine ran low on memory" if memory else "it was killed or crashed"
            ) from death
        except ray.exceptions.RayTaskError as failure:
            cause = failure.cause
            if isinstance(cause, LimbeckError):
                raise cause from failure
            if isinstance(cause, ServerGone):
                self._count_gone(life, job.stage, cause)
            if isinstance(cause, EngineDied):
                raise self._end(life, f"its engine ended: {cause}") from failure
            where = f" on {arguments[0]}" if arguments else ""
            raise JobRaised(f"{job.stage} failed{where}: {last_line(failure)}", last_line(failure)) from failure

    def _count_gone(self, life: int, stage: str, cause: ServerGone) -> None:
        """Raise LimbeckError, from now on for every call, where the server was gone so often without an answer in between."""
        with self._changed:
            self._gone.add(life)
            if len(self._gone) >= STARTS_WITHOUT_SUCCESS:
                self._over = self._over or LimbeckError(
                    f"the engine of {stage} was started {STARTS_WITHOUT_SUCCESS} times, and its server answered nothing, at "
                    f"last: {cause}; the same command goes on once it is back"
                )
                raise self._over

    def _answer(self, life: int, call: Any) -> Any:
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
                raise self._end(life, f"it computed nothing for {self._stall_seconds:.0f} s and was ended")

    def _end(self, life: int, words: str) -> WorkerDied:
        """End the worker's process, unless that life of it is over already."""
        import ray

        with self._changed:
            if life == self._life and life not in self._last_words:
                self._last_words[life] = (words, self._under_way == 1)
                self._killed = self._beat
                ray.kill(self._worker, no_restart=False)
        return WorkerDied(words)

    def _await_restart(self, stage: str, part: str, words: str) -> None:
        """Return once the worker answers again; raises WorkerLost where it does not, LimbeckError where Ray gives it up."""
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
                    f"a worker died more often than cluster.max_restarts allows, at last on {stage} {part}: {words} "
                    f"({' '.join(str(death).split())[:200]})"
                ) from death
            time.sleep(0.2)
        raise WorkerLost(f"a worker died on {stage} {part} and was not up again after {RESTART_SECONDS:.0f} s")
