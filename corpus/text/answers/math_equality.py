"""Equality of mathematical answers by math-verify, asked in a child process.

math-verify interrupts itself by a signal, which works in the main thread only and not inside long computations in C. The child
has a main thread of its own, and the kernel ends it when a pair takes more than `PAIR_SECONDS` of processor time: such a pair
counts as different, and a new child answers the next one. The child also ends when its standard input does, so it never outlives
the parent.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import weakref

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.extras import require

PAIR_SECONDS = 10.0
_CHILD_BYTES = 4 << 30
_REMEMBERED = 1 << 16
_BY_THE_PAIR = (signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)  # too long, too deep
_READY = "ready"
_CHILD = "from limbeck.corpus.text.answers.math_equality import main; main()"


class MathEquality:
    """Whether two answers are mathematically equal; a child process is started at the first question, and pairs are remembered.

    Safe to use from several threads, one question at a time. A copy, also a pickled one, starts a child of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._known: dict[tuple[str, str], bool] = {}

    def __reduce__(self) -> tuple[type["MathEquality"], tuple[()]]:
        """Only the class."""
        return MathEquality, ()

    def equal(self, reference: str, answer: str) -> bool:
        """Ask math-verify, whose equality is neither symmetric nor transitive; False if it takes too long
        or crashes.

        Raises LimbeckError if math-verify is not installed or the child cannot run.
        """
        pair = (reference, answer)
        with self._lock:
            if pair not in self._known:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[pair] = self._ask(pair)
            return self._known[pair]

    def _ask(self, pair: tuple[str, str]) -> bool:
        if self._child is None:
            self._child = _started()
            weakref.finalize(self, _close, self._child)
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(f"{json.dumps(pair)}\n")
            child.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = child.stdout.readline()
        if line:
            return bool(json.loads(line))
        self._child = None
        status = _close(child)
        if -status in _BY_THE_PAIR:
            return False
        raise LimbeckError(f"the process of math-verify ended with status {status} at the answer {pair[1]!r}; repeat the command")


def _started() -> "subprocess.Popen[str]":
    require("compare: math", "math")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    if child.stdout.readline().strip() != _READY:
        status = _close(child)
        raise LimbeckError(f"math-verify could not be loaded (status {status}, see above): pip install --upgrade 'limbeck[math]'")
    return child


def _close(child: "subprocess.Popen[str]") -> int:
    """End a child by the end of its input; return its exit status."""
    for stream in (child.stdin, child.stdout):
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):
            stream.close()
    return child.wait()


def main(pair_seconds: float = PAIR_SECONDS) -> None:
    """Child process: answer one pair per line of standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and ends this process
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_CHILD_BYTES, _CHILD_BYTES))  # 9^9^9 fails instead of filling the memory
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keep library output out of the answers
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    print(_READY, file=answers)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, pair_seconds)
        try:
            reference, answer = (parse(_delimited(text), parsing_timeout=None) for text in json.loads(line))
            found = bool(verify(reference, answer, timeout_seconds=None))
        except Exception:  # whatever a library that parses arbitrary text raises: the answers are not known to be equal
            found = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(found), file=answers)


def _delimited(text: str) -> str:
    """The text as math-verify finds formulas: between dollars."""
    return f"${text.strip().strip('$')}$"
