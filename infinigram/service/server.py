"""The server processes: uvicorn with limits on connections, and workers that are restarted at growing intervals."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.open_files import allow_open_files
from limbeck.infinigram.service.app import ServiceConfig, assemble, make_app
from limbeck.infinigram.service.connections import Connections, LimitedProtocol
from limbeck.infinigram.service.limits import Application
from limbeck.infinigram.service.served import Serving

_VARIABLE = "LIMBECK_NGRAM_SERVICE"  # passes the configuration to workers
_SWITCH_SECONDS = 0.0005  # longest time that a thread may keep the GIL from short queries
_LONGEST_PAUSE_SECONDS = 60.0
_log = logging.getLogger("limbeck.ngram")


def from_environment() -> Application:
    """Create the application of one worker process. An index that cannot be opened is out of service; the others are served."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = ServiceConfig.from_json(os.environ[_VARIABLE])
    LimitedProtocol.registry = Connections(config.limits)
    return assemble(config, Serving(config.indexes, config.limits))


def serve(config: ServiceConfig, host: str, port: int, workers: int, ready: Callable[[str], None]) -> None:
    """Serve until stopped; `ready` is called with the address once the indexes are open. Workers share a metrics folder.

    Raises BadIndex if an index cannot be opened or too few files may be open, and BadQuery if the address cannot be bound.
    """
    _check_port(host, port)
    connections = config.limits.connections
    allow_open_files(connections, f"serving {connections:,} connections", "lower --max-connections")
    with contextlib.ExitStack() as stack:
        if workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="limbeck-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
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
        )
        if workers > 1:
            Supervisor(settings, sockets=[settings.bind_socket()]).run()
        else:
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(settings).run()


class Supervisor(Multiprocess):
    """Restarts dead workers: at once the first time, then after pauses that double up to a minute while workers keep dying."""

    _pause_seconds = 0.0
    _next_look = 0.0

    def keep_subprocess_alive(self) -> None:
        """Called twice per second."""
        now = time.monotonic()
        if now < self._next_look:
            return
        before = list(self.processes)
        super().keep_subprocess_alive()
        died = [old for old, new in zip(before, self.processes, strict=True) if old is not new]
        if died:
            self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(1.0, 2 * self._pause_seconds))
            self._next_look = now + self._pause_seconds
            codes = ", ".join(str(process.exitcode) for process in died)
            words = "workers died (exit codes %s) and were restarted; the next restart is possible in %g s"
            _log.error(words, codes, self._pause_seconds)
        elif now > self._next_look + 2 * self._pause_seconds:
            self._pause_seconds = 0.0


def _check_port(host: str, port: int) -> None:
    """Raise BadQuery if the address cannot be bound: the server itself would only log and exit."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadQuery(f"cannot listen on {host}:{port} ({error.strerror or error}); choose another port or host") from error
