"""Pacing, back-off and Retry-After as the pure functions they are: simulated servers instead of real ones."""

import heapq
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.cluster.engines.endpoint.pacing import LONGEST_BACKOFF, START, Pacing, backoff, retry_after_seconds

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["answered", "refused", "failed", "pause"]), st.floats(0, 5), st.floats(0.001, 10), st.integers(0, 90)
    ),
    max_size=200,
)


@settings(deadline=None)
@given(limit=st.integers(1, 100), events=EVENTS)
def test_the_window_keeps_its_bounds(limit: int, events: list[tuple[str, float, float, int]]) -> None:
    pacing, now, latest = Pacing(limit, 4.0), 0.0, float("-inf")
    for name, step, latency, in_flight in events:
        now += step
        before = pacing.window
        if name == "answered":
            pacing.answered("/x", now - latency, now, in_flight, (100, 10))
            assert pacing.window <= before + 1.0
        elif name == "pause":
            pacing.pause(now + latency)
            latest = max(latest, now + latency)
        else:
            (pacing.refused if name == "refused" else pacing.failed)(now - latency, now)
            assert pacing.window <= before
        assert 1.0 <= pacing.window <= limit
        assert pacing.room(0, now) == (now >= latest), "one request is always allowed, but for a pause that was asked for"
        assert not pacing.room(limit, now + 1e9)


@settings(deadline=None)
@given(limit=st.integers(2, 64), count=st.integers(2, 40))
def test_refusals_of_one_window_shrink_it_once(limit: int, count: int) -> None:
    pacing = Pacing(limit, 8.0)
    before = pacing.window
    for place in range(count):  # all sent at 0, refused one after the other
        pacing.refused(0.0, 1.0 + place)
    assert pacing.window == max(1.0, before * 0.7)
    pacing.refused(1.0 + count, 2.0 + count)
    assert pacing.window == max(1.0, before * 0.7 * 0.7)


def simulate(
    pacing: Pacing, capacity: int, seconds: float, answers: int, refuses: bool, slow_from: float = 1e9
) -> list[tuple[float, int]]:
    """Run a server that takes `capacity` at once and refuses more, or lets them queue; return (time, in flight) of each send."""
    now, done, sent = 0.0, 0, []
    flights: list[tuple[float, float, bool]] = []  # (ends, started, answered)
    free = [0.0] * capacity
    while done < answers:
        while pacing.room(len(flights), now):
            sent.append((now, len(flights) + 1))
            if refuses:
                taken = len(flights) < capacity
                heapq.heappush(flights, (now + (seconds if taken else seconds / 20), now, taken))
            else:
                begins = max(now, heapq.heappop(free))
                ends = begins + seconds * (3 if now > slow_from else 1)
                heapq.heappush(free, ends)
                heapq.heappush(flights, (ends, now, True))
        now, started, answered = heapq.heappop(flights)
        if answered:
            pacing.answered("/x", started, now, len(flights) + 1, (100, 20))
            done += 1
        else:
            pacing.refused(started, now)
    return sent


@settings(deadline=None, max_examples=30)
@given(capacity=st.integers(1, 50), seconds=st.floats(0.01, 30))
def test_aimd_converges_near_what_a_server_takes(capacity: int, seconds: float) -> None:
    sent = [count for _, count in simulate(Pacing(64, 8.0), capacity, seconds, 60 * capacity + 200, refuses=True)]
    settled = sent[len(sent) // 2 :]
    assert max(settled) <= capacity + 1
    assert sum(settled) / len(settled) >= 0.6 * capacity
    assert max(sent) <= max(2 * capacity + 2, START)


@settings(deadline=None, max_examples=30)
@given(capacity=st.integers(1, 12), seconds=st.floats(0.01, 30), factor=st.floats(2, 6))
def test_a_queue_at_the_server_stays_short(capacity: int, seconds: float, factor: float) -> None:
    sent = [count for _, count in simulate(Pacing(10_000, factor), capacity, seconds, 2000, refuses=False)]
    settled = sent[len(sent) // 2 :]
    least = max(1.0, START / capacity)  # the latency that the first window saw, in turns of the server
    assert max(settled) <= 1.5 * factor * capacity * least + 4
    assert min(settled) >= min(capacity, START) * 0.5


def test_a_server_that_became_slower_is_not_starved() -> None:
    pacing = Pacing(32, 2.0)
    sent = simulate(pacing, 16, 1.0, 20_000, refuses=False, slow_from=50.0)
    last = [count for _, count in sent[-500:]]
    assert sum(last) / len(last) >= 12


def test_a_window_that_is_not_filled_does_not_grow() -> None:
    pacing = Pacing(64, 8.0)
    for place in range(100):
        pacing.answered("/x", place, place + 1.0, 3, (10, 10))
    assert pacing.window == START


@given(seed=st.integers(0, 2**63), failures=st.integers(1, 500), first=st.floats(0.001, 10))
def test_backoff_grows_with_a_jitter_of_its_own(seed: int, failures: int, first: float) -> None:
    wait = backoff(seed, failures, first)
    plain = min(LONGEST_BACKOFF, first * 2.0 ** min(failures - 1, 30))
    assert 0.5 * plain <= wait <= 1.5 * plain
    assert wait == backoff(seed, failures, first)


def test_backoffs_of_rows_differ() -> None:
    assert len({backoff(seed, 3, 0.5) for seed in range(50)}) == 50


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 11:59:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 13:00:30 +0100", 30.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)) == seconds
