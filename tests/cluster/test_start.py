"""A private cluster that does not start in time, because its node is suspended: a second attempt, then one sentence."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from limbeck.cluster import session
from limbeck.cluster.session import ClusterConfig, connected
from limbeck.corpus.errors import LimbeckError

pytestmark = pytest.mark.slow
SETTINGS = ClusterConfig(address="local", start_seconds=3.0)


@contextmanager
def suspended_nodes(most: int) -> Iterator[set[int]]:
    """Suspend the first `most` raylets that this process starts, as soon as they are there; yields their process ids."""
    done, found = threading.Event(), set[int]()

    def watch() -> None:
        while not done.wait(0.001):
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    if child.name() == "raylet" and child.pid not in found and len(found) < most:
                        child.suspend()
                        found.add(child.pid)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield found
    finally:
        done.set()
        watching.join()


def test_a_start_that_times_out_is_tried_again_with_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENT", 100)  # however busy the machine is
    with suspended_nodes(most=1) as suspended, connected(SETTINGS) as started:
        assert started.owned and started.cpus
    assert len(suspended) == 1
    assert nothing_is_left()


def test_then_the_machine_is_overloaded() -> None:
    words = "did not start within 3 s, nor within 12 s at a second attempt; the machine is overloaded.*cluster.start_seconds"
    with suspended_nodes(most=2), pytest.raises(LimbeckError, match=words), connected(SETTINGS):
        pass
    assert nothing_is_left()


def nothing_is_left() -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        names = [child.name() for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        if not {"raylet", "gcs_server"} & set(names):
            return True
        time.sleep(0.2)
    return False
