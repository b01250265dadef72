"""Drawing tokens: the exact nucleus, from a stream that depends on seed and step alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.cluster.engines.local.sampling import NOT_A_NUMBER, Draw, draw, uniform
from limbeck.cluster.engines.protocol import Sampling

DRAWS = 20_000


def exact(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution by its definition: temperature, top-k, then the smallest leading set that holds `top_p`."""
    scaled = logits.double() / sampling.temperature
    values, ids = torch.sort(scaled, descending=True, stable=True)
    if sampling.top_k:
        values[sampling.top_k :] = -torch.inf
    probabilities = torch.softmax(values, -1)
    kept, mass = torch.zeros_like(probabilities), 0.0
    for i, p in enumerate(probabilities.tolist()):
        if mass < sampling.top_p:
            kept[i] = p
        mass += p
    return torch.zeros_like(scaled).scatter(0, ids, kept / kept.sum())


@pytest.mark.parametrize(
    ("vocabulary", "sampling"),
    [
        (12, Sampling(1, temperature=1.0)),
        (12, Sampling(1, temperature=0.7, top_p=0.9)),
        (12, Sampling(1, temperature=1.3, top_k=5)),
        (12, Sampling(1, temperature=1.0, top_p=0.6, top_k=7)),
        (12, Sampling(1, temperature=1.0, top_p=0.01)),
        (200, Sampling(1, temperature=4.0, top_p=0.95)),  # the nucleus is larger than the candidates: the row is sorted
    ],
)
def test_frequencies_follow_the_distribution(vocabulary: int, sampling: Sampling) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1)) * 1.5
    expected = exact(logits, sampling).numpy() * DRAWS
    draws = [Draw(sampling, seed, 3) for seed in range(DRAWS)]
    rows = logits.expand(DRAWS, -1)
    counts = np.bincount(draw(rows, draws), minlength=vocabulary)
    assert counts[expected == 0].sum() == 0
    likely = expected > 0
    chi_square = ((counts[likely] - expected[likely]) ** 2 / expected[likely]).sum()
    freedom = likely.sum() - 1
    assert chi_square <= freedom + 5 * math.sqrt(2 * max(freedom, 1))


@pytest.mark.parametrize("sampling", [Sampling(1, temperature=0.0), Sampling(1, top_k=1), Sampling(1, top_p=1e-9)])
def test_greedy_takes_the_largest(sampling: Sampling) -> None:
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(2))
    assert draw(logits, [Draw(sampling, i, i) for i in range(50)]) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("sampling", [Sampling(1, 0.0), Sampling(1, 0.7, 0.5), Sampling(1), Sampling(1, 1.0, 1.0, 5)])
def test_the_presence_penalty_is_taken_once_from_each_token_drawn_before(sampling: Sampling) -> None:
    logits = torch.randn(60, 40, generator=torch.Generator().manual_seed(5))
    drawn = [[int(logits[i].argmax()), 7, 7, 39][: i % 5] for i in range(60)]
    lowered, before = logits.clone(), logits.clone()
    for row, tokens in zip(lowered, drawn, strict=True):
        for token in set(tokens):
            row[token] -= 2.0
    penal = replace(sampling, presence_penalty=2.0)
    found = draw(logits, [Draw(penal, i, 4, tokens) for i, tokens in enumerate(drawn)])
    assert found == draw(lowered, [Draw(sampling, i, 4, tokens) for i, tokens in enumerate(drawn)])
    assert found != draw(logits, [Draw(sampling, i, 4, tokens) for i, tokens in enumerate(drawn)])
    assert torch.equal(logits, before)


def test_a_row_draws_the_same_in_any_company() -> None:
    logits = torch.randn(90, 500, generator=torch.Generator().manual_seed(3))
    settings = [Sampling(1, 0.8, 0.9), Sampling(1, 1.0, 1.0, 40), Sampling(1, 0.0), Sampling(1, 1.0)]
    draws = [Draw(settings[i % 4], 17 * i, i // 3) for i in range(90)]
    together = draw(logits, draws)
    assert together == [draw(logits[i : i + 1], draws[i : i + 1])[0] for i in range(90)]
    order = list(range(89, -1, -1))
    assert together[::-1] == draw(logits[order], [draws[i] for i in order])


def test_the_uniforms_are_a_stream() -> None:
    assert uniform([0], [0]).tolist() == uniform([0, 1], [0, 0]).tolist()[:1]
    many = np.stack([uniform(range(1000), [step] * 1000) for step in range(20)])
    assert many.min() >= 0 and many.max() < 1 and len(np.unique(many)) == many.size
    assert abs(many.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(many[0], many[1])[0, 1]) < 0.1
    assert uniform([-1, 2**63], [0, 0]).shape == (2,)


@pytest.mark.parametrize("sampling", [Sampling(1, 0.0), Sampling(1, 0.7, 0.9), Sampling(1), Sampling(1, 1.0, 1.0, 5)])
def test_only_the_sick_row_is_sick(sampling: Sampling) -> None:
    logits = torch.randn(4, 100, generator=torch.Generator().manual_seed(4))
    healthy = draw(logits, [Draw(sampling, i, 0) for i in range(4)])
    logits[1, 7] = math.nan
    logits[2] = -torch.inf
    found = draw(logits, [Draw(sampling, i, 0) for i in range(4)])
    assert found == [healthy[0], NOT_A_NUMBER, NOT_A_NUMBER, healthy[3]]
