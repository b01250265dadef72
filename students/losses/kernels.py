"""Each divergence of a few positions and its gradient with respect to the student's logits, in place.

With q = softmax(z), a divergence D(q) has the gradient dD/dz_i = q_i (f_i - sum_j q_j f_j), where f_i = dD/dq_i up to a constant
that is the same for all i. Every kernel writes this into the student's logits and returns the divergence per position; the
buffers are the only vocabulary-sized memory. Differences of logarithms are taken before the sum over words, so that the
divergence of nearly equal distributions keeps its precision.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from limbeck.students.losses.divergences import ULD, Divergence

Kernel = Callable[[Tensor, Tensor, "Buffers", Divergence], Tensor]


class Buffers:
    """Scratch tensors of up to `rows` positions, allocated at their first use."""

    def __init__(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self._rows, self._dtype, self._device = rows, dtype, device
        self._held: dict[tuple[str, int], Tensor] = {}

    def like(self, tensor: Tensor, name: str) -> Tensor:
        """The scratch tensor `name` with the shape of a tensor, with arbitrary contents.  # [positions, vocabulary]"""
        rows, width = tensor.shape
        if (name, width) not in self._held:
            self._held[name, width] = torch.empty((self._rows, width), dtype=self._dtype, device=self._device)
        return self._held[name, width][:rows]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The scalar product of each row, without a temporary tensor.  # [positions, vocabulary] -> [positions]"""
    product: Tensor = torch.linalg.vecdot(a, b)
    return product


def kernel(how: Divergence) -> Kernel:
    """The function that replaces student logits [positions, vocabulary] by gradients; it overwrites the teacher's logits too."""
    return _KERNELS[how.kind]


def _forward_kl(student: Tensor, teacher: Tensor, buffers: Buffers, how: Divergence) -> Tensor:
    p_log, q_log = _logs(student, teacher, buffers)
    torch.exp(q_log, out=student)
    torch.exp(p_log, out=teacher)
    value = dot(teacher, p_log.sub_(q_log))
    student.sub_(teacher)
    return value


def _reverse_kl(student: Tensor, teacher: Tensor, buffers: Buffers, how: Divergence) -> Tensor:
    p_log, q_log = _logs(student, teacher, buffers)
    torch.exp(q_log, out=student)
    value = dot(student, q_log.sub_(p_log))
    student.mul_(q_log.sub_(value[:, None]))
    return value


def _jsd(student: Tensor, teacher: Tensor, buffers: Buffers, how: Divergence) -> Tensor:
    p_log, q_log = _logs(student, teacher, buffers)
    q, p = torch.exp(q_log, out=student), torch.exp(p_log, out=teacher)
    mixed = _mixed(q, p, how.beta, buffers).log_()
    of_teacher, of_student = dot(p, p_log.sub_(mixed)), dot(q, q_log.sub_(mixed))
    q.mul_(q_log.sub_(of_student[:, None])).mul_(1 - how.beta)
    return how.beta * of_teacher + (1 - how.beta) * of_student


def _skew_kl(student: Tensor, teacher: Tensor, buffers: Buffers, how: Divergence) -> Tensor:
    p_log, q_log = _logs(student, teacher, buffers)
    q, p = torch.exp(q_log, out=student), torch.exp(p_log, out=teacher)
    mixed = _mixed(q, p, how.alpha, buffers)
    shares = torch.mul(p, q, out=q_log).div_(mixed)  # -q f / (1 - alpha)
    value = dot(p, p_log.sub_(mixed.log_()))
    q.mul_(shares.sum(-1, keepdim=True)).sub_(shares).mul_(1 - how.alpha)
    return value


def _reverse_skew_kl(student: Tensor, teacher: Tensor, buffers: Buffers, how: Divergence) -> Tensor:
    p_log, q_log = _logs(student, teacher, buffers)
    q, p = torch.exp(q_log, out=student), torch.exp(p_log, out=teacher)
    mixed = _mixed(p, q, how.alpha, buffers)
    shares = torch.div(q, mixed, out=p_log)
    value = dot(q, q_log.sub_(mixed.log_()))
    slope = q_log.sub_(shares, alpha=how.alpha)
    q.mul_(slope.sub_(dot(q, slope)[:, None]))
    return value


def _total_variation(student: Tensor, teacher: Tensor, buffers: Buffers, how: Divergence) -> Tensor:
    p_log, q_log = _logs(student, teacher, buffers)
    q, p = torch.exp(q_log, out=student), torch.exp(p_log, out=teacher)
    signs = torch.sub(q, p, out=q_log)
    value = torch.abs(signs, out=p_log).sum(-1) / 2
    signs.sign_()
    mean = dot(q, signs) + 0 * value  # the sign of NaN is 0, but its gradient is NaN
    q.mul_(signs.sub_(mean[:, None])).mul_(0.5)
    return value


def _uld(student: Tensor, teacher: Tensor, buffers: Buffers, how: Divergence) -> Tensor:
    q_log = torch.log_softmax(student, -1, out=buffers.like(student, "q"))
    q = torch.exp(q_log, out=student)
    q_sorted, places = q.sort(-1, descending=True)
    p_sorted = teacher.softmax(-1).sort(-1, descending=True).values
    shared = min(q.shape[1], p_sorted.shape[1])
    signs = q_sorted
    signs[:, :shared].sub_(p_sorted[:, :shared])
    value = torch.abs(signs, out=q_log).sum(-1) + p_sorted[:, shared:].sum(-1)
    slope = q_log.scatter_(-1, places, signs.sign_())
    mean = dot(q, slope) + 0 * value  # as above
    q.mul_(slope.sub_(mean[:, None]))
    return value


_KERNELS: dict[str, Kernel] = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jsd": _jsd,
    "skew_kl": _skew_kl,
    "reverse_skew_kl": _reverse_skew_kl,
    "total_variation": _total_variation,
    ULD: _uld,
}


def _logs(student: Tensor, teacher: Tensor, buffers: Buffers) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's log-probabilities."""
    return (
        torch.log_softmax(teacher, -1, out=buffers.like(teacher, "p")),
        torch.log_softmax(student, -1, out=buffers.like(student, "q")),
    )


def _mixed(rest: Tensor, share_of: Tensor, share: float, buffers: Buffers) -> Tensor:
    """share · share_of + (1 - share) · rest, never zero: a word whose probability underflows in both counts nothing."""
    mixed = torch.lerp(rest, share_of, share, out=buffers.like(rest, "m"))
    return mixed.clamp_(min=torch.finfo(mixed.dtype).tiny)
