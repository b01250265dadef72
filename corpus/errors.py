"""The one error type for what a user can mend."""


class LimbeckError(ValueError):
    """Something a user can mend: the message names the file, key or row, and the way out.

    The command line prints the message alone and exits with `exit_code`; no traceback is shown.
    """

    exit_code = 1


def last_line(failure: BaseException) -> str:
    """What a failure from some other process says at last, in at most 400 characters; its type's name where it says nothing."""
    lines = [line for line in str(failure).splitlines() if line.strip()]
    return " ".join((lines[-1] if lines else type(failure).__name__).split())[:400]
