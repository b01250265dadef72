"""Convert pairs of context and target to tokens with requested log-probabilities; shared by all engines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.protocol import Pair

Logprobs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Query:
    """A tokenised pair: requests the log-probability of each token at `wanted`, given all tokens before it."""

    tokens: tuple[int, ...]
    wanted: tuple[int, ...]


def sort_out(queries: Sequence[Query], context_tokens: int) -> tuple[dict[Query, Logprobs], list[Query]]:
    """Return the answers that need no model, and the distinct queries that do.

    An empty array if nothing is wanted; one NaN if there is no context, or the pair exceeds the model's context.
    """
    found: dict[Query, Logprobs] = {}
    asked = []
    for query in dict.fromkeys(queries):
        if not query.wanted:
            found[query] = np.zeros(0, np.float32)
        elif not query.tokens or len(query.tokens) > context_tokens:
            found[query] = np.full(1, np.nan, np.float32)
        else:
            asked.append(query)
    return found, asked


def query(pair: Pair, tokens: Sequence[int], offsets: Sequence[tuple[int, int]], first: int) -> Query:
    """Return a pair's query from the tokens of the concatenated texts and their character ranges.

    `first` is the context token of a target without context.
    """
    begin = len(pair.context)
    spans = [(begin, begin + len(pair.target))] if pair.spans is None else [(begin + a, begin + b) for a, b in pair.spans]
    wanted = [i for i, (a, b) in enumerate(offsets) if b > begin and any(a < end and b > start for start, end in spans)]
    if offsets and offsets[0][1] > begin:
        tokens, wanted = [first, *tokens], [place + 1 for place in wanted]
    return Query(tuple(tokens[: wanted[-1] + 1] if wanted else ()), tuple(wanted))
