"""Who may compute on a worker at a moment, and how its seconds are shared out."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Turns:
    """Turns on one worker: jobs side by side, those that exclude each other one after the other, or one job alone."""

    def __init__(self) -> None:
        """Everybody may."""
        self._changed = threading.Condition()
        self._running, self._one_runs = 0, False
        self._wait_to_be_alone, self._alone = 0, False

    @contextlib.contextmanager
    def beside_others(self, concurrent: bool) -> Iterator[None]:
        """Wait for a turn beside others; of those that are not `concurrent` only one has it."""
        with self._changed:
            self._changed.wait_for(lambda: self._free() and (concurrent or not self._one_runs))
            self._running += 1
            self._one_runs = self._one_runs or not concurrent
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._one_runs = self._one_runs and concurrent
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nothing else runs; whoever waits for this goes before those who do not need it."""
        with self._changed:
            self._wait_to_be_alone += 1
            self._changed.wait_for(lambda: not self._running and not self._alone)
            self._wait_to_be_alone -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _free(self) -> bool:
        return not self._alone and not self._wait_to_be_alone


class SharedSeconds:
    """A clock whose seconds are divided evenly among those who run at the moment: shares add up to the time in which any ran."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody runs."""
        self._clock, self._lock = clock, threading.Lock()
        self._running, self._each, self._since = 0, 0.0, clock()

    def enter(self) -> float:
        """Begin to run; returns what `leave` wants."""
        with self._lock:
            self._advance()
            self._running += 1
            return self._each

    def leave(self, entered: float) -> float:
        """End; returns one's share in seconds."""
        with self._lock:
            self._advance()
            self._running -= 1
            return self._each - entered

    def _advance(self) -> None:
        now = self._clock()
        if self._running:
            self._each += (now - self._since) / self._running  # what each of those who run has got since the first began
        self._since = now
