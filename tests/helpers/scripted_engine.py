"""An engine for tests whose answers come from a function: no model and no randomness."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.protocol import Completion, Pair, Request, TokenRow, TopLogprobs, Usage, row_refusal


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
        self.rows: list[TokenRow] = []
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

    def top_logprobs(self, rows: Sequence[TokenRow], k: int) -> list[TopLogprobs | None]:
        """At every position tokens 0 to k - 1, each half as likely as the one before it; None beyond the context."""
        self.rows += rows
        halves = -np.log(2.0) * np.arange(1, k + 1)
        return [
            None
            if row_refusal(row, self.context_tokens)
            else TopLogprobs(
                np.tile(np.arange(k, dtype=np.uint32), (row.positions, 1)),
                np.tile(halves.astype(np.float32), (row.positions, 1)),
                np.full(row.positions, halves[-1], np.float32),
            )
            for row in rows
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def completion(request: Request, text: str) -> Completion:
    """An ordinary answer."""
    return Completion(request.request_id, text, tuple(range(len(text.split()))), "stop", prompt_tokens=7)
