"""The server processes: uvicorn with limits on connections, and workers that are restarted at growing intervals."""

import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.open_files import allow_open_files
from limbeck.infinigram.service.app import ServiceConfig, assemble, make_app
from limbeck.infinigram.service.connections import Connections, LimitedProtocol
from limbeck.infinigram.service.limits import Application
from limbeck.infinigram.service.served import Serving

_VARIABLE = "LIMBECK_NGRAM_SERVICE"  # passes the configuration to workers
_SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the folder of all workers: metrics, and notices of damaged indexes
_SWITCH_SECONDS = 0.0005  # longest time that a thread may keep the GIL from short queries
_LONGEST_PAUSE_SECONDS = 60.0
_LOOK_SECONDS = 0.5  # the supervisor looks at its workers this often
_START_LOOKS = 240  # without any answer from a worker that starts: imports and opening indexes take long on a busy machine
_ANSWER_LOOKS = 120  # without an answer from a worker that has answered
_log = logging.getLogger("limbeck.ngram")


def from_environment() -> Application:
    """Create the application of one worker process. An index that cannot be opened is out of service; the others are served."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = ServiceConfig.from_json(os.environ[_VARIABLE])
    LimitedProtocol.registry = Connections(config.limits)
    return assemble(config, Serving(config.indexes, config.limits, Path(os.environ[_SHARED])))


def serve(config: ServiceConfig, host: str, port: int, workers: int, ready: Callable[[str], None]) -> None:
    """Serve until stopped; `ready` is called with the address once the indexes are open. Workers share a metrics folder.

    Raises BadIndex if an index cannot be opened or too few files may be open, and BadQuery if the address cannot be bound.
    """
    _check_port(host, port)
    connections = config.limits.connections
    allow_open_files(connections, f"serving {connections:,} connections", "lower --max-connections")
    with contextlib.ExitStack() as stack:
        if workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="limbeck-workers-"))
            os.environ[_SHARED] = folder
            serving = Serving(config.indexes, config.limits)  # report what cannot be opened once, here
            serving.require_all()
            serving.close()
            del serving
        os.environ[_VARIABLE] = config.to_json()
        sys.setswitchinterval(_SWITCH_SECONDS)
        LimitedProtocol.registry = Connections(config.limits)
        target: Any = f"{__name__}:from_environment" if workers > 1 else make_app(config)
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        settings = uvicorn.Config(
            target,
            factory=workers > 1,
            host=host,
            port=port,
            workers=workers,
            http=LimitedProtocol,
            timeout_keep_alive=config.limits.idle_seconds,  # type: ignore[arg-type]  # passed to loop.call_later
            access_log=False,
            log_level="error",
            lifespan="off",
            server_header=False,
            date_header=False,
            backlog=2048,
            timeout_graceful_shutdown=5,
            timeout_worker_healthcheck=int(_START_LOOKS * _LOOK_SECONDS),  # for replacements on SIGHUP
        )
        if workers > 1:
            Supervisor(settings, sockets=[settings.bind_socket()]).run()
        else:
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(settings).run()


class Patience:
    """How long a worker has not answered, counted in looks: none pass while the supervisor itself is stopped or starved."""

    def __init__(self) -> None:
        self._answered = False
        self._asked = False
        self._silent = 0

    @property
    def seconds(self) -> float:
        """Seconds without an answer."""
        return self._silent * _LOOK_SECONDS

    def ends(self, worker: Process) -> bool:
        """Look at a worker that runs, without waiting for it; whether it has been silent for too long."""
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            while worker.parent_conn.poll():
                worker.parent_conn.recv()
                self._answered, self._asked, self._silent = True, False, 0
            if not self._asked:
                self._asked = True
                worker.parent_conn.send(b"ping")
        self._silent += 1
        return self._silent >= (_ANSWER_LOOKS if self._answered else _START_LOOKS)


class Stopping(threading.Event):
    """Set, or a signal to stop waits in the queue: the base class reads it only after replacements (SIGHUP) are ready."""

    def __init__(self, signals: list[int]) -> None:
        super().__init__()
        self._signals = signals

    def is_set(self) -> bool:
        """Whether the service is to stop."""
        return super().is_set() or any(number in self._signals for number in (signal.SIGINT, signal.SIGTERM))


class Supervisor(Multiprocess):
    """Restarts lost workers: at once the first time, then after pauses that double up to a minute while workers are lost."""

    _pause_seconds = 0.0
    _next_restart = 0.0

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.should_exit = Stopping(self.signal_queue)
        self._patience: dict[Process, Patience] = {}

    def keep_subprocess_alive(self) -> None:
        """Called twice per second; unlike the base class's, it waits for no worker, so that signals are handled meanwhile."""
        if self.should_exit.is_set():
            return
        now = time.monotonic()
        self._patience = {worker: self._patience.get(worker) or Patience() for worker in self.processes}
        lost = {worker: words for worker in self.processes if (words := self._loss(worker)) is not None}
        if not lost:
            if now > self._next_restart + 2 * self._pause_seconds:
                self._pause_seconds = 0.0
        elif now >= self._next_restart:
            self._replace(lost, now)

    def _loss(self, worker: Process) -> str | None:
        """How a worker was lost, in words; None if it runs."""
        if not worker.process.is_alive():
            return f"worker {worker.pid} died (exit code {worker.exitcode})"
        patience = self._patience[worker]
        return f"worker {worker.pid} did not answer for {patience.seconds:g} s and was killed" if patience.ends(worker) else None

    def _replace(self, lost: dict[Process, str], now: float) -> None:
        for worker in lost:
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:  # another would fail in the same way
                _log.error("worker %s could not start the server; the service stops", worker.pid)
                self.should_exit.set()
                return
            self.processes[self.processes.index(worker)] = replacement = Process(self.config, self.sockets)
            replacement.start()
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(1.0, 2 * self._pause_seconds))
        self._next_restart = now + self._pause_seconds
        for words in lost.values():
            _log.error("%s; it is restarted, and the next restart is possible in %g s", words, self._pause_seconds)


def _check_port(host: str, port: int) -> None:
    """Raise BadQuery if the address cannot be bound: the server itself would only log and exit."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadQuery(f"cannot listen on {host}:{port} ({error.strerror or error}); choose another port or host") from error
