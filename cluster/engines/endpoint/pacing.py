"""Number of requests in flight at a server: additive increase, multiplicative decrease, and pauses requested by the server.

A pure state machine over a clock that the caller passes, after TCP's congestion control (Chiu and Jain, 1989; Jacobson, 1988):
each full window of answers allows one more request, doubling until the first sign of overload; 429, 503, a timeout or a cut
connection shrink the window by `SHRINK`, growing latency by `EASE`, at most once for all requests in flight together.
"""

import email.utils
import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

START = 8.0
SHRINK = 0.7  # on refusals and faults; 0.5, as in TCP, leaves a third more of the server idle
EASE = 0.9  # on latency, which indicates a queue but no refusal yet
SMOOTHING = 0.125
FEW = 4.0  # a server that is slow with this few in flight has become slower: its latency is the new minimum
SETTLED = 8  # answers after a change of the window before latency is judged
OVERHEAD_TOKENS = 8.0  # fixed cost of a request, in tokens
PROMPT_SHARE = 0.1  # the time of a prompt token relative to a drawn token
LONGEST_BACKOFF = 30.0


@dataclass
class Pace:
    """Seconds per token of one kind of request: smoothed, and its minimum."""

    smoothed: float = math.nan
    least: float = math.inf
    answers: int = 0  # since the window changed

    def add(self, value: float) -> None:
        """Add a measurement."""
        self.smoothed = value if math.isnan(self.smoothed) else self.smoothed + SMOOTHING * (value - self.smoothed)
        self.least = min(self.least, self.smoothed)
        self.answers += 1


@dataclass
class Pacing:
    """The window of requests in flight, within [1, `limit`], and the time before which nothing may be sent."""

    limit: int
    latency_factor: float
    window: float = START
    resume_at: float = -math.inf
    _doubling: bool = True
    _shrunk_at: float = -math.inf
    _paces: dict[str, Pace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start at the limit if that is smaller."""
        self.window = min(self.window, float(self.limit))

    def room(self, in_flight: int, now: float) -> bool:
        """Whether another request may be sent."""
        return now >= self.resume_at and in_flight < int(self.window)

    def answered(self, kind: str, started: float, now: float, in_flight: int, tokens: tuple[int, int]) -> None:
        """A request of `tokens` (prompt, drawn) was answered; `in_flight` still includes it."""
        pace = self._paces.setdefault(kind, Pace())
        pace.add((now - started) / (OVERHEAD_TOKENS + PROMPT_SHARE * tokens[0] + tokens[1]))
        if pace.smoothed > self.latency_factor * pace.least:
            if pace.answers >= SETTLED and self.window <= FEW:
                pace.least = pace.smoothed
            elif pace.answers >= SETTLED:
                self._shrink(started, now, EASE)
        elif in_flight >= int(self.window):  # an unfilled window is no evidence for a larger one
            self.window = min(float(self.limit), self.window + (1.0 if self._doubling else 1.0 / self.window))

    def refused(self, started: float, now: float) -> None:
        """The server refused the request for now (429, 503)."""
        self._shrink(started, now, SHRINK)

    def failed(self, started: float, now: float) -> None:
        """The request timed out, or its connection was cut."""
        self._shrink(started, now, SHRINK)

    def pause(self, until: float) -> None:
        """Send nothing before `until`."""
        self.resume_at = max(self.resume_at, until)

    def _shrink(self, started: float, now: float, factor: float) -> None:
        if started < self._shrunk_at:  # sent under the larger window, which has been shrunk since
            return
        self.window = max(1.0, self.window * factor)
        self._doubling, self._shrunk_at = False, now
        for pace in self._paces.values():
            pace.answers = 0


def backoff(seed: int, failures: int, first: float) -> float:
    """Seconds to wait after a number of failures: exponential from `first`, times a seeded factor of 0.5 to 1.5."""
    jitter = random.Random(f"{seed}:{failures}").uniform(0.5, 1.5)
    return float(min(LONGEST_BACKOFF, first * 2.0 ** min(failures - 1, 30)) * jitter)


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """The wait of a Retry-After header (RFC 9110, 10.2.3: seconds or an HTTP date); None if it is absent or invalid."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
