"""How many rows each component of a mixture gives: by stated weights, or by sizes to the power 1/T, rounded by largest remainder.

Sizes are capped first and then tempered, as in T5 (Raffel et al., 2020, section 3.5.2: a mixing rate of min(n, K) ** (1/T)). The
rounding is Hamilton's, so every component is within one row of its exact share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from limbeck.corpus.errors import LimbeckError


@dataclass(frozen=True)
class Share:
    """A component as the rounding sees it: `usable` rows, the stated weight (None: by size), and the cap on its rows."""

    name: str
    usable: int
    weight: float | None = None
    cap: int | None = None

    @property
    def size(self) -> int:
        """The rows that count for a weight by size."""
        return self.usable if self.cap is None else min(self.usable, self.cap)

    def most(self, repeats: int) -> int:
        """The rows that it can give if each row may be taken this many times; never more than its cap."""
        rows = self.usable * repeats
        return rows if self.cap is None else min(rows, self.cap)


def apportioned(weights: Sequence[Fraction], rows: int) -> list[int]:
    """Divide `rows` in proportion to `weights`, which do not sum to 0, by largest remainder; ties go to the first.

    Each count is less than one row from its exact share, and the counts sum to `rows`. O(n log n).
    """
    total = sum(weights)
    quotas = [rows * weight / total for weight in weights]
    counts = [int(quota) for quota in quotas]
    order = sorted(range(len(quotas)), key=lambda place: (counts[place] - quotas[place], place))
    for place in order[: rows - sum(counts)]:
        counts[place] += 1
    return counts


def weights_of(shares: Sequence[Share], temperature: float) -> list[Fraction]:
    """The stated weights; if there are none, sizes to the power 1 / `temperature`."""
    if all(share.weight is not None for share in shares):
        return [Fraction(repr(share.weight or 0)) for share in shares]  # 0.1 is a tenth
    return [Fraction(share.size if temperature == 1 else share.size ** (1 / temperature)) for share in shares]


def counts_of(shares: Sequence[Share], size: int | None, temperature: float, repeats: int) -> list[int]:
    """How many rows each component gives.

    `size` None: as many as the weights allow if no row is taken more than `repeats` times. Raises LimbeckError if a component has
    no usable row, too few for its share of `size`, or a share that is rounded to no row.
    """
    weights = weights_of(shares, temperature)
    for share, weight in zip(shares, weights, strict=True):
        if not share.usable and (weight or share.weight is None):
            raise LimbeckError(f"component {share.name!r} of the mixture has no usable row; correct it, or remove it")
    total = sum(weights)
    if not total:
        raise LimbeckError("the weights of the mixture sum to 0; give at least one component a weight above 0")
    rows = size if size is not None else _largest(shares, weights, repeats)
    counts = apportioned(weights, rows)
    for share, weight, count in zip(shares, weights, counts, strict=True):
        if weight and not count:
            raise LimbeckError(
                f"component {share.name!r} gives none of the {rows} rows of the mixture, since its share is "
                f"{float(weight / total):.2g}; raise {'size, ' if size is not None else ''}its weight or its cap, or remove it"
            )
        if count > share.most(repeats):
            raise LimbeckError(_too_few(share, count, rows, repeats, _largest(shares, weights, repeats)))
    return counts


def _largest(shares: Sequence[Share], weights: Sequence[Fraction], repeats: int) -> int:
    """The largest mixture in which no component gives more than it can: rounding up a share of at most n gives at most n."""
    total = sum(weights)
    return min(int(share.most(repeats) * total / weight) for share, weight in zip(shares, weights, strict=True) if weight)


def _too_few(share: Share, count: int, rows: int, repeats: int, largest: int) -> str:
    needed = -(-count // share.usable)
    if share.cap is not None and share.cap < count:
        limit, way_out = f"is capped at {share.cap}", "raise its cap"
    else:
        times = "" if repeats == 1 else f", each taken up to {repeats} times"
        limit, way_out = f"has {share.usable}{times}", f"set max_repeats to {needed}"
    return (
        f"component {share.name!r} should give {count} of the {rows} rows of the mixture, but {limit}; lower size to {largest}, "
        f"{way_out}, or change the weights"
    )
