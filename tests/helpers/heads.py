"""Small heads and hidden states, and the logits they mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from limbeck.students.losses.chunked import Head


@dataclass(frozen=True)
class Side:
    """Hidden states of some positions and the head that turns them into logits."""

    hidden: torch.Tensor
    head: Head

    @property
    def leaves(self) -> list[torch.Tensor]:
        """Hidden states, weight and bias."""
        return [tensor for tensor in (self.hidden, self.head.weight, self.head.bias) if tensor is not None]

    def differentiable(self) -> "Side":
        """The same values, as leaves that require gradients."""
        hidden, weight, *bias = (tensor.detach().clone().requires_grad_() for tensor in self.leaves)
        return Side(hidden, replace(self.head, weight=weight, bias=bias[0] if bias else None))

    def logits(self, rows: int | None = None) -> torch.Tensor:
        """All logits of the first rows, naively.  # [positions, rows]"""
        found = torch.nn.functional.linear(self.hidden, self.head.weight, self.head.bias) * self.head.scale
        if self.head.soft_cap is not None:
            found = self.head.soft_cap * torch.tanh(found / self.head.soft_cap)
        return found[:, :rows]


def side(seed: int, positions: int = 5, rows: int = 7, width: int = 3, dtype: Any = torch.float64, **head: Any) -> Side:
    """Random hidden states and head; `biased=True` adds a bias."""
    generator = torch.Generator().manual_seed(seed)
    biased = head.pop("biased", False)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype) for shape in ((positions, width), (rows, width), (rows,))
    )
    return Side(hidden, Head(weight * 1.5, bias if biased else None, **head))


def exactly(logprobs: torch.Tensor) -> Side:
    """A side whose log-probabilities are the given ones.  # [positions, vocabulary]"""
    return Side(logprobs, Head(torch.eye(logprobs.shape[1], dtype=logprobs.dtype)))


def with_gradients(loss: torch.Tensor, leaves: Sequence[torch.Tensor], factor: float = 1.7) -> list[torch.Tensor]:
    """A loss and the gradients of a multiple of it."""
    return [loss.detach(), *torch.autograd.grad(factor * loss, leaves)]
