from dataclasses import replace
from typing import Any

import pytest
import torch
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from helpers.heads import Side, side, with_gradients
from limbeck.corpus.errors import LimbeckError
from limbeck.students.losses.chunked import Head, distillation_loss, label_loss, paired_positions, uld_loss
from limbeck.students.losses.divergences import DIVERGENCES, ULD, Divergence, divergence

LABELS = torch.tensor([0, 6, 3, 3, 1])
HEADS: list[dict[str, Any]] = [{}, {"biased": True, "scale": 0.5, "soft_cap": 2.0}, {"biased": True, "scale": 3.0}]


def _loss(student: Side, teacher: Side, how: Divergence, **options: Any) -> torch.Tensor:
    return distillation_loss(student.hidden, student.head, teacher.hidden, teacher.head, how, **options)


def _naive(student: Side, teacher: Side, how: Divergence, cross_entropy: float) -> torch.Tensor:
    """From full logits by autograd."""
    rows = None if how.kind == ULD else min(len(student.head.weight), len(teacher.head.weight))
    p_log, logits = teacher.logits(rows).detach().log_softmax(-1), student.logits(rows)
    labels = torch.nn.functional.cross_entropy(logits, LABELS, reduction="sum")
    return divergence(p_log, logits.log_softmax(-1), how).sum() + cross_entropy * labels


def _close(ours: list[torch.Tensor], theirs: list[torch.Tensor], within: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max().item() <= within * max(1.0, other.abs().max().item())


@pytest.mark.parametrize("kind", [*DIVERGENCES, ULD])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("temperature", "cross_entropy"), [(1.0, 0.0), (1.0, 0.7), (2.0, 0.7)])
def test_equal_to_full_logits(kind: str, head: dict[str, Any], temperature: float, cross_entropy: float) -> None:
    """Value and gradients; the teacher has rows and a width of its own."""
    how = Divergence(kind, beta=0.3, temperature=temperature)
    student, teacher = side(1, **head).differentiable(), side(2, rows=9, width=4, **head)
    ours = _loss(student, teacher, how, labels=LABELS, cross_entropy=cross_entropy, chunk=2)
    naive = _naive(student, teacher, how, cross_entropy)
    _close(with_gradients(ours, student.leaves), with_gradients(naive, student.leaves), 1e-12)


