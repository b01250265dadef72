"""The engine interface: a process that holds a language model and answers `complete`, `logprobs` and `top_logprobs`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.constraint import Constraint

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class UserTurn:
    """A prompt that lets the model write the user's next turn: the chat template of `before`, cut before that turn's text.

    `before` may hold a system text, and complete exchanges of user and assistant. The engine renders and cuts it
    (`rendering.py`); a completion also ends where the template ends the turn.
    """

    before: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Contrast:
    """PMI decoding: tokens that are likely even without the source are made less likely, where the model is unsure.

    `prompt` is the request's prompt without the source; it should end in the same text. With next-token distributions p after the
    request's prompt and q after this one, both followed by the tokens drawn so far, the score of token y is log p(y) - `weight` ·
    log q(y) if the entropy of p is at least `min_entropy` [nats], else log p(y); it replaces the logit. van der Poel et al.
    (2022, arXiv 2210.13210) tuned weight 0.0656 and min_entropy 3.5987 for one summarizer, 0.1312 and 3.5618 for another.
    """

    weight: float
    min_entropy: float
    prompt: "tuple[Message, ...] | str | UserTurn"


NO_CONTRAST = "PMI decoding (contrast) needs an engine of kind transformers, which sees all logits"


@dataclass(frozen=True)
class Sampling:
    """How to sample: `temperature` 0 is greedy; `top_k` 0 and `top_p` 1.0 restrict nothing.

    Generation stops at the model's end token, after `max_new_tokens`, or as soon as the text contains one of `stop` (which is
    then removed, with everything after it). With `json_schema` (a JSON schema as text) or `regex`, at most one of them, only
    conforming tokens are drawn; an engine that does not support it returns an error. `presence_penalty` is subtracted from the
    logit of every token that the completion already contains (as in the OpenAI API), before the temperature. With `contrast` a
    second sequence is decoded beside each sample; an engine that does not support it returns an error.

    With a `constraint` the completion is found by a beam search that prefers texts which meet its clauses (docs/constraints.md).
    Nothing is drawn then, so the seed has no effect, the temperature must be 0, and there can be no `contrast`.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    json_schema: str | None = None
    regex: str | None = None
    presence_penalty: float = 0.0
    constraint: Constraint | None = None
    contrast: Contrast | None = None

    def at(self, number: int) -> "Sampling":
        """The settings for one of several completions of a prompt: with a constraint, its `number`-th text after the place."""
        if self.constraint is None or not number:
            return self
        return replace(self, constraint=replace(self.constraint, place=self.constraint.place + number))


@dataclass(frozen=True)
class Request:
    """One sample to draw: a conversation (the model's chat template is applied), a plain prompt, or a user's turn, and its seed.

    Requests with equal prompts share the prompt's computation, regardless of their order.
    """

    request_id: str
    prompt: tuple[Message, ...] | str | UserTurn
    sampling: Sampling
    seed: int


@dataclass(frozen=True)
class Completion:
    """The answer to one request, or the reason for its failure (`finish_reason` "error", empty text).

    `unmet`: the numbers of the clauses of its constraint that the text does not meet.
    """

    request_id: str
    text: str
    token_ids: tuple[int, ...]  # without the end token
    finish_reason: FinishReason
    prompt_tokens: int
    error: str | None = None
    unmet: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A context, and a target whose log-probability is requested.

    The context ends without whitespace and the target begins with a space (unless the caller needs otherwise); both are tokenised
    as one string, and a token belongs to the target if its character span ends beyond the context. With `spans` (character ranges
    within the target) only target tokens that overlap one of them are wanted.
    """

    context: str
    target: str
    spans: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class TokenRow:
    """A row of token ids, and the position of the first token whose distribution is wanted: the row's first label."""

    tokens: tuple[int, ...]
    first: int

    @property
    def positions(self) -> int:
        """How many distributions are wanted: one for each token from `first` on."""
        return len(self.tokens) - self.first


@dataclass(frozen=True)
class TopLogprobs:
    """A model's k most likely next tokens at each wanted position of a row, the most likely first.

    `tail` is the log of the probability that all other tokens have together: -inf if k is the whole vocabulary.
    """

    ids: npt.NDArray[np.uint32]  # [positions, k]
    logprobs: npt.NDArray[np.float32]  # [positions, k], natural
    tail: npt.NDArray[np.float32]  # [positions]


@dataclass
class Usage:
    """Usage of an engine since it was built. `model_seconds`: inside forward passes and sampling only."""

    model_seconds: float = 0.0
    load_seconds: float = 0.0
    output_tokens: int = 0
    forwarded_tokens: int = 0  # tokens processed by the model, without padding
    extra: dict[str, float] = field(default_factory=dict)


class EngineDied(Exception):
    """The engine can no longer answer: its process exited, or its server is gone. Carries its last log lines.

    Neither a row nor the user is at fault: the worker of the engine is restarted, a bounded number of times.
    """


class ServerGone(EngineDied):
    """The server of an engine does not respond: no row is at fault, so no bisection is needed."""


class Engine(Protocol):
    """A loaded language model."""

    context_tokens: int
    usage: Usage

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion per request, as they finish. A prompt that is too long yields an error instead of raising."""
        ...

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        """Return, for each pair, one natural log-probability per wanted target token.

        A pair that does not fit the context yields an array of one NaN.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens."""
        ...


@runtime_checkable
class DistributionEngine(Protocol):
    """An engine that also gives distributions; its config says whether it can (`EngineConfig.top_logprobs_problem`)."""

    def top_logprobs(self, rows: Sequence[TokenRow], k: int) -> list[TopLogprobs | None]:
        """Return the k most likely tokens before each token from a row's `first` on, given the tokens before it.

        None for a row that exceeds the context. A position whose logits are not numbers has NaN throughout.
        """
        ...


def row_refusal(row: TokenRow, context_tokens: int) -> str | None:
    """Reason why a row has no distributions, or None."""
    if not 1 <= row.first < len(row.tokens):
        return f"a row of {len(row.tokens)} tokens has no label from position {row.first} on that follows another token"
    if len(row.tokens) > context_tokens:
        return f"the row has {len(row.tokens)} tokens, but the teacher's context holds {context_tokens}"
    return None


def refusal(prompt_tokens: int, sampling: Sampling, context_tokens: int) -> str | None:
    """Reason why a prompt of this length cannot run (it is empty, or leaves no room for its new tokens), or None."""
    if not prompt_tokens:
        return "the prompt has no tokens"
    if prompt_tokens + sampling.max_new_tokens > context_tokens:
        return (
            f"the prompt has {prompt_tokens} tokens and {sampling.max_new_tokens} more are requested, but the context holds "
            f"{context_tokens}"
        )
    return None


def constraint_problem(sampling: Sampling) -> str | None:
    """Reason why no beam search can run with these settings, or None."""
    if sampling.constraint is None:
        return None
    if sampling.temperature != 0 or sampling.top_p != 1 or sampling.top_k or sampling.presence_penalty:
        return "a constraint needs a beam search, which draws nothing: set temperature 0, and no top_p, top_k or presence_penalty"
    if sampling.contrast is not None:
        return "a constraint's beam search has no PMI decoding: remove the constraint or the contrast"
    return sampling.constraint.problem()


def constraint_refusal(kind: str) -> str:
    """The error of an engine that supports no constraints."""
    return f"an engine of kind {kind} does not support constraints; use an engine of kind transformers"
