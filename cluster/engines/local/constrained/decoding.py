"""Constrained requests on a model: the hypotheses of several searches in one forward pass, each prompt stored once.

A search has one slot of the cache, and its hypotheses are the slot's samples. When hypotheses branch, only the mask changes: a
hypothesis sees the tokens of its ancestors where they were written.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from limbeck.cluster.engines.local import attention
from limbeck.cluster.engines.local.cache import DecodePlan, PromptWriter, SlotCache
from limbeck.cluster.engines.local.config import TransformersConfig
from limbeck.cluster.engines.local.constrained.pieces import Pieces
from limbeck.cluster.engines.local.constrained.search import Search
from limbeck.cluster.engines.local.constrained.tracker import Tracker
from limbeck.cluster.engines.local.loading import Loaded
from limbeck.cluster.engines.local.packing import packs
from limbeck.cluster.engines.local.samples import NAN_ERROR, Sample
from limbeck.cluster.engines.protocol import Sampling, Usage
from limbeck.cluster.engines.rendering import Rendered


@dataclass
class Beam:
    """A search and the requests that it answers, which differ in the place of their constraint only."""

    samples: list[Sample]
    search: Search
    broken: bool = False  # by a NaN

    @property
    def prompt(self) -> tuple[int, ...]:
        """The prompt tokens shared by its requests."""
        return self.samples[0].prompt

    @property
    def rows(self) -> int:
        """The number of hypotheses."""
        return self.search.constraint.beams

    @property
    def width(self) -> int:
        """Positions for the prompt and for every token that may be forwarded."""
        return len(self.prompt) + self.rows * self.search.max_new_tokens

    @property
    def done(self) -> bool:
        """Whether it needs no further tokens."""
        return self.broken or self.search.done

    def take(self, logits: torch.Tensor) -> list[int]:
        """Advance by logits [live, vocabulary]; return the parents of the new hypotheses."""
        if not bool(torch.isfinite(logits.amax(-1)).all()):  # amax propagates NaN
            self.broken = True
            return []
        return self.search.advance(torch.log_softmax(logits.float(), -1))

    def refuse(self, needed_bytes: int, cache_bytes: int) -> list[Sample]:
        """End its requests with the reason that the cache does not hold them, and return them."""
        reason = (
            f"a search with {self.rows} beams and {self.search.max_new_tokens} new tokens needs a key-value cache of "
            f"{needed_bytes >> 20} MiB, but cache_bytes is {cache_bytes >> 20} MiB; lower beams or max_new_tokens, or raise it"
        )
        for sample in self.samples:
            sample.finish_reason, sample.error = "error", reason
        return self.samples

    def answer(self) -> list[Sample]:
        """Fill in the tokens, or the error, of its requests, and return them."""
        results = self.search.results()
        for sample in self.samples:
            constraint = sample.request.sampling.constraint
            assert constraint is not None
            if self.broken:
                sample.finish_reason, sample.error = "error", NAN_ERROR
            elif constraint.place >= len(results):
                sample.finish_reason, sample.error = "error", _no_result(len(results), self.search.max_new_tokens)
            else:
                found = results[constraint.place]
                sample.tokens, sample.finish_reason = list(found.tokens), "stop" if found.ended else "length"
        return self.samples


def decode(loaded: Loaded, samples: Sequence[Sample], config: TransformersConfig, usage: Usage) -> Iterator[Sample]:
    """Yield the samples as their searches end; at most `batch_sequences` hypotheses are decoded together, but one search.

    A NaN passes through an additive mask, so it may come from a neighbour: such a search is repeated, alone.
    """
    sick: list[Sample] = []
    run = _decode_together if loaded.packed else _decode_alone
    beams = []
    for beam in _beams(loaded, samples):
        if loaded.packed and beam.rows > 1 and beam.width * loaded.place_bytes > config.cache_bytes:
            yield from beam.refuse(beam.width * loaded.place_bytes, config.cache_bytes)
        else:
            beams.append(beam)
    for sample in run(loaded, beams, config, usage):
        if sample.error == NAN_ERROR and loaded.packed:
            sick.append(sample)
        else:
            yield sample
    for sample in sick:
        yield from _decode_together(loaded, _beams(loaded, [Sample(sample.request, sample.rendered)]), config, usage)


def _beams(loaded: Loaded, samples: Sequence[Sample]) -> list[Beam]:
    """The searches that the samples need, the widest first."""
    alike: dict[tuple[Rendered, Sampling], list[Sample]] = {}
    for sample in samples:
        sampling = sample.request.sampling
        assert sampling.constraint is not None
        first = replace(sampling, constraint=replace(sampling.constraint, place=0))
        alike.setdefault((sample.rendered, first), []).append(sample)
    pieces = Pieces(loaded.tokenizer) if samples else None
    beams = []
    for (_, sampling), together in alike.items():
        assert pieces is not None and sampling.constraint is not None
        tracker = Tracker(sampling.constraint, pieces, lambda text: _encode(loaded, text), together[0].stop)
        ends = loaded.end_tokens | together[0].rendered.end_tokens
        places = 1 + max(s.request.sampling.constraint.place for s in together if s.request.sampling.constraint)
        beams.append(Beam(together, Search(sampling.constraint, tracker, ends, sampling.max_new_tokens, places)))
    return sorted(beams, key=lambda beam: -beam.width)


def _encode(loaded: Loaded, text: str) -> list[int]:
    return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


def _no_result(count: int, tokens: int) -> str:
    if count:
        return f"the constraint's search ended with {count} texts, so there is none at the requested place"
    return f"every text of up to {tokens} tokens that the constraint's search reached contains a banned phrase or cannot go on"


def _decode_together(loaded: Loaded, beams: Sequence[Beam], config: TransformersConfig, usage: Usage) -> Iterator[Sample]:
    if not beams:
        return
    rows = max(beam.rows for beam in beams)
    slots = max(1, min(config.batch_sequences // rows, config.cache_bytes // (beams[0].width * loaded.place_bytes), len(beams)))
    cache = SlotCache(slots, rows, beams[0].width, loaded.model.dtype, loaded.model.device)
    decoder = _Decoder(loaded, cache, config.pack_tokens, usage)
    waiting = list(beams)
    while waiting or decoder.live:
        start = time.perf_counter()
        with torch.inference_mode():
            free = slots - len(decoder.live)
            entering, waiting = waiting[:free], waiting[free:]
            ended = decoder.admit(entering) if entering else decoder.step()
        usage.model_seconds += time.perf_counter() - start
        for beam in ended:
            yield from beam.answer()


class _Decoder:
    """The searches in progress, in slots 0 .. len(live) - 1 of a cache."""

    def __init__(self, loaded: Loaded, cache: SlotCache, pack_tokens: int, usage: Usage) -> None:
        self._loaded, self._cache, self._pack_tokens, self._usage = loaded, cache, pack_tokens, usage
        self.live: list[Beam] = []

    def admit(self, beams: Sequence[Beam]) -> list[Beam]:
        """Run the prompts of searches into free slots and take their first step; return the searches that ended."""
        slots = {id(beam): len(self.live) + place for place, beam in enumerate(beams)}
        waiting: dict[tuple[int, ...], list[Beam]] = {}
        for beam in beams:
            self._cache.open(slots[id(beam)], len(beam.prompt))
            waiting.setdefault(beam.prompt, []).append(beam)
        self.live += beams
        prompts, device = list(waiting), self._cache.device
        for pack in packs(prompts, self._pack_tokens):
            members = [waiting[prompts[member]] for member in pack.members]
            paths = [path for path, alike in zip(pack.paths, members, strict=True) for _ in alike]
            writer = PromptWriter.of(self._cache, [slots[id(beam)] for alike in members for beam in alike], paths)
            plan = attention.PackedPlan(attention.blocks(pack, self._loaded.model.dtype, device), writer)
            tokens, positions = (torch.tensor(x, device=device) for x in (pack.tokens, pack.positions))
            last = torch.tensor([path[-1] for path in pack.paths], device=device)
            logits = attention.forward(self._loaded.model, tokens, positions, plan, last)
            self._usage.forwarded_tokens += len(pack.tokens)
            for row, alike in enumerate(members):
                for beam in alike:
                    self._cache.inherit(slots[id(beam)], beam.take(logits[row, None]))
        return self._sweep()

    def step(self) -> list[Beam]:
        """Continue every hypothesis by one token; return the searches that ended."""
        rows = [(slot, beam, i, h.tokens) for slot, beam in enumerate(self.live) for i, h in enumerate(beam.search.live)]
        places = [len(beam.prompt) + (len(tokens) - 1) * beam.rows + i for _, beam, i, tokens in rows]
        plan = DecodePlan.of(self._cache, [slot for slot, *_ in rows], [i for _, _, i, _ in rows], places)
        device = self._cache.device
        tokens = torch.tensor([tokens[-1] for *_, tokens in rows], device=device)
        positions = torch.tensor([len(beam.prompt) + len(tokens) - 1 for _, beam, _, tokens in rows], device=device)
        logits = attention.forward(self._loaded.model, tokens, positions, plan, torch.arange(len(rows), device=device))
        self._usage.forwarded_tokens += len(rows)
        start = 0
        for slot, beam in enumerate(self.live):
            end = start + len(beam.search.live)
            self._cache.inherit(slot, beam.take(logits[start:end]))
            start = end
        return self._sweep()

    def _sweep(self) -> list[Beam]:
        """Free the slots of ended searches, moving the last slot into each hole; return those searches."""
        ended = [beam for beam in self.live if beam.done]
        for beam in ended:
            hole, last = self.live.index(beam), self.live.pop()
            if last is not beam:
                used = len(last.prompt) + last.rows * last.search.step
                self._cache.move(len(self.live), hole, used)
                self.live[hole] = last
        return ended


def _decode_alone(loaded: Loaded, beams: Sequence[Beam], config: TransformersConfig, usage: Usage) -> Iterator[Sample]:
    """Models that cannot be packed: the model's own cache, one search at a time."""
    model = loaded.model
    for beam in beams:
        start = time.perf_counter()
        with torch.inference_mode():
            output = model(input_ids=torch.tensor([beam.prompt], device=model.device), use_cache=True, logits_to_keep=1)
            usage.forwarded_tokens += len(beam.prompt)
            while parents := beam.take(output.logits[:, -1]):
                cache = output.past_key_values
                cache.batch_select_indices(torch.tensor(parents, device=model.device))
                newest = torch.tensor([[h.tokens[-1]] for h in beam.search.live], device=model.device)
                output = model(input_ids=newest, past_key_values=cache, use_cache=True)
                usage.forwarded_tokens += len(parents)
        usage.model_seconds += time.perf_counter() - start
        yield from beam.answer()
