"""`top_logprobs`: equal to a plain forward pass of each row alone, whatever the rows share, for any k."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny_engines import KINDS, SIZES, build_each, plain_model
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import TransformersEngine
from limbeck.cluster.engines.protocol import DistributionEngine, TokenRow, TopLogprobs

VOCABULARY = SIZES["vocab_size"]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    return build_each(tmp_path_factory)


@st.composite
def token_rows(draw: st.DrawFn) -> list[TokenRow]:
    """Rows that share beginnings, as completions of one prompt do."""
    prompts = draw(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=8), min_size=1, max_size=2))
    made = []
    for _ in range(draw(st.integers(1, 6))):
        prompt, rest = draw(st.sampled_from(prompts)), draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))
        made.append(TokenRow((*prompt, *rest), draw(st.integers(1, len(prompt) + len(rest) - 1)) if prompt else 1))
    return made


def naive(engine: TransformersEngine, row: TokenRow, k: int) -> TopLogprobs:
    with torch.no_grad():
        logits = plain_model(engine.loaded.folder)(torch.tensor([row.tokens])).logits[0, row.first - 1 : -1]
    logs = torch.log_softmax(logits.double(), -1)
    top, ids = logs.topk(k)
    rest = logs.exp().scatter(-1, ids, 0.0).sum(-1).log()
    return TopLogprobs(ids.numpy().astype(np.uint32), top.numpy().astype(np.float32), rest.numpy().astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(rows=token_rows(), k=st.sampled_from([1, 5, VOCABULARY]))
def test_equal_to_the_naive_computation(engines: dict[str, TransformersEngine], kind: str, rows: list[TokenRow], k: int) -> None:
    for row, found in zip(rows, engines[kind].top_logprobs(rows, k), strict=True):
        expected = naive(engines[kind], row, k)
        assert found is not None
        assert found.ids.shape == found.logprobs.shape == (row.positions, k) and found.ids.dtype == np.uint32
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4, rtol=0)
        np.testing.assert_allclose(found.tail, expected.tail, atol=1e-3, rtol=0)
        if k < VOCABULARY:  # nearly equal probabilities may change places
            same = found.ids == expected.ids
            gaps = np.abs(np.diff(expected.logprobs, axis=-1, append=np.inf)) < 1e-3
            assert (same | gaps | np.roll(gaps, 1, -1)).all()
        assert np.all(np.diff(found.logprobs, axis=-1) <= 0)


def test_the_mass_is_whole_and_the_tail_of_a_whole_vocabulary_is_empty(engines: dict[str, TransformersEngine]) -> None:
    rows = [TokenRow(tuple(range(5, 25)), 9)]
    for k in (1, 30):
        (found,) = engines["llama"].top_logprobs(rows, k)
        assert found is not None
        np.testing.assert_allclose(np.exp(found.logprobs).sum(-1) + np.exp(found.tail), 1.0, atol=1e-5)
    (whole,) = engines["llama"].top_logprobs(rows, VOCABULARY)
    assert whole is not None and np.isneginf(whole.tail).all()


def test_a_row_beyond_the_context_has_none_and_costs_no_other(engines: dict[str, TransformersEngine]) -> None:
    engine = engines["qwen2"]
    assert isinstance(engine, DistributionEngine)
    short, long = TokenRow((1, 2, 3), 1), TokenRow(tuple([7] * 300), 3)
    found = engine.top_logprobs([short, long, short], 4)
    assert found[1] is None and found[0] is not None and found[2] is not None
    np.testing.assert_array_equal(found[0].ids, found[2].ids)


def test_shared_prompts_are_forwarded_once(engines: dict[str, TransformersEngine]) -> None:
    engine = TransformersEngine(TransformersConfig(model="shared", dtype="float32"), engines["llama"].loaded)
    prompt = tuple(range(32))
    engine.top_logprobs([TokenRow((*prompt, letter, 99), 32) for letter in (70, 71, 72, 70)], 3)
    assert engine.usage.forwarded_tokens == 32 + 3  # the last token is only predicted
