"""Which calls may compute on a worker at the same time, and how its seconds are divided among them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class ExclusiveLease:
    """A lock on one worker: concurrent jobs share it, serial jobs share it one at a time, and one job may hold it exclusively."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running, self._serial_runs = 0, False
        self._exclusive_waiting, self._exclusive = 0, False

    @contextlib.contextmanager
    def shared(self, concurrent: bool) -> Iterator[None]:
        """Hold the worker together with others; at most one holder is not `concurrent`."""
        with self._changed:
            self._changed.wait_for(lambda: self._free() and (concurrent or not self._serial_runs))
            self._running += 1
            self._serial_runs = self._serial_runs or not concurrent
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._serial_runs = self._serial_runs and concurrent
                self._changed.notify_all()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the worker alone; exclusive waiters take priority over shared ones."""
        with self._changed:
            self._exclusive_waiting += 1
            self._changed.wait_for(lambda: not self._running and not self._exclusive)
            self._exclusive_waiting -= 1
            self._exclusive = True
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()

    def _free(self) -> bool:
        return not self._exclusive and not self._exclusive_waiting


class SharedSeconds:
    """A clock whose seconds are divided evenly among the running calls: the shares add up to the time in which any call ran."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._running, self._each, self._since = 0, 0.0, clock()

    def enter(self) -> float:
        """Start a call; returns the value to pass to `leave`."""
        with self._lock:
            self._advance()
            self._running += 1
            return self._each

    def leave(self, entered: float) -> float:
        """End a call; returns its share in seconds."""
        with self._lock:
            self._advance()
            self._running -= 1
            return self._each - entered

    def _advance(self) -> None:
        now = self._clock()
        if self._running:
            self._each += (now - self._since) / self._running  # the share of a call that has run from the start
        self._since = now
