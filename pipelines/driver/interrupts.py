"""Ctrl-C and SIGTERM as KeyboardInterrupt, which comes again until somebody has noticed it.

An exception that is raised from a signal while a finalizer or a callback of compiled code runs is dropped there. The run would
then go on as if nothing had been asked of it.
"""

import signal
from types import FrameType, TracebackType

_AGAIN_SECONDS = 10.0  # longer than what a run closes on its way to `noticed`
_waiting = False
"""Whether an interruption was raised that nobody has noticed; only then is the process's timer ours."""


def interruptible(again_seconds: float = _AGAIN_SECONDS) -> None:
    """Make SIGINT (unless it is ignored) and SIGTERM raise KeyboardInterrupt, every `again_seconds` until `noticed`."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        global _waiting
        _waiting = True
        signal.setitimer(signal.ITIMER_REAL, again_seconds)  # no thread: this may run while a lock of `threading` is held
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C
            signal.signal(number, interrupt)


def noticed() -> None:
    """Do not raise the interruption again: it is being handled."""
    global _waiting
    if _waiting:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _waiting = False


def noticing(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
    """`noticed` as the exit of a block, for ExitStack.push."""
    if kind is not None:
        noticed()
