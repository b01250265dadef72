"""Decoding many samples of many prompts: a prompt runs once, and finished samples are replaced by waiting ones."""

import time
from collections.abc import Iterator, Mapping, Sequence

import torch

from limbeck.cluster.engines.local import attention
from limbeck.cluster.engines.local.cache import DecodePlan, PromptWriter, SlotCache
from limbeck.cluster.engines.local.config import TransformersConfig
from limbeck.cluster.engines.local.contrast import contrasted
from limbeck.cluster.engines.local.loading import Loaded
from limbeck.cluster.engines.local.packing import Pack, packs
from limbeck.cluster.engines.local.samples import NAN_ERROR, Group, Sample, accept, group_samples
from limbeck.cluster.engines.local.sampling import draw
from limbeck.cluster.engines.protocol import Usage

_REFILL = 4  # waiting groups are admitted once a quarter of the batch is free: each admission costs a small, less efficient pass


class Decoder:
    """The live groups of one wave, in slots 0 .. len(live) - 1 of a cache."""

    def __init__(self, loaded: Loaded, cache: SlotCache, pack_tokens: int, usage: Usage) -> None:
        """Start with empty slots."""
        self.loaded, self.cache, self.pack_tokens, self.usage = loaded, cache, pack_tokens, usage
        self.live: list[Group] = []

    def admit(self, groups: Sequence[Group]) -> list[Sample]:
        """Run the groups' prompts into free slots and draw each sample's first token; return the samples that ended.

        Prompts without the source run first, each once for all groups that share it: every group needs their logits.
        """
        for entering in (slot for group in groups for slot in group.slots):
            entering.slot = len(self.live)
            self.cache.open(entering.slot, len(entering.prompt))
            self.live.append(entering)
        shadows: dict[int, torch.Tensor] = {}
        for members, logits in self._prefill([group.shadow for group in groups if group.shadow is not None]):
            shadows |= {id(s): logits[row] for row, alike in enumerate(members) for group in alike for s in group.samples}
        for members, logits in self._prefill(groups):
            samples = [(row, sample) for row, alike in enumerate(members) for group in alike for sample in group.samples]
            self._take(logits[[row for row, _ in samples]], [sample for _, sample in samples], shadows)
        return self._sweep([sample for group in groups for sample in group.samples])

    def step(self) -> list[Sample]:
        """Draw one more token for every unfinished sample, after one of its shadow's; return the samples that ended."""
        rows = [(group, i, sample) for group in self.live for i, sample in group.live()]
        places = [len(g.prompt) + (len(s.tokens) - 1) * len(g.samples) + i for g, i, s in rows]
        plan = DecodePlan.of(self.cache, [g.slot for g, _, _ in rows], [i for _, i, _ in rows], places)
        device = self.cache.device
        tokens = torch.tensor([s.tokens[-1] for _, _, s in rows], device=device)
        positions = torch.tensor([len(g.prompt) + len(s.tokens) - 1 for g, _, s in rows], device=device)
        logits = attention.forward(self.loaded.model, tokens, positions, plan, torch.arange(len(rows), device=device))
        self.usage.forwarded_tokens += len(rows)
        shadows = {id(sample): logits[row] for row, (group, _, sample) in enumerate(rows) if group.is_shadow}
        drawn = [(row, sample) for row, (group, _, sample) in enumerate(rows) if not group.is_shadow]
        samples = [sample for _, sample in drawn]
        self._take(logits[[row for row, _ in drawn]] if shadows else logits, samples, shadows)
        return self._sweep(samples)

    def _prefill(self, groups: Sequence[Group]) -> Iterator[tuple[Sequence[Sequence[Group]], torch.Tensor]]:
        """Run the prompts of groups, equal ones once; yield the groups of the prompts of each pack, and their logits."""
        waiting: dict[tuple[int, ...], list[Group]] = {}
        for group in groups:
            waiting.setdefault(group.prompt, []).append(group)
        prompts = list(waiting)
        for pack in packs(prompts, self.pack_tokens):
            members = [waiting[prompts[member]] for member in pack.members]
            yield members, self._run(pack, members)

    def _run(self, pack: Pack, members: Sequence[Sequence[Group]]) -> torch.Tensor:
        """Run one pack of prompts, `members` are the groups of each; return the logits after each.  # [prompts, vocabulary]"""
        device = self.cache.device
        slots = [group.slot for alike in members for group in alike]
        paths = [path for path, alike in zip(pack.paths, members, strict=True) for _ in alike]
        writer = PromptWriter.of(self.cache, slots, paths)
        plan = attention.PackedPlan(attention.blocks(pack, self.loaded.model.dtype, device), writer)
        tokens, positions = (torch.tensor(x, device=device) for x in (pack.tokens, pack.positions))
        last = torch.tensor([path[-1] for path in pack.paths], device=device)
        logits = attention.forward(self.loaded.model, tokens, positions, plan, last)
        self.usage.forwarded_tokens += len(pack.tokens)
        return logits

    def _take(self, logits: torch.Tensor, samples: Sequence[Sample], shadows: Mapping[int, torch.Tensor]) -> None:
        """Draw and process a token per sample; `shadows`: id of a sample with a contrast → its logits without the source."""
        scores = contrasted(logits, [(s.request.sampling.contrast, shadows.get(id(s))) for s in samples])
        for sample, token in zip(samples, draw(scores, [s.next_draw() for s in samples]), strict=True):
            accept(sample, token, self.loaded)

    def _sweep(self, samples: Sequence[Sample]) -> list[Sample]:
        """Free the slots of finished groups, moving the last slot into each hole; return the samples that have ended."""
        for group in [group for group in self.live if not group.live()]:
            last = self.live.pop()
            if last is not group:
                self.cache.move(last.slot, group.slot, last.used())
                self.live[group.slot] = last
                last.slot = group.slot
        return [sample for sample in samples if sample.finish_reason is not None]


