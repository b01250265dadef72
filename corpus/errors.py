"""The error type for anything a user can fix."""


class LimbeckError(ValueError):
    """An error that the user can fix: the message names the file, key or row, and the remedy.

    The command line prints the message alone and exits with `exit_code`; no traceback is shown.
    """

    exit_code = 1


def last_line(failure: BaseException) -> str:
    """The last line of an error from another process, at most 400 characters; the name of its type if it has no message."""
    lines = [line for line in str(failure).splitlines() if line.strip()]
    return " ".join((lines[-1] if lines else type(failure).__name__).split())[:400]
