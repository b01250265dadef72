"""How many requests may be in flight at a server: additive increase, multiplicative decrease, and pauses it asks for.

A pure state machine over a clock that the caller passes, after TCP's congestion control (Chiu and Jain, 1989; Jacobson, 1988):
each full window of answers allows one request more, doubling until the first sign of too much; 429, 503, a timeout or a cut
connection shrink the window by `SHRINK`, growing latency by `EASE`, at most once for the requests that were in flight together.
"""

import email.utils
import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

START = 8.0
SHRINK = 0.7  # on refusals and faults; half, as in TCP, leaves a third more of the server idle
EASE = 0.9  # on latency, which tells of a queue and not yet of a refusal
SMOOTHING = 0.125
FEW = 4.0  # a server that is slow with so few in flight has become slower: its latency then is the new minimum
SETTLED = 8  # answers after a change of the window before latency is judged
OVERHEAD_TOKENS = 8.0  # what a request costs beside its tokens
PROMPT_SHARE = 0.1  # the time of a prompt's token, in those of a drawn one
LONGEST_BACKOFF = 30.0


@dataclass
class Pace:
    """Seconds per token of one kind of request: smoothed, and the least that this has been."""

    smoothed: float = math.nan
    least: float = math.inf
    answers: int = 0  # since the window changed

    def add(self, value: float) -> None:
        """Take a measurement."""
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
        """Start small, where the limit is smaller still."""
        self.window = min(self.window, float(self.limit))

    def room(self, in_flight: int, now: float) -> bool:
        """Whether one request more may be sent."""
        return now >= self.resume_at and in_flight < int(self.window)

    def answered(self, kind: str, started: float, now: float, in_flight: int, tokens: tuple[int, int]) -> None:
        """A request of `tokens` (of its prompt, drawn) was answered; `in_flight` counts it still."""
        pace = self._paces.setdefault(kind, Pace())
        pace.add((now - started) / (OVERHEAD_TOKENS + PROMPT_SHARE * tokens[0] + tokens[1]))
        if pace.smoothed > self.latency_factor * pace.least:
            if pace.answers >= SETTLED and self.window <= FEW:
                pace.least = pace.smoothed
            elif pace.answers >= SETTLED:
                self._shrink(started, now, EASE)
        elif in_flight >= int(self.window):  # a window that is not filled proves nothing about a larger one
            self.window = min(float(self.limit), self.window + (1.0 if self._doubling else 1.0 / self.window))

    def refused(self, started: float, now: float) -> None:
        """The server would not take the request (429, 503)."""
        self._shrink(started, now, SHRINK)

    def failed(self, started: float, now: float) -> None:
        """The request timed out, or its connection was cut."""
        self._shrink(started, now, SHRINK)

    def pause(self, until: float) -> None:
        """Send nothing before `until`."""
        self.resume_at = max(self.resume_at, until)

    def _shrink(self, started: float, now: float, factor: float) -> None:
        if started < self._shrunk_at:  # sent under the larger window: its news is already acted upon
            return
        self.window = max(1.0, self.window * factor)
        self._doubling, self._shrunk_at = False, now
        for pace in self._paces.values():
            pace.answers = 0


def backoff(seed: int, failures: int, first: float) -> float:
    """Seconds to wait after a number of failures: exponential from `first`, times half to one and a half as the seed draws."""
    jitter = random.Random(f"{seed}:{failures}").uniform(0.5, 1.5)
    return float(min(LONGEST_BACKOFF, first * 2.0 ** min(failures - 1, 30)) * jitter)


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3: seconds or an HTTP date); None where it is absent or nonsense."""
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
