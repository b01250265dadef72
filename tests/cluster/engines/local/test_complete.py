"""`complete`: token for token what plain generation does, whatever else is in the batch."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.tiny_engines import KINDS, SIZES, save, tokenizer
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import TransformersEngine, build
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling, UserTurn
from limbeck.corpus.errors import LimbeckError

PROMPTS = ("The cat", "The cat sat on the mat, and", "A dog", "The cat sat on a hat", "x")


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


def test_models_are_packed_where_they_can_be(engines: dict[str, TransformersEngine]) -> None:
    assert {kind: engine.loaded.packed for kind, engine in engines.items()} == {
        "llama": True,
        "qwen2": True,
        "gpt2": True,
        "mistral": False,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_plain_generate(engines: dict[str, TransformersEngine], kind: str) -> None:
    engine = engines[kind]
    plain = AutoModelForCausalLM.from_pretrained(engine.loaded.folder, dtype=torch.float32)
    requests = [
        Request(f"{i}.{length}", prompt, Sampling(length, temperature=0.0), seed=i)
        for i, prompt in enumerate(PROMPTS)
        for length in (1, 7, 30)
    ]
    found = answers(engine, requests)
    for request in requests:
        ids = torch.tensor([engine.loaded.tokenizer(request.prompt)["input_ids"]])
        length = request.sampling.max_new_tokens
        expected = plain.generate(ids, max_new_tokens=length, do_sample=False, pad_token_id=257)[0, ids.shape[1] :].tolist()
        ended = 257 in expected
        assert list(found[request.request_id].token_ids) == (expected[: expected.index(257)] if ended else expected)
        assert found[request.request_id].finish_reason == ("stop" if ended else "length")
        assert found[request.request_id].prompt_tokens == ids.shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_depends_on_its_seed_alone(engines: dict[str, TransformersEngine], kind: str) -> None:
    sampling = Sampling(12, temperature=0.9, top_p=0.9)
    requests = [Request(f"{i}.{j}", p, sampling, seed=10 * i + j) for i, p in enumerate(PROMPTS) for j in range(4)]
    together = answers(engines[kind], requests)
    backwards = answers(engines[kind], requests[::-1])
    assert {k: c.token_ids for k, c in together.items()} == {k: c.token_ids for k, c in backwards.items()}
    alone = answers(engines[kind], requests[5:6])
    assert alone["1.1"].token_ids == together["1.1"].token_ids
    assert len({together[f"1.{j}"].token_ids for j in range(4)}) == 4
    assert [c.token_ids for c in engines[kind].complete(requests)] == [c.token_ids for c in engines[kind].complete(requests)]


def test_equal_prompts_run_once(engines: dict[str, TransformersEngine]) -> None:
    usage = engines["llama"].usage
    before = usage.forwarded_tokens
    answers(engines["llama"], [Request(str(i), "x" * 12, Sampling(1), i) for i in range(6)])
    assert usage.forwarded_tokens - before == 12


def test_conversations_use_the_chat_template(engines: dict[str, TransformersEngine]) -> None:
    sampling = Sampling(5, temperature=0.0)
    turns = (Message("system", "Be brief."), Message("user", "Hello"))
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    found = answers(engines["llama"], [Request("chat", turns, sampling, 0), Request("text", text, sampling, 0)])
    assert found["chat"].token_ids == found["text"].token_ids
    assert found["chat"].prompt_tokens == found["text"].prompt_tokens == 19 + 13 + 11


def test_a_model_without_a_chat_template_says_so(tmp_path: Path) -> None:
    engine = build(TransformersConfig(model=str(save(tmp_path, "llama", chat=False)), dtype="float32"))
    with pytest.raises(LimbeckError, match="chat template"):
        list(engine.complete([Request("a", (Message("user", "Hello"),), Sampling(4), 0)]))


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_stop_strings_cut_the_text(engines: dict[str, TransformersEngine], kind: str) -> None:
    engine = engines[kind]
    whole = answers(engine, [Request("a", "The cat", Sampling(40, temperature=1.0), 3)])["a"]
    stop = whole.text[10:12]
    cut = answers(engine, [Request("a", "The cat", Sampling(40, temperature=1.0, stop=("never ever", stop)), 3)])["a"]
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)] and len(cut.token_ids) < len(whole.token_ids)


def test_an_over_long_prompt_costs_one_row(engines: dict[str, TransformersEngine]) -> None:
    requests = [
        Request("long", "y" * 250, Sampling(8), 0),
        Request("empty", "", Sampling(8), 0),
        Request("good", "y", Sampling(8), 0),
    ]
    found = answers(engines["llama"], requests)
    assert found["good"].error is None
    assert (found["long"].finish_reason, found["long"].text, found["long"].token_ids) == ("error", "", ())
    assert "250 tokens" in str(found["long"].error) and "256" in str(found["long"].error)
    assert found["empty"].finish_reason == "error"


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_broken_weights_become_errors(tmp_path: Path, kind: str) -> None:
    engine = build(TransformersConfig(model=str(save(tmp_path, kind)), dtype="float32"))
    with torch.no_grad():
        engine.loaded.model.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    found = answers(engine, [Request(str(i), "abc", Sampling(4), i) for i in range(3)])
    assert {c.finish_reason for c in found.values()} == {"error"}
    assert all("NaN" in str(c.error) for c in found.values())


def test_one_sick_prompt_does_not_spread(tmp_path: Path) -> None:
    engine = build(TransformersConfig(model=str(save(tmp_path, "llama")), dtype="float32", batch_sequences=2))
    requests = [Request(text, text, Sampling(6, temperature=0.0), 0) for text in ("abc", "aZc", "abd", "bcd", "bbb")]
    healthy = answers(engine, requests)
    with torch.no_grad():
        engine.loaded.model.model.embed_tokens.weight[engine.loaded.tokenizer("Z")["input_ids"][0]] = math.nan
    found = answers(engine, requests)
    assert found["aZc"].finish_reason == "error"
    letter = engine.loaded.tokenizer("Z")["input_ids"][0]
    for text in ("abc", "abd", "bcd", "bbb"):
        if letter not in healthy[text].token_ids:
            assert found[text] == healthy[text]


def test_no_requests_no_work(engines: dict[str, TransformersEngine]) -> None:
    assert list(engines["llama"].complete([])) == []
    assert engines["llama"].count_tokens([]) == []
    assert engines["llama"].count_tokens(["", "abc", "é"]) == [0, 3, 2]


def test_a_small_cache_only_takes_longer(engines: dict[str, TransformersEngine], tmp_path: Path) -> None:
    config = TransformersConfig(model=str(engines["llama"].loaded.folder), dtype="float32", cache_bytes=1 << 20)
    cramped = TransformersEngine(config, engines["llama"].loaded)
    requests = [
        Request(f"{i}.{j}", "ab" * i, Sampling(20, temperature=0.8), 7 * i + j) for i in range(1, 40, 3) for j in range(5)
    ]
    assert {k: c.token_ids for k, c in answers(cramped, requests).items()} == {
        k: c.token_ids for k, c in answers(engines["llama"], requests).items()
    }


def test_a_user_s_turn_is_a_prompt_that_ends_before_the_text(engines: dict[str, TransformersEngine]) -> None:
    """It gives what the rendered text gives, up to a special token of the template; <|im_start|> ends no other prompt."""
    before = (Message("user", "x"), Message("assistant", "y"))
    texts = {UserTurn(): "<|im_start|>user\n"}
    texts[UserTurn(before)] = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\ny<|im_end|>\n<|im_start|>user\n"
    sampling = Sampling(30, temperature=1.0)
    cut = 0
    for engine, (number, (turn, text)) in product(engines.values(), enumerate(texts.items())):
        seeds = range(100 * number, 100 * number + 40)
        turns = answers(engine, [Request(str(seed), turn, sampling, seed) for seed in seeds])
        plain = answers(engine, [Request(str(seed), text, sampling, seed) for seed in seeds])
        for seed in map(str, seeds):
            tokens, expected = turns[seed].token_ids, plain[seed].token_ids
            assert turns[seed].prompt_tokens == plain[seed].prompt_tokens
            ended = 256 in expected
            cut += ended
            assert tokens == (expected[: expected.index(256)] if ended else expected)
            assert turns[seed].finish_reason == ("stop" if ended else plain[seed].finish_reason)
    assert cut, "no draw has the token, so nothing was tested"


def test_a_user_s_turn_ends_at_the_template_s_text(
    engines: dict[str, TransformersEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines["llama"]
    requests = [Request(str(seed), "U:", Sampling(30, temperature=1.0, stop=("q",)), seed) for seed in range(40)]
    plain = answers(engine, requests)
    monkeypatch.setattr(engine.loaded.tokenizer, "chat_template", "U:{{ messages[-1].content }} e\nAnswer:")
    turns = answers(engine, [Request(r.request_id, UserTurn(), r.sampling, r.seed) for r in requests])
    assert {key: turn.text for key, turn in turns.items()} == {key: done.text.split("e")[0] for key, done in plain.items()}
    assert any("e" in done.text for done in plain.values())
    monkeypatch.setattr(engine.loaded.tokenizer, "chat_template", None)
    with pytest.raises(LimbeckError, match="has no chat template, so it has no user's turn to draw"):
        list(engine.complete([Request("0", UserTurn(), Sampling(3), 0)]))


def test_the_tiny_tokenizer_is_what_the_tests_assume() -> None:
    assert tokenizer().convert_tokens_to_ids("<|im_end|>") == SIZES["eos_token_id"]
