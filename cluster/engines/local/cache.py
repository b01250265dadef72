"""The key-value cache of decoding: one slot per group of samples, with the prompt stored once.

A slot holds the prompt's keys, then those of the samples' own tokens, interleaved: the token of sample i of n at step s is at
`prompt + s * n + i`. So one matrix product per slot serves all its samples (their queries are rows of one matrix), writes are in
place, and the only copy is moving the last slot into the hole left by a finished group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from limbeck.cluster.engines.local.packing import Indices


@dataclass
class SlotCache:
    """Keys and values per layer, [slots, kv_heads, width, d], and which positions each sample sees, [slots, samples, width]."""

    slots: int
    samples: int
    width: int
    dtype: torch.dtype
    device: torch.device
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    mask: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Start with nothing visible; the layers' tensors are allocated when their shapes are known."""
        self.mask = torch.full((self.slots, self.samples, self.width), -torch.inf, dtype=self.dtype, device=self.device)

    def layer(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tensors of a layer, made to fit key and value [T, kv_heads, d]."""
        if layer not in self.keys:
            for store, sample in ((self.keys, key), (self.values, value)):
                shape = (self.slots, sample.shape[1], self.width, sample.shape[2])
                store[layer] = torch.zeros(shape, dtype=sample.dtype, device=sample.device)
        return self.keys[layer], self.values[layer]

    def open(self, slot: int, prompt_tokens: int) -> None:
        """Make only the prompt of a slot visible to its samples; old values are cleared, since a masked NaN still spreads."""
        self.mask[slot] = -torch.inf
        self.mask[slot, :, :prompt_tokens] = 0
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[slot] = 0

    def inherit(self, slot: int, parents: Sequence[int]) -> None:
        """Let sample i of a slot see what sample parents[i] sees: hypotheses branch without copying keys and values."""
        if parents:
            self.mask[slot, : len(parents)] = self.mask[slot, list(parents)]

    def move(self, source: int, target: int, used: int) -> None:
        """Copy the first `used` positions of a slot to another."""
        self.mask[target] = self.mask[source]
        for store in (self.keys, self.values):
            for tensor in store.values():
                tensor[target, :, :used] = tensor[source, :, :used]


@dataclass(frozen=True)
class PromptWriter:
    """Stores the prompts of a pack: `slots` of `paths`, which is [tokens] indices into the row for each slot."""

    cache: SlotCache
    slots: Sequence[int]
    paths: Sequence[torch.Tensor]

    @classmethod
    def of(cls, cache: SlotCache, slots: Sequence[int], paths: Sequence[Indices]) -> "PromptWriter":
        """Build it from a pack's paths."""
        return cls(cache, slots, [torch.from_numpy(path).to(cache.device) for path in paths])

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Write key and value [T, kv_heads, d] of a pack into the slots."""
        keys, values = self.cache.layer(layer, key, value)
        for slot, path in zip(self.slots, self.paths, strict=True):
            keys[slot, :, : len(path)] = key[path].transpose(0, 1)
            values[slot, :, : len(path)] = value[path].transpose(0, 1)


@dataclass(frozen=True)
class DecodePlan:
    """One new token for each of T rows: row t is sample `samples[t]` of slot `slots[t]` and its token goes to `places[t]`."""

    cache: SlotCache
    rows: torch.Tensor  # [T] slot * cache.samples + sample
    slots: torch.Tensor
    places: torch.Tensor
    live: int  # slots 0 .. live - 1 are in use
    mask: torch.Tensor  # [live, 1, samples, width in use]

    @classmethod
    def of(cls, cache: SlotCache, slots: Sequence[int], samples: Sequence[int], places: Sequence[int]) -> "DecodePlan":
        """Build the plan of one step, and make each row's new position visible to it."""
        slot, sample, place = (torch.from_numpy(np.array(x, np.int64)).to(cache.device) for x in (slots, samples, places))
        cache.mask[slot, sample, place] = 0
        live, width = max(slots) + 1, max(places) + 1
        return cls(cache, slot * cache.samples + sample, slot, place, live, cache.mask[:live, None, :, :width])

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """See `attention.Plan`: query [T, heads, d] → [T, heads, d]; the heads of a key head become rows of its product."""
        keys, values = self.cache.layer(layer, key, value)
        keys[self.slots, :, self.places] = key
        values[self.slots, :, self.places] = value
        heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[2]
        shared, samples, width = heads // kv_heads, self.cache.samples, self.mask.shape[-1]
        padded = query.new_zeros(self.live * samples, heads, size)
        padded[self.rows] = query
        folded = padded.view(self.live, samples, kv_heads, shared, size).permute(0, 2, 3, 1, 4)
        folded = folded.reshape(self.live, kv_heads, shared * samples, size)
        mask = self.mask.expand(-1, shared, -1, -1).reshape(self.live, 1, shared * samples, width)
        out = F.scaled_dot_product_attention(
            folded, keys[: self.live, :, :width], values[: self.live, :, :width], attn_mask=mask, scale=scale
        )
        out = out.view(self.live, kv_heads, shared, samples, -1).permute(0, 3, 1, 2, 4).reshape(self.live * samples, heads, -1)
        return out[self.rows]
