"""Batches of rows for a model: longest first, so that the rows of a batch have similar lengths, until it is full."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Lengths = tuple[int, ...]
"""Tokens of a row in each of its sequences: one, or an encoder's and a decoder's."""


@dataclass(frozen=True)
class Batch:
    """A batch in progress: its rows, their total tokens, and the longest of each sequence."""

    rows: int
    tokens: int
    widest: Lengths

    def padded_with(self, row: Lengths) -> int:
        """Its tokens with another row, including padding."""
        return (self.rows + 1) * sum(map(max, self.widest, row))


class Full(Protocol):
    """Decides whether a batch of at least one row is complete without the next row."""

    def __call__(self, batch: Batch, row: Lengths) -> bool:
        """True: the row begins the next batch."""
        ...


def by_length(lengths: Sequence[Lengths], full: Full, *, last_first: bool = False) -> Iterator[list[int]]:
    """Yield the positions of rows to process together, until `full`; a row that is too long has its own batch.

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
