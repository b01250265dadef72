"""Interpret a server's HTTP response: text, log-probabilities, fault, temporary refusal, or a refusal.

OpenAI-compatible servers differ in the shape of an answer. What an unusual shape can only mean is read as that: finish reasons of
other APIs, a text in parts, missing counts. Anything else is Malformed or Refused, never another exception: one answer must not
end the call that others share.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from limbeck.cluster.engines.protocol import FinishReason

Category = Literal["busy", "fault", "refused", "account"]

BUSY = frozenset({429, 503, 529})
TRY_AGAIN = frozenset({408, 409, 425})
WITHOUT_CONTENT = frozenset({204, 205})
NO_QUOTA = re.compile(r"insufficient_quota|billing_hard_limit|exceeded your current quota")
NO_MODEL = re.compile(r"model_not_found|model .{0,200}(does not exist|not found)", re.IGNORECASE | re.DOTALL)
NOT_TAKEN = re.compile(
    r"unrecognized|unrecognised|unsupported|not supported|unknown (argument|parameter|field|name)|unexpected|not permitted|"
    r"extra inputs|does not support|invalid argument",
    re.IGNORECASE,
)
LONGEST_WORDS = 400
AT_LIMIT = frozenset(
    "length max_length max_tokens max_new_tokens max_output_tokens max_completion_tokens model_length token_limit limit".split()
)
"""Finish reasons, in lower case, that mean "length"."""
STOPPED = frozenset(
    "stop stopped stop_sequence stop_token eos eos_token end end_turn end_of_text end_of_turn complete completed done finish "
    "finished".split()
)
"""Finish reasons that mean "stop"."""
INTERRUPTED = frozenset("error abort aborted cancel cancelled canceled failed timeout".split())
"""Finish reasons of an answer that is not complete: it is requested again."""
WITHHELD = frozenset(
    "content_filter content_filtered safety recitation blocklist prohibited_content spii refusal tool_calls tool_call tool_use "
    "function_call".split()
)
"""Finish reasons of an answer whose text is withheld, or that calls a tool."""
TEXT_PARTS = frozenset({None, "text", "output_text"})
"""Types of content parts that hold the answer's text; other parts (reasoning, images) do not."""


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
    """The content of a valid answer; `logprobs` are those of an echoed prompt, None for its first token.

    `finish_reason` is None if the server does not report whether the answer ended or was cut.
    """

    text: str
    finish_reason: FinishReason | None
    counts: Counts
    logprobs: tuple[float | None, ...] = ()


def answers(status: int) -> bool:
    """Whether a response of this status has an answer to read."""
    return 200 <= status < 300 and status not in WITHOUT_CONTENT


def categorise(status: int, words: str) -> Category:
    """The reaction to the status and message of any other response: wait, retry, see whether it is the row's fault, or report it.

    A refusal may concern one row or all of them, whatever its status: gateways moderate with 403, and route with 404.
    """
    if status == 402 or (status in BUSY and NO_QUOTA.search(words)):
        return "account"
    if status in BUSY:
        return "busy"
    return "fault" if status >= 500 or status in TRY_AGAIN else "refused"


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
            code, message = error.get("code"), _shown(error.get("message") or error)
            error = f"{message} ({code})" if isinstance(code, str) and code not in message else message
        said = error
    return _shown(said)


def read_chat(body: bytes) -> Answer:
    """Read an answer of /chat/completions; raises Malformed or Refused."""
    choice, counts = _only_choice(body)
    if isinstance(choice.get("message"), dict):
        return _read_message(choice["message"], choice, counts)
    if isinstance(choice.get("text"), str):  # a server that answers conversations like prompts
        return _answer(choice["text"], _finish_reason(choice, counts), counts)
    raise Malformed("a choice without a message", counts)


def read_text(body: bytes) -> Answer:
    """Read an answer of /completions; raises Malformed or Refused."""
    choice, counts = _only_choice(body)
    if "text" not in choice and isinstance(choice.get("message"), dict):  # a server that answers prompts like conversations
        return _read_message(choice["message"], choice, counts)
    if "text" not in choice:
        raise Malformed("a choice without a text", counts)
    return _answer(_content(choice["text"], counts), _finish_reason(choice, counts), counts)


