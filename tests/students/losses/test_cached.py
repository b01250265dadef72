from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.heads import Side, side, with_gradients
from limbeck.corpus.errors import LimbeckError
from limbeck.students.losses.chunked import cached_loss, distillation_loss
from limbeck.students.losses.divergences import CACHED, DIVERGENCES, ULD, Divergence

LABELS = torch.tensor([0, 6, 3, 3, 1])


def _cache(teacher: Side, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The k most probable tokens of each position, their log-probabilities, and the logarithm of the mass of all others."""
    logs = teacher.logits().log_softmax(-1)
    kept, ids = logs.topk(k)
    return ids, kept, logs.scatter(1, ids, -float("inf")).logsumexp(1)


def _naive(student: Side, ids: torch.Tensor, kept: torch.Tensor, tail: torch.Tensor, how: Divergence) -> torch.Tensor:
    """From full logits by autograd, on k + 1 words."""
    logs = student.logits().log_softmax(-1)
    rest = 1 - logs.gather(1, ids).exp().sum(1)
    q = torch.cat([logs.gather(1, ids).exp(), rest[:, None]], 1)
    p = torch.cat([kept, tail[:, None]], 1).exp()
    against = how.alpha * p + (1 - how.alpha) * q if how.kind == "skew_kl" else q
    return (p * (p.log() - against.log())).sum()


@pytest.mark.parametrize("kind", CACHED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_whole_vocabulary_is_the_live_teacher(kind: str, dtype: Any) -> None:
    sizes: dict[str, Any] = {"dtype": dtype, "biased": True, "soft_cap": 3.0, "scale": 0.8}
    student, teacher = side(1, **sizes).differentiable(), side(2, **sizes)
    ids, kept, tail = _cache(teacher, 7)
    assert (tail == -float("inf")).all()
    how, options = Divergence(kind), {"labels": LABELS, "cross_entropy": 0.5, "chunk": 2}
    live = distillation_loss(student.hidden, student.head, teacher.hidden, teacher.head, how, **options)
    expected = with_gradients(live, student.leaves)
    for rounding in (tail, torch.full_like(tail, -16.0)):
        cached = cached_loss(student.hidden, student.head, ids, kept, rounding, how, **options)
        for one, other in zip(with_gradients(cached, student.leaves), expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", CACHED)
@pytest.mark.parametrize("k", [1, 3, 6])
def test_all_other_tokens_are_one_word(kind: str, k: int) -> None:
    student, cache = side(3, scale=0.7, soft_cap=4.0).differentiable(), _cache(side(4), k)
    how = Divergence(kind, alpha=0.2)
    ours = cached_loss(student.hidden, student.head, *cache, how, chunk=2)
    naive = _naive(student, *cache, how)
    for one, other in zip(with_gradients(ours, student.leaves), with_gradients(naive, student.leaves), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda hidden: cached_loss(hidden, student.head, *cache, how, labels=LABELS, cross_entropy=0.3), (student.hidden,)
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 7), kind=st.sampled_from(CACHED), sharp=st.sampled_from([0.1, 1.0, 8.0]))
def test_never_more_than_the_full_divergence(seed: int, k: int, kind: str, sharp: float) -> None:
    """And never negative, and more with every token that is kept."""
    student, teacher, how = side(seed, scale=sharp), side(seed + 1, scale=sharp), Divergence(kind)
    full = distillation_loss(student.hidden, student.head, teacher.hidden, teacher.head, how).item()
    bounds = [cached_loss(student.hidden, student.head, *_cache(teacher, kept), how).item() for kept in (k, min(k + 1, 7))]
    assert -1e-9 <= bounds[0] <= bounds[1] + 1e-9 <= full + 2e-9


@pytest.mark.parametrize("kind", CACHED)
def test_a_teacher_whose_whole_mass_was_kept(kind: str) -> None:
    """A tail of -inf with fewer tokens than the vocabulary: the student loses what it gives to others."""
    student = side(5).differentiable()
    ids, kept, _ = _cache(side(6), 3)
    tail = torch.full((5,), -float("inf"), dtype=torch.float64)
    loss = cached_loss(student.hidden, student.head, ids, kept.log_softmax(1), tail, Divergence(kind))
    assert all(tensor.isfinite().all() for tensor in with_gradients(loss, student.leaves)) and loss.item() > 0


def test_rounded_masses_are_normalised() -> None:
    teacher = side(7, dtype=torch.float32)
    ids, kept, tail = _cache(teacher, 3)
    args: Any = (teacher.hidden, teacher.head)
    assert abs(cached_loss(*args, ids, (kept + 0.01).half(), (tail + 0.01).half(), Divergence("forward_kl")).item()) < 1e-5


def test_a_certain_student_has_a_finite_loss() -> None:
    student, teacher = side(8, dtype=torch.float32, scale=300.0).differentiable(), side(9, dtype=torch.float32)
    for kind in CACHED:
        loss = cached_loss(student.hidden, student.head, *_cache(teacher, 3), Divergence(kind))
        assert all(tensor.isfinite().all() for tensor in with_gradients(loss, student.leaves))


def test_nan_in_a_cache_is_not_hidden() -> None:
    student, (ids, kept, tail) = side(1), _cache(side(2), 3)
    for where in (kept[2], tail[2:3]):
        held = where.clone()
        where.fill_(float("nan"))
        assert cached_loss(student.hidden, student.head, ids, kept, tail, Divergence("skew_kl")).isnan()
        where.copy_(held)


@pytest.mark.parametrize("kind", [kind for kind in (*DIVERGENCES, ULD) if kind not in CACHED])
def test_other_kinds_are_refused(kind: str) -> None:
    student = side(1)
    with pytest.raises(
        LimbeckError, match=f"{kind} cannot be computed from a cached teacher.*choose forward_kl or skew_kl, or a live"
    ):
        cached_loss(student.hidden, student.head, *_cache(side(2), 3), Divergence(kind))


def test_temperatures_and_vocabularies_are_refused() -> None:
    student = side(1)
    with pytest.raises(LimbeckError, match="temperature 2.0; choose 1, or a live teacher"):
        cached_loss(student.hidden, student.head, *_cache(side(2), 3), Divergence("forward_kl", temperature=2.0))
    with pytest.raises(LimbeckError, match="knows token 8, but the student's head has 7 rows"):
        cached_loss(student.hidden, student.head, *_cache(side(2, rows=9), 9), Divergence("forward_kl"))


def test_no_positions_cost_nothing() -> None:
    student = side(1, positions=0).differentiable()
    cache = _cache(side(2, positions=0), 3)
    loss, *gradients = with_gradients(cached_loss(student.hidden, student.head, *cache, Divergence("skew_kl")), student.leaves)
    assert loss.item() == 0 and not any(gradient.any() for gradient in gradients)
