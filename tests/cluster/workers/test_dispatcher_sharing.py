"""Who may compute at a moment, how seconds are shared out, and which engines a job keeps from leaving."""

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.gates import PATIENCE_SECONDS, wait_for
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.workers.lease import ExclusiveLease, SharedSeconds


def in_threads(*works: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def test_whoever_must_be_alone_waits_and_goes_first() -> None:
    lease, order = ExclusiveLease(), list[str]()

    def alone() -> None:
        with lease.exclusive():
            order.append("alone")
            time.sleep(0.05)
            order.append("alone ended")

    def beside() -> None:
        with lease.shared(True):
            order.append("beside")

    with lease.shared(True):
        first = in_threads(alone)
        wait_for(lambda: lease._exclusive_waiting)
        later = in_threads(beside, beside)
        time.sleep(0.05)
        assert order == [], "one waits for the running job, the others for the one that waits"
    for thread in first + later:
        thread.join(PATIENCE_SECONDS)
    assert order == ["alone", "alone ended", "beside", "beside"]


def test_jobs_that_exclude_each_other_leave_the_others_alone() -> None:
    lease, entered = ExclusiveLease(), threading.Event()

    def second() -> None:
        with lease.shared(False):
            entered.set()

    with lease.shared(False):
        (thread,) = in_threads(second)
        with lease.shared(True):
            assert not entered.wait(0.05)
    assert entered.wait(PATIENCE_SECONDS)
    thread.join(PATIENCE_SECONDS)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=40))
def test_shares_add_up_to_the_time_in_which_any_ran(steps: list[tuple[int, int]]) -> None:
    now, busy = 0.0, 0.0
    clock = SharedSeconds(lambda: now)
    running: dict[int, float] = {}
    shares = 0.0
    for who, seconds in [*steps, *((who, 0) for who in range(5))]:
        if who in running:
            shares += clock.leave(running.pop(who))
        elif seconds:
            running[who] = clock.enter()
        now += seconds
        busy += seconds * bool(running)
    assert shares == pytest.approx(busy)


class Loaded:
    """A model that counts, and says when it is closed."""

    def __init__(self, name: str) -> None:
        self.name, self.usage, self.closed = name, Usage(load_seconds=1.0), False

    def close(self) -> None:
        self.closed = True


class Held:
    """Its config."""

    loads: list[str] = []

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self.name, self.seconds = name, seconds

    def load(self) -> Loaded:
        time.sleep(self.seconds)
        Held.loads.append(self.name)
        if self.name == "broken":
            raise OSError("half a file")
        return Loaded(self.name)

    def model_dump_json(self) -> str:
        return self.name


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    Held.loads = []


def test_a_model_that_many_ask_for_is_loaded_once() -> None:
    engines, found = Engines(), list[Loaded]()

    def ask() -> None:
        with engines.lease() as lease:
            found.append(lease.hold(Held("a", 0.05)))

    for thread in in_threads(*[ask] * 8):
        thread.join(PATIENCE_SECONDS)
    assert Held.loads == ["a"] and len(found) == 8 and len(set(map(id, found))) == 1


def test_what_a_job_uses_stays_and_who_wants_its_place_waits() -> None:
    engines, got = Engines(keep=1), threading.Event()

    def want_another() -> None:
        with engines.lease() as lease:
            lease.hold(Held("b"))
            got.set()

    with engines.lease() as lease:
        a = lease.hold(Held("a"))
        (thread,) = in_threads(want_another)
        assert not got.wait(0.05) and not a.closed
    assert got.wait(PATIENCE_SECONDS) and a.closed, "the one that left was ended"
    thread.join(PATIENCE_SECONDS)


def test_a_job_with_more_models_than_fit_is_served_and_the_rest_leaves_afterwards() -> None:
    engines = Engines(keep=1)
    with engines.lease() as lease:
        a, b = lease.hold(Held("a")), lease.hold(Held("b"))
        assert not a.closed and not b.closed
    with engines.lease() as lease:
        lease.hold(Held("c"))
    assert a.closed and b.closed


def test_a_load_that_fails_leaves_the_others_to_try() -> None:
    engines = Engines(keep=1)
    for _ in range(2):
        with pytest.raises(OSError, match="half"), engines.lease() as lease:
            lease.hold(Held("broken"))
    with engines.lease() as lease:
        assert lease.hold(Held("a")).name == "a"


def test_what_an_engine_did_is_told_once() -> None:
    engines = Engines()
    with engines.lease() as one, engines.lease() as other:
        model = one.hold(Held("a"))
        assert other.hold(Held("a")) is model
        model.usage.output_tokens += 5
        told = one.take_usage()
        assert (told.output_tokens, told.load_seconds) == (5, 1.0) and one.take_usage() == Usage()
        model.usage.output_tokens += 2
        assert other.take_usage().output_tokens == 2
    with engines.lease() as unused:
        assert unused.take_usage() == Usage()
    assert engines.usage().output_tokens == 7
