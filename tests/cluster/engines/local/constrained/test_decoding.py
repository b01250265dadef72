"""Constrained requests on tiny models: what the same search finds with a whole forward pass for every hypothesis."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_engines import KINDS, plain_model, save
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.constraint import Constraint
from limbeck.cluster.engines.local.constrained.pieces import Pieces
from limbeck.cluster.engines.local.constrained.search import Search
from limbeck.cluster.engines.local.constrained.tracker import Tracker
from limbeck.cluster.engines.local.engine import TransformersEngine, build
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling, UserTurn

PROMPTS = ("The cat", "The cat sat on the mat, and", "A dog", "x")
PLAIN = Constraint(beams=3, no_repeat_ngram=0)
WORDS = Constraint.of([["cat", "k"], ["do"]], ["e", "x"], beams=4, tolerance=0, prune=None, early_stop=10, whole_words=False)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    """One engine of each kind, in float32, with packs and batches so small that searches wait for one another."""
    limits = {"dtype": "float32", "device": "cpu", "pack_tokens": 16, "batch_sequences": 9}
    return {kind: build(TransformersConfig(model=str(save(tmp_path_factory.mktemp(kind), kind)), **limits)) for kind in KINDS}


def ask(name: str, prompt: Any, constraint: Constraint | None, tokens: int = 12, **settings: Any) -> Request:
    return Request(name, prompt, Sampling(tokens, **{"temperature": 0.0, "constraint": constraint, **settings}), seed=0)


def answers(engine: TransformersEngine, requests: Sequence[Request]) -> dict[str, Completion]:
    """Complete the requests; every one is answered exactly once."""
    found = list(engine.complete(requests))
    assert sorted(done.request_id for done in found) == sorted(request.request_id for request in requests)
    return {done.request_id: done for done in found}


def naive_logprobs(engine: TransformersEngine, tokens: Sequence[int]) -> torch.Tensor:
    """Of the next token, by a forward pass of transformers."""
    with torch.no_grad():
        return torch.log_softmax(plain_model(engine.loaded.folder)(torch.tensor([list(tokens)])).logits[0, -1].float(), -1)


def searched(engine: TransformersEngine, request: Request) -> list[tuple[tuple[int, ...], bool]]:
    """The texts that the search finds, with a forward pass for every hypothesis."""
    tokenizer, constraint = engine.loaded.tokenizer, request.sampling.constraint
    assert constraint is not None
    tracker = Tracker(constraint, Pieces(tokenizer), lambda text: tokenizer(text)["input_ids"], request.sampling.stop)
    search = Search(constraint, tracker, engine.loaded.end_tokens, request.sampling.max_new_tokens, constraint.place + 1)
    prompt = tokenizer(request.prompt)["input_ids"]
    while not search.done:
        search.advance(torch.stack([naive_logprobs(engine, (*prompt, *h.tokens)) for h in search.live]))
    return [(h.tokens, h.ended) for h in search.results()]


def plain_beam_search(engine: TransformersEngine, prompt: str, length: int) -> tuple[int, ...]:
    """Beam search, written naively: every continuation of every hypothesis, sorted."""
    ids = engine.loaded.tokenizer(prompt)["input_ids"]
    live, finished = [(0.0, list[int]())], list[tuple[bool, float, list[int]]]()
    (end,) = engine.loaded.end_tokens
    assert PLAIN.early_stop is not None
    for step in range(1, length + 1):
        continuations = list[tuple[float, list[int]]]()
        for score, tokens in live:
            logprobs = naive_logprobs(engine, (*ids, *tokens)).double().tolist()
            if sum(value > logprobs[end] for value in logprobs) < int(PLAIN.early_stop * PLAIN.beams):
                finished.append((True, (score + logprobs[end]) / step**PLAIN.length_penalty, tokens))
            continuations += [(score + value, [*tokens, token]) for token, value in enumerate(logprobs) if token != end]
        live = sorted(continuations, reverse=True)[: PLAIN.beams]
    finished += [(False, score / length**PLAIN.length_penalty, tokens) for score, tokens in live]
    return tuple(max(finished)[2])


@pytest.mark.parametrize("kind", KINDS)
def test_without_clauses_it_is_plain_beam_search(engines: dict[str, TransformersEngine], kind: str) -> None:
    requests = [ask(f"{i}.{length}", p, PLAIN, length) for i, p in enumerate(PROMPTS) for length in (1, 5, 14)]
    found = answers(engines[kind], requests)
    for request in requests:
        expected = plain_beam_search(engines[kind], str(request.prompt), request.sampling.max_new_tokens)
        assert found[request.request_id].token_ids == expected
        assert found[request.request_id].unmet == ()


@pytest.mark.parametrize("kind", KINDS)
def test_clauses_are_met_and_banned_phrases_avoided(engines: dict[str, TransformersEngine], kind: str) -> None:
    """Together with plain samples, alone, and backwards, the answers are those of the naive search."""
    engine = engines[kind]
    requests = [ask(f"{i}", prompt, WORDS) for i, prompt in enumerate(PROMPTS)]
    requests += [ask(f"progress {i}", prompt, replace(WORDS, progress=1.25)) for i, prompt in enumerate(PROMPTS)]
    requests += [ask(f"pruned {i}", prompt, replace(WORDS, prune=40)) for i, prompt in enumerate(PROMPTS)]
    drawn = [ask(f"drawn {i}", prompt, None, temperature=0.9) for i, prompt in enumerate(PROMPTS)]
    found = answers(engine, [*requests, *drawn])
    assert {name: found[name] for name in found if "drawn" in name} == answers(engine, drawn)
    assert answers(engine, requests[::-1]) == {request.request_id: found[request.request_id] for request in requests}
    assert answers(engine, requests[2:3])["2"] == found["2"]
    for request in requests:
        done = found[request.request_id]
        assert (done.token_ids, done.finish_reason == "stop") == searched(engine, request)[0]
        assert done.unmet == WORDS.unmet(done.text) and 2 not in done.unmet
    numbers = range(len(PROMPTS))
    assert all(0 not in found[str(i)].unmet for i in numbers), "without pruning each phrase of one token is found"
    assert all(found[f"progress {i}"].unmet == () for i in numbers), "a phrase of two tokens is, if its first one is rewarded"


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_places_are_the_best_texts_and_share_a_search(engines: dict[str, TransformersEngine], kind: str) -> None:
    engine = engines[kind]
    requests = [ask(str(place), "A dog", replace(WORDS, place=place)) for place in range(3)]
    before = engine.usage.forwarded_tokens
    found = answers(engine, requests)
    together = engine.usage.forwarded_tokens - before
    alone = answers(engine, requests[2:])
    assert engine.usage.forwarded_tokens - before == 2 * together
    assert alone["2"] == found["2"] and len({done.token_ids for done in found.values()}) == 3
    assert [found[str(place)].token_ids for place in range(3)] == [tokens for tokens, _ in searched(engine, requests[2])[:3]]
    assert requests[0].sampling.at(2) == requests[2].sampling


def test_words_that_do_not_fit_are_reported(engines: dict[str, TransformersEngine]) -> None:
    constraint = Constraint.of([["abcdefgh"], ["q"]], beams=4, prune=None, whole_words=False)
    done = answers(engines["llama"], [ask("a", "A dog", constraint, 5)])["a"]
    assert (done.finish_reason, done.unmet, len(done.token_ids), done.error) == ("length", (0,), 5, None)
    assert "q" in done.text, "the best incomplete text meets what it can"


def test_a_place_that_the_search_does_not_reach_is_an_error(engines: dict[str, TransformersEngine]) -> None:
    constraint = Constraint.of([["k"]], beams=4, prune=None, tolerance=0)
    found = answers(engines["llama"], [ask(str(place), "A dog", replace(constraint, place=place), 1) for place in range(3)])
    assert {found["0"].text, found["1"].text} == {"k", "K"}
    assert found["2"].error == "the constraint's search ended with 2 texts, so there is none at the requested place"


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_a_stop_string_and_the_end_of_a_user_s_turn_wait_for_the_words(engines: dict[str, TransformersEngine], kind: str) -> None:
    engine = engines[kind]
    constraint = Constraint.of([["d"]], beams=6, prune=None, early_stop=None, whole_words=False)
    requests = [ask(str(i), prompt, constraint, stop=("a", "b", "c", "t")) for i, prompt in enumerate(PROMPTS)]
    requests += [ask("turn", UserTurn((Message("user", "x"), Message("assistant", "y"))), constraint)]
    for done in answers(engine, requests).values():
        assert "d" in done.text.lower() and done.unmet == ()
    for request in requests[:-1]:
        assert (answers(engine, [request])[request.request_id].token_ids, True) in searched(engine, request)[:1]


def test_settings_that_make_no_sense_cost_one_row(engines: dict[str, TransformersEngine]) -> None:
    requests = {
        "drawn": (ask("drawn", "x", PLAIN, temperature=1.0), "needs a beam search, which draws nothing"),
        "empty": (ask("empty", "x", Constraint.of([["a"], []])), "clause 1 of the constraint has no phrase"),
        "spaced": (ask("spaced", "x", Constraint.of([[" a"]])), "begins or ends with whitespace"),
        "place": (ask("place", "x", replace(PLAIN, place=3)), "3 beams has no hypothesis at place 3"),
        "contradiction": (ask("contradiction", "x", Constraint.of([["a cat", "Cat"]], ["cat"])), "contains a banned phrase"),
        "prune": (ask("prune", "x", replace(PLAIN, prune=0)), "prune of a constraint is too small: 0"),
        "repeat": (ask("repeat", "x", replace(PLAIN, no_repeat_ngram=-1)), "no_repeat_ngram of a constraint is too small: -1"),
        "tolerance": (ask("tolerance", "x", replace(PLAIN, tolerance=-1)), "tolerance of a constraint is negative: -1"),
        "long": (ask("long", "y" * 250, PLAIN), "the context holds 256"),
    }
    good = ask("good", "x", PLAIN)
    found = answers(engines["llama"], [good, *(request for request, _ in requests.values())])
    assert found["good"].error is None
    for name, (_, sentence) in requests.items():
        assert found[name].finish_reason == "error" and sentence in str(found[name].error), found[name]


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_broken_weights_and_one_sick_prompt(tmp_path: Path, kind: str) -> None:
    engine = build(TransformersConfig(model=str(save(tmp_path, kind)), dtype="float32", batch_sequences=6))
    healthy = answers(engine, [ask(text, text, replace(WORDS, beams=2)) for text in ("abc", "aZc", "abd")])
    letter = engine.loaded.tokenizer("Z")["input_ids"][0]
    with torch.no_grad():
        engine.loaded.model.model.embed_tokens.weight[letter] = math.nan
    found = answers(engine, [ask(text, text, replace(WORDS, beams=2)) for text in ("abc", "aZc", "abd")])
    assert "NaN" in str(found["aZc"].error)
    for text in ("abc", "abd"):
        assert found[text] == healthy[text] or "NaN" in str(found[text].error), "unless a hypothesis has the letter"
    assert found["abc"].error is None or found["abd"].error is None


def test_a_small_cache_only_takes_longer(engines: dict[str, TransformersEngine]) -> None:
    config = TransformersConfig(model=str(engines["llama"].loaded.folder), dtype="float32", cache_bytes=1 << 20)
    cramped = TransformersEngine(config, engines["llama"].loaded)
    requests = [ask(f"{i}", "ab" * i, replace(WORDS, beams=2 + i % 3), 4 + i) for i in range(1, 12)]
    assert answers(cramped, requests) == answers(engines["llama"], requests)
    large = answers(cramped, [ask("large", "x", replace(WORDS, beams=100), 60), requests[0]])
    assert large[requests[0].request_id].error is None
    assert large["large"].error == (
        "a search with 100 beams and 60 new tokens needs a key-value cache of 1 MiB, but cache_bytes is 1 MiB; lower beams or "
        "max_new_tokens, or raise it"
    )
