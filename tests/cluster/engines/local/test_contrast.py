"""PMI decoding: token for token what two sequences decoded naively give, on every architecture."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from helpers.tiny_engines import KINDS, plain_model, save
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.journal import request_key
from limbeck.cluster.engines.local.contrast import contrasted
from limbeck.cluster.engines.local.engine import TransformersEngine, build
from limbeck.cluster.engines.local.sampling import uniform
from limbeck.cluster.engines.protocol import Completion, Contrast, Message, Request, Sampling

PROMPTS = ("The cat sat on the mat, and TL;DR:", "A dog TL;DR:", "The cat sat on a hat TL;DR:", "x TL;DR:")
ALONE = "TL;DR:"
END = 257


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    """One engine of each kind, in float32, with packs and batches so small that prompts are split and slots refilled."""
    limits = {"dtype": "float32", "device": "cpu", "pack_tokens": 16, "batch_sequences": 6}
    return {kind: build(TransformersConfig(model=str(save(tmp_path_factory.mktemp(kind), kind)), **limits)) for kind in KINDS}


def answers(engine: TransformersEngine, requests: Sequence[Request]) -> dict[str, Completion]:
    """Complete the requests; every one is answered exactly once."""
    found = list(engine.complete(requests))
    assert sorted(c.request_id for c in found) == sorted(r.request_id for r in requests)
    return {c.request_id: c for c in found}


def requests_for(sampling: Sampling, each: int = 3) -> list[Request]:
    """Several samples of every prompt."""
    return [Request(f"{i}.{j}", p, sampling, seed=10 * i + j) for i, p in enumerate(PROMPTS) for j in range(each)]


def naive(model: PreTrainedModel, engine: TransformersEngine, request: Request) -> list[int]:
    """The definition: at every step one whole forward pass with the source and one without; no nucleus."""
    contrast, sampling = request.sampling.contrast, request.sampling
    assert contrast is not None
    encode = engine.loaded.tokenizer
    given, alone = list(encode(request.prompt)["input_ids"]), list(encode(contrast.prompt)["input_ids"])
    drawn: list[int] = []
    while len(drawn) < sampling.max_new_tokens:
        with torch.no_grad():
            p, q = (
                torch.log_softmax(model(torch.tensor([start + drawn])).logits[0, -1].double(), -1) for start in (given, alone)
            )
        unsure = -(p.exp() * p).sum() >= contrast.min_entropy
        scores = p - contrast.weight * q if unsure else p
        if sampling.temperature == 0:
            token = int(scores.argmax())
        else:
            shares = torch.softmax(scores / sampling.temperature, -1).cumsum(-1)
            token = int(torch.searchsorted(shares, float(uniform([request.seed], [len(drawn)])[0]), right=True))
        if token == END:
            break
        drawn.append(token)
    return drawn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_two_naive_sequences_give_the_same_tokens(engines: dict[str, TransformersEngine], kind: str, temperature: float) -> None:
    engine = engines[kind]
    plain = Sampling(9, temperature)
    for weight, bound in ((0.5, 0.0), (0.25, 4.0)):
        requests = requests_for(replace(plain, contrast=Contrast(weight, bound, ALONE)))
        found = answers(engine, requests)
        expected = {r.request_id: naive(plain_model(engine.loaded.folder), engine, r) for r in requests}
        assert {key: list(done.token_ids) for key, done in found.items()} == expected
        usual = answers(engine, requests_for(plain))
        assert any(found[key].token_ids != usual[key].token_ids for key in usual), "the contrast changes nothing here"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contrast", [Contrast(0.0, 0.0, ALONE), Contrast(0.5, 99.0, ALONE)])
def test_without_weight_or_uncertainty_it_is_plain_sampling(
    engines: dict[str, TransformersEngine], kind: str, contrast: Contrast
) -> None:
    for plain in (Sampling(12, 0.0), Sampling(12, 0.9, top_p=0.9), Sampling(12, 1.0, top_k=20, presence_penalty=1.0)):
        usual = answers(engines[kind], requests_for(plain))
        found = answers(engines[kind], requests_for(replace(plain, contrast=contrast)))
        assert found == usual


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_sample_with_a_contrast_depends_on_its_seed_alone(engines: dict[str, TransformersEngine], kind: str) -> None:
    """Samples without a contrast, or with another one, may be in the batch; and the source-free prompt may be the longer one."""
    plain = Sampling(12, 0.9, top_p=0.9)
    mixed = [
        replace(request, sampling=replace(plain, contrast=contrast), request_id=f"{request.request_id}{name}")
        for name, contrast in {
            "": None,
            "a": Contrast(0.3, 1.0, ALONE),
            "b": Contrast(0.3, 1.0, "a much longer prompt, though without any source: TL;DR:"),
            "c": Contrast(0.6, 1.0, ALONE),
        }.items()
        for request in requests_for(plain)
    ]
    together = answers(engines[kind], mixed)
    assert answers(engines[kind], mixed[::-1]) == together
    for request in mixed[::5]:
        assert answers(engines[kind], [request])[request.request_id] == together[request.request_id]
    assert len({together[f"0.0{name}"].token_ids for name in ("", "a", "b", "c")}) == 4


@pytest.mark.parametrize(("cache_bytes", "batch_sequences"), [(1 << 20, 6), (2 << 30, 1)])
def test_a_small_cache_or_batch_only_takes_longer(
    engines: dict[str, TransformersEngine], cache_bytes: int, batch_sequences: int
) -> None:
    config = engines["llama"].config.model_copy(update={"cache_bytes": cache_bytes, "batch_sequences": batch_sequences})
    cramped = TransformersEngine(config, engines["llama"].loaded)
    requests = [
        Request(f"{i}.{j}", "ab" * i, Sampling(20, 0.8, contrast=Contrast(0.3, 1.0, ALONE)), 7 * i + j)
        for i in range(1, 40, 6)
        for j in range(4)
    ]
    assert answers(cramped, requests) == answers(engines["llama"], requests)


def test_the_source_free_prompt_runs_once_per_admission(engines: dict[str, TransformersEngine]) -> None:
    """Twelve tokens of the prompt and six of the other one, whatever the number of samples; then two per drawn token."""
    usage = engines["llama"].usage
    for tokens in (1, 3):
        before = usage.forwarded_tokens
        sampling = Sampling(tokens, 0.0, contrast=Contrast(0.0, 0.0, ALONE))
        found = answers(engines["llama"], [Request(str(i), "x" * 12, sampling, i) for i in range(4)])
        assert all(len(done.token_ids) == tokens for done in found.values())
        assert usage.forwarded_tokens - before == 12 + len(ALONE) + 4 * 2 * (tokens - 1)


def test_both_prompts_may_be_conversations(engines: dict[str, TransformersEngine]) -> None:
    chat = Contrast(0.4, 0.0, (Message("user", "Hello"),))
    text = replace(chat, prompt="<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    turns, plain = (Message("user", "Hello you"),), "<|im_start|>user\nHello you<|im_end|>\n<|im_start|>assistant\n"
    found = answers(
        engines["llama"],
        [Request(str(i), p, Sampling(9, 0.0, contrast=c), 0) for i, (p, c) in enumerate(((turns, chat), (plain, text)))],
    )
    assert found["0"].token_ids == found["1"].token_ids


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_source_free_prompt_that_is_too_long_costs_one_row(engines: dict[str, TransformersEngine], kind: str) -> None:
    sampling = Sampling(8, 0.0, contrast=Contrast(0.3, 0.0, ALONE))
    long = replace(sampling, contrast=Contrast(0.3, 0.0, "y" * 250))
    empty = replace(sampling, contrast=Contrast(0.3, 0.0, ""))
    found = answers(
        engines[kind], [Request("long", "y", long, 0), Request("empty", "y", empty, 0), Request("good", "y", sampling, 0)]
    )
    assert found["good"].error is None
    assert str(found["long"].error).startswith("without the source (contrast), the prompt has 250 tokens")
    assert found["empty"].error == "without the source (contrast), the prompt has no tokens"


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_nan_without_the_source_is_an_error_of_its_rows(tmp_path: Path, kind: str) -> None:
    engine = build(TransformersConfig(model=str(save(tmp_path, kind)), dtype="float32"))
    requests = [
        Request(text, "abc", Sampling(4, 0.0, contrast=Contrast(0.3, 0.0, text)), 0) for text in ("aZc", "abd", "bcd", "bbb")
    ]
    healthy = answers(engine, requests)
    letter = engine.loaded.tokenizer("Z")["input_ids"][0]
    with torch.no_grad():
        engine.loaded.model.model.embed_tokens.weight[letter] = math.nan
    found = answers(engine, requests)
    assert "NaN" in str(found["aZc"].error)
    for text in ("abd", "bcd", "bbb"):
        if letter not in healthy[text].token_ids:
            assert found[text] == healthy[text]


def test_scores_of_single_rows() -> None:
    """Rows without a contrast keep their logits; a masked token stays masked; the entropy decides per row."""
    logits = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    logits[3, 7] = -torch.inf
    shadow = torch.randn(50, generator=torch.Generator().manual_seed(1))
    shadow[7] = -torch.inf
    certain = logits.clone()
    certain[5] *= 40
    contrast = Contrast(0.5, 2.0, "")
    before = certain.clone()
    found = contrasted(certain, [(contrast if row % 2 else None, shadow) for row in range(40)])
    assert torch.equal(certain, before)
    assert torch.equal(found[::2], before[::2])
    assert torch.equal(found[5], before[5])
    assert found[3, 7] == -torch.inf
    log_q = torch.log_softmax(shadow, -1)
    keep = [token for token in range(50) if token != 7]
    assert torch.allclose(found[1, keep], before[1, keep] - 0.5 * log_q[keep])
    assert found[1, 7] == before[1, 7]
    assert contrasted(logits, [(None, None)] * 40) is logits


def test_a_journal_knows_its_requests_from_before_there_was_a_contrast() -> None:
    plain = Request("a", "x", Sampling(3, 0.5), 7)
    assert request_key(plain) == "1cfe067e9518126f"
    keys = {request_key(replace(plain, sampling=Sampling(3, 0.5, contrast=Contrast(w, 3.5, ALONE)))) for w in (0.0, 0.1)}
    assert len(keys | {request_key(plain)}) == 3
