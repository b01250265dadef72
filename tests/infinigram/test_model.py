import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.model import Mixture, contaminated, contaminated_share, fit, perplexity, relative_improvement

PROBABILITY = st.floats(1e-6, 1.0)


def text(data: st.DataObject, least: int = 1) -> tuple[Any, Any, Any]:
    """Neural log-probabilities, ∞-gram probabilities (zeros among them) and sparse flags of one text."""
    count = data.draw(st.integers(least, 40))
    neural = np.log(data.draw(st.lists(PROBABILITY, min_size=count, max_size=count)))
    infinite = np.array(data.draw(st.lists(st.one_of(st.just(0.0), PROBABILITY), min_size=count, max_size=count)))
    sparse = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    return neural, infinite, sparse


@given(st.data(), st.floats(0, 0.999), st.floats(0, 0.999))
@settings(max_examples=60, deadline=None)
def test_the_mixture_is_the_formula(data: st.DataObject, sparse_weight: float, dense_weight: float) -> None:
    neural, infinite, sparse = text(data)
    found = Mixture(sparse_weight, dense_weight).log_probabilities(neural, infinite, sparse)
    for position, log_probability in enumerate(found):
        weight = sparse_weight if sparse[position] else dense_weight
        expected = weight * infinite[position] + (1 - weight) * math.exp(neural[position])
        assert math.exp(log_probability) == pytest.approx(expected, rel=1e-9)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_weights_on_a_grid_are_better_than_the_fitted_ones(data: st.DataObject) -> None:
    neural, infinite, sparse = text(data)
    mixture = fit(neural, infinite, sparse)
    best = perplexity(mixture.log_probabilities(neural, infinite, sparse))
    assert best <= perplexity(neural) * (1 + 1e-9)
    for weight in np.linspace(0, 0.99, 12):
        assert best <= perplexity(Mixture(weight, mixture.dense).log_probabilities(neural, infinite, sparse)) * (1 + 1e-9)
        assert best <= perplexity(Mixture(mixture.sparse, weight).log_probabilities(neural, infinite, sparse)) * (1 + 1e-9)


def test_weights_have_the_closed_form_of_two_kinds_of_token() -> None:
    """P∞ is 1 on a share q of positions and 0 elsewhere, the neural model says p everywhere: λ = (q - p) / (1 - p)."""
    infinite = np.array([1.0] * 7 + [0.0] * 3)
    mixture = fit(np.full(10, math.log(0.2)), infinite, np.ones(10, dtype=bool))
    assert mixture.sparse == pytest.approx((0.7 - 0.2) / 0.8, abs=1e-6)
    assert mixture.dense == 0.0  # there is no such position


def test_a_perplexity_that_falls_to_one_is_a_whole_improvement() -> None:
    assert perplexity(np.log([0.25, 0.25])) == pytest.approx(4.0)
    assert relative_improvement(4.0, 7.0) == pytest.approx(0.5)
    assert relative_improvement(1.0, 7.0) == 1.0


@pytest.mark.parametrize(
    ("neural", "infinite", "sparse", "words"),
    [
        ([0.0], [1.0, 1.0], [True], "of different lengths"),
        ([0.5], [1.0], [True], "log-probabilities"),
        ([-1.0], [1.5], [True], "log-probabilities"),
        ([math.nan], [0.5], [True], "log-probabilities"),
        ([-1.0], [math.nan], [True], "log-probabilities"),
    ],
)
def test_arrays_that_are_not_of_one_text_are_refused(neural: Any, infinite: Any, sparse: Any, words: str) -> None:
    with pytest.raises(BadQuery, match=words):
        fit(np.array(neural), np.array(infinite), np.array(sparse))


class Texts:
    """Evaluation texts searched by brute force."""

    def __init__(self, *texts: list[int]) -> None:
        self.texts = texts

    def occurs(self, ngram: list[int]) -> bool:
        return any(ngram == one[at : at + len(ngram)] for one in self.texts for at in range(len(one) - len(ngram) + 1))

    def creativity(self, ids: list[int]) -> Any:
        ends = [max(end for end in range(start, len(ids) + 1) if self.occurs(ids[start:end])) for start in range(len(ids))]
        return np.array(ends)


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=3), st.lists(st.integers(0, 2), max_size=15),
    st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_the_contaminated_share_is_that_of_the_ngrams(texts: list[list[int]], document: list[int], ngram: int) -> None:
    evaluation = Texts(*texts)
    ngrams = [document[at : at + ngram] for at in range(len(document) - ngram + 1)]
    expected = sum(map(evaluation.occurs, ngrams)) / len(ngrams) if ngrams else 0.0
    assert contaminated_share(evaluation, document, ngram) == pytest.approx(expected)


def test_a_copied_document_is_found_and_a_shuffled_one_is_not() -> None:
    rng = np.random.default_rng(0)
    text = rng.integers(0, 50, 60).tolist()
    shuffled = rng.permutation(text).tolist()
    half = text[:30] + shuffled[:30]
    assert list(contaminated(Texts(text), [shuffled, text, half, text[:12], text[:13]])) == [1, 4]
    with pytest.raises(BadQuery, match="share is 0"):
        list(contaminated(Texts(text), [text], share=0))
    with pytest.raises(BadQuery, match="ngram_tokens is 0"):
        contaminated_share(Texts(text), text, 0)
