"""Ends the processes that an engine started as soon as the process that started them is gone, however it ended.

A worker that is killed cannot end its children, and an engine process that lives on would hold the GPU that the next worker
needs. Run as a program: it looks at its parent's descendants, but for those named to it, until it is told that all have started
(a line on standard input), waits for the end of its input, which comes with the parent's, and kills those that are left.
"""

import contextlib
import os
import select
import subprocess
import sys

import psutil

LOOK_SECONDS = 0.2


class Guardian:
    """A process beside this one that outlives it for a moment; start it before the processes that it is to end.

    Those that run already, other engines' for instance, are not its to end.
    """

    def __init__(self) -> None:
        """Return once it looks."""
        me = psutil.Process()
        command = [sys.executable, "-I", __file__, str(me.pid), *(str(child.pid) for child in me.children())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._await()

    def settle(self) -> None:
        """Say that every process to be guarded has started; returns once all are known."""
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            self._await()

    def release(self) -> None:
        """End the processes that it guards, and it."""
        self._process.communicate()

    def _await(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.readline()


def main(parent_id: int, others: set[int]) -> None:
    """Watch the parent's descendants; does nothing where the parent is gone already, and this is another's child by now."""
    if os.getppid() != parent_id:
        return
    parent = psutil.Process(parent_id)
    os.write(1, b"\n")
    found: set[psutil.Process] = set()
    told = False
    while not told:
        told = bool(select.select([0], [], [], LOOK_SECONDS)[0])
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
    for process in found:  # psutil compares the time of birth: a number that was given to another process since is left alone
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    main(int(sys.argv[1]), {os.getpid(), *map(int, sys.argv[2:])})
