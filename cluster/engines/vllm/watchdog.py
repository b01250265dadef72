"""Kills the processes that an engine started as soon as their parent is gone, for any reason.

A killed worker cannot stop its children, and an engine process that survives it would hold the GPU that the next worker needs.
Run as a program, it records its parent's descendants, except those passed as arguments, until it reads a line on standard input
(all have started); at the end of its input, which comes when the parent exits, it kills the processes that are left.
"""

import contextlib
import os
import select
import subprocess
import sys

import psutil

LOOK_SECONDS = 0.2


class Watchdog:
    """A process that briefly outlives this one; start it before the processes that it should kill.

    Processes that are already running, for example those of other engines, are ignored.
    """

    def __init__(self) -> None:
        """Block until the watchdog is monitoring."""
        me = psutil.Process()
        command = [sys.executable, "-I", __file__, str(me.pid), *(str(child.pid) for child in me.children())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._await()

    def settle(self) -> None:
        """Signal that every process to watch has started; returns once all are recorded."""
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            self._await()

    def release(self) -> None:
        """Kill the watched processes and stop the watchdog."""
        self._process.communicate()

    def _await(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()


def main(parent_id: int, others: set[int]) -> None:
    """Watch the parent's descendants; does nothing if the parent is gone already."""
    if os.getppid() != parent_id:
        return
    parent = psutil.Process(parent_id)
    os.write(1, b"\n")
    found: set[psutil.Process] = set()
    all_started = False
    while not all_started:
        all_started = bool(select.select([0], [], [], LOOK_SECONDS)[0])
        if os.getppid() == parent_id:
            with contextlib.suppress(psutil.Error):
                mine = [child for child in parent.children() if child.pid not in others]
                found.update(mine, *(child.children(recursive=True) for child in mine))
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"\n")
    while os.read(0, 1):
        pass
    for process in list(found):
        with contextlib.suppress(psutil.Error):
            found.update(process.children(recursive=True))
    for process in found:  # psutil compares creation times: a reused process id is ignored
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]), {os.getpid(), *map(int, sys.argv[2:])})
