"""Samples of the student in place of the completions of some optimiser steps, and a buffer of samples that are used again."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np

from limbeck.cluster.engines.local.live import LiveSampler
from limbeck.cluster.engines.local.samples import Sample
from limbeck.cluster.engines.protocol import Sampling
from limbeck.corpus.parts import read_object, write_json
from limbeck.corpus.seeds import derive_seed
from limbeck.students.distil import OnPolicyConfig
from limbeck.students.training.rows import Row
from limbeck.students.training.teacher_cache import first_label

Source = Literal["dataset", "fresh", "replay"]


@dataclass
class Replay:
    """The last samples, up to `most`."""

    most: int
    rows: deque[Row] = field(init=False)

    def __post_init__(self) -> None:
        """Start empty."""
        self.rows = deque(maxlen=self.most)

    @property
    def full(self) -> bool:
        """Whether the next sample replaces the oldest."""
        return len(self.rows) == self.most

    def draw(self, number: int, random: Random) -> list[Row]:
        """Different rows, or as many as there are."""
        held = list(self.rows)
        return random.sample(held, min(number, len(held)))


class OnPolicy:
    """Decides what each step trains on, and draws samples; every choice depends on seed, worker and step alone."""

    def __init__(self, config: OnPolicyConfig, sampler: LiveSampler, seed: int, worker: int) -> None:
        self.config, self.sampler, self.seed, self.worker = config, sampler, seed, worker
        self.replay = Replay(config.replay)
        self.counts: dict[Source, int] = {"dataset": 0, "fresh": 0, "replay": 0}

    def source(self, step: int, steps: int) -> Source:
        """Where a step's completions come from. With a buffer, fresh samples become rarer once it is full (DistiLLM)."""
        drawn = Random(derive_seed(self.seed, "on-policy", step)).random()
        share, replay = self.config.share, self.replay
        fresh = share * (1 - step / steps) if replay.most and replay.full else share
        return "fresh" if drawn < fresh else "replay" if drawn < share else "dataset"

    def rows(self, given: Sequence[Row], step: int, steps: int) -> list[Row]:
        """The rows of a step on this worker: the given ones, samples after their prompts, or earlier samples."""
        chosen = self.source(step, steps)
        self.counts[chosen] += 1
        if chosen == "dataset" or not given:
            return list(given)
        if chosen == "fresh":
            fresh = self._sampled(given, step)
            self.replay.rows.extend(row for row, old in zip(fresh, given, strict=True) if row is not old)
            return fresh
        random = Random(derive_seed(self.seed, "replay", step, self.worker))
        again = self.replay.draw(len(given), random)
        return [*again, *given[len(again) :]]

    def save(self, file: Path) -> None:
        """Write the samples that are kept and the counts, for a training that resumes."""
        kept = [{"ids": row.ids.tolist(), "prompt_length": row.prompt_length} for row in self.replay.rows]
        write_json(file, {"rows": kept, "counts": self.counts})

    def load(self, file: Path) -> None:
        """Read what `save` wrote."""
        found = read_object(file)
        self.replay.rows.clear()
        self.replay.rows.extend(Row(np.asarray(row["ids"], np.int32), row["prompt_length"]) for row in found["rows"])
        self.counts = found["counts"]

    def _sampled(self, given: Sequence[Row], step: int) -> list[Row]:
        sampling = Sampling(self.config.max_new_tokens, self.config.temperature)
        prompts = [tuple(row.ids[: first_label(row)].tolist()) for row in given]
        seeds = [derive_seed(self.seed, "sample", step, self.worker, place) for place in range(len(given))]
        samples = self.sampler.complete(prompts, sampling, seeds)
        return [_as_row(row, sample) for row, sample in zip(given, samples, strict=True)]


def _as_row(given: Row, sample: Sample) -> Row:
    """A sample after the prompt of a row, which it replaces; a finished one ends with the row's own end token."""
    if sample.finish_reason == "error":
        return given
    end = given.ids[-1:].tolist() if sample.finish_reason == "stop" else []
    return Row(np.asarray([*sample.prompt, *sample.tokens, *end], np.int32), first_label(given))
