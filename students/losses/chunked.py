"""Losses from hidden states and heads, a few positions at a time, so that the logits of a batch never exist.

The gradients of a sum do not depend on the gradient that flows into it, except by a factor. So each chunk of positions is
projected to logits, and its loss and the gradients of hidden states and head are computed at once; the backward pass only
multiplies them. Logits are computed in the dtype of the hidden states, as the model's own head does; softmax, loss and the sums
of head gradients are float32 (float64 for float64 inputs). Inputs must be finite: NaN or infinity makes the loss NaN or infinite.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from limbeck.corpus.errors import LimbeckError
from limbeck.students.losses.divergences import CACHED, ULD, Divergence
from limbeck.students.losses.kernels import Buffers, kernel

#: Positions per chunk: 64 take a quarter longer, 256 gain a tenth for twice the memory (benchmarks/kd_memory.py).
CHUNK = 128
# Logits of this many bytes stay in a processor's cache from one operation of a kernel to the next.
_CACHED_BYTES = 2**20


@dataclass(frozen=True)
class Head:
    """How a model's hidden states become logits: `soft_cap * tanh(scale * (weight @ hidden + bias) / soft_cap)`.

    Without a soft cap, `scale * (weight @ hidden + bias)`.  # weight: [vocabulary, width], bias: [vocabulary]
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    soft_cap: float | None = None


def distillation_loss(
    student_hidden: Tensor,
    student_head: Head,
    teacher_hidden: Tensor,
    teacher_head: Head,
    how: Divergence,
    *,
    labels: Tensor | None = None,
    cross_entropy: float = 0.0,
    chunk: int = CHUNK,
) -> Tensor:
    """Return the sum over positions of the divergence, plus `cross_entropy` × −log q(label), in nats.  # scalar

    Hidden states are [positions, width] of the same positions in both models, labels [positions]. Gradients flow to the student's
    hidden states, weight and bias. If the heads differ in rows, only the first rows that both have are compared and normalised
    over, the labels' loss included; the caller decides whether the models share a vocabulary (kind `uld` compares all rows). The
    temperature does not apply to the labels' loss. Raises LimbeckError if a label is not among the compared rows.
    """
    assert len(student_hidden) == len(teacher_hidden), "a position for a position"
    rows = len(student_head.weight)
    teacher_rows = len(teacher_head.weight)
    if how.kind != ULD:
        rows = teacher_rows = min(rows, teacher_rows)
    step = _Distillation(teacher_hidden.detach(), teacher_head, teacher_rows, how)
    return _summed(student_hidden, student_head, rows, step, labels, cross_entropy, chunk)


def label_loss(hidden: Tensor, head: Head, labels: Tensor, chunk: int = CHUNK) -> Tensor:
    """Return the sum over positions of −log q(label), in nats.  # hidden: [positions, width], labels: [positions] -> scalar"""
    return _summed(hidden, head, len(head.weight), _Nothing(), labels, 1.0, chunk)


def cached_loss(
    student_hidden: Tensor,
    student_head: Head,
    ids: Tensor,
    logprobs: Tensor,
    tail: Tensor,
    how: Divergence,
    *,
    labels: Tensor | None = None,
    cross_entropy: float = 0.0,
    chunk: int = CHUNK,
) -> Tensor:
    """Return the sum over positions of the divergence from a teacher of which only some probabilities are known.  # scalar

    `ids` [positions, k] are k different tokens of each position, `logprobs` [positions, k] the teacher's log-probabilities of
    them, and `tail` [positions] the logarithm of the mass of all others (-inf: none). The others are one word of both
    distributions, so the result is a lower bound of the full divergence, and equal to it if the ids are the whole vocabulary (a
    tail is then a rounding error, and ignored). The teacher's masses are normalised, since they may have been rounded. Raises
    LimbeckError for kinds other than `CACHED`, for another temperature than 1, and for ids that the student's head does not have.
    """
    if how.kind not in CACHED:
        raise LimbeckError(
            f"{how.kind} cannot be computed from a cached teacher: it depends on how the teacher weighs the tokens outside "
            f"the cache; choose {' or '.join(CACHED)}, or a live teacher"
        )
    if how.temperature != 1:
        raise LimbeckError(
            f"a cached teacher's probabilities have temperature 1, so the loss cannot have temperature {how.temperature}; "
            "choose 1, or a live teacher"
        )
    rows = len(student_head.weight)
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < rows:
        raise LimbeckError(
            f"the cached teacher knows token {int(ids.max())}, but the student's head has {rows} rows; "
            "take a student with the teacher's vocabulary"
        )
    if ids.shape[1] == rows:
        tail = torch.full_like(tail, -float("inf"))
    step = _Cached(ids, logprobs, tail, how.alpha if how.kind == "skew_kl" else 0.0)
    return _summed(student_hidden, student_head, rows, step, labels, cross_entropy, chunk)