@pytest.mark.parametrize("kind", [*DIVERGENCES, ULD])
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    student, teacher = side(3, biased=True, soft_cap=4.0, scale=0.7).differentiable(), side(4)

    def loss(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        own = Side(hidden, replace(student.head, weight=weight, bias=bias))
        return _loss(own, teacher, Divergence(kind, temperature=1.5), labels=LABELS, cross_entropy=0.4, chunk=2)

    assert torch.autograd.gradcheck(loss, student.leaves)


def test_a_student_with_more_rows_gets_no_gradient_for_them() -> None:
    student, teacher = side(1, rows=9, biased=True).differentiable(), side(2)
    how = Divergence("jsd")
    found = with_gradients(_loss(student, teacher, how), student.leaves)
    _close(found, with_gradients(_naive(student, teacher, how, 0.0), student.leaves), 1e-12)
    assert not found[2][7:].any() and not found[3][7:].any() and found[2][:7].any()


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_equal_to_trl(beta: float) -> None:
    """TRL's beta is the teacher's weight too; its ends are the plain divergences."""
    head: dict[str, Any] = {"dtype": torch.float32, "rows": 300, "width": 16, "soft_cap": 5.0, "scale": 0.8, "biased": True}
    student, teacher = side(5, **head).differentiable(), side(6, **head)
    how = Divergence({0.0: "forward_kl", 1.0: "reverse_kl"}.get(beta, "jsd"), beta=beta if 0 < beta < 1 else 0.5, temperature=1.3)
    sides: list[Any] = [
        student.hidden,
        student.head.weight,
        student.head.bias,
        teacher.hidden,
        teacher.head.weight,
        teacher.head.bias,
    ]
    theirs = ChunkedDivergenceFunction.apply(*sides, beta, 1.3, 0.8, 5.0, 0.8, 5.0)[0].sum()
    _close(with_gradients(_loss(student, teacher, how, chunk=2), student.leaves), with_gradients(theirs, student.leaves), 1e-5)


@pytest.mark.parametrize("kind", [*DIVERGENCES, ULD])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_chunk_does_not_matter(kind: str, dtype: Any, within: float) -> None:
    """Apart from the order of sums in matrix products, which is that of the library."""
    sizes: dict[str, Any] = {"positions": 40, "rows": 8_000, "width": 16, "dtype": dtype, "scale": 0.3}
    student, teacher = side(7, **sizes).differentiable(), side(8, **sizes)
    options: dict[str, Any] = {"labels": torch.arange(40), "cross_entropy": 0.5}
    found = [_loss(student, teacher, Divergence(kind), **options, chunk=chunk) / 40 for chunk in (1, 7, 39, 64)]
    first, *others = (with_gradients(loss, student.leaves) for loss in found)
    for other in others:
        _close(first, other, within)


def test_low_precision_is_that_of_the_model_s_own_logits() -> None:
    low: dict[str, Any] = {"rows": 200, "width": 16, "dtype": torch.bfloat16}
    student, teacher = side(9, **low).differentiable(), side(10, **low)
    ours = _loss(student, teacher, Divergence("forward_kl"), chunk=2)
    logits = student.logits().float()  # bfloat16 logits, then softmax in float32
    naive = divergence(teacher.logits().float().log_softmax(-1), logits.log_softmax(-1), Divergence("forward_kl")).sum()
    assert ours.dtype == torch.float32 and ours.item() == pytest.approx(naive.item(), rel=1e-6)
    gradients = torch.autograd.grad(ours, student.leaves)
    assert [gradient.dtype for gradient in gradients] == [torch.bfloat16, torch.bfloat16]
    for one, other in zip(gradients, torch.autograd.grad(naive, student.leaves), strict=True):
        assert (one.float() - other.float()).abs().max().item() <= 0.02 * other.float().abs().max().item()


@pytest.mark.parametrize("kind", [*DIVERGENCES, ULD])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("soft_cap", [None, 5.0])
def test_what_is_not_finite_is_not_hidden(kind: str, bad: float, soft_cap: float | None) -> None:
    for whose in (0, 1):
        sides = [side(11, soft_cap=soft_cap).differentiable(), side(12, soft_cap=soft_cap)]
        with torch.no_grad():
            sides[whose].hidden[3, 1] = bad
        loss = _loss(sides[0], sides[1], Divergence(kind), chunk=2)
        assert loss.isnan()
        assert torch.autograd.grad(loss, sides[0].hidden)[0][3].isnan().all()


def test_certain_models_have_finite_losses() -> None:
    """Probabilities that underflow in one model, or in both."""
    for kind in DIVERGENCES:
        student, teacher = side(13, dtype=torch.float32, scale=100.0).differentiable(), side(14, dtype=torch.float32, scale=100.0)
        assert all(
            tensor.isfinite().all() for tensor in with_gradients(_loss(student, teacher, Divergence(kind)), student.leaves)
        )


@pytest.mark.parametrize("kind", ["jsd", ULD])
def test_no_positions_cost_nothing(kind: str) -> None:
    student, teacher = side(1, positions=0).differentiable(), side(2, positions=0)
    loss, *gradients = with_gradients(_loss(student, teacher, Divergence(kind)), student.leaves)
    assert loss.item() == 0 and [gradient.abs().sum().item() for gradient in gradients] == [0, 0]
    assert label_loss(student.hidden, student.head, torch.zeros(0, dtype=torch.long)).item() == 0


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_of_labels(head: dict[str, Any]) -> None:
    student = side(15, **head).differentiable()
    naive = torch.nn.functional.cross_entropy(student.logits(), LABELS, reduction="sum")
    ours = label_loss(student.hidden, student.head, LABELS, chunk=2)
    _close(with_gradients(ours, student.leaves), with_gradients(naive, student.leaves), 1e-12)


def test_labels_that_no_row_stands_for() -> None:
    student, teacher = side(1, rows=9), side(2)
    with pytest.raises(LimbeckError, match="a label is token 8, but only the first 7 rows of the heads are compared"):
        _loss(student, teacher, Divergence("jsd"), labels=torch.tensor([0, 8, 1, 1, 1]), cross_entropy=1.0)
    with pytest.raises(LimbeckError, match="a label is token -100"):
        label_loss(student.hidden, student.head, torch.tensor([0, -100, 1, 1, 1]))


def test_gradients_are_computed_only_if_they_are_wanted() -> None:
    student, teacher = side(1).differentiable(), side(2)
    with torch.no_grad():
        assert not _loss(student, teacher, Divergence("jsd")).requires_grad
    frozen = Side(student.hidden, Head(student.head.weight.detach()))
    whole = torch.autograd.grad(_loss(student, teacher, Divergence("jsd")), student.hidden)[0]
    assert torch.equal(torch.autograd.grad(_loss(frozen, teacher, Divergence("jsd")), student.hidden)[0], whole)
    teaching = side(2).differentiable()
    assert torch.autograd.grad(_loss(student, teaching, Divergence("jsd")), teaching.leaves, allow_unused=True) == (None, None)


def test_sorted_probabilities_of_completions_of_different_lengths() -> None:
    student, teacher = side(16, positions=5).differentiable(), side(17, positions=6, rows=11, width=4)
    ours, theirs = paired_positions([3, 2], [2, 4])
    assert ours.tolist() == [0, 1, 3, 4] and theirs.tolist() == [0, 1, 2, 3]
    loss = uld_loss(student.hidden[ours], student.head, teacher.hidden[theirs], teacher.head)
    parts = [
        uld_loss(student.hidden[:3], student.head, teacher.hidden[:2], teacher.head),
        uld_loss(student.hidden[3:], student.head, teacher.hidden[2:], teacher.head),
    ]
    assert loss.item() == pytest.approx(sum(part.item() for part in parts), abs=1e-12)
    assert not torch.autograd.grad(loss, student.hidden)[0][2].any()
    permuted = Side(student.hidden, replace(student.head, weight=student.head.weight[torch.randperm(7)]))
    assert _loss(permuted, student, Divergence(ULD)).item() == pytest.approx(0, abs=1e-12)
    assert paired_positions([], [])[0].tolist() == []
