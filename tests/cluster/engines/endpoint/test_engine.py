"""The endpoint engine against a server that fails in every way: no row lost, none asked twice, no budget exceeded."""

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.fault_server import FaultServer, byte_tokenizer, nothing_listens, reply_text, scattered
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.engine import EndpointEngine, build
from limbeck.cluster.engines.protocol import Completion, EngineDied, Message, Request, Sampling, UserTurn
from limbeck.corpus.errors import LimbeckError

Opener = Callable[..., EndpointEngine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(byte_tokenizer(tmp_path_factory.mktemp("model")))


@pytest.fixture
def opened(model: str) -> Iterator[Opener]:
    """Open engines that are closed after the test; waits are short, and generous where a busy machine could reach them."""
    engines = []

    def open_(server: FaultServer | str, **settings: Any) -> EndpointEngine:
        url = server if isinstance(server, str) else server.url
        settings = {"model": model, "backoff_seconds": 0.01, "patience_seconds": 20.0, "timeout_seconds": 20.0} | settings
        engines.append(build(EndpointConfig(base_url=url, **settings)))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


def ask(number: int, text: str = "", max_new_tokens: int = 24, **sampling: Any) -> Request:
    prompt = (Message("user", text or f"row {number}"),)
    return Request(str(number), prompt, Sampling(max_new_tokens, **sampling), seed=number)


def answers(engine: EndpointEngine, requests: list[Request]) -> dict[str, Completion]:
    """Complete the requests; every one is answered exactly once."""
    found = list(engine.complete(requests))
    assert Counter(c.request_id for c in found) == Counter(r.request_id for r in requests)
    return {c.request_id: c for c in found}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_thousand_requests_over_every_fault(opened: Opener) -> None:
    poison, too_long = {f"row {n}" for n in range(7, 2000, 400)}, {f"row {n}" for n in range(9, 2000, 400)}
    with FaultServer(plan=scattered(1, poison, too_long), seconds=0.002, hang_seconds=300.0) as server:
        engine = opened(server, timeout_seconds=4.0)
        found = answers(engine, [ask(n) for n in range(2000)])
    assert server.sent_again == []
    for n in range(2000):
        answer = found[str(n)]
        if f"row {n}" in poison:
            assert str(answer.error).endswith(" attempts failed, the last with: 500: not this time")
            assert server.arrivals[f"row {n}|{n}"] >= 5
        elif f"row {n}" in too_long:
            assert "maximum context length" in str(answer.error) and server.arrivals[f"row {n}|{n}"] == 1
        else:
            assert (answer.error, answer.text) == (None, reply_text(f"row {n}", n, 24))
            assert server.answered[f"row {n}|{n}"] == 1
    usage = engine.usage
    assert usage.extra["requests"] == sum(server.arrivals.values()) == 2000 + usage.extra["retries"]
    assert usage.extra["retries"] > 300 and usage.extra["usage_not_believed"] > 50
    assert usage.model_seconds > 0 and usage.output_tokens > 2000
    assert usage.extra["most_in_flight"] <= 64


def test_an_answer_is_what_the_server_said(opened: Opener) -> None:
    with FaultServer() as server:
        engine = opened(server)
        turns = (Message("system", "Be brief."), Message("user", "Hello"))
        requests = [
            Request("chat", turns, Sampling(20, temperature=0.3, top_p=0.9, top_k=7, stop=("Q",), presence_penalty=2), 2**62 + 5),
            Request("plain", "Once upon", Sampling(20), 6),
        ]
        found = answers(engine, requests)
    bodies = {body.get("prompt", "chat"): body for body in server.bodies}
    assert found["chat"].text == reply_text("Hello", 5, 20) and found["plain"].text == reply_text("Once upon", 6, 20)
    assert found["chat"].prompt_tokens == 19 + 13 + 11 and found["plain"].prompt_tokens == 9
    assert len(found["plain"].token_ids) == len(found["plain"].text)
    assert bodies["chat"] | {"messages": 0} == {
        "model": "tiny", "max_tokens": 20, "temperature": 0.3, "top_p": 0.9, "top_k": 7, "seed": 5, "n": 1, "stop": ["Q"],
        "messages": 0, "presence_penalty": 2,
    }  # fmt: skip
    assert [turn["role"] for turn in bodies["chat"]["messages"]] == ["system", "user"]
    assert "presence_penalty" not in bodies["Once upon"], "some servers do not know the parameter"
    assert engine.usage.forwarded_tokens == sum(server.billed)
    assert engine.usage.output_tokens == server.billed[1]
    assert engine.context_tokens == 256


def test_a_user_s_turn_is_sent_as_tokens(opened: Opener, model: str, tmp_path: Path) -> None:
    """So no server puts a beginning-of-text token before that of the template, and a special token of the server ends it."""
    before = (Message("user", "x"), Message("assistant", "y"))
    with FaultServer() as server:
        engine = opened(server)
        requests = [Request("turn", UserTurn(before), Sampling(20, stop=("Q",)), 5)]
        (answer,) = answers(engine, requests).values()
    (body,) = server.bodies
    text = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\ny<|im_end|>\n<|im_start|>user\n"
    assert body["prompt"] == engine.prompts.tokenizer.backend.encode(text, add_special_tokens=False).ids
    assert answer.prompt_tokens == len(body["prompt"]) and (body["stop"], body.get("messages")) == (["Q"], None)
    settings = json.loads((Path(model) / "tokenizer_config.json").read_text())
    shutil.copytree(model, tmp_path / "inst")
    brackets = "{% for m in messages %}[{{ m.content }} 85[{% endfor %}"
    (tmp_path / "inst/tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": brackets}))
    with FaultServer() as server:
        engine = opened(server, model=str(tmp_path / "inst"))
        (answer,) = answers(engine, [Request("turn", UserTurn(), Sampling(20), 21)]).values()
    (body,) = server.bodies
    assert (body["prompt"], body["stop"]) == ([engine.prompts.encode("[")[0]], ["85["])
    whole = reply_text(json.dumps(body["prompt"]), 21, 20)
    assert "85[" in whole and answer.text == whole.split("85[")[0], "a server that ignores the stop string changes nothing"


