"""What answers mean, what a server is told to mend, and that a key is seen nowhere."""

import io
import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.fault_server import FaultServer, byte_tokenizer, nothing_listens
from limbeck.cluster.engines.endpoint.answers import (
    Answer,
    Counts,
    Malformed,
    Refused,
    answers,
    categorise,
    error_words,
    read_any,
    read_chat,
    read_counts,
    read_echo,
    read_text,
)
from limbeck.cluster.engines.endpoint.calls import settled
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.dialect import Dialect
from limbeck.cluster.engines.endpoint.engine import build
from limbeck.cluster.engines.endpoint.server import Key, problems
from limbeck.cluster.engines.protocol import Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError

SECRET = "sk-verysecret-0123456789"


def body(choice: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}, **more}).encode()


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        ({"message": {"content": "x", "refusal": "no way"}, "finish_reason": "stop"}, Refused, "no way"),
        ({"message": {"content": None}, "finish_reason": "stop"}, Refused, "no text"),
        ({"message": {"content": "x"}, "finish_reason": "content_filter"}, Refused, "content_filter"),
        ({"message": {"content": None}, "finish_reason": "tool_calls"}, Refused, "tool_calls"),
        ({"message": {"content": None, "reasoning_content": "Hm."}, "finish_reason": "stop"}, Refused, "only reasoning"),
        ({"message": {"content": [{"type": "thinking", "thinking": "Hm."}]}, "finish_reason": "stop"}, Refused, "no text"),
        ({"message": {"content": [{"type": "refusal", "refusal": "no way"}]}, "finish_reason": "stop"}, Refused, "no way"),
        ({"message": {"content": "x"}, "finish_reason": "SAFETY"}, Refused, "safety"),
        ({"message": {"content": "x \ud800"}, "finish_reason": "stop"}, Refused, "not valid Unicode"),
        ({"message": {"content": [3]}, "finish_reason": "stop"}, Malformed, "type list"),
        ({"message": {"content": "x"}, "finish_reason": "abort"}, Malformed, "abort"),
        ({"message": {"content": 3}, "finish_reason": "stop"}, Malformed, "type int"),
        ({"message": "x", "finish_reason": "stop"}, Malformed, "without a message"),
        ({}, Malformed, "without a message"),
    ],
)
def test_chat_answers_that_are_none(choice: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_chat(body(choice))


def test_an_error_with_status_200_is_told() -> None:
    with pytest.raises(Malformed, match=r"an error: upstream is gone \(bad_gateway\)"):
        read_text(b'{"error": {"message": "upstream is gone", "code": "bad_gateway"}}')


def test_a_reasoning_model_that_never_came_to_its_answer() -> None:
    answer = read_chat(body({"message": {"content": None}, "finish_reason": "length"}))
    assert (answer.text, answer.finish_reason, answer.counts) == ("", "length", Counts(5, 2))


FOREIGN = [
    *((reason, "stop") for reason in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", " Stop ", "COMPLETE")),
    *((reason, "length") for reason in ("length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length", "max_length")),
    *((reason, None) for reason in (None, "", "something_new", 7, {"type": "stop"}, ["stop"])),
]


@pytest.mark.parametrize(("reason", "meant"), FOREIGN, ids=str)
@pytest.mark.parametrize("read", [read_chat, read_text])
def test_finish_reasons_of_other_servers(reason: object, meant: str | None, read: Any) -> None:
    choice = {"message": {"content": "x"}} if read is read_chat else {"text": "x"}
    assert read(body({**choice, "finish_reason": reason})) == Answer("x", meant, Counts(5, 2))  # type: ignore[arg-type]
    assert read(body(choice)).finish_reason is None, "a missing reason"
    assert read(body({**choice, "finishReason": "STOP"})).finish_reason == "stop"


@pytest.mark.parametrize(
    "content",
    [
        "one two",
        ["one", " two"],
        [{"type": "text", "text": "one two"}],
        [{"type": "text", "text": "one"}, {"type": "text", "text": " two"}],
        [{"type": "output_text", "text": "one two", "annotations": []}],
        [{"text": "one two"}],
        {"type": "text", "text": "one two"},
        [{"type": "text", "text": {"value": "one two", "annotations": []}}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "one two"}],
        [{"type": "reasoning", "text": "Hm."}, "one two"],
    ],
    ids=str,
)
def test_a_text_in_parts(content: object) -> None:
    assert read_chat(body({"message": {"content": content}, "finish_reason": "stop"})).text == "one two"


def test_a_chat_answer_from_completions_and_the_reverse() -> None:
    assert read_chat(body({"text": "x", "finish_reason": "stop"})).text == "x"
    assert read_text(body({"message": {"content": "x"}, "finish_reason": "stop"})).text == "x"


def test_a_surrogate_pair_that_was_encoded_in_halves_is_one_character() -> None:
    halves = b'{"choices": [{"text": "\xed\xa0\xbd\xed\xb8\x80", "finish_reason": "stop"}]}'
    assert read_text(halves) == Answer("\U0001f600", "stop", Counts(None, None))


def test_a_message_with_a_lone_surrogate_can_be_stored() -> None:
    assert error_words(b'{"error": {"message": "bad \\ud800"}}') == "bad ?"
    with pytest.raises(Refused, match=r"the model refused: no \?"):
        read_chat(body({"message": {"refusal": "no \ud800"}, "finish_reason": "stop"}))


TEXTS = st.text(max_size=8) | st.sampled_from(["\ud800", "a \udfff", "\x00", "\ufeff"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)


def some(**fields: Any) -> Any:
    """A mapping with some of these fields; each may also hold anything."""
    return st.fixed_dictionaries({}, optional={name: value | ANYTHING for name, value in fields.items()})


PARTS = st.lists(
    some(type=st.sampled_from(["text", "output_text", "thinking", "refusal"]), text=TEXTS, refusal=TEXTS), max_size=3
)
REASONS = st.sampled_from([*(reason for reason, _ in FOREIGN), "abort", "content_filter", "tool_calls"])
MESSAGES = some(content=TEXTS | PARTS, refusal=TEXTS, reasoning_content=TEXTS, tool_calls=st.just([]))
CHOICES = some(
    message=MESSAGES, text=TEXTS | PARTS, finish_reason=REASONS, logprobs=some(token_logprobs=st.lists(SCALARS, max_size=4))
)
USAGES = some(prompt_tokens=st.integers(), completion_tokens=st.floats(), input_tokens=st.integers())
BODIES = some(choices=st.lists(CHOICES, max_size=2), usage=USAGES, error=TEXTS)


@settings(max_examples=600)
@given(said=BODIES)
@example(said={"choices": [{"text": "", "logprobs": {"token_logprobs": [-(10**400)]}, "finish_reason": "stop"}]})
@example(said={"choices": [{"text": "x"}], "usage": {"prompt_tokens": 1e400, "completion_tokens": float("nan")}})
@example(said={"choices": [{"text": "\ud800", "logprobs": {"token_logprobs": [None, None, None]}}]})
def test_any_foreign_shape_is_an_answer_or_a_reason(said: Any) -> None:
    """No shape raises anything else: what one answer raises would end the call that all rows share."""
    content = json.dumps(said).encode()
    for read in (read_chat, read_text, read_any, lambda body: read_echo(body, 3, False)):
        try:
            answer = read(content)
        except (Malformed, Refused) as failure:
            str(failure).encode()
        else:
            answer.text.encode()
            assert answer.finish_reason in ("stop", "length", None)
            assert all(count is None or count >= 0 for count in (answer.counts.prompt_tokens, answer.counts.output_tokens))
            settled((10, 5), answer.counts, len(answer.text))
    error_words(content).encode()


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_any_body_is_an_answer_or_malformed(content: bytes) -> None:
    for read in (read_chat, read_text, lambda said: read_echo(said, 3, True)):
        with pytest.raises(Malformed):
            read(content)
    assert len(error_words(content)) <= 400


def test_bodies_that_exhaust_a_parser() -> None:
    with pytest.raises(Malformed, match="not JSON"):
        read_chat(b"[" * 200_000)


def test_echoed_log_probabilities() -> None:
    values = [None, -1.5, -2, "x", 0.5, float("nan")]
    choice = {"text": "t", "finish_reason": "length", "logprobs": {"token_logprobs": values}}
    assert read_echo(body(choice), 6, exact=True).logprobs == (None, -1.5, -2.0, None, None, None)
    assert read_echo(body(choice), 2, exact=False).logprobs == (None, -1.5)
    for tokens, exact in ((7, False), (5, True)):
        with pytest.raises(Malformed, match=f"6 log-probabilities for {tokens} tokens"):
            read_echo(body(choice), tokens, exact)


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        (429, "slow down", "busy"), (503, "", "busy"), (529, "", "busy"),
        (429, "insufficient_quota", "account"), (402, "", "account"),
        (500, "", "fault"), (502, "", "fault"), (408, "", "fault"),
        *((status, "", "refused") for status in (204, 205, 301, 400, 401, 403, 404, 405, 413, 422, 451)),
        (400, "The model `x` does not exist", "refused"),
    ],
)  # fmt: skip
def test_statuses(status: int, words: str, expected: str) -> None:
    assert not answers(status) and categorise(status, words) == expected


