"""The engine that runs vLLM: requests of all callers share one continuous batch; see process.py for its start."""

import asyncio
import queue
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from limbeck.cluster.engines import chat
from limbeck.cluster.engines.pairs import Logprobs, Query, sort_out
from limbeck.cluster.engines.protocol import (
    NO_CONTRAST,
    Completion,
    EngineDied,
    Pair,
    Request,
    TokenRow,
    TopLogprobs,
    Usage,
    constraint_refusal,
    refusal,
    row_refusal,
)
from limbeck.cluster.engines.rendering import Rendered
from limbeck.cluster.engines.vllm.config import VllmConfig
from limbeck.cluster.engines.vllm.process import Started, start

SEED_BITS = 63


class VllmEngine:
    """Completes prompts and scores targets in vLLM's processes; satisfies `protocol.Engine`, thread-safe."""

    def __init__(self, config: VllmConfig, started: Started, load_seconds: float = 0.0) -> None:
        """Wrap a started vLLM; use `build` to start one."""
        self.config, self.context_tokens = config, started.context_tokens
        self.usage = Usage(load_seconds=load_seconds)
        self._started, self._tokenizer = started, started.tokenizer
        self._numbers = 0
        self._active, self._marked = 0, 0.0  # requests in progress, and the time up to which they are counted

    def close(self) -> None:
        """Stop vLLM's processes and free their memory; waiting callers get EngineDied."""
        self._started.close()

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion per request, as they finish; requests with a common prefix share it through the cache.

        A prompt that is too long, or that vLLM refuses, yields an error. Raises LimbeckError for a conversation without a chat
        template and for a user's turn whose template cannot be cut, and EngineDied if vLLM's processes have exited.
        """
        rendered: dict[Any, Rendered | str] = {}
        for prompt in dict.fromkeys(request.prompt for request in requests):
            rendered[prompt] = self._render(prompt)
        work = []
        for request in requests:
            found = rendered[request.prompt]
            if isinstance(found, str):
                yield _refused(request, 0, found)
            elif request.sampling.contrast is not None:
                yield _refused(request, len(found.tokens), NO_CONTRAST)
            elif (error := refusal(len(found.tokens), request.sampling, self.context_tokens)) is not None:
                yield _refused(request, len(found.tokens), error)
            elif request.sampling.constraint is not None:
                yield _refused(request, len(found.tokens), constraint_refusal("vllm"))
            else:
                work.append(self._complete(request, found))
        yield from self._answers(work)

    def logprobs(self, pairs: Sequence[Pair]) -> list[Logprobs]:
        """Return one natural log-probability per wanted target token of each pair; one NaN if it exceeds the context.

        Pairs are sent in the order of their tokens, so that those with a common prefix (candidates of one document) find it in
        the prefix cache. If the cache extends into a target, which then has no log-probabilities, the pair is sent again without
        the cache.
        """
        queries = chat.tokenise(pairs, self._tokenizer)
        found, asked = sort_out(queries, self.context_tokens)
        found.update(self._answers([self._score(query) for query in sorted(asked, key=lambda query: query.tokens)]))
        return [found[query] for query in queries]

    def top_logprobs(self, rows: Sequence[TokenRow], k: int) -> list[TopLogprobs | None]:
        """Return the k most likely tokens at each wanted position of each row; None for a row that exceeds the context.

        `k` is at most the config's `max_logprobs`. Rows are sent in the order of their tokens, as pairs are.
        """
        asked = {row for row in rows if row_refusal(row, self.context_tokens) is None}
        found = dict(self._answers([self._distributions(row, k) for row in sorted(asked, key=lambda row: row.tokens)]))
        return [found.get(row) for row in rows]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens."""
        return chat.count_tokens(texts, self._tokenizer)

    def _render(self, prompt: Any) -> Rendered | str:
        """The tokens of a prompt, or the reason why it cannot be tokenised."""
        try:
            return chat.render(prompt, self._tokenizer)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, which the tokenizer cannot read
            return "the prompt is not valid Unicode"

    def _answers(self, work: Sequence[Coroutine[Any, Any, Any]]) -> Iterator[Any]:
        """Run coroutines in vLLM's loop; yield their results as they finish."""
        ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        futures = [asyncio.run_coroutine_threadsafe(one, self._started.loop) for one in work]
        for future in futures:
            future.add_done_callback(ended.put)
        try:
            for _ in futures:
                try:
                    yield ended.get().result()
                except asyncio.CancelledError as gone:  # the loop was stopped during the request
                    raise EngineDied("vLLM was stopped") from gone
        finally:
            for future in futures:
                future.cancel()

    async def _complete(self, request: Request, prompt: Rendered) -> Completion:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        sampling, stop = request.sampling, [*request.sampling.stop, *prompt.stop]
        structure = None
        if sampling.json_schema or sampling.regex:
            structure = StructuredOutputsParams(json=sampling.json_schema, regex=sampling.regex)
        try:
            parameters = SamplingParams(
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                presence_penalty=sampling.presence_penalty,
                seed=request.seed & ((1 << SEED_BITS) - 1),
                stop=stop,
                stop_token_ids=sorted(self._started.end_tokens | prompt.end_tokens),
                detokenize=bool(stop),
                structured_outputs=structure,
            )
            output = await self._ask(prompt.tokens, parameters)
        except EngineDied:
            raise
        except Exception as error:  # specific to this request: vLLM has a class for each error, and new ones in every version
            return _refused(request, len(prompt.tokens), f"vLLM failed on the request: {' '.join(str(error).split())[:300]}")
        return self._completion(request, prompt, output.outputs[0])

    def _completion(self, request: Request, prompt: Rendered, answer: Any) -> Completion:
        """Convert an answer: no end token, the text decoded by our tokenizer, cut at the first stop string."""
        tokens, ended = tuple(answer.token_ids), answer.finish_reason
        if ended not in ("stop", "length"):
            return _refused(request, len(prompt.tokens), f"vLLM ended the request early ({ended})")
        if tokens and tokens[-1] in self._started.end_tokens | prompt.end_tokens:
            tokens = tokens[:-1]
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        for stop in (*request.sampling.stop, *prompt.stop):
            text = text.split(stop, 1)[0]
        return Completion(request.request_id, text, tokens, ended, len(prompt.tokens))

    async def _score(self, query: Query) -> tuple[Query, Logprobs]:
        known = await self._prompt_logprobs(query.tokens, query.wanted[0], 0)
        values = [known.logprobs[known.start_indices[place]] for place in query.wanted]
        return query, np.array(values, np.float32)

    async def _distributions(self, row: TokenRow, k: int) -> tuple[TokenRow, TopLogprobs]:
        known = await self._prompt_logprobs(row.tokens, row.first, k)
        starts = [known.start_indices[place] + 1 for place in range(row.first, len(row.tokens))]  # the row's own token is first
        ids = np.array([known.token_ids[start : start + k] for start in starts], np.uint32)
        logprobs = np.array([known.logprobs[start : start + k] for start in starts], np.float32)
        with np.errstate(divide="ignore"):  # no mass is left: -inf
            tail = np.log(np.maximum(0.0, 1.0 - np.exp(logprobs.astype(np.float64)).sum(-1)))
        return row, TopLogprobs(ids, logprobs, tail.astype(np.float32))

    async def _prompt_logprobs(self, tokens: Sequence[int], first: int, k: int, read_cache: bool = True) -> Any:
        """vLLM's log-probabilities of the tokens from `first` on, and of the `k` most likely ones at each of their positions.

        Positions in the prefix cache have none: a prompt of which too much is cached is sent again without the cache.
        """
        from vllm import SamplingParams

        parameters = SamplingParams(
            max_tokens=1,  # the minimum; the drawn token is discarded
            temperature=0.0,
            prompt_logprobs=k,  # 0: of the prompt's tokens only
            detokenize=False,
            flat_logprobs=True,
            skip_reading_prefix_cache=not (read_cache and self.config.prefix_caching),
        )
        output = await self._ask(tokens, parameters)
        if (output.num_cached_tokens or 0) >= first:
            return await self._prompt_logprobs(tokens, first, k, read_cache=False)
        return output.prompt_logprobs

    async def _ask(self, prompt: Sequence[int], parameters: Any) -> Any:
        """The complete answer to a request; counts its usage."""
        from vllm.v1.engine.exceptions import EngineDeadError

        self._numbers += 1
        self._mark(+1)
        written, output = 0, None
        try:
            arguments = {"prompt_token_ids": list(prompt)}, parameters, f"{self._numbers}"
            async for output in self._started.llm.generate(*arguments, lora_request=self._started.lora):
                now = len(output.outputs[0].token_ids)
                self.usage.output_tokens += now - written
                self.usage.forwarded_tokens += now - written
                written = now
                self._mark(0)
        except EngineDeadError as death:
            raise EngineDied(self._started.last_log_lines()) from death
        finally:
            self._mark(-1)
        assert output is not None and output.finished
        self.usage.forwarded_tokens += max(0, len(prompt) - 1 - (output.num_cached_tokens or 0))
        if parameters.prompt_logprobs is not None:
            self.usage.output_tokens -= written  # drawn, but discarded
        return output

    def _mark(self, change: int) -> None:
        """Count the time since the last mark if a request was in progress; called only in the loop's thread."""
        now = time.perf_counter()
        if self._active:
            self.usage.model_seconds += now - self._marked
        self._active, self._marked = self._active + change, now


def build(config: VllmConfig) -> VllmEngine:
    """Start vLLM with a model.

    Raises LimbeckError if vLLM is not installed or does not accept the model or a setting, and EngineDied if its processes exit
    while they start (for example, out of memory).
    """
    began = time.perf_counter()
    return VllmEngine(config, start(config), time.perf_counter() - began)


def _refused(request: Request, prompt_tokens: int, error: str) -> Completion:
    return Completion(request.request_id, "", (), "error", prompt_tokens, error)