def decode(loaded: Loaded, samples: Sequence[Sample], config: TransformersConfig, usage: Usage) -> Iterator[Sample]:
    """Yield the samples as they finish; at most `batch_sequences` are decoded together.

    A NaN passes through an additive mask, so it may come from a neighbour: such a sample is drawn again, alone.
    """
    sick = []
    for sample in _decode_together(loaded, samples, config, usage):
        if sample.error == NAN_ERROR:
            sick.append(sample)
        else:
            yield sample
    for sample in sick:
        yield from _decode_together(loaded, [Sample(sample.request, sample.rendered, sample.without)], config, usage)


def _decode_together(loaded: Loaded, samples: Sequence[Sample], config: TransformersConfig, usage: Usage) -> Iterator[Sample]:
    groups = group_samples(samples, config.batch_sequences)
    while groups:
        wave, slots = _wave(loaded, groups, config)
        groups = groups[len(wave) :]
        cache = SlotCache(slots, max(len(g.samples) for g in wave), wave[0].width, loaded.model.dtype, loaded.model.device)
        decoder = Decoder(loaded, cache, config.pack_tokens, usage)
        while wave or decoder.live:
            entering = _entering(decoder, wave, config.batch_sequences)
            wave = wave[len(entering) :]
            start = time.perf_counter()
            with torch.inference_mode():
                ended = decoder.admit(entering) if entering else decoder.step()
            usage.model_seconds += time.perf_counter() - start
            yield from ended


def _entering(decoder: Decoder, wave: Sequence[Group], batch_sequences: int) -> list[Group]:
    """The waiting groups to start now: as many as fit, once a quarter of the batch is free or all of them fit."""
    free_rows = batch_sequences - sum(len(group.live()) for group in decoder.live if not group.is_shadow)
    free_slots = decoder.cache.slots - len(decoder.live)
    entering: list[Group] = []
    rows = slots = 0
    for group in wave[:free_slots]:
        if rows + len(group.samples) > free_rows or slots + len(group.slots) > free_slots:
            break
        entering.append(group)
        rows += len(group.samples)
        slots += len(group.slots)
    worth = not decoder.live or len(entering) == len(wave) or rows * _REFILL >= batch_sequences
    worth = worth or free_slots * _REFILL >= decoder.cache.slots
    return entering if worth else []


def _wave(loaded: Loaded, groups: Sequence[Group], config: TransformersConfig) -> tuple[list[Group], int]:
    """Return the groups that share a cache, and its slots. If memory is short, groups half as wide wait for a narrower cache."""
    each = max(len(group.slots) for group in groups)
    slots = max(each, config.cache_bytes // (groups[0].width * loaded.place_bytes))
    wave = list(groups)
    if sum(len(group.slots) for group in groups) > slots:
        wave = [group for group in groups if 2 * group.width >= groups[0].width]
    return wave, min(slots, sum(len(group.slots) for group in wave), each * config.batch_sequences)
