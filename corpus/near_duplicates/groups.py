"""Groups of rows that belong together: connected components, built from batches of edges, and a representative row for each."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

Similar = Callable[[Places, Places], npt.NDArray[np.bool_]]
"""Whether row i and row j are similar, for arrays of i and j."""

_FIRST_PAIRS = 1 << 12


class Components:
    """The connected components of n rows; a component's label is its smallest row (Shiloach and Vishkin, 1982)."""

    def __init__(self, rows: int) -> None:
        """Start with every row in its own component."""
        self.labels = np.arange(rows)  # [rows]

    def join(self, first: Places, second: Places) -> None:
        """Connect first[k] with second[k] for every k. Time: the number of edges, and O(n) for each of a few rounds."""
        while len(first):
            one, other = self.labels[first], self.labels[second]
            apart = one != other
            first, second, one, other = first[apart], second[apart], one[apart], other[apart]
            np.minimum.at(self.labels, np.maximum(one, other), np.minimum(one, other))
            while len(first) and not np.array_equal(lower := self.labels[self.labels], self.labels):
                self.labels = lower

    def join_similar(self, first: Places, second: Places, similar: Similar) -> None:
        """Connect those of the pairs that are `similar`, checking only pairs that are not connected yet.

        The result depends neither on the order of the pairs nor on which are checked: a pair is skipped only if it could change
        nothing.
        """
        size = _FIRST_PAIRS
        while len(first):
            apart = self.labels[first] != self.labels[second]
            first, second = first[apart], second[apart]
            head = similar(first[:size], second[:size])
            self.join(first[:size][head], second[:size][head])
            first, second = first[size:], second[size:]
            size *= 2


def representatives(labels: Places, ranks: Places) -> Places:
    """Return for each row the row of its component with the lowest rank; ranks are distinct.  # [rows]"""
    order = np.lexsort((ranks, labels))
    firsts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    chosen = np.empty(len(labels), np.int64)
    chosen[order] = np.repeat(order[firsts], np.diff(firsts, append=len(order)))
    return chosen
