"""Amounts in words."""


def counted(count: int, noun: str) -> str:
    """A count with its noun: 1 token, 2,000 tokens."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def minutes(seconds: float) -> str:
    """An estimated duration: `about 2 minutes`, or `less than a minute`."""
    return "less than a minute" if seconds < 60 else f"about {counted(round(seconds / 60), 'minute')}"
