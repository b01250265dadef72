"""The engine behind an OpenAI-compatible server; see client.py for pacing, budget and faults."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from limbeck.cluster.engines.endpoint.answers import Answer, read_chat, read_echo, read_text
from limbeck.cluster.engines.endpoint.budget import Ledger
from limbeck.cluster.engines.endpoint.calls import Call, Job, Outcome
from limbeck.cluster.engines.endpoint.client import Client
from limbeck.cluster.engines.endpoint.config import EndpointConfig
from limbeck.cluster.engines.endpoint.prompts import Prompts
from limbeck.cluster.engines.endpoint.server import Key, Served, wait_for_server
from limbeck.cluster.engines.pairs import Logprobs, Query, sort_out
from limbeck.cluster.engines.protocol import (
    NO_CONTRAST,
    Completion,
    Message,
    Pair,
    Request,
    Usage,
    UserTurn,
    constraint_refusal,
    refusal,
)
from limbeck.corpus.errors import LimbeckError

SEED_BITS = 31  # some servers store seeds in 32 bits
PROBE = "The quick brown fox jumps over the lazy dog near the river bank."
ECHOES = ((0, 0), (1, 0), (0, 1), (1, 1))
"""(max_tokens, logprobs) in the order of attempts; vLLM and SGLang accept the first."""


class EndpointEngine:
    """Completes prompts and scores targets on a server; satisfies `protocol.Engine`, thread-safe."""

    def __init__(self, config: EndpointConfig, prompts: Prompts, served: Served, key: Key) -> None:
        """Start the client; use `build`, which also finds the served model."""
        self.config, self.prompts, self.served = config, prompts, served
        limits = (prompts.context_tokens, config.context_tokens, served.context_tokens)
        self.context_tokens = min(limit for limit in limits if limit is not None)
        self.usage = Usage()
        self._client = Client(config, key, Ledger(config.budget), self.usage, lambda text: len(prompts.encode(text)))
        self._echo: tuple[int, int] | None = None  # the form of request for log-probabilities that this server supports
        self._echo_lock = threading.Lock()

    def __repr__(self) -> str:
        """The config: it holds no key."""
        return f"EndpointEngine({self.config!r})"

    def close(self) -> None:
        """Close the connections; waiting callers get EngineDied."""
        self._client.close()

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion per request, as they finish; requests of other threads run concurrently.

        A prompt that is too long, or that the server refuses to answer, yields an error. Raises LimbeckError if the server
        refuses every request (for the key, the model, a parameter) or the budget is spent, and EngineDied if the server is gone.
        """
        jobs: list[Job] = []
        requests_of: dict[Job, Request] = {}
        counted: dict[tuple[Message, ...] | str | UserTurn, int | str] = {}
        for request in requests:
            if request.prompt not in counted:
                counted[request.prompt] = self._count(request.prompt)
            job = self._job(request, counted[request.prompt])
            if isinstance(job, Job):
                jobs.append(job)
                requests_of[job] = request
            else:
                yield job
        for outcome in self._outcomes(jobs):
            yield self._completion(requests_of[outcome.job], outcome)

    def logprobs(self, pairs: Sequence[Pair]) -> list[Logprobs]:
        """Return one natural log-probability per wanted target token of each pair; one NaN if unavailable.

        Equal pairs are sent once, and those with a common prefix consecutively. Raises LimbeckError if the server does not return
        the log-probabilities of a prompt (hosted services do not), or tokenises differently from `model`.
        """
        queries = [query if query else Query((), (-1,)) for query in self._tokenised(pairs)]
        found, asked = sort_out(queries, self.context_tokens)
        jobs: dict[Job, Query] = {}
        for query in sorted(asked, key=lambda query: query.tokens):
            jobs[self._echo_job(query.tokens, self._way_to_score())] = query
        for outcome in self._outcomes(list(jobs)):
            query = jobs[outcome.job]
            found[query] = np.full(1, np.nan, np.float32)
            if outcome.answer is not None:
                values = (outcome.answer.logprobs[place] for place in query.wanted)
                found[query] = np.array([np.nan if value is None else value for value in values], np.float32)
        return [found[query] for query in queries]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens, by the local tokenizer."""
        return self.prompts.tokenizer.count(texts) if texts else []

    def _outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        call: Call = self._client.submit(jobs)
        try:
            yield from call.results()
        finally:
            self._client.cancel(call)

    def _count(self, prompt: tuple[Message, ...] | str | UserTurn) -> int | str:
        """The tokens of a prompt, or the reason why it cannot be sent."""
        try:
            return self.prompts.count(prompt)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, which neither tokenizers nor servers accept
            return "the prompt is not valid Unicode"

    def _job(self, request: Request, count: int | str) -> Job | Completion:
        """The job for a request, or its failed completion if it cannot be sent."""
        sampling, tokens = request.sampling, 0 if isinstance(count, str) else count
        error = count if isinstance(count, str) else refusal(count, sampling, self.context_tokens)
        if sampling.regex:
            error = "the OpenAI API has no field for a regular expression; use an engine of kind vllm"
        if sampling.constraint:
            error = constraint_refusal("endpoint")
        if sampling.contrast is not None:
            error = NO_CONTRAST
        schema = _json(sampling.json_schema)
        if sampling.json_schema and schema is None:
            error = "its json_schema is not valid JSON"
        if error:
            return Completion(request.request_id, "", (), "error", tokens, error)
        payload: dict[str, Any] = {
            "model": self.served.name,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,  # also 0: vLLM takes missing values from the model's generation config
            "seed": request.seed & ((1 << SEED_BITS) - 1),
            "n": 1,
        }
        if sampling.json_schema:
            output = {"name": "output", "strict": True, "schema": schema}
            payload["response_format"] = {"type": "json_schema", "json_schema": output}
        if sampling.presence_penalty:
            payload["presence_penalty"] = sampling.presence_penalty
        if stop := (*sampling.stop, *self._put_prompt(payload, request.prompt)):
            payload["stop"] = list(stop)
        path, read = ("/chat/completions", read_chat) if "messages" in payload else ("/completions", read_text)
        return Job(path, payload, read, (tokens, sampling.max_new_tokens), request.seed)

    def _put_prompt(self, payload: dict[str, Any], prompt: tuple[Message, ...] | str | UserTurn) -> tuple[str, ...]:
        """Add a prompt to a request; returns further strings that end its completion.

        A user's turn is sent as tokens: as text, a server would put a beginning-of-text token before the template's own.
        """
        if isinstance(prompt, str):
            payload["prompt"] = prompt
        elif isinstance(prompt, UserTurn):
            rendered = self.prompts.cut(prompt)
            payload["prompt"] = list(rendered.tokens)
            return rendered.stop
        else:
            payload["messages"] = [{"role": message.role, "content": message.content} for message in prompt]
        return ()

    def _completion(self, request: Request, outcome: Outcome) -> Completion:
        """An outcome as a completion: the text is cut at the first stop string, and tokenised locally."""
        answer, prompt_tokens = outcome.answer, outcome.tokens[0] or outcome.job.worst[0]
        if answer is None:
            return Completion(request.request_id, "", (), "error", prompt_tokens, outcome.error)
        text, tokens, reason = answer.text, self.prompts.encode(answer.text), answer.finish_reason
        if reason is None:  # not reported: it was cut if it has all the tokens that it may have
            drawn = max(len(tokens), answer.counts.output_tokens or 0)
            reason = "length" if drawn >= request.sampling.max_new_tokens else "stop"
        for stop in outcome.job.payload.get("stop", ()):
            if stop in text:
                text, reason = text.split(stop, 1)[0], "stop"
                tokens = self.prompts.encode(text)
        return Completion(request.request_id, text, tokens, reason, prompt_tokens)

    def _tokenised(self, pairs: Sequence[Pair]) -> list[Query | None]:
        """The tokens of each pair; None if it is not valid Unicode."""
        valid = [_is_unicode(pair.context + pair.target) for pair in pairs]
        queries = iter(self.prompts.tokenise([pair for pair, good in zip(pairs, valid, strict=True) if good]))
        return [next(queries) if good else None for good in valid]

    def _way_to_score(self) -> tuple[int, int]:
        """The form of request for a prompt's log-probabilities, found by trial on the first call."""
        with self._echo_lock:
            if self._echo is None:
                self._echo = self._find_way_to_score()
            return self._echo

    def _find_way_to_score(self) -> tuple[int, int]:
        tokens = (self.prompts.first, *self.prompts.encode(PROBE))
        words = ""
        for way in ECHOES:
            (outcome,) = self._outcomes([self._echo_job(tokens, way, tentative=True)])
            if outcome.answer is not None and None not in outcome.answer.logprobs[1:]:
                self._check_tokenizer(tokens, outcome.answer)
                return way
            words = words or outcome.error or "log-probabilities are missing"
        raise LimbeckError(
            f"{self.config.base_url} does not return log-probabilities of a prompt, as vLLM does for /completions with echo and "
            f"logprobs ({words}); score with an engine of kind vllm or transformers"
        )

    def _check_tokenizer(self, tokens: Sequence[int], answer: Answer) -> None:
        """Raise LimbeckError if the server decodes the tokens to a different text."""
        readings = {"".join(self.prompts.decode(tokens, skip).split()) for skip in (True, False)}
        echoed = "".join(answer.text.split())
        if not any(reading and reading in echoed for reading in readings):
            raise LimbeckError(
                f"{self.config.base_url} decodes the tokens of {self.config.model} as {answer.text[:60]!r}, so its model has "
                "another tokenizer; set model to the one it serves"
            )

    def _echo_job(self, tokens: Sequence[int], way: tuple[int, int], tentative: bool = False) -> Job:
        max_tokens, logprobs = way
        payload = {
            "model": self.served.name,
            "prompt": list(tokens),
            "echo": True,
            "logprobs": logprobs,
            "max_tokens": max_tokens,
            "temperature": 1.0,
        }

        def read(body: bytes) -> Answer:
            return read_echo(body, len(tokens), exact=max_tokens == 0)

        # at worst one token is drawn, even with max_tokens 0: vLLM draws and discards one
        return Job("/completions", payload, read, (len(tokens), 1), sum(tokens), tentative)


def build(config: EndpointConfig) -> EndpointEngine:
    """Query the served model and read the tokenizer; the server may take `patience_seconds` to start.

    Raises LimbeckError if the key is missing or refused, or the model is not the server's only one; EngineDied if there is no
    response.
    """
    start = time.perf_counter()
    prompts, key = Prompts.load(config.model), Key.of(config)
    engine = EndpointEngine(config, prompts, wait_for_server(config, key), key)
    engine.usage.load_seconds = time.perf_counter() - start
    return engine


def _json(text: str | None) -> Any:
    """A JSON value, or None if the text is not JSON."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
