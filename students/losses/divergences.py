"""Divergences of a student's next-token distribution q from its teacher's p, from full log-probabilities.

`divergence` is the plain definition: `chunked` computes the same from hidden states, and is tested against it. This module loads
no torch, so configs can import it. The formulas and their sources are in docs/losses.md.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from limbeck.corpus.errors import LimbeckError

if TYPE_CHECKING:
    from torch import Tensor

LossKind = Literal["forward_kl", "reverse_kl", "jsd", "skew_kl", "reverse_skew_kl", "total_variation", "uld"]
#: The distance between sorted probabilities, which two vocabularies can have.
ULD = "uld"
#: Divergences between distributions over one vocabulary.
DIVERGENCES: tuple[str, ...] = tuple(kind for kind in get_args(LossKind) if kind != ULD)
#: Those that the teacher's most probable tokens and the mass of all others determine well enough (`cached_loss`).
CACHED = ("forward_kl", "skew_kl")


@dataclass(frozen=True)
class Divergence:
    """What is minimised: a kind from `DIVERGENCES` or `ULD`, and its parameters.

    `beta` is the teacher's weight in the mixture of `jsd`, as in GKD, and `alpha` the weight of the other distribution in the
    second argument of `skew_kl` and `reverse_skew_kl`, as in DistiLLM; both are in (0, 1). `temperature` divides the logits of
    both models; the loss is not multiplied by its square. Raises LimbeckError if a value is out of range.
    """

    kind: str
    beta: float = 0.5
    alpha: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.kind not in (*DIVERGENCES, ULD):
            raise LimbeckError(f"unknown divergence {self.kind!r}; choose one of {', '.join((*DIVERGENCES, ULD))}")
        if not 0 < self.beta < 1:
            ends = "forward_kl and reverse_kl are divergences of their own, since jsd vanishes at 0 and 1"
            raise LimbeckError(f"beta of a divergence is {self.beta}, but must be between 0 and 1; {ends}")
        if not 0 < self.alpha < 1:
            limits = "for 0, choose forward_kl or reverse_kl"
            raise LimbeckError(f"alpha of a divergence is {self.alpha}, but must be between 0 and 1; {limits}")
        if not 0 < self.temperature < float("inf"):
            raise LimbeckError(f"temperature of a divergence is {self.temperature}, but must be a positive number")


def divergence(p_log: "Tensor", q_log: "Tensor", how: Divergence) -> "Tensor":
    """Return the divergence of each position, in nats, with gradients through both arguments.  # [positions]

    `p_log` are the teacher's and `q_log` the student's log-probabilities, [positions, vocabulary], in float32 or float64; -inf is
    a probability of zero. Only the kind `uld` allows vocabularies of different sizes.
    """
    if how.temperature != 1:
        p_log, q_log = (p_log / how.temperature).log_softmax(-1), (q_log / how.temperature).log_softmax(-1)
    if how.kind == "forward_kl":
        return _kl(p_log, q_log)
    if how.kind == "reverse_kl":
        return _kl(q_log, p_log)
    if how.kind == "jsd":
        mixed = _mixture(p_log, q_log, how.beta)
        return how.beta * _kl(p_log, mixed) + (1 - how.beta) * _kl(q_log, mixed)
    if how.kind == "skew_kl":
        return _kl(p_log, _mixture(p_log, q_log, how.alpha))
    if how.kind == "reverse_skew_kl":
        return _kl(q_log, _mixture(q_log, p_log, how.alpha))
    if how.kind == "total_variation":
        return (p_log.exp() - q_log.exp()).abs().sum(-1) / 2
    return _sorted_distance(p_log.exp(), q_log.exp())


def _kl(a_log: "Tensor", b_log: "Tensor") -> "Tensor":
    """KL(a‖b). A word that `a` never produces counts nothing, whatever `b` gives to it; NaN stays NaN."""
    never = a_log == -float("inf")
    a_log, b_log = a_log.masked_fill(never, 0), b_log.masked_fill(never, 0)  # before the product, so that gradients are finite
    return (a_log.exp() * (a_log - b_log)).masked_fill(never, 0).sum(-1)


def _mixture(a_log: "Tensor", b_log: "Tensor", share: float) -> "Tensor":
    """Logarithm of share·a + (1 − share)·b; a word without probability in either gets that of the smallest number."""
    import torch

    mixed = share * a_log.exp() + (1 - share) * b_log.exp()
    return mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()


def _sorted_distance(p: "Tensor", q: "Tensor") -> "Tensor":
    import torch

    p, q = p.sort(-1, descending=True).values, q.sort(-1, descending=True).values
    width = max(p.shape[-1], q.shape[-1])
    p, q = (torch.nn.functional.pad(x, (0, width - x.shape[-1])) for x in (p, q))
    return (p - q).abs().sum(-1)
