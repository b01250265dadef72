"""`logprobs`: equal to scoring every pair alone, in any order, with any shared beginnings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tiny_engines import KINDS, build_each, naive_logprobs, save
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import TransformersEngine, build
from limbeck.cluster.engines.local.packing import common_prefix, packs
from limbeck.cluster.engines.protocol import Pair

TEXT = st.text(alphabet="ab é", max_size=12)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    return build_each(tmp_path_factory)


@st.composite
def pair_lists(draw: st.DrawFn) -> list[Pair]:
    """Pairs whose contexts and targets come from a few strings, so that beginnings are shared; some have spans."""
    contexts, targets = draw(st.lists(TEXT, min_size=1, max_size=3)), draw(st.lists(TEXT, min_size=1, max_size=4))
    span = st.tuples(st.integers(0, 6), st.integers(0, 12))
    spans = st.none() | st.lists(span, max_size=2).map(tuple)
    return draw(st.lists(st.builds(Pair, st.sampled_from(contexts), st.sampled_from(targets), spans), min_size=1, max_size=12))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(pairs=pair_lists())
def test_equal_to_the_naive_computation(engines: dict[str, TransformersEngine], kind: str, pairs: list[Pair]) -> None:
    found = engines[kind].logprobs(pairs)
    assert len(found) == len(pairs)
    for pair, values in zip(pairs, found, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, naive_logprobs(engines[kind], pair), atol=1e-4, rtol=0)


def test_order_does_not_matter(engines: dict[str, TransformersEngine]) -> None:
    pairs = [Pair("a" * i, " b" * j) for i in range(4) for j in range(5)]
    forwards, backwards = engines["llama"].logprobs(pairs), engines["llama"].logprobs(pairs[::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_shared_tokens_are_forwarded_once(engines: dict[str, TransformersEngine]) -> None:
    engine = TransformersEngine(TransformersConfig(model="shared", dtype="float32"), engines["llama"].loaded)
    context = "abcdefgh" * 4
    engine.logprobs([Pair(context, f" {letter}z") for letter in "qrstqrst"])
    assert engine.usage.forwarded_tokens == 32 + 1 + 4  # the space is shared, the last token only predicted


def test_only_the_needed_tokens_are_forwarded(engines: dict[str, TransformersEngine]) -> None:
    engine = TransformersEngine(TransformersConfig(model="spans", dtype="float32"), engines["llama"].loaded)
    engine.logprobs([Pair("abc", "d" * 100, spans=((4, 6),))])
    assert engine.usage.forwarded_tokens == 3 + 5


def test_too_long_is_not_a_number(engines: dict[str, TransformersEngine]) -> None:
    found = engines["llama"].logprobs([Pair("a" * 200, "b" * 57), Pair("a" * 200, "b" * 56), Pair("a", "")])
    assert found[0].shape == (1,) and np.isnan(found[0][0])
    assert found[1].shape == (56,) and np.isfinite(found[1]).all()
    assert found[2].shape == (0,)


def test_a_nan_stays_with_its_pair(tmp_path: Path) -> None:
    engine = build(TransformersConfig(model=str(save(tmp_path, "llama")), dtype="float32"))
    pairs = [Pair("abc", " de"), Pair("abZ", " de"), Pair("abcd", " de"), Pair("b", " Z")]
    healthy = engine.logprobs(pairs)
    with torch.no_grad():
        engine.loaded.model.model.embed_tokens.weight[engine.loaded.tokenizer("Z")["input_ids"][0]] = float("nan")
    found = engine.logprobs(pairs)
    assert np.isnan(found[1]).all()
    for i in (0, 2, 3):
        np.testing.assert_allclose(found[i], healthy[i], atol=1e-5)


def test_bfloat16_stays_close(tmp_path: Path, engines: dict[str, TransformersEngine]) -> None:
    rough = build(TransformersConfig(model=str(engines["llama"].loaded.folder), dtype="bfloat16"))
    pairs = [Pair("The cat", " sat"), Pair("The cat", " ran")]
    for one, other in zip(rough.logprobs(pairs), engines["llama"].logprobs(pairs), strict=True):
        assert np.abs(one - other).max() < 0.5


@given(
    sequences=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), min_size=1, max_size=12),
    pack_tokens=st.integers(1, 30),
)
def test_packs_hold_every_sequence_once(sequences: list[tuple[int, ...]], pack_tokens: int) -> None:
    seen = []
    for pack in packs(sequences, pack_tokens):
        assert len(pack.tokens) <= pack_tokens or len(pack.members) == 1
        for member, path in zip(pack.members, pack.paths, strict=True):
            seen.append(member)
            assert tuple(pack.tokens[place] for place in path) == sequences[member]
            assert [pack.positions[place] for place in path] == list(range(len(path)))
    assert sorted(seen) == list(range(len(sequences)))


@given(a=st.lists(st.integers(0, 1)).map(tuple), b=st.lists(st.integers(0, 1)).map(tuple))
def test_common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n in (len(a), len(b)) or a[n] != b[n]


@pytest.mark.model
def test_the_embedded_model_is_exact_in_float32() -> None:
    engine = build(TransformersConfig(model="embedded:smollm2-135m-instruct", dtype="float32", device="cpu"))
    document = "The lighthouse was built in 1820 by a Scottish engineer, and it still guides ships into the harbour."
    pairs = [Pair(document, f" {text}") for text in ("It is about a lighthouse.", "It is about a ship.", "A recipe for soup.")]
    pairs.append(Pair("It is about a lighthouse.", " " + document, spans=((5, 15),)))
    plain = type(engine.loaded.model).from_pretrained(engine.loaded.folder, dtype=torch.float32)
    for pair, values in zip(pairs, engine.logprobs(pairs), strict=True):
        encoded = engine.loaded.tokenizer(pair.context + pair.target, return_offsets_mapping=True)
        ids, begin = encoded["input_ids"], len(pair.context)
        spans = pair.spans or ((0, len(pair.target)),)
        wanted = [
            i
            for i, (a, b) in enumerate(encoded["offset_mapping"])
            if b > begin and any(a < begin + end and b > begin + start for start, end in spans)
        ]
        with torch.no_grad():
            table = torch.log_softmax(plain(torch.tensor([ids])).logits[0].float(), -1)
        expected = table[[i - 1 for i in wanted], [ids[i] for i in wanted]].numpy()
        np.testing.assert_allclose(values, expected, atol=1e-4, rtol=0)
