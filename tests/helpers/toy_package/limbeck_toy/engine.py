"""An engine without weights: its text depends only on prompt and seed, whatever else is requested."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.protocol import Completion, Pair, Request, Usage, refusal
from limbeck.corpus.tokenizer import Tokenizer

WORDS = (
    *("alpha beta gamma delta stone cloud tree house light water bread north south east west river kappa lambda".split()),
    *("sigma tau who what why? 17 2024 and the of a in: to is not yes no maybe".split()),
)


class ScriptedConfig(EngineConfig):
    """Words drawn by a hash of prompt and seed; `model` names the tokenizer that counts tokens.

    `across_callers`: jobs and sources call it from several threads, like vLLM. `trace` names a file to which every call of
    `complete` appends a line: its process and its prompts. `fail` is a word: prompts that contain it get an error.
    """

    kind: Literal["scripted"] = "scripted"
    words: int = Field(12, ge=1)
    context_tokens: int = Field(1 << 20, ge=2)
    across_callers: bool = False
    trace: str | None = None
    fail: str | None = None

    @property
    def batches_across_callers(self) -> bool:
        return self.across_callers

    def build(self) -> "ScriptedEngine":
        return ScriptedEngine(self, Tokenizer.load(self.folder()))


class ScriptedEngine:
    def __init__(self, config: ScriptedConfig, tokenizer: Tokenizer) -> None:
        self.context_tokens, self.usage = config.context_tokens, Usage()
        self._config, self._tokenizer, self._lock = config, tokenizer, threading.Lock()

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        if self._config.trace is not None:
            line = json.dumps({"process": os.getpid(), "prompts": [_plain(request.prompt) for request in requests]}) + "\n"
            with open(self._config.trace, "a") as file:
                file.write(line)
        for request in requests:
            completion = self._answer(request)
            with self._lock:
                self.usage.output_tokens += len(completion.token_ids)
            yield completion

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        return [np.array([_nats(pair.context, word) for word in _words(pair)], np.float32) for pair in pairs]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.count(texts)

    def _answer(self, request: Request) -> Completion:
        prompt = _plain(request.prompt)
        prompt_tokens = sum(self._tokenizer.count([prompt]))
        why_not = refusal(prompt_tokens, request.sampling, self.context_tokens)
        if why_not is None and self._config.fail is not None and self._config.fail in prompt:
            why_not = f"the prompt holds {self._config.fail!r}"
        if why_not is not None:
            return Completion(request.request_id, "", (), "error", prompt_tokens, why_not)
        numbers = _hash(prompt, request.seed)
        wanted = 1 + numbers[0] % self._config.words
        count = min(wanted, request.sampling.max_new_tokens)
        text = " " + " ".join(WORDS[number % len(WORDS)] for number in _stream(numbers, count))
        for stop in request.sampling.stop:
            text = text.partition(stop)[0]
        reason: Literal["stop", "length"] = "stop" if wanted <= count else "length"
        return Completion(request.request_id, text, tuple(range(count)), reason, prompt_tokens)


def _plain(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn.role}: {turn.content}" for turn in prompt)


def _words(pair: Pair) -> list[str]:
    """The words of a target, or those of them that overlap its spans."""
    found, end = [], 0
    for word in pair.target.split():
        start = pair.target.index(word, end)
        end = start + len(word)
        if pair.spans is None or any(start < to and end > since for since, to in pair.spans):
            found.append(word)
    return found


def _nats(context: str, word: str) -> float:
    """Log-probability of a word: higher if the context contains it."""
    return -(0.2 if word in context else 1.0) * (1 + _hash(word)[0] / 255)


def _stream(numbers: bytes, count: int) -> Iterator[int]:
    while count > 0:
        yield from numbers[1 : 1 + count]
        numbers, count = hashlib.sha256(numbers).digest(), count - 31


def _hash(*parts: Any) -> bytes:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
