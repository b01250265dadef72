"""Refusals: one refused row costs that row; a server that refuses every row stops the run early, with its words."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers.fault_server import FaultServer, byte_tokenizer, reply_text
from limbeck.cluster.engines.constraint import Constraint
from limbeck.cluster.engines.endpoint.config import EndpointBudget, EndpointConfig
from limbeck.cluster.engines.endpoint.engine import EndpointEngine, build
from limbeck.cluster.engines.endpoint.refusals import FAILED_ROWS, HELD_ROWS
from limbeck.cluster.engines.protocol import NO_CONTRAST, Completion, Contrast, Message, Pair, Request, Sampling
from limbeck.corpus.errors import LimbeckError

Opener = Callable[..., EndpointEngine]
REFUSALS = [
    "204 ", "301 moved", "400 bad", "400 The model `tiny` is not found for this prompt", "401 moderated", "403 moderated",
    "404 no route", "405 not allowed", "413 too large", "422 unprocessable", "451 not here",
]  # fmt: skip
MANY = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(byte_tokenizer(tmp_path_factory.mktemp("model")))


@pytest.fixture
def opened(model: str) -> Iterator[Opener]:
    engines = []

    def open_(server: FaultServer, **settings: Any) -> EndpointEngine:
        settings = {"backoff_seconds": 0.01, "patience_seconds": 600.0, "timeout_seconds": 600.0} | settings
        engines.append(build(EndpointConfig(model=model, base_url=server.url, **settings)))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


def ask(number: int, **sampling: Any) -> Request:
    return Request(str(number), (Message("user", f"row {number}"),), Sampling(24, **sampling), seed=number)


def answered(engine: EndpointEngine, requests: list[Request]) -> dict[str, Completion]:
    return {completion.request_id: completion for completion in engine.complete(requests)}


def sent(server: FaultServer) -> int:
    return sum(server.arrivals.values())


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("rows", [1, 30], ids=["alone", "among others"])
def test_a_refused_row_costs_that_row(opened: Opener, refusal: str, rows: int) -> None:
    with FaultServer(plan=lambda prompt, before: refusal if prompt == "row 0" else "") as server:
        found = answered(opened(server), [ask(n) for n in range(rows)])
    assert [name for name, answer in found.items() if answer.error] == ["0"] and len(found) == rows
    assert f"the server refused it: {refusal[:3]}: {refusal[4:] or 'no message'}" == found["0"].error
    assert server.sent_again == [] and sent(server) <= rows + 1, "one trial at most"


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ("400 top_k must be > 0", r"refuses every request \(400: top_k must be > 0\)"),
        ("400 The model `tiny` is not found", r"does not know the model.*400: The model `tiny` is not found"),
        ("404 no such model", "does not know the model or the path .404: no such model.*check served_name"),
        ("401 no key", "refuses us .401: no key.*set api_key_env"),
        ("403 forbidden for you", "refuses us .403: forbidden for you"),
        ("422 unprocessable", "refuses every request .422: unprocessable"),
        ("413 too large", "refuses every request .413: too large"),
        ("405 not allowed", "does not answer as an OpenAI-compatible server .405"),
        ("301 moved", "redirects us .301: moved"),
        ("204 ", "does not answer as an OpenAI-compatible server .204: no message"),
    ],
)
@pytest.mark.parametrize("rows", [1, MANY])
def test_a_server_that_refuses_every_row_stops_the_run_early(opened: Opener, refusal: str, words: str, rows: int) -> None:
    with FaultServer(plan=lambda prompt, before: refusal) as server, pytest.raises(LimbeckError, match=words):
        list(opened(server).complete([ask(n) for n in range(rows)]))
    assert sent(server) <= 100, "what was in flight until the trial was refused"


def test_rows_that_a_server_answered_before_it_refuses_all_are_kept_and_no_other_becomes_a_reason(opened: Opener) -> None:
    """A key that is withdrawn in the middle of a run turns no row into a reason."""
    found: list[Completion] = []
    with FaultServer(plan=lambda prompt, before: "403 expired" if sum(server.answered.values()) >= 100 else "") as server:
        with pytest.raises(LimbeckError, match="refuses us .403: expired"):
            for completion in opened(server).complete([ask(n) for n in range(MANY)]):
                found.append(completion)
        assert len(found) >= 100 and not [completion.error for completion in found if completion.error]
    assert sent(server) <= len(found) + 300


def test_a_form_of_request_that_is_always_refused_stops_the_run_though_another_is_answered(opened: Opener) -> None:
    """A script whose second step has a schema, on a server without schemas."""
    schema = '{"type": "object"}'
    with FaultServer() as server:
        server.plan = lambda prompt, before: "400 no schemas here" if "response_format" in server.bodies[-1] else ""
        engine = opened(server, max_concurrency=1)
        assert not answered(engine, [ask(0)])["0"].error
        with pytest.raises(LimbeckError, match="no schemas here"):
            list(engine.complete([ask(n) if n % 2 else ask(n, json_schema=schema) for n in range(200)]))
    assert sent(server) <= 4 * HELD_ROWS


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"finish_reason": "content_filter"}, "the last with: the answer ended with content_filter"),
        ({"message": {"content": None, "reasoning_content": "Hm."}}, "the last with: the answer has no text, only reasoning"),
    ],
)
def test_a_model_that_answers_none_of_the_first_rows_stops_the_run(opened: Opener, shape: dict[str, Any], words: str) -> None:
    def withheld(prompt: str, answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "choices": [{**answer["choices"][0], **shape}]}

    with FaultServer(reshape=withheld) as server, pytest.raises(LimbeckError, match=f"none of the first 200 requests, {words}"):
        list(opened(server).complete([ask(n) for n in range(MANY)]))
    assert FAILED_ROWS <= sent(server) <= FAILED_ROWS + 130


def test_rows_that_are_all_refused_for_their_own_sake_stop_the_run_too(opened: Opener) -> None:
    """The server answers the trial, but no row: as if its context were shorter than every prompt."""
    plan = lambda prompt, before: "" if prompt == "Hello" else "400 longer than my context"  # noqa: E731
    with FaultServer(plan=plan) as server, pytest.raises(LimbeckError, match="first 200 requests, .*longer than my context"):
        list(opened(server).complete([ask(n) for n in range(MANY)]))
    assert sent(server) <= 2 * FAILED_ROWS


def test_many_refused_rows_are_reasons_once_others_are_answered(opened: Opener) -> None:
    refused = {f"row {n}" for n in range(1000) if n % 3}
    with FaultServer(plan=lambda prompt, before: "403 moderated" if prompt in refused else "") as server:
        found = answered(opened(server), [ask(n) for n in range(1000)])
    assert {f"row {name}" for name, answer in found.items() if answer.error} == refused
    assert sent(server) <= 1000 + 20, "later answers show that the server refuses only these rows"


def test_refused_pairs_are_not_numbers_and_a_server_that_refuses_all_stops_the_run(opened: Opener) -> None:
    pairs = [Pair(f"context {n}", " target") for n in range(40)]
    one: list[str] = []
    with FaultServer(plan=lambda prompt, before: "403 moderated" if prompt in one else "") as server:
        engine = opened(server)
        engine.logprobs(pairs[:1])
        one.append(str(list(engine.prompts.encode("context 7 target"))))
        found = engine.logprobs(pairs)
        assert [n for n, values in enumerate(found) if values[0] != values[0]] == [7]
        server.plan = lambda prompt, before: "403 expired"
        with pytest.raises(LimbeckError, match="403: expired"):
            engine.logprobs([Pair(f"other {n}", " target") for n in range(40)])


def test_a_trial_beyond_the_budget_is_not_sent(opened: Opener) -> None:
    """What is left of the budget pays for the row, not for the trial: the row is then a reason."""
    with FaultServer(plan=lambda prompt, before: "403 moderated") as server:
        engine = opened(server, budget=EndpointBudget(tokens=19 + 5 + 24 + 16))
        assert "moderated" in str(answered(engine, [ask(0)])["0"].error)
    assert sent(server) == 1


def test_a_trial_waits_for_a_server_that_is_busy(opened: Opener) -> None:
    plan = lambda prompt, before: "403 moderated" if prompt != "Hello" else "503 busy" if before < 3 else ""  # noqa: E731
    with FaultServer(plan=plan) as server:
        assert "moderated" in str(answered(opened(server), [ask(0)])["0"].error)
    assert server.arrivals["Hello|None"] == 4


SHAPES: list[Any] = [
    *({"finish_reason": reason} for reason in ("eos_token", "eos", "STOP", "end_turn", None)),
    {"message": {"role": "assistant", "content": [{"type": "text", "text": "TEXT"}]}},
    {"message": {"role": "assistant", "content": "TEXT", "reasoning_content": "Hm.", "tool_calls": []}},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("usage", ["usage", "no usage"])
def test_foreign_shapes_are_answers(opened: Opener, shape: dict[str, Any], usage: str) -> None:
    """Eight rows, eight requests, eight texts."""

    def foreign(prompt: str, answer: dict[str, Any]) -> dict[str, Any]:
        text, choice = answer["choices"][0]["message"]["content"], {**answer["choices"][0], **shape}
        if "message" in shape:
            inside = shape["message"]["content"]
            content = text if isinstance(inside, str) else [{**inside[0], "text": text}]
            choice["message"] = {**shape["message"], "content": content}
        return {"choices": [choice], **({"usage": answer["usage"]} if usage == "usage" else {})}

    with FaultServer(reshape=foreign) as server:
        found = answered(opened(server), [ask(n) for n in range(8)])
    assert sent(server) == 8
    for n in range(8):
        text = reply_text(f"row {n}", n, 24)
        assert (found[str(n)].error, found[str(n)].text) == (None, text)
        cut = "finish_reason" in shape and shape["finish_reason"] is None and len(text.encode()) >= 24
        assert found[str(n)].finish_reason == ("length" if cut else "stop")


def test_a_lone_surrogate_costs_its_row_alone(opened: Opener) -> None:
    """In an answer, in a prompt, in a stop string or in a schema: the other rows, and other callers, get their answers."""

    def broken(prompt: str, answer: dict[str, Any]) -> dict[str, Any]:
        if prompt == "row 5":
            answer["choices"][0]["message"]["content"] = "half \ud800"
        return answer

    def asked(first: int) -> None:
        found[first] = answered(engine, [ask(first + n) for n in range(20)])

    found: dict[int, dict[str, Completion]] = {}
    with FaultServer(reshape=broken, seconds=0.01) as server:
        engine = opened(server, max_concurrency=4)
        threads = [threading.Thread(target=asked, args=(first,)) for first in (0, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        strange = [
            Request("prompt", (Message("user", "\udfff"),), Sampling(4), 0),
            Request("plain", "a \ud800", Sampling(4), 0),
            ask(2000, stop=("\ud800",)),
            ask(2001, json_schema='{"type": '),
            ask(2002),
            ask(2003, constraint=Constraint.of([["dog"]])),
            ask(2004, contrast=Contrast(0.1, 3.5, "TL;DR:")),
        ]
        others = answered(engine, strange)
    assert {name for name, answer in {**found[0], **found[1000]}.items() if answer.error} == {"5"}
    assert "not valid Unicode" in str(found[0]["5"].error)
    assert {name for name, answer in others.items() if answer.error} == {"prompt", "plain", "2001", "2003", "2004"}
    assert others["2003"].error == "an engine of kind endpoint does not support constraints; use an engine of kind transformers"
    assert others["2004"].error == NO_CONTRAST
