import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from helpers.heads import exactly
from limbeck.corpus.errors import LimbeckError
from limbeck.students.losses.chunked import cached_loss, distillation_loss, uld_loss
from limbeck.students.losses.divergences import CACHED, DIVERGENCES, ULD, Divergence, divergence

P, Q = (torch.tensor([values], dtype=torch.float64).log() for values in ([0.5, 0.3, 0.15, 0.05], [0.2, 0.3, 0.1, 0.4]))
GOLDEN = [
    (Divergence("forward_kl"), 0.4149930551),
    (Divergence("reverse_kl"), 0.6079719595),
    (Divergence("jsd", beta=0.1), 0.0376531172),
    (Divergence("jsd", beta=0.5), 0.1131949904),
    (Divergence("jsd", beta=0.9), 0.0496909593),
    (Divergence("skew_kl", alpha=0.1), 0.3423719189),
    (Divergence("reverse_skew_kl", alpha=0.1), 0.4114858947),
    (Divergence("total_variation"), 0.35),
    (Divergence(ULD), 0.2),
]
EVERY = [how for how, _ in GOLDEN]


@pytest.mark.parametrize(("how", "value"), GOLDEN)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_known_values(how: Divergence, value: float, dtype: Any) -> None:
    teacher, student = exactly(P.to(dtype)), exactly(Q.to(dtype))
    assert divergence(P.to(dtype), Q.to(dtype), how).item() == pytest.approx(value, abs=1e-6)
    chunked = distillation_loss(student.hidden, student.head, teacher.hidden, teacher.head, how)
    assert chunked.item() == pytest.approx(value, abs=1e-6)
    if how.kind in CACHED:
        ids, none = torch.tensor([[2, 0, 3, 1]]), torch.tensor([-float("inf")])
        cached = cached_loss(student.hidden, student.head, ids, P.to(dtype)[:, ids[0]], none, how)
        assert cached.item() == pytest.approx(value, abs=1e-6)


def test_sorted_probabilities_of_vocabularies_of_different_sizes() -> None:
    short = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    for one, other in ((short, Q), (Q, short)):
        teacher, student = exactly(one), exactly(other)
        assert divergence(one, other, Divergence(ULD)).item() == pytest.approx(0.4, abs=1e-9)
        assert uld_loss(student.hidden, student.head, teacher.hidden, teacher.head).item() == pytest.approx(0.4, abs=1e-9)


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_diverges_from_itself(how: Divergence, dtype: Any) -> None:
    same = torch.randn(3, 50, dtype=dtype).mul_(3).log_softmax(-1)
    one = exactly(same)
    assert divergence(same, same, how).abs().max().item() <= 1e-6
    assert abs(distillation_loss(one.hidden, one.head, one.hidden, one.head, how).item()) <= 1e-6


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradients_of_the_definition(how: Divergence, temperature: float) -> None:
    p, logits = P.expand(2, 4), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    hot = Divergence(how.kind, how.beta, how.alpha, temperature)
    assert torch.autograd.gradcheck(lambda z: divergence(p, z.log_softmax(-1), hot), (logits,))


def test_words_without_probability() -> None:
    never = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64).log().requires_grad_()
    for kind in ("skew_kl", "reverse_skew_kl", "jsd", "total_variation"):
        for p, q in ((P, never), (never, P)):
            value = divergence(p, q, Divergence(kind))
            assert value.isfinite().all() and value.item() > 0
        assert torch.autograd.grad(divergence(P, never, Divergence(kind)).sum(), never)[0].isfinite().all()
    # ½ ln(0.5 / 0.5) + ½ ln(0.5 / 0.3)
    assert divergence(never, P, Divergence("forward_kl")).item() == pytest.approx(math.log(5 / 3) / 2, abs=1e-9)
    assert divergence(P, never, Divergence("forward_kl")).isinf().all()


def test_less_skew_comes_closer_to_kl() -> None:
    for skew, plain in (("skew_kl", "forward_kl"), ("reverse_skew_kl", "reverse_kl")):
        goal = divergence(P, Q, Divergence(plain)).item()
        off = [abs(divergence(P, Q, Divergence(skew, alpha=alpha)).item() - goal) for alpha in (1e-1, 1e-3, 1e-7)]
        assert off[0] > off[1] > off[2] and off[2] < 1e-6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "kl"}, "unknown divergence 'kl'; choose one of forward_kl"),
        ({"kind": "jsd", "beta": 1.0}, "beta of a divergence is 1.0"),
        ({"kind": "skew_kl", "alpha": 0.0}, "alpha of a divergence is 0.0"),
        ({"kind": "jsd", "temperature": 0.0}, "temperature of a divergence is 0.0"),
        ({"kind": "jsd", "beta": float("nan")}, "beta of a divergence is nan"),
    ],
)
def test_values_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LimbeckError, match=message):
        Divergence(**values)


def test_configs_can_name_divergences_without_torch() -> None:
    code = "import sys, limbeck.students.losses.divergences as found; assert found.DIVERGENCES and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(set(DIVERGENCES)) == 6