def test_samples_of_one_prompt_are_requests_of_their_own(opened: Opener) -> None:
    with FaultServer() as server:
        same = (Message("user", "the same"),)
        found = answers(opened(server), [Request(str(n), same, Sampling(30, stop=("9",)), n) for n in range(12)])
    assert len({answer.text for answer in found.values()}) > 6
    assert sorted(body["seed"] for body in server.bodies) == list(range(12)) and {body["n"] for body in server.bodies} == {1}
    assert all("9" not in answer.text for answer in found.values())


def test_prompts_that_cannot_be_sent_cost_one_row(opened: Opener) -> None:
    with FaultServer() as server:
        requests = [ask(0, "x" * 240), ask(1, "\ud800 broken"), Request("2", "", Sampling(4), 0), ask(3)]
        found = answers(opened(server), requests)
    assert "259 tokens and 24 more" in str(found["0"].error) and "256" in str(found["0"].error)
    assert "Unicode" in str(found["1"].error) and "no tokens" in str(found["2"].error)
    assert found["3"].error is None and len(server.bodies) == 1


@pytest.mark.parametrize("fault", ["500", "cut", "half", "malformed", "empty", "two", "none"])
def test_a_row_that_always_fails_becomes_a_reason(opened: Opener, fault: str) -> None:
    with FaultServer(plan=lambda prompt, before: fault if prompt == "row 5" else "", seconds=0.01) as server:
        found = answers(opened(server, attempts=2, max_concurrency=4), [ask(n) for n in range(40)])
    assert [name for name, answer in found.items() if answer.error] == ["5"]
    assert "attempts failed, the last with" in str(found["5"].error)
    assert server.sent_again == []


@pytest.mark.parametrize(("refusals", "answered"), [(100, True), (1000, False)])
def test_a_row_that_the_server_keeps_refusing_becomes_a_reason_in_bounded_time(
    opened: Opener, refusals: int, answered: bool
) -> None:
    """A busy server may refuse one row a hundred times and lose nothing; long before a thousand, the row is given up."""
    with FaultServer(plan=lambda prompt, before: "429" if prompt == "row 5" and before < refusals else "") as server:
        found = answers(opened(server, backoff_seconds=1e-12, patience_seconds=600.0), [ask(n) for n in range(10)])
    assert [name for name, answer in found.items() if answer.error] == ([] if answered else ["5"])
    sent = server.arrivals["row 5|5"]
    if answered:
        assert sent == refusals + 1
    else:
        assert 100 < sent < refusals and f"{sent - 1} times" in str(found["5"].error)
    assert server.sent_again == []


def test_a_row_that_hangs_becomes_a_reason(opened: Opener) -> None:
    with FaultServer(plan=lambda prompt, before: "hang" if prompt == "row 5" else "", hang_seconds=300.0) as server:
        engine = opened(server, attempts=1, timeout_seconds=4.0, patience_seconds=1.0)
        found = answers(engine, [ask(n) for n in range(10)])
    assert [name for name, answer in found.items() if answer.error] == ["5"]
    assert "no answer within 4 s" in str(found["5"].error)


def test_a_server_that_is_down_for_a_while_costs_no_row(opened: Opener) -> None:
    with FaultServer(plan=lambda prompt, before: "500" if server.arrivals.total() < 190 else "") as server:
        found = answers(opened(server, attempts=2), [ask(n) for n in range(60)])
    assert max(server.arrivals.values()) > 2, "rows were tried more often than they have attempts"
    assert not any(answer.error for answer in found.values())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("500", "answered no request for .* requests got: 500: not this time"),
        ("hang", "no answer within 0.5 s"),
        ("503", "returned nothing for .* but 503"),
    ],
)
def test_a_server_that_answers_nothing_is_dead(opened: Opener, fault: str, words: str) -> None:
    with FaultServer(plan=lambda prompt, before: fault, hang_seconds=300.0) as server:
        engine = opened(server, patience_seconds=0.6, timeout_seconds=0.5, attempts=2)
        with pytest.raises(EngineDied, match=words):
            list(engine.complete([ask(n) for n in range(12)]))


