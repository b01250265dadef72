"""Attention over packed rows: models run unchanged, only the attention between tokens is replaced.

transformers passes queries, keys and values of a row of T tokens to a registered attention function, together with every keyword
of the forward pass. Ours forwards them to a `Plan`, which knows which tokens may see which: those of a pack, or those of a
key-value cache. So linear layers never see padding, and the model builds no mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

from limbeck.cluster.engines.local.packing import Pack

NAME = "limbeck_packed"
_WASTE = 1.6  # largest ratio of padded to real area of a block that is still cheaper than another call
_SMALL_AREA = 1 << 16


class Plan(Protocol):
    """Which tokens of a row attend to which."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """Return [T, heads, d] for query [T, heads, d], key and value [T, kv_heads, d] of one layer."""
        ...


@dataclass(frozen=True)
class Block:
    """Segments of a pack that attend in one call, padded to the longest: S segments, Lq own tokens, Lk tokens of their paths."""

    queries: torch.Tensor  # [S, Lq] positions in the row; padding repeats position 0
    keys: torch.Tensor  # [S, Lk]
    mask: torch.Tensor | None  # [S, 1, Lq, Lk], added to the scores; None: causal from the first token on
    real: torch.Tensor  # positions within S * Lq that are not padding
    places: torch.Tensor  # the same positions in the row

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
        """Return [len(places), heads, d]."""
        q, k, v = (rows[places].transpose(1, 2) for rows, places in ((query, self.queries), (key, self.keys), (value, self.keys)))
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.mask, is_causal=self.mask is None, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
        return out.transpose(1, 2).flatten(0, 1)[self.real]


class CacheWriter(Protocol):
    """Stores the keys and values of a pack."""

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store key and value [T, kv_heads, d] of one layer."""
        ...


@dataclass(frozen=True)
class PackedPlan:
    """Every segment of a pack attends to its path; `cache` stores the keys and values for decoding."""

    blocks: tuple[Block, ...]
    cache: CacheWriter | None = None

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """See `Plan`."""
        if self.cache is not None:
            self.cache.store(layer, key, value)
        out = torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype, device=query.device)
        for block in self.blocks:
            out[block.places] = block.attend(query, key, value, scale)
        return out


def blocks(pack: Pack, dtype: torch.dtype, device: torch.device) -> tuple[Block, ...]:
    """Return the attention calls of a pack: segments of similar size together, so that little of a call is padding."""
    sizes = {i: (len(path) - start, len(path)) for i, (path, start) in enumerate(zip(pack.paths, pack.starts, strict=True))}
    order = sorted((i for i, (own, _) in sizes.items() if own), key=lambda i: sizes[i])
    made, group, area = [], list[int](), 0
    for i in order:
        own, whole = sizes[i]
        longest = max([whole, *(sizes[j][1] for j in group)])
        padded = (len(group) + 1) * own * longest
        if group and padded > _SMALL_AREA and padded > _WASTE * (area + own * whole):
            made.append(_block(pack, group, dtype, device))
            group, area = [], 0
        group.append(i)
        area += own * whole
    if group:
        made.append(_block(pack, group, dtype, device))
    return tuple(made)


def _block(pack: Pack, group: Sequence[int], dtype: torch.dtype, device: torch.device) -> Block:
    own = max(len(pack.paths[i]) - pack.starts[i] for i in group)
    whole = max(len(pack.paths[i]) for i in group)
    queries, positions = np.zeros((len(group), own), np.int64), np.zeros((len(group), own), np.int64)
    keys, lengths = np.zeros((len(group), whole), np.int64), np.zeros(len(group), np.int64)
    real = np.zeros((len(group), own), bool)
    for row, i in enumerate(group):
        path, start = pack.paths[i], pack.starts[i]
        queries[row, : len(path) - start] = path[start:]
        positions[row, : len(path) - start] = np.arange(start, len(path))
        real[row, : len(path) - start] = True
        keys[row] = path[0]  # padding is masked, but a NaN of another sequence would pass through the mask
        keys[row, : len(path)] = path
        lengths[row] = len(path)
    mask = None
    if any(pack.starts[i] for i in group):
        column = np.arange(whole)
        seen = (column <= positions[:, :, None]) & (column < lengths[:, None, None])  # a padded query sees the first token
        mask = torch.zeros(seen.shape, dtype=dtype, device=device)
        mask = mask.masked_fill_(torch.from_numpy(~seen).to(device), -torch.inf)[:, None]
    places = torch.from_numpy(queries[real]).to(device)
    flat = torch.from_numpy(np.flatnonzero(real)).to(device)
    return Block(torch.from_numpy(queries).to(device), torch.from_numpy(keys).to(device), mask, flat, places)


def forward(
    model: PreTrainedModel, tokens: torch.Tensor, positions: torch.Tensor, plan: Plan, rows: torch.Tensor
) -> torch.Tensor:
    """Run a row of T tokens and return the logits [len(rows), vocabulary] after the tokens at `rows`, in the model's dtype."""
    output = model(
        input_ids=tokens[None], position_ids=positions[None], use_cache=False, logits_to_keep=rows, plan=plan, return_dict=True
    )
    logits: torch.Tensor = output.logits[0]
    return logits


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: Plan,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The registered function: query [1, heads, T, d], key and value [1, kv_heads, T, d] → [1, T, heads, d]."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return plan.attend(layer, q, k, v, scaling)[None], None


AttentionInterface.register(NAME, _attention)
