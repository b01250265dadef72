"""Signals that interrupt: one that is dropped comes again, one that is noticed does not, and a foreign timer stays."""

import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from helpers.commands import settings
from limbeck.pipelines.driver import interrupts

DROPPED = """
import os, signal, sys, time
from limbeck.pipelines.driver.interrupts import interruptible, noticed

class Finalized:
    def __del__(self):  # what a signal raises here is dropped
        os.kill(os.getpid(), signal.{signal})
        time.sleep(5)

interruptible(0.3)
dropped = []
sys.unraisablehook = lambda found: dropped.append(found.exc_type)
try:
    Finalized()
    assert dropped == [KeyboardInterrupt]
    time.sleep(60)
except KeyboardInterrupt:
    noticed()
    time.sleep(1)  # longer than the interval
    print("ended")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_that_a_finalizer_drops_comes_again_until_it_is_noticed(name: str) -> None:
    line = [sys.executable, "-c", DROPPED.format(signal=name)]
    # in a session of its own with SIGINT as a terminal gives it: a job in the background ignores it
    done = subprocess.run(
        line, env=settings(), capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_a_job_in_the_background_still_ignores_ctrl_c() -> None:
    code = (
        "import os, signal; from limbeck.pipelines.driver.interrupts import interruptible; interruptible(); "
        "os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=settings(), capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


def test_a_timer_of_the_caller_is_not_stopped() -> None:
    before = signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with pytest.raises(ValueError), ExitStack() as stack:
            stack.push(interrupts.noticing)
            raise ValueError
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
