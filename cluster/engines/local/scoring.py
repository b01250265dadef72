"""Exact log-probabilities of targets given contexts: common prefixes run once, and the output layer only at needed positions."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from limbeck.cluster.engines.local import attention, plain
from limbeck.cluster.engines.local.loading import Loaded
from limbeck.cluster.engines.local.packing import Pack, packs
from limbeck.cluster.engines.pairs import Logprobs, Query, sort_out
from limbeck.cluster.engines.protocol import Usage

_CHUNK_ROWS = 32  # rows converted to float32 at once, so that the copy stays in the CPU cache


def logprobs(loaded: Loaded, queries: Sequence[Query], pack_tokens: int, usage: Usage) -> list[Logprobs]:
    """Return one array per query, in order; a query that does not fit the context yields one NaN."""
    found, asked = sort_out(queries, loaded.context_tokens)
    if not loaded.packed:
        found.update((query, plain.logprobs(loaded, query.tokens, query.wanted, usage)) for query in asked)
        return [found[query] for query in queries]
    _score_all(loaded, asked, pack_tokens, usage, found)
    for query in [query for query in asked if np.isnan(found[query]).any()]:
        _score_all(loaded, [query], pack_tokens, usage, found)  # alone: a neighbour's NaN passes through an additive mask
    return [found[query] for query in queries]


def _score_all(loaded: Loaded, queries: Sequence[Query], pack_tokens: int, usage: Usage, found: dict[Query, Logprobs]) -> None:
    for pack in packs([query.tokens[:-1] for query in queries], pack_tokens):  # the last token is only a target, never an input
        start = time.perf_counter()
        with torch.inference_mode():
            found.update(_score(loaded, pack, [queries[member] for member in pack.members]))
        usage.model_seconds += time.perf_counter() - start
        usage.forwarded_tokens += len(pack.tokens)


def _score(loaded: Loaded, pack: Pack, queries: Sequence[Query]) -> dict[Query, Logprobs]:
    """Run one pack; tokens that follow the same position share its row of the output layer."""
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