def test_a_server_that_is_gone_is_dead_and_keeps_what_was_answered(opened: Opener) -> None:
    with FaultServer() as server:
        engine = opened(server, patience_seconds=0.5)
        rest = engine.complete([ask(n) for n in range(30)])
        first = next(rest)
        while len(server.answered) < 30:
            time.sleep(0.01)
    assert first.error is None and len(list(rest)) == 29
    with pytest.raises(EngineDied, match="nothing listened at"):
        list(engine.complete([ask(31)]))


def test_a_server_that_was_never_there_is_dead(opened: Opener) -> None:
    with nothing_listens() as url, pytest.raises(EngineDied, match=r"no response from .* \(waited"):
        opened(url, patience_seconds=0.3)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("quota", "returned a billing error"),
        ("429-long", "rate limiting us .Retry-After: 86400 s.*patience_seconds 20"),
    ],
)
def test_what_the_user_must_mend_ends_the_call(opened: Opener, fault: str, words: str) -> None:
    plan = lambda prompt, before: fault if prompt == "row 5" else ""  # noqa: E731
    with FaultServer(plan=plan) as server, pytest.raises(LimbeckError, match=words):
        list(opened(server).complete([ask(n) for n in range(10)]))


def test_a_model_that_is_not_served(opened: Opener) -> None:
    words = "does not know the model 'other'.*`other` does not exist"
    with FaultServer() as server, pytest.raises(LimbeckError, match=words):
        list(opened(server, served_name="other").complete([ask(0)]))


def test_the_servers_only_model_is_asked(opened: Opener) -> None:
    adapters = ({"id": "tiny", "max_model_len": 100}, {"id": "adapter", "parent": "tiny"})
    with FaultServer(models=adapters) as server:
        assert (opened(server).served.name, opened(server).context_tokens) == ("tiny", 100)
    with FaultServer(models=({"id": "tiny"}, {"id": "huge"})) as server:
        with pytest.raises(LimbeckError, match=r"serves 2 models \(tiny, huge\); set served_name"):
            opened(server)
        assert not answers(opened(server, served_name="huge"), [ask(0)])["0"].error
    with FaultServer(models=()) as server, pytest.raises(LimbeckError, match="lists no models; set served_name"):
        opened(server)


def test_parameters_that_a_server_does_not_know(opened: Opener) -> None:
    with FaultServer(refused_parameters=("top_k", "seed")) as server:
        engine = opened(server)
        assert not any(answer.error for answer in answers(engine, [ask(n) for n in range(20)]).values())
        refused = sum("top_k" in body or "seed" in body for body in server.bodies)
        assert refused <= 16, "only what was in flight before the server's first words"
    words = "does not accept top_k 50.*set the generator's top_k to 0"
    with FaultServer(refused_parameters=("top_k",)) as server, pytest.raises(LimbeckError, match=words):
        list(opened(server).complete([ask(0, top_k=50)]))
    words = "does not accept presence_penalty 2.0.*set the generator's presence_penalty to 0"
    with FaultServer(refused_parameters=("presence_penalty",)) as server, pytest.raises(LimbeckError, match=words):
        list(opened(server).complete([ask(0, presence_penalty=2.0)]))


def test_concurrency_stays_near_the_servers_capacity(opened: Opener) -> None:
    with FaultServer(refuse_beyond=12, seconds=0.1) as server:
        found = answers(opened(server), [ask(n) for n in range(500)])
    assert not any(answer.error for answer in found.values())
    assert 12 <= max(server.seen) <= 26, "doubling from 8 goes too far once"
    assert max(server.seen[150:]) <= 16, "afterwards the limit is only felt for"
    assert server.sent_again == []


def test_concurrency_follows_latency(opened: Opener) -> None:
    with FaultServer(slots=2, seconds=0.01) as server:
        answers(opened(server, latency_factor=4.0, max_concurrency=200), [ask(n) for n in range(500)])
    assert max(server.seen[300:]) < 80, "a queue at the server is noticed long before the limit"


def test_the_limit_is_never_exceeded(opened: Opener) -> None:
    with FaultServer(seconds=0.005) as server:
        engine = opened(server, max_concurrency=3)
        threads = [threading.Thread(target=answers, args=(engine, [ask(1000 * t + n) for n in range(30)])) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(server.seen) == 3 and len(server.answered) == 120 and server.sent_again == []


def test_a_caller_that_leaves_stops_its_requests(opened: Opener) -> None:
    with FaultServer(seconds=0.01) as server:
        engine = opened(server, max_concurrency=2)
        leaving = engine.complete([ask(n) for n in range(500)])
        next(leaving)
        leaving.close()  # type: ignore[attr-defined]
        assert not answers(engine, [ask(9999)])["9999"].error
    assert len(server.bodies) < 100
