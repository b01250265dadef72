"""From a pair of context and target to the tokens whose log-probabilities are asked for; the same for every engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.engines.protocol import Pair


@dataclass(frozen=True)
class Query:
    """A tokenised pair: the log-probability of each token at `wanted`, given all before it, is asked for."""

    tokens: tuple[int, ...]
    wanted: tuple[int, ...]


def query(pair: Pair, tokens: Sequence[int], offsets: Sequence[tuple[int, int]], first: int) -> Query:
    """Return a pair's query from the tokens of both texts as one string and their character ranges.

    `first` is the token that a target which nothing precedes is given as its context.
    """
    begin = len(pair.context)
    spans = [(begin, begin + len(pair.target))] if pair.spans is None else [(begin + a, begin + b) for a, b in pair.spans]
    wanted = [i for i, (a, b) in enumerate(offsets) if b > begin and any(a < end and b > start for start, end in spans)]
    if offsets and offsets[0][1] > begin:
        tokens, wanted = [first, *tokens], [place + 1 for place in wanted]
    return Query(tuple(tokens[: wanted[-1] + 1] if wanted else ()), tuple(wanted))
