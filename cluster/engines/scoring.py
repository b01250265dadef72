"""Exact log-probabilities of targets given contexts: equal leading tokens run once, and the output layer only where needed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cluster.engines import attention, plain
from cluster.engines.loading import Loaded
from cluster.engines.packing import Pack, packs
from cluster.engines.protocol import Pair, Usage

Logprobs = npt.NDArray[np.float32]

_CHUNK_ROWS = 32  # rows turned to float32 at once, so that the copy stays in the CPU's cache


@dataclass(frozen=True)
class Query:
    """A tokenised pair: the log-probability of each token at `wanted`, given all before it, is asked for."""

    tokens: tuple[int, ...]
    wanted: tuple[int, ...]


def tokenise(pairs: Sequence[Pair], loaded: Loaded) -> list[Query]:
    """Return the tokens of each pair as one string, and the places of the target's wanted ones.

    A target that nothing precedes is given the tokenizer's first special token (beginning, else end) as its context.
    """
    if not pairs:
        return []
    encoded = loaded.tokenizer([pair.context + pair.target for pair in pairs], return_offsets_mapping=True)
    tokens, offsets = encoded["input_ids"], encoded["offset_mapping"]
    return [_query(pair, ids, ranges, loaded) for pair, ids, ranges in zip(pairs, tokens, offsets, strict=True)]


def _query(pair: Pair, tokens: list[int], offsets: list[tuple[int, int]], loaded: Loaded) -> Query:
    begin = len(pair.context)
    spans = [(begin, begin + len(pair.target))] if pair.spans is None else [(begin + a, begin + b) for a, b in pair.spans]
    wanted = [i for i, (a, b) in enumerate(offsets) if b > begin and any(a < end and b > start for start, end in spans)]
    if offsets and offsets[0][1] > begin:
        first = loaded.tokenizer.bos_token_id
        first = loaded.tokenizer.eos_token_id if first is None else first
        tokens, wanted = [0 if first is None else first, *tokens], [place + 1 for place in wanted]
    return Query(tuple(tokens[: wanted[-1] + 1] if wanted else ()), tuple(wanted))


def logprobs(loaded: Loaded, queries: Sequence[Query], pack_tokens: int, usage: Usage) -> list[Logprobs]:
    """Return one array a query, in order; a query that does not fit the context yields one NaN."""
    found: dict[Query, Logprobs] = {}
    asked = []
    for query in dict.fromkeys(queries):
        if not query.wanted:
            found[query] = np.zeros(0, np.float32)
        elif len(query.tokens) > loaded.context_tokens:
            found[query] = np.full(1, np.nan, np.float32)
        elif loaded.packed:
            asked.append(query)
        else:
            found[query] = plain.logprobs(loaded, query.tokens, query.wanted, usage)
    _score_all(loaded, asked, pack_tokens, usage, found)
    for query in [query for query in asked if np.isnan(found[query]).any()]:
        _score_all(loaded, [query], pack_tokens, usage, found)  # alone: a neighbour's NaN shows through an additive mask
    return [found[query] for query in queries]


def _score_all(loaded: Loaded, queries: Sequence[Query], pack_tokens: int, usage: Usage, found: dict[Query, Logprobs]) -> None:
    for pack in packs([query.tokens[:-1] for query in queries], pack_tokens):  # the last token is only predicted, never read
        start = time.perf_counter()
        with torch.inference_mode():
            found.update(_score(loaded, pack, [queries[member] for member in pack.members]))
        usage.model_seconds += time.perf_counter() - start
        usage.forwarded_tokens += len(pack.tokens)


def _score(loaded: Loaded, pack: Pack, queries: Sequence[Query]) -> dict[Query, Logprobs]:
    """Run one pack; tokens that follow the same place share its row of the output layer."""
    places = np.concatenate([path[np.array(q.wanted) - 1] for q, path in zip(queries, pack.paths, strict=True)])
    targets = np.concatenate([np.array(q.tokens)[list(q.wanted)] for q in queries])
    rows, row_of_target = np.unique(places, return_inverse=True)
    device = loaded.model.device
    plan = attention.PackedPlan(attention.blocks(pack, loaded.model.dtype, device))
    tokens, positions = (torch.tensor(x, device=device) for x in (pack.tokens, pack.positions))
    logits = attention.forward(loaded.model, tokens, positions, plan, torch.from_numpy(rows).to(device))
    values = np.empty(len(targets), np.float32)
    for start in range(0, len(rows), _CHUNK_ROWS):
        mine = np.flatnonzero((row_of_target >= start) & (row_of_target < start + _CHUNK_ROWS))
        scores = logits[start : start + _CHUNK_ROWS].float()
        normaliser = torch.logsumexp(scores, -1)
        row, target = torch.from_numpy(row_of_target[mine] - start).to(device), torch.from_numpy(targets[mine]).to(device)
        values[mine] = (scores[row, target] - normaliser[row]).cpu().numpy()
    ends = np.cumsum([len(q.wanted) for q in queries])[:-1]
    return dict(zip(queries, np.split(values, ends), strict=True))
