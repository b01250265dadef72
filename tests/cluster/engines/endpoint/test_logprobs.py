"""Log-probabilities over HTTP: the same tokens as the engine in this process, in an order that shares prefixes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fault_server import FaultServer, byte_tokenizer, logprob_of
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.engine import EndpointEngine, build
from limbeck.cluster.engines.endpoint.prompts import Prompts
from limbeck.cluster.engines.protocol import Message, Pair
from limbeck.corpus.errors import LimbeckError

PAIRS = (
    Pair("The document", " says so."),
    Pair("The document", " says nothing."),
    Pair("", "alone"),
    Pair("The", " document says so.", ((1, 4), (10, 14))),
    Pair("naïve", " café"),
    Pair("The document", ""),
    Pair("The document", " says so."),
    Pair("Another", " x" * 140),
    Pair("broken \ud800", " row"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("model"))


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def engine_for(server: FaultServer, model: Path, **settings: object) -> EndpointEngine:
    config = {"model": str(model), "base_url": server.url, "backoff_seconds": 0.01, "patience_seconds": 20.0, **settings}
    return build(EndpointConfig.model_validate(config))


def naive(model: Path, pair: Pair) -> list[float]:
    """Token by token: a token is a byte, and its characters are those of the character it belongs to."""
    prompts, text, begin = Prompts.load(str(model)), pair.context + pair.target, len(pair.context)
    wanted_characters = range(begin, len(text))
    if pair.spans is not None:
        wanted_characters = [begin + i for a, b in pair.spans for i in range(a, b)]  # type: ignore[assignment]
    found, place = [], int(begin == 0)
    for character, letter in enumerate(text):
        for token in prompts.encode(letter):
            if character in wanted_characters:
                found.append(logprob_of(place, token))
            place += 1
    return found


def test_they_are_those_of_the_targets_tokens(server: FaultServer, model: Path) -> None:
    engine = engine_for(server, model)
    found = engine.logprobs(PAIRS)
    for pair, values in zip(PAIRS[:7], found[:7], strict=True):
        np.testing.assert_allclose(values, naive(model, pair), rtol=1e-6)
        assert values.dtype == np.float32
    assert len(found[4]) == 6, "a space, c, a, f and the two bytes of an é"
    assert len(found[5]) == 0
    assert [values.tolist() for values in found[7:]] == [[pytest.approx(np.nan, nan_ok=True)]] * 2
    assert engine.logprobs([]) == []
    assert engine.usage.output_tokens == 0 and engine.usage.forwarded_tokens == sum(server.billed)
    engine.close()


def test_equal_pairs_are_asked_once_and_shared_beginnings_follow_one_another(server: FaultServer, model: Path) -> None:
    engine = engine_for(server, model, max_concurrency=1)
    contexts = [f"{name} document that is long" for name in ("A", "B", "C")]
    pairs = [Pair(context, f" and output {n}") for n in range(4) for context in contexts] * 2
    found = engine.logprobs(pairs)
    sent = [body["prompt"] for body in server.bodies[1:]]  # the first asks what the server can do
    assert sent == sorted(sent) and len(sent) == 12
    assert all(np.array_equal(found[i], found[i + 12]) for i in range(12))
    assert {(body["echo"], body["logprobs"], body["max_tokens"]) for body in server.bodies} == {(True, 0, 0)}
    engine.close()


@settings(deadline=None, max_examples=25)
@given(texts=st.lists(st.tuples(st.text(max_size=12), st.text(min_size=1, max_size=12)), max_size=6))
def test_any_text_is_tokenised_as_one_string(texts: list[tuple[str, str]]) -> None:
    queries = PROMPTS.tokenise([Pair(context, target) for context, target in texts])
    for (context, target), query in zip(texts, queries, strict=True):
        ids = list(PROMPTS.encode(context + target))
        assert list(query.tokens) == ([PROMPTS.first] if not context else []) + ids
        assert len(query.wanted) == len(target.encode())


@pytest.fixture(scope="module", autouse=True)
def shared_prompts(model: Path) -> None:
    global PROMPTS
    PROMPTS = Prompts.load(str(model))


PROMPTS: Prompts


def test_faults_cost_nothing_and_a_row_that_always_fails_is_not_a_number(model: Path) -> None:
    poison: list[str] = []

    def plan(prompt: str, before: int) -> str:
        return "500" if prompt in poison else ["malformed", "429", ""][min(before, 2)] if len(prompt) % 3 == 0 else ""

    with FaultServer(plan=plan) as server:
        engine = engine_for(server, model, attempts=2)
        pairs = [Pair(f"context {n}", f" target {n * 7}") for n in range(40)]
        engine.logprobs(pairs[:1])
        poison.append(str(list(PROMPTS.encode("context 3 target 21"))))
        found = engine.logprobs(pairs)
        engine.close()
    assert np.isnan(found[3]).tolist() == [True]
    for n in range(40):
        if n != 3:
            np.testing.assert_allclose(found[n], naive(model, pairs[n]), rtol=1e-6)


def test_a_server_that_cannot_says_so(model: Path) -> None:
    with FaultServer(echoes=False) as server:
        engine = engine_for(server, model)
        with pytest.raises(LimbeckError, match="does not return log-probabilities of a prompt.*echo is not supported"):
            engine.logprobs(PAIRS)
        engine.close()
    assert len(server.bodies) == 4, "each way of asking once"


def test_a_server_with_another_tokenizer_is_noticed(model: Path) -> None:
    with FaultServer(alphabet_shift=7) as server:
        engine = engine_for(server, model)
        with pytest.raises(LimbeckError, match="has another tokenizer; set model to the one it serves"):
            engine.logprobs(PAIRS)
        engine.close()


def test_tokens_are_counted_here(server: FaultServer, model: Path, tmp_path: Path) -> None:
    engine = engine_for(server, model)
    assert engine.count_tokens(["abc", "", "é"]) == [3, 0, 2] and engine.count_tokens([]) == []
    engine.close()
    turns = (Message("user", "Hello"),)
    assert PROMPTS.count(turns) == 13 + 11
    bare = Prompts.load(str(byte_tokenizer(tmp_path / "bare", chat=False)))
    assert bare.template is None and bare.count(turns) == 5 + 16, "an estimate, where the server's template is not known"


def test_a_model_needs_no_weights_but_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LimbeckError, match="safetensors"):
        Prompts.load(str(tmp_path))
    with pytest.raises(LimbeckError, match="does not exist"):
        Prompts.load(str(tmp_path / "nowhere"))
