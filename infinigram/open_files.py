"""The limit on open files of this process, which is often far below what the system allows."""

import resource

from limbeck.infinigram.errors import BadIndex

_SPARE = 128  # of the process itself: libraries, pipes, the files of other threads


def allow_open_files(wanted: int, purpose: str, remedy: str) -> None:
    """Raise the soft limit so that `wanted` more files can be open; raises BadIndex if the hard limit is lower."""
    needed = wanted + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BadIndex(f"{purpose} needs {needed:,} open files, but the limit is {hard:,} (ulimit -Hn); raise it, or {remedy}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def limit_words() -> str:
    """The present limit, for an error."""
    return f"this process may have {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} (ulimit -n)"
