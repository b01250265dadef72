"""An engine for tests whose answers come from a function: no model and no randomness."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.protocol import Completion, Pair, Request, Usage


class ScriptedEngine:
    """Answers with `answer(request)` (None: no answer at all) and `measure(pair)`, and records the requests."""

    context_tokens = 4096

    def __init__(
        self,
        answer: Callable[[Request], Completion | None] = lambda request: completion(request, "A summary."),
        measure: Callable[[Pair], Sequence[float]] = lambda pair: [-1.0] * len(pair.target.split()),
    ) -> None:
        self.usage = Usage()
        self.requests: list[Request] = []
        self.pairs: list[Pair] = []
        self._answer = answer
        self._measure = measure

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        self.requests += requests
        for request in reversed(requests):  # an engine may answer in any order
            answer = self._answer(request)
            if answer is not None:
                yield answer

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        self.pairs += pairs
        return [np.array(self._measure(pair), dtype=np.float32) for pair in pairs]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def completion(request: Request, text: str) -> Completion:
    """An ordinary answer."""
    return Completion(request.request_id, text, tuple(range(len(text.split()))), "stop", prompt_tokens=7)
