"""The most likely next tokens at the labels of given token ids: common prefixes run once, the output layer only at labels."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from limbeck.cluster.engines.local import attention
from limbeck.cluster.engines.local.loading import Loaded
from limbeck.cluster.engines.local.packing import Pack, packs
from limbeck.cluster.engines.protocol import TokenRow, TopLogprobs, Usage, row_refusal

_CHUNK_ROWS = 32  # positions whose logits are converted to float32 at once


def top_logprobs(loaded: Loaded, rows: Sequence[TokenRow], k: int, pack_tokens: int, usage: Usage) -> list[TopLogprobs | None]:
    """See `protocol.DistributionEngine`; log-softmax in float32 over the model's logits. `k` is at most the vocabulary."""
    asked = [row for row in dict.fromkeys(rows) if row_refusal(row, loaded.context_tokens) is None]
    found: dict[TokenRow, TopLogprobs] = {}
    if loaded.packed:
        for pack in packs([row.tokens[:-1] for row in asked], pack_tokens):  # the last token is only a label, never an input
            found.update(_packed(loaded, pack, [asked[member] for member in pack.members], k, usage))
    for row in asked:
        if row not in found or np.isnan(found[row].tail).any():  # alone: a neighbour's NaN passes through an additive mask
            found[row] = _alone(loaded, row, k, usage)
    return [found.get(row) for row in rows]


def _packed(loaded: Loaded, pack: Pack, rows: Sequence[TokenRow], k: int, usage: Usage) -> Iterator[tuple[TokenRow, TopLogprobs]]:
    """Run one pack; rows that share a position, with all tokens before it, share its distribution."""
    started, device = time.perf_counter(), loaded.model.device
    with torch.inference_mode():
        wanted = [path[row.first - 1 :] for row, path in zip(rows, pack.paths, strict=True)]
        places = np.unique(np.concatenate(wanted))
        plan = attention.PackedPlan(attention.blocks(pack, loaded.model.dtype, device))
        tokens, positions = (torch.tensor(x, device=device) for x in (pack.tokens, pack.positions))
        logits = attention.forward(loaded.model, tokens, positions, plan, torch.from_numpy(places).to(device))
        best = _best(logits, k)
    usage.model_seconds += time.perf_counter() - started
    usage.forwarded_tokens += len(pack.tokens)
    for row, mine in zip(rows, wanted, strict=True):
        at = np.searchsorted(places, mine)
        yield row, TopLogprobs(best.ids[at], best.logprobs[at], best.tail[at])


def _alone(loaded: Loaded, row: TokenRow, k: int, usage: Usage) -> TopLogprobs:
    """Run one row with the model's own attention, or as a pack of its own."""
    inputs = row.tokens[:-1]
    if loaded.packed:
        return next(_packed(loaded, next(packs([inputs], len(inputs))), [row], k, usage))[1]
    started, device = time.perf_counter(), loaded.model.device
    with torch.inference_mode():
        places = torch.arange(row.first - 1, len(inputs), device=device)
        output = loaded.model(input_ids=torch.tensor([inputs], device=device), use_cache=False, logits_to_keep=places)
        best = _best(output.logits[0], k)
    usage.model_seconds += time.perf_counter() - started
    usage.forwarded_tokens += len(inputs)
    return best


def _best(logits: torch.Tensor, k: int) -> TopLogprobs:
    """The most likely tokens of each position, a few positions at a time.  # logits: [positions, vocabulary]"""
    ids, logprobs, tails = [], [], []
    for start in range(0, len(logits), _CHUNK_ROWS):
        scores = logits[start : start + _CHUNK_ROWS].float()
        normaliser = torch.logsumexp(scores, -1, keepdim=True)
        top, index = torch.topk(scores, k)
        others = scores.scatter(-1, index, -torch.inf)
        ids.append(index.cpu().numpy().astype(np.uint32))
        logprobs.append((top - normaliser).cpu().numpy())
        tails.append((torch.logsumexp(others, -1) - normaliser[:, 0]).cpu().numpy())
    return TopLogprobs(np.concatenate(ids), np.concatenate(logprobs), np.concatenate(tails))