def test_statuses_with_an_answer() -> None:
    assert all(answers(status) for status in (200, 201, 203))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": {"message": "Bad thing", "code": "bad_code"}}', "Bad thing (bad_code)"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"object": "error", "message": "too\\n long", "code": 400}', "too long"),
        (b"<html>Bad  Gateway</html>", "<html>Bad Gateway</html>"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_error_words(content: bytes, words: str) -> None:
    assert error_words(content) == words


@pytest.mark.parametrize(
    ("said", "text_tokens", "expected"),
    [
        (Counts(100, 10), 9, ((100, 10), True)),
        (Counts(130, 3), 5, ((130, 3), True)),
        (Counts(10**9, 10), 9, ((100, 10), False)),
        (Counts(None, None), 9, ((100, 10), False)),
        (Counts(0, 0), 9, ((100, 10), False)),
        (Counts(100, 10**9), 9, ((100, 24), False)),
    ],
)
def test_usage_that_cannot_be(said: Counts, text_tokens: int, expected: object) -> None:
    assert settled((100, 24), said, text_tokens) == expected


@given(
    prompt=st.integers(1, 10**6),
    most=st.integers(1, 10**5),
    text=st.integers(0, 10**5),
    said=st.tuples(*[st.none() | st.integers(0, 10**9)] * 2),
)
def test_no_more_is_counted_as_drawn_than_was_allowed(
    prompt: int, most: int, text: int, said: tuple[int | None, int | None]
) -> None:
    (counted_prompt, drawn), _ = settled((prompt, most), Counts(*said), text)
    assert 0 <= drawn <= most and prompt // 4 <= counted_prompt <= 4 * prompt + 256


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": -1, "completion_tokens": True}, {"prompt_tokens": 1.5}])
def test_usage_of_any_shape(usage: object) -> None:
    assert read_counts({"usage": usage}) == Counts(None, None)
    assert read_counts([usage]) == Counts(None, None)


def test_a_dialect_is_learnt_once() -> None:
    dialect, payload = Dialect(), {"model": "m", "max_tokens": 5, "top_k": 0, "temperature": 0.3}
    sent = dialect.shape(payload)
    words = "400: Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    assert dialect.learn(sent, payload, words)
    assert dialect.shape(payload) == {"model": "m", "max_completion_tokens": 5, "top_k": 0, "temperature": 0.3}
    assert dialect.learn(sent, payload, "400: anything"), "sent before we knew: worth another try"
    assert not dialect.learn(dialect.shape(payload), payload, "400: the prompt is too long")
    words = "400: Unsupported value: 'temperature' does not support 0.3"
    assert not dialect.learn(dialect.shape(payload), payload, words), "it affects sampling"
    assert dialect.advice(dialect.shape(payload), words).startswith("the server does not accept temperature 0.3; set")
    assert dialect.advice(dialect.shape(payload), "400: the prompt is too long") == ""


def test_the_key_is_seen_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    for name in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    monkeypatch.setenv("ENDPOINT_TEST_KEY", SECRET)
    model, said = str(byte_tokenizer(tmp_path)), []
    request = Request("a", (Message("user", "Hello"),), Sampling(8), 1)
    try:
        with FaultServer(key=SECRET) as server:
            config = EndpointConfig(model=model, base_url=server.url, api_key_env="ENDPOINT_TEST_KEY")
            engine = build(config)
            (answer,) = engine.complete([request])
            assert answer.error is None
            said += [
                repr(engine),
                repr(vars(engine)),
                repr(vars(engine._client)),
                repr(engine.usage),
                repr(answer),
                config.model_dump_json(),
            ]
            server.key = "another"
            with pytest.raises(
                LimbeckError, match=r"Incorrect API key provided: \*\*\*.*ENDPOINT_TEST_KEY is not accepted"
            ) as caught:
                list(engine.complete([request]))
            formatted = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            said += ["".join(formatted.format())]
            engine.close()
            with pytest.raises(LimbeckError, match=r"\*\*\*") as caught:
                build(config)
            formatted = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            said += ["".join(formatted.format()), *problems(config)]
    finally:
        logging.getLogger().removeHandler(handler)
    said.append(log.getvalue())
    assert "127.0.0.1" in said[-1], "the log was captured"
    assert [text for text in said if "verysecret" in text] == []


def test_a_key_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENDPOINT_TEST_KEY", raising=False)
    config = EndpointConfig(model="m", api_key_env="ENDPOINT_TEST_KEY")
    with pytest.raises(LimbeckError, match="ENDPOINT_TEST_KEY is not set"):
        Key.of(config)
    assert problems(config) == ["the environment variable ENDPOINT_TEST_KEY is not set; it must hold the endpoint's key"]
    monkeypatch.setenv("ENDPOINT_TEST_KEY", "clé secrète")
    with pytest.raises(LimbeckError, match="contains characters that are invalid in a key") as caught:
        Key.of(config)
    assert "secr" not in str(caught.value)


def test_the_preflight_asks_the_server() -> None:
    with FaultServer() as server:
        assert problems(EndpointConfig(model="m", base_url=server.url)) == []
        assert problems(EndpointConfig(model="m", base_url=server.url.removesuffix("/v1"))) != []
        server.models = ()
        assert "set served_name" in problems(EndpointConfig(model="m", base_url=server.url))[0]
    with nothing_listens() as url:
        assert "start the server, or set base_url" in problems(EndpointConfig(model="m", base_url=url))[0]
