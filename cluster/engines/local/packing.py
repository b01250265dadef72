"""Pack token sequences into one row without padding, with every common prefix stored once.

Sorted sequences share their longest common prefix with a neighbour, so only the tokens that a sequence does not share with its
predecessor must be forwarded; its `path` is the position of each of its tokens in the row. This is a trie, stored as index
arrays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Tokens = tuple[int, ...]
Indices = npt.NDArray[np.int64]

_FULL_ENOUGH = 0.75  # a pack this full ends when the next sequence shares little


@dataclass
class Pack:
    """One forward pass: `tokens` and `positions` [T]; per sequence its index, its path, and the start of its own tokens."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    paths: list[Indices] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def add(self, member: int, sequence: Tokens, shared_tokens: int) -> None:
        """Append the tokens of `sequence` beyond the `shared_tokens` that it shares with the previous one."""
        base = len(self.tokens)
        self.tokens.extend(sequence[shared_tokens:])
        self.positions.extend(range(shared_tokens, len(sequence)))
        own = np.arange(base, len(self.tokens), dtype=np.int64)
        self.paths.append(np.concatenate([self.paths[-1][:shared_tokens], own]) if shared_tokens else own)
        self.starts.append(shared_tokens)
        self.members.append(member)


def packs(sequences: Sequence[Tokens], pack_tokens: int) -> Iterator[Pack]:
    """Yield packs of at most `pack_tokens` tokens that hold every sequence once; a longer sequence has its own pack.

    Sequences must not be empty. O(n log n) comparisons of token tuples.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    pack = Pack()
    previous: Tokens = ()
    for member in order:
        sequence = sequences[member]
        shared = common_prefix(previous, sequence) if pack.members else 0
        used, own = len(pack.tokens), len(sequence) - shared
        parting = shared < len(sequence) // 2 and used >= _FULL_ENOUGH * pack_tokens
        if pack.members and (used + own > pack_tokens or parting):
            yield pack
            pack, shared = Pack(), 0
        pack.add(member, sequence, shared)
        previous = sequence
    if pack.members:
        yield pack


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Return how many leading tokens two sequences share, in O(log n) comparisons of slices."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
