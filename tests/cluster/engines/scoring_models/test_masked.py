"""Masked language models against the naive computation: one text at a time, the whole vocabulary at every place."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tiny_engines
from helpers.tiny_masked import KINDS, LENGTHS, SENTENCES, SENTINELS, Naive, save
from limbeck.cluster.engines.scoring_models.masked import Infill, MaskedConfig, MaskedModel
from limbeck.cluster.engines.scoring_models.masked_forms import batches
from limbeck.corpus.errors import LimbeckError

_MODELS: dict[str, tuple[MaskedModel, Naive]] = {}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save(tmp_path_factory.mktemp("masked") / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[MaskedModel, Naive]:
    kind = request.param
    if kind not in _MODELS:
        config = MaskedConfig(model=str(folders[kind]), dtype="float32", batch_tokens=200)
        _MODELS[kind] = (config.load(), Naive(folders[kind], kind))
    return _MODELS[kind]


def spans_of(text: str, step: int, first: int = 0) -> tuple[tuple[int, int], ...]:
    """Every `step`-th word."""
    found, start = [], 0
    for number, word in enumerate(text.split(" ")):
        if number % step == first:
            found.append((start, start + len(word)))
        start += len(word) + 1
    return tuple(found)


def test_equal_to_one_at_a_time(pair: tuple[MaskedModel, Naive]) -> None:
    model, naive = pair
    infills = [
        Infill(condition, text, spans_of(text, step, first))
        for text in SENTENCES
        for condition in ("", *SENTENCES[:2])
        for step, first in ((2, 1), (4, 0), (3, 2))
    ]
    for infill, found in zip(infills, model.logprobs(infills), strict=True):
        expected = naive.logprobs(infill.condition, infill.text, infill.spans)
        assert found.dtype == np.float32 and len(found) >= 1
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_spans_of_any_text(pair: tuple[MaskedModel, Naive], data: st.DataObject) -> None:
    model, naive = pair
    text = data.draw(st.text(st.sampled_from("weather files.\n é測😀שלום -'"), max_size=40))
    condition = data.draw(st.text(st.sampled_from("the curves. é\n"), max_size=20))
    count = data.draw(st.integers(0, SENTINELS))
    edges = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2 * count, max_size=2 * count)))
    spans = tuple(zip(edges[::2], edges[1::2], strict=True))
    (found,) = model.logprobs([Infill(condition, text, spans)])
    np.testing.assert_allclose(found, naive.logprobs(condition, text, spans), rtol=0, atol=1e-4)


def test_the_tokens_of_a_text_are_the_same_behind_any_condition(pair: tuple[MaskedModel, Naive]) -> None:
    model, _ = pair
    text, spans = SENTENCES[1], spans_of(SENTENCES[1], 2)
    lengths = {len(found) for found in model.logprobs([Infill(condition, text, spans) for condition in ("", "A", SENTENCES[0])])}
    assert len(lengths) == 1


def test_each_distinct_sequence_runs_once(pair: tuple[MaskedModel, Naive]) -> None:
    model, _ = pair
    infill = Infill("", SENTENCES[0], spans_of(SENTENCES[0], 3))
    before = model.usage.forwarded_tokens
    (one,) = model.logprobs([infill])
    cost = model.usage.forwarded_tokens - before
    assert cost > 0 and model.usage.model_seconds > 0
    many = model.logprobs([infill, Infill("", SENTENCES[0], infill.spans), infill])
    assert model.usage.forwarded_tokens == before + 2 * cost
    assert all(np.array_equal(one, other) for other in many)


def test_what_does_not_fit_costs_one_nan(pair: tuple[MaskedModel, Naive]) -> None:
    model, naive = pair
    long = " ".join(SENTENCES * 20)
    spans = ((0, 5),)
    assert model.context_tokens == LENGTHS[naive.kind]
    found = model.logprobs(
        [Infill("", long, spans), Infill(long, "Quern", spans), Infill("", "Quern", spans), Infill("", "", ())]
    )
    assert [len(array) for array in found[:2]] == [1, 1] and np.isnan(found[0][0]) and np.isnan(found[1][0])
    assert np.isfinite(found[2]).all() and len(found[2]) >= 1
    assert len(found[3]) == 0
    assert model.logprobs([]) == []


def test_the_longest_that_is_said_to_fit_does(pair: tuple[MaskedModel, Naive]) -> None:
    """Positions are where such models break: the last one must exist."""
    model, _ = pair
    long = " ".join(SENTENCES * 20)
    condition = SENTENCES[0]
    room = model.room(model.count_tokens([condition])[0])
    head = model.shortened(long, room)
    assert long.startswith(head) and long[len(head)] == " "
    assert room - 12 <= model.count_tokens([head])[0] <= room
    (found,) = model.logprobs([Infill(condition, head, ((0, 5),))])
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("text", "tokens"), [("", 5), ("Quern reads", 0), ("Quern reads", -3), ("x" * 5000, 7), ("測" * 300, 9)])
def test_shortening_anything(pair: tuple[MaskedModel, Naive], text: str, tokens: int) -> None:
    model, _ = pair
    head = model.shortened(text, tokens)
    assert text.startswith(head)
    assert model.count_tokens([head])[0] <= max(0, tokens)


def test_more_runs_than_sentinels_are_dealt_to_passes(folders: dict[str, Path]) -> None:
    model = MaskedConfig(model=str(folders["t5"]), dtype="float32").load()
    naive = Naive(folders["t5"], "t5")
    text = " ".join(SENTENCES[:3])
    spans = spans_of(text, 2)
    assert len(spans) > 2 * SENTINELS
    (found,) = model.logprobs([Infill("", text, spans)])
    passes = [naive.logprobs("", text, spans[number::3]) for number in range(3)]
    np.testing.assert_allclose(np.sort(found), np.sort(np.concatenate(passes)), rtol=0, atol=1e-4)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 30)), max_size=60), st.integers(16, 300))
def test_batches_hold_everything_once_and_fit(lengths: list[tuple[int, int]], batch_tokens: int) -> None:
    found = list(batches(lengths, batch_tokens))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        padded = len(batch) * (max(lengths[place][0] for place in batch) + max(lengths[place][1] for place in batch))
        assert padded <= batch_tokens or len(batch) == 1


def test_what_is_no_masked_language_model_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    tiny_engines.save(tmp_path / "causal", "llama")
    with pytest.raises(LimbeckError, match="cannot be loaded as a masked language model"):
        MaskedConfig(model=str(tmp_path / "causal")).load()
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(folders["bert"]).save_pretrained(tmp_path / "encoder")
    AutoTokenizer.from_pretrained(folders["bert"]).save_pretrained(tmp_path / "encoder")
    with pytest.raises(LimbeckError, match="an encoder alone cannot fill in words"):
        MaskedConfig(model=str(tmp_path / "encoder")).load()
    with pytest.raises(LimbeckError, match="does not exist"):
        MaskedConfig(model="./nowhere").load()


def test_a_lower_context_holds(folders: dict[str, Path]) -> None:
    model = MaskedConfig(model=str(folders["bert"]), context_tokens=12).load()
    assert model.context_tokens == 12
    assert np.isnan(model.logprobs([Infill("", SENTENCES[0] * 2, ((0, 5),))])[0]).all()
