"""Rows that go through a model together: longest first, so that a batch has rows of like length, until it is full."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Lengths = tuple[int, ...]
"""Tokens of a row in each of its sequences: one, or an encoder's and a decoder's."""


@dataclass(frozen=True)
class Batch:
    """A batch under way: its rows, their tokens in sum, and the longest of each sequence."""

    rows: int
    tokens: int
    widest: Lengths

    def padded_with(self, row: Lengths) -> int:
        """Tokens that it has with another row, padding counted."""
        return (self.rows + 1) * sum(map(max, self.widest, row))


class Full(Protocol):
    """Decides whether a batch of at least one row is complete without the next row."""

    def __call__(self, batch: Batch, row: Lengths) -> bool:
        """True: the row begins the next batch."""
        ...


def by_length(lengths: Sequence[Lengths], full: Full, *, last_first: bool = False) -> Iterator[list[int]]:
    """Yield the positions of rows that go through a model together, until `full`; a row that is too long alone is alone.

    Rows of equal length are in the order given, or with `last_first` in reverse. O(n log n).
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True)
    if last_first:
        order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row), reverse=True)
    rows: list[int] = []
    batch = Batch(0, 0, ())
    for row in order:
        length = lengths[row]
        if rows and full(batch, length):
            yield rows
            rows = []
        if rows:
            batch = Batch(batch.rows + 1, batch.tokens + sum(length), tuple(map(max, batch.widest, length)))
        else:
            batch = Batch(1, sum(length), length)
        rows.append(row)
    if rows:
        yield rows
