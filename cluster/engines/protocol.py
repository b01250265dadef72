"""What an engine is: a process that holds a language model and answers `complete` and `logprobs`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Sampling:
    """How to sample: `temperature` 0 is greedy; `top_k` 0 and `top_p` 1.0 restrict nothing.

    Generation ends at the model's end token, after `max_new_tokens`, or as soon as the text holds one of `stop`
    (which is then cut off the text, with all that follows it). With `json_schema` (a JSON schema as text) or `regex`, at most
    one of them, only tokens that keep to it are drawn; an engine that cannot hold to it answers with an error.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    json_schema: str | None = None
    regex: str | None = None


@dataclass(frozen=True)
class Request:
    """One sample to draw: a conversation (the model's chat template is applied) or a plain prompt, and its own seed.

    Requests with an equal prompt share its work, wherever they stand in the list.
    """

    request_id: str
    prompt: tuple[Message, ...] | str
    sampling: Sampling
    seed: int


@dataclass(frozen=True)
class Completion:
    """The answer to one request, or the reason why there is none (`finish_reason` "error", empty text)."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]  # up to and without the end token
    finish_reason: FinishReason
    prompt_tokens: int
    error: str | None = None


@dataclass(frozen=True)
class Pair:
    """A context and a target whose log-probability is asked for.

    The context ends without white space and the target begins with a space (or either is as the caller needs it); both are
    tokenised as one string, and a token belongs to the target when its character span ends beyond the context. With
    `spans` (character ranges within the target) only target tokens that overlap one of them are wanted.
    """

    context: str
    target: str
    spans: tuple[tuple[int, int], ...] | None = None


@dataclass
class Usage:
    """What an engine has done since it was built. `model_seconds`: inside forward passes and sampling only."""

    model_seconds: float = 0.0
    load_seconds: float = 0.0
    output_tokens: int = 0
    forwarded_tokens: int = 0  # tokens that went through the model, padding not counted
    extra: dict[str, float] = field(default_factory=dict)


class EngineDied(Exception):
    """The engine cannot answer any more: its process ended, or its server is gone. Carries its last words.

    Not a row's fault and not the user's: the worker that holds the engine is started again, a bounded number of times.
    """


class ServerGone(EngineDied):
    """The server behind an engine answers nothing: no row of ours is to blame, and none is to be looked for."""


class Engine(Protocol):
    """A loaded language model."""

    context_tokens: int
    usage: Usage

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion a request, as they finish. An over-long prompt yields an error, it does not raise."""
        ...

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        """Return, for each pair, one natural log-probability per wanted target token.

        A pair that does not fit the context yields an array of one NaN.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, without special tokens."""
        ...


def refusal(prompt_tokens: int, sampling: Sampling, context_tokens: int) -> str | None:
    """Why a prompt of so many tokens cannot run, or None: it is empty, or leaves no room for its new tokens."""
    if not prompt_tokens:
        return "the prompt has no tokens"
    if prompt_tokens + sampling.max_new_tokens > context_tokens:
        return (
            f"the prompt has {prompt_tokens} tokens and {sampling.max_new_tokens} more are asked for, but the context holds "
            f"{context_tokens}"
        )
    return None
