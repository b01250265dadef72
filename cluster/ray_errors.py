"""The cause of an error that Ray raises, as one line.

Ray wraps the exception of another process in its own, several times (a task that called a task, Ray Data's user code, the worker
group of a training), and adds advice of its own after it. Some wrappers keep the exception, others only its traceback as text.
"""

import re
from collections.abc import Iterator
from typing import Any

from limbeck.corpus.errors import LimbeckError

LONGEST = 400
_CHAINED = re.compile(r"^(?:The above exception was the direct cause|During handling of the above exception).*$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]*)(?:\(\w+\))?(?:: (.*))?")
_EXIT = re.compile(r"Worker exit detail: (.+?)(?: There are (?:some )?potential root causes|$)", re.DOTALL)
_BROKEN_CONNECTION = ("onnection closed by peer", "onnection reset by peer")


def cause_of(error: BaseException) -> str:
    """The innermost exception that is not Ray's own, as `Type: message` in one line of at most 400 characters.

    A LimbeckError is its message alone. If no exception is behind the error (a killed process, a lost node), Ray's own words.
    """
    text = str(error)
    if "low on memory" in text:  # reported in the first lines, followed by a page on debugging
        return "Ray killed it because the machine ran low on memory"
    found = _innermost(error)
    if not _is_rays(found):
        return _shown(found)
    return _from_traceback(text) or _from_traceback(str(found)) or _rays_words(found)


def _innermost(error: BaseException) -> BaseException:
    """The exception inside Ray's wrappers, as far as they keep it."""
    while True:
        inside: Any = None
        failures = getattr(error, "worker_failures", None)  # of a training, by rank
        if failures:
            inside = _first_to_fail([failure for _, failure in sorted(failures.items())])
        else:
            inside = getattr(error, "controller_failure", None) or (getattr(error, "cause", None) if _is_rays(error) else None)
        if isinstance(error, BaseExceptionGroup) and inside is None:
            inside = error.exceptions[0]
        if not isinstance(inside, BaseException) or inside is error:
            return error
        error = inside


def _first_to_fail(failures: list[BaseException]) -> BaseException:
    """When one rank of a training fails, the others only report a broken connection."""
    own = [failure for failure in failures if not any(words in str(failure) for words in _BROKEN_CONNECTION)]
    return (own or failures)[0]


def _is_rays(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "ray"


def _shown(error: BaseException) -> str:
    if isinstance(error, LimbeckError):
        return one_line(str(error)) or type(error).__name__
    return _named(type(error).__name__, str(error))


def _named(name: str, message: str) -> str:
    return one_line(f"{name}: {message}" if message.strip() else name)


def one_line(text: str) -> str:
    """The text on one line; the middle of a long one is left out, since its cause may be at either end."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 153]} … {line[-150:]}"


def _from_traceback(text: str) -> str:
    """The exception that a traceback ends with; of chained ones, the last that is not Ray's own. "" if there is none."""
    for section in reversed(_CHAINED.split(_COLOUR.sub("", text))):
        for name, message in _exceptions(section.splitlines()):
            if not name.startswith("ray."):
                ours = name.startswith("limbeck.") and name.endswith("Error")
                return one_line(message) if ours and message.strip() else _named(name.rpartition(".")[2], message)
    return ""


def _exceptions(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Name and message of the exceptions of a traceback, the last first: unindented lines below indented ones."""
    end = len(lines)
    for number in range(len(lines) - 1, 0, -1):
        found = _EXCEPTION.fullmatch(lines[number])
        if found and lines[number - 1].startswith(" "):
            yield found[1], "\n".join([found[2] or "", *lines[number + 1 : end]])
            end = number


def _rays_words(error: BaseException) -> str:
    """What Ray says about a death without an exception: the detail of the exit if there is one, else its first line."""
    text = _COLOUR.sub("", str(error)).strip()
    if detail := _EXIT.search(text):
        return one_line(detail[1])
    return one_line(text.partition("\n")[0]) or type(error).__name__
