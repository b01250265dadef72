"""The one error type for what a user can mend."""


class LimbeckError(ValueError):
    """Something a user can mend: the message names the file, key or row, and the way out.

    The command line prints the message alone and exits non-zero; no traceback is shown.
    """
