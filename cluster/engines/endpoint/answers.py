"""Interpret a server's HTTP response: text, log-probabilities, fault, temporary refusal, or a permanent error."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from limbeck.cluster.engines.protocol import FinishReason

Category = Literal["answered", "busy", "fault", "row", "user"]

BUSY = frozenset({429, 503, 529})
TRY_AGAIN = frozenset({408, 409, 425})
USERS = frozenset({401, 402, 403, 404, 405})
NO_QUOTA = re.compile(r"insufficient_quota|billing_hard_limit|exceeded your current quota")
NO_MODEL = re.compile(r"model_not_found|model .{0,200}(does not exist|not found)", re.IGNORECASE | re.DOTALL)
NOT_TAKEN = re.compile(
    r"unrecognized|unrecognised|unsupported|not supported|unknown (argument|parameter|field|name)|unexpected|not permitted|"
    r"extra inputs|does not support|invalid argument",
    re.IGNORECASE,
)
LONGEST_WORDS = 400


class Malformed(Exception):
    """The server returned 200, but its body is not a valid answer. `tokens`: the reported usage, as far as it could be read."""

    def __init__(self, words: str, tokens: "Counts | None" = None) -> None:
        super().__init__(words)
        self.tokens = tokens


class Refused(Exception):
    """The server refused to answer this row; a retry would not help."""


@dataclass(frozen=True)
class Counts:
    """The `usage` of an answer; None if it is missing or not a count."""

    prompt_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True)
class Answer:
    """The content of a valid answer; `logprobs` are those of an echoed prompt, None for its first token."""

    text: str
    finish_reason: FinishReason
    counts: Counts
    logprobs: tuple[float | None, ...] = ()


def categorise(status: int, words: str) -> Category:
    """The reaction to an HTTP status and the server's message: read, wait, retry, fail the row, or report to the user."""
    if status in (200, 201):
        return "answered"
    if status in BUSY:
        return "user" if NO_QUOTA.search(words) else "busy"
    if status in USERS or status < 400 or (status == 400 and NO_MODEL.search(words)):
        return "user"
    return "fault" if status >= 500 or status in TRY_AGAIN else "row"


def error_words(body: bytes) -> str:
    """The message of an error body, at most `LONGEST_WORDS` characters: in OpenAI's or FastAPI's form, or plain text."""
    text = body[:100_000].decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    if isinstance(said, dict):
        error = said.get("error") or said.get("message") or said.get("detail") or said
        if isinstance(error, dict):
            code = error.get("code")
            message = str(error.get("message") or error)
            error = f"{message} ({code})" if isinstance(code, str) and code not in message else message
        said = error
    return " ".join(str(said).split())[:LONGEST_WORDS]


def read_chat(body: bytes) -> Answer:
    """Read an answer of /chat/completions; raises Malformed or Refused."""
    choice, counts = _only_choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Malformed("a choice without a message", counts)
    if message.get("refusal"):
        raise Refused(f"the model refused: {str(message['refusal'])[:LONGEST_WORDS]}")
    reason, text = _finish_reason(choice, counts), message.get("content")
    if text is None and reason == "length":
        text = ""  # a reasoning model that ran out of tokens before its answer
    if text is None:
        raise Refused("the answer has no text")
    return _answer(text, reason, counts)


def read_text(body: bytes) -> Answer:
    """Read an answer of /completions; raises Malformed or Refused."""
    choice, counts = _only_choice(body)
    return _answer(choice.get("text"), _finish_reason(choice, counts), counts)


def read_echo(body: bytes, tokens: int, exact: bool) -> Answer:
    """Read the log-probabilities of an echoed prompt of `tokens` tokens; unless `exact`, drawn tokens may follow them."""
    choice, counts = _only_choice(body)
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) < tokens or (exact and len(values) != tokens):
        told = f"{len(values)} log-probabilities" if isinstance(values, list) else "no log-probabilities"
        raise Malformed(f"{told} for {tokens} tokens", counts)
    found = tuple(_logprob(value) for value in values[:tokens])
    return Answer(str(choice.get("text") or ""), "length", counts, found)


def read_counts(said: Any) -> Counts:
    """Read a `usage`: non-negative integers."""
    usage = said.get("usage") if isinstance(said, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    counts = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Counts(*(count if type(count) is int and count >= 0 else None for count in counts))


def _only_choice(body: bytes) -> tuple[Mapping[str, Any], Counts]:
    if not body.strip():
        raise Malformed("an empty body")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("a body that is not JSON") from error
    counts = read_counts(said)
    if isinstance(said, dict) and said.get("error"):  # some gateways forward a server's error with status 200
        raise Malformed(f"an error: {error_words(body)}", counts)
    choices = said.get("choices") if isinstance(said, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        told = f"{len(choices)} choices" if isinstance(choices, list) else "no choices"
        raise Malformed(f"{told} instead of one", counts)
    return choices[0], counts


def _finish_reason(choice: Mapping[str, Any], counts: Counts) -> FinishReason:
    reason = choice.get("finish_reason")
    if reason in ("stop", "length"):
        found: FinishReason = reason
        return found
    if reason in ("content_filter", "tool_calls", "function_call"):
        raise Refused(f"the answer ended with {reason}")
    raise Malformed(f"the finish reason {reason!r}", counts)


def _answer(text: Any, reason: FinishReason, counts: Counts) -> Answer:
    if not isinstance(text, str):
        raise Malformed(f"a text of type {type(text).__name__}", counts)
    return Answer(text, reason, counts)


def _logprob(value: Any) -> float | None:
    """A log-probability, or None if it is absent, not a number, or above 0 by more than rounding."""
    if type(value) not in (int, float) or math.isnan(value) or value > 1e-3:
        return None
    return float(value)
