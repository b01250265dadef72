"""Rows that a student is measured on while it is trained, and what their loss shows. Imports no torch."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from limbeck.corpus.errors import LimbeckError

STANDARD_ERRORS = 2.0
"""A rise of the held-out loss by more than this many standard errors is reported."""


@dataclass(frozen=True)
class HeldOutLoss:
    """The loss on the held-out rows after a step: for each batch, the sum over its labels, and their number."""

    step: int
    losses: tuple[float, ...]
    labels: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Loss per label."""
        return sum(self.losses) / sum(self.labels)


def split(rows: pa.Table, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The rows to train on and those held out: all rows of a random share of the sources, at least of one.

    A source is a value of `source_id`; without one, rows with the same prompt have the same source. Raises LimbeckError if there
    are fewer than two sources.
    """
    prompts = rows["prompt" if "prompt" in rows.column_names else "input_ids"].to_pylist()
    named = rows["source_id"].to_pylist() if "source_id" in rows.column_names else [None] * len(rows)
    sources = [
        json.dumps([name] if name is not None else prompt, sort_keys=True) for name, prompt in zip(named, prompts, strict=True)
    ]
    ranked = sorted(set(sources), key=lambda source: hashlib.sha256(f"{seed}\0{source}".encode()).digest())
    if len(ranked) < 2:
        raise LimbeckError(
            f"held_out needs rows of at least 2 sources, but the dataset has {len(ranked)}; set held_out to null or draw more "
            "candidates"
        )
    chosen = set(ranked[: min(len(ranked) - 1, max(1, round(share * len(ranked))))])
    held = [source in chosen for source in sources]
    return [row for row, out in enumerate(held) if not out], [row for row, out in enumerate(held) if out]


def lowest(measured: Sequence[HeldOutLoss]) -> HeldOutLoss:
    """The first measurement with the lowest loss; a loss that is not a number is the highest."""
    return min(measured, key=lambda one: one.mean if math.isfinite(one.mean) else math.inf)


def rise(measured: Sequence[HeldOutLoss], *, best_is_kept: bool) -> str | None:
    """A sentence if the last loss is above the lowest by more than two standard errors of their paired difference, else None.

    The difference is a ratio of sums over batches, with the standard error of such a ratio (Cochran 1977, Sampling Techniques,
    section 6.3). A single batch has no standard error, so nothing is reported.
    """
    best, last = lowest(measured), measured[-1]
    batches = len(last.labels)
    if batches < 2 or not math.isfinite(best.mean) or last.step == best.step:
        return None
    difference = last.mean - best.mean
    residuals = [
        now - before - difference * labels for now, before, labels in zip(last.losses, best.losses, last.labels, strict=True)
    ]
    error = math.sqrt(batches / (batches - 1) * sum(value * value for value in residuals)) / sum(last.labels)
    if difference <= STANDARD_ERRORS * error:
        return None
    way_out = f"the student has the weights of step {best.step}" if best_is_kept else "train fewer epochs, or set keep_best: true"
    return (
        f"the held-out loss rose from {best.mean:.3f} after step {best.step} to {last.mean:.3f} after step {last.step} (standard "
        f"error of the difference {error:.3f}), which is overfitting; {way_out}"
    )