def uld_loss(
    student_hidden: Tensor,
    student_head: Head,
    teacher_hidden: Tensor,
    teacher_head: Head,
    *,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """Return the sum over positions of the distance between sorted probabilities of two vocabularies.  # scalar

    Hidden states are those of the positions that predict one completion in each model's own tokens: the first positions are
    compared up to the length of the shorter one. `paired_positions` gives the pairs of a whole batch.
    """
    shared = min(len(student_hidden), len(teacher_hidden))
    how = Divergence(ULD, temperature=temperature)
    return distillation_loss(student_hidden[:shared], student_head, teacher_hidden[:shared], teacher_head, how, chunk=chunk)


def paired_positions(student_lengths: list[int], teacher_lengths: list[int]) -> tuple[Tensor, Tensor]:
    """The positions of a batch that `uld_loss` compares, of completions that follow each other in both models' hidden states."""
    firsts: list[Tensor] = []
    seconds: list[Tensor] = []
    student = teacher = 0
    for ours, theirs in zip(student_lengths, teacher_lengths, strict=True):
        shared = torch.arange(min(ours, theirs))
        firsts.append(shared + student)
        seconds.append(shared + teacher)
        student, teacher = student + ours, teacher + theirs
    none = torch.empty(0, dtype=torch.long)
    return torch.cat([none, *firsts]), torch.cat([none, *seconds])


class _Step(Protocol):
    """A loss of some positions; `temperature` divides the student's logits before they are handed over."""

    temperature: float

    def load(self, start: int, stop: int, dtype: torch.dtype) -> None:
        """Prepare positions `start` to `stop`."""
        ...

    def __call__(self, logits: Tensor, start: int, stop: int, buffers: Buffers) -> Tensor:
        """Replace the logits by gradients and return losses; positions count from the first of the chunk.  # [positions]"""
        ...


class _Nothing:
    """No loss beside that of the labels."""

    temperature = 1.0

    def load(self, start: int, stop: int, dtype: torch.dtype) -> None:
        pass

    def __call__(self, logits: Tensor, start: int, stop: int, buffers: Buffers) -> Tensor:
        logits.zero_()
        return logits.new_zeros(len(logits))


class _Distillation:
    """A divergence from a teacher's hidden states."""

    def __init__(self, hidden: Tensor, head: Head, rows: int, how: Divergence) -> None:
        self._hidden, self._project = hidden, _Projection(head, rows, hidden.dtype)
        self._how, self._kernel, self.temperature = how, kernel(how), how.temperature
        self._logits: Tensor | None = None

    def load(self, start: int, stop: int, dtype: torch.dtype) -> None:
        if self._logits is None:
            self._logits = self._project.room(stop - start, dtype)  # the first chunk is the largest
        self._project(self._hidden[start:stop], self._logits[: stop - start])
        self._project.transform(self._logits[: stop - start])
        if self.temperature != 1:
            self._logits[: stop - start].div_(self.temperature)

    def __call__(self, logits: Tensor, start: int, stop: int, buffers: Buffers) -> Tensor:
        assert self._logits is not None
        return self._kernel(logits, self._logits[start:stop], buffers, self._how)


class _Cached:
    """KL(p‖αp + (1 − α)q) over the kept tokens and one bucket of all others; α = 0 is the forward KL."""

    temperature = 1.0

    def __init__(self, ids: Tensor, logprobs: Tensor, tail: Tensor, alpha: float) -> None:
        self._given, self._alpha = (ids.long(), logprobs.detach(), tail.detach()), alpha
        self._loaded: tuple[Tensor, Tensor] | None = None

    def load(self, start: int, stop: int, dtype: torch.dtype) -> None:
        ids, kept, tail = (part[start:stop] for part in self._given)
        p_log = torch.cat([kept, tail[:, None].to(kept.dtype)], 1).to(dtype)  # [positions, k + 1]
        self._loaded = ids, p_log.log_softmax(1)

    def __call__(self, logits: Tensor, start: int, stop: int, buffers: Buffers) -> Tensor:
        assert self._loaded is not None
        ids, p_log = (part[start:stop] for part in self._loaded)
        q_log = torch.log_softmax(logits, -1, out=buffers.like(logits, "q"))
        others = logits.copy_(q_log).scatter_(1, ids, -float("inf"))
        buckets = torch.cat([q_log.gather(1, ids), others.logsumexp(1, keepdim=True)], 1)  # [positions, k + 1]
        p, q = p_log.exp(), buckets.exp()
        never = p == 0
        if self._alpha:
            mixed = torch.lerp(q, p, self._alpha).clamp_(min=torch.finfo(q.dtype).tiny).log_()
            shares = p * torch.exp(buckets + math.log1p(-self._alpha) - mixed)  # -q f
        else:
            mixed, shares = buckets, p
        value = (p * (p_log - mixed)).masked_fill(never, 0).sum(1)
        total = shares.sum(1, keepdim=True)
        torch.exp(q_log, out=logits)
        kept_slopes = q[:, :-1] * total - shares[:, :-1]
        # The others share the slope of their bucket as they share its mass; the bound keeps 0 · inf out of an empty bucket.
        shared = torch.exp((shares[:, -1:].log() - buckets[:, -1:]).clamp_(max=80))
        logits.mul_(total - shared.masked_fill(never[:, -1:], 0)).scatter_(1, ids, kept_slopes)
        return value


class _Projection:
    """The logits of a head's first rows."""

    def __init__(self, head: Head, rows: int, dtype: torch.dtype) -> None:
        self.head = head
        self.weight = head.weight.detach()[:rows].to(dtype)
        self.bias = None if head.bias is None else head.bias.detach()[:rows].to(dtype)

    def room(self, positions: int, dtype: torch.dtype) -> Tensor:
        """Memory for the logits of some positions.  # [positions, rows]"""
        return torch.empty((positions, len(self.weight)), dtype=dtype, device=self.weight.device)

    def __call__(self, hidden: Tensor, out: Tensor) -> None:
        """Write `weight @ hidden + bias`.  # hidden: [positions, width], out: [positions, rows]"""
        if out.dtype != hidden.dtype:
            out.copy_(torch.nn.functional.linear(hidden, self.weight, self.bias))
        elif self.bias is None:
            torch.mm(hidden, self.weight.t(), out=out)
        else:
            torch.addmm(self.bias, hidden, self.weight.t(), out=out)

    def transform(self, logits: Tensor) -> None:
        """Apply scale and soft cap."""
        if self.head.scale != 1:
            logits.mul_(self.head.scale)
        if self.head.soft_cap is not None:
            logits.add_(logits.sum(-1, keepdim=True).mul_(0))  # NaN if one of them is not finite, which the cap would hide
            logits.div_(self.head.soft_cap).tanh_().mul_(self.head.soft_cap)


def _summed(
    hidden: Tensor, head: Head, rows: int, step: _Step, labels: Tensor | None, cross_entropy: float, chunk: int
) -> Tensor:
    assert chunk > 0, f"a chunk of {chunk} positions"
    if not cross_entropy:
        labels = None
    else:
        assert labels is not None and labels.shape == hidden.shape[:1], "a label for each position"
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < rows:
            wrong = next(label for label in labels.tolist() if not 0 <= label < rows)
            raise LimbeckError(
                f"a label is token {wrong}, but only the first {rows} rows of the heads are compared; "
                "take models whose vocabulary has the data's tokens"
            )
    work = _Work(head, rows, step, labels, cross_entropy, chunk, torch.is_grad_enabled())
    total: Tensor = _Summed.apply(hidden, head.weight, head.bias, work)  # type: ignore[no-untyped-call]
    return total


@dataclass(frozen=True)
class _Work:
    head: Head
    rows: int
    step: _Step
    labels: Tensor | None
    cross_entropy: float
    chunk: int
    gradients: bool


class _Summed(torch.autograd.Function):
    """The sum of a step's losses over all positions."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> Tensor:
        wanted = [work.gradients and needed for needed in ctx.needs_input_grad[:3]]
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        project = _Projection(work.head, work.rows, hidden.dtype)
        gradients = _Gradients(hidden, weight, bias, project.weight, wanted, exact)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        held = project.room(min(work.chunk, len(hidden)), exact)
        size = held.shape[0] if hidden.is_cuda else max(1, _CACHED_BYTES // (max(1, work.rows) * held.element_size()))
        buffers = Buffers(min(size, len(held)), exact, hidden.device)
        for start in range(0, len(hidden), work.chunk):
            stop = min(start + work.chunk, len(hidden))
            logits = held[: stop - start]
            project(hidden[start:stop], logits)
            work.step.load(start, stop, exact)
            for first in range(0, stop - start, size):
                last = min(first + size, stop - start)
                total += _block(logits[first:last], start, first, project, work, buffers).sum(dtype=torch.float64)
            gradients.add(start, logits)
        ctx.gradients = gradients
        return total.to(exact)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return *ctx.gradients.times(outer[0]), None


def _block(logits: Tensor, start: int, first: int, project: _Projection, work: _Work, buffers: Buffers) -> Tensor:
    """Replace raw logits by the gradients with respect to them, and return the losses.  # [positions]"""
    head, last = project.head, first + len(logits)
    project.transform(logits)
    slopes = None
    if head.soft_cap is not None:  # d tanh(x) = 1 - tanh(x)²
        slopes = torch.div(logits, head.soft_cap, out=buffers.like(logits, "slopes"))
        slopes.square_().neg_().add_(1)
    labels = None if work.labels is None else work.labels[start + first : start + last, None]
    of_labels = own = None
    if labels is not None:
        own = torch.log_softmax(logits, -1, out=buffers.like(logits, "own"))
        of_labels = own.gather(1, labels)[:, 0]
        own.exp_()
    if work.step.temperature != 1:
        logits.div_(work.step.temperature)
    losses = work.step(logits, first, last, buffers)
    if work.step.temperature != 1:
        logits.div_(work.step.temperature)
    if labels is not None and own is not None and of_labels is not None:
        losses = losses - work.cross_entropy * of_labels
        logits.add_(own, alpha=work.cross_entropy)
        logits.scatter_add_(1, labels, torch.full_like(labels, -work.cross_entropy, dtype=logits.dtype))
    if slopes is not None:
        logits.mul_(slopes)
    if head.scale != 1:
        logits.mul_(head.scale)
    return losses


class _Gradients:
    """Gradients of hidden states, weight and bias, as far as they are wanted."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, used: Tensor, wanted: list[bool], exact: torch.dtype
    ) -> None:
        self._inputs, self._used = hidden.detach(), used
        self._dtypes = tuple(None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias))
        self._hidden = torch.empty_like(self._inputs) if wanted[0] else None
        self._weight = torch.zeros_like(weight, dtype=exact) if wanted[1] else None
        self._bias = torch.zeros_like(bias, dtype=exact) if wanted[2] and bias is not None else None

    def add(self, start: int, logits: Tensor) -> None:
        """Add those of a chunk, from the gradients of its logits.  # [positions, rows]"""
        inputs, rows = self._inputs[start : start + len(logits)], logits.shape[1]
        if self._hidden is not None:
            torch.mm(logits.to(inputs.dtype), self._used, out=self._hidden[start : start + len(logits)])
        if self._weight is not None:
            self._weight[:rows].addmm_(logits.t(), inputs.to(logits.dtype))
        if self._bias is not None:
            self._bias[:rows].add_(logits.sum(0))

    def times(self, factor: Tensor) -> list[Tensor | None]:
        """The gradients of the loss times a factor, in the dtypes of the inputs."""
        held = (self._hidden, self._weight, self._bias)
        return [
            None if gradient is None or dtype is None else (gradient * factor).to(dtype)
            for gradient, dtype in zip(held, self._dtypes, strict=True)
        ]