def read_any(body: bytes) -> Answer:
    """Read an answer whose text does not matter; raises Malformed if it is not one."""
    return Answer("", None, _only_choice(body)[1])


def read_echo(body: bytes, tokens: int, exact: bool) -> Answer:
    """Read the log-probabilities of an echoed prompt of `tokens` tokens; unless `exact`, drawn tokens may follow them."""
    choice, counts = _only_choice(body)
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) < tokens or (exact and len(values) != tokens):
        told = f"{len(values)} log-probabilities" if isinstance(values, list) else "no log-probabilities"
        raise Malformed(f"{told} for {tokens} tokens", counts)
    found = tuple(_logprob(value) for value in values[:tokens])
    text = choice.get("text")
    return Answer(_valid(text) if isinstance(text, str) else "", "length", counts, found)


def read_counts(said: Any) -> Counts:
    """Read a `usage`: non-negative integers."""
    usage = said.get("usage") if isinstance(said, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    prompt, output = (
        usage.get(name, usage.get(other))
        for name, other in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    return Counts(_count(prompt), _count(output))


def _count(value: Any) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


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


def _read_message(message: Mapping[str, Any], choice: Mapping[str, Any], counts: Counts) -> Answer:
    if message.get("refusal"):
        raise Refused(f"the model refused: {_shown(message['refusal'])}")
    reason, text = _finish_reason(choice, counts), _content(message.get("content"), counts)
    if text is None and reason != "length" and (message.get("reasoning_content") or message.get("reasoning")):
        raise Refused("the answer has no text, only reasoning")
    return _answer(text, reason, counts)


def _content(value: Any, counts: Counts) -> str | None:
    """The text of a `content`: a string, or parts of which some hold text; None if there is none."""
    if value is None or isinstance(value, str):
        return value
    parts = [value] if isinstance(value, dict) else value
    if not isinstance(parts, list) or not all(isinstance(part, str | dict) for part in parts):
        raise Malformed(f"a text of type {type(value).__name__}", counts)
    texts = [part if isinstance(part, str) else _part_text(part) for part in parts]
    known = [text for text in texts if text is not None]
    return "".join(known) if known else None


def _part_text(part: Mapping[str, Any]) -> str | None:
    if part.get("refusal"):
        raise Refused(f"the model refused: {_shown(part['refusal'])}")
    kind, text = part.get("type"), part.get("text")
    if not (kind is None or isinstance(kind, str)) or kind not in TEXT_PARTS:
        return None
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else None


def _finish_reason(choice: Mapping[str, Any], counts: Counts) -> FinishReason | None:
    """The reason in the terms of the protocol; None if the server reports none, or one that says nothing about the text."""
    given = next((choice[key] for key in ("finish_reason", "finishReason", "stop_reason") if choice.get(key)), None)
    if not isinstance(given, str):
        return None
    reason = given.strip().lower()
    if reason in WITHHELD:
        raise Refused(f"the answer ended with {reason}")
    if reason in INTERRUPTED:
        raise Malformed(f"the finish reason {reason!r}", counts)
    return "length" if reason in AT_LIMIT else "stop" if reason in STOPPED else None


def _answer(text: str | None, reason: FinishReason | None, counts: Counts) -> Answer:
    if text is None and reason == "length":
        text = ""  # a reasoning model that ran out of tokens before its answer
    if text is None:
        raise Refused("the answer has no text")
    try:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16")  # joins pairs that the server encoded separately
    except UnicodeDecodeError as error:
        raise Refused("the answer is not valid Unicode: it has a lone surrogate") from error
    return Answer(text, reason, counts)


def _logprob(value: Any) -> float | None:
    """A log-probability, or None if it is absent, not a number, or above 0 by more than rounding."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return None if math.isnan(number) or number > 1e-3 else number


def _shown(value: Any) -> str:
    """A server's words on one line, cut, and valid Unicode: they are stored as a row's reason."""
    try:
        text = str(value)
    except RecursionError:
        return "a deeply nested value"
    return " ".join(_valid(text[: 10 * LONGEST_WORDS]).split())[:LONGEST_WORDS]


def _valid(text: str) -> str:
    """The text with a question mark for each lone surrogate."""
    return text.encode("utf-8", "replace").decode()
