"""The engine that runs a transformers model in this process; see generation.py and scoring.py for its optimisations."""

import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines import chat
from limbeck.cluster.engines.local import distributions, generation, plain, scoring
from limbeck.cluster.engines.local.config import TransformersConfig
from limbeck.cluster.engines.local.constrained import decoding as constrained
from limbeck.cluster.engines.local.loading import Loaded, load, reload
from limbeck.cluster.engines.local.samples import Sample, completion, refuse
from limbeck.cluster.engines.protocol import Completion, Pair, Request, TokenRow, TopLogprobs, Usage


class TransformersEngine:
    """A causal language model that completes prompts and scores targets; satisfies `protocol.Engine` and `DistributionEngine`."""

    def __init__(self, config: TransformersConfig, loaded: Loaded, load_seconds: float = 0.0) -> None:
        """Wrap a loaded model; use `build` to load one."""
        self.config = config
        self.loaded = loaded
        self.context_tokens = loaded.context_tokens  # bound on prompt and completion together
        self.usage = Usage(load_seconds=load_seconds)

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion per request, as they finish; requests with equal prompts share the prompt's computation.

        A prompt that is too long, or a NaN, yields an error. Raises LimbeckError for a conversation without a chat template, and
        for a user's turn whose template cannot be cut.
        """
        without = [None if request.sampling.contrast is None else request.sampling.contrast.prompt for request in requests]
        prompts = dict.fromkeys(
            [*(request.prompt for request in requests), *(prompt for prompt in without if prompt is not None)]
        )
        rendered = {prompt: chat.render(prompt, self.loaded.tokenizer) for prompt in prompts}
        samples = [
            Sample(request, rendered[request.prompt], None if prompt is None else rendered[prompt])
            for request, prompt in zip(requests, without, strict=True)
        ]
        for sample in samples:
            refuse(sample, self.context_tokens)
        ready = [sample for sample in samples if sample.finish_reason is None]
        drawn = [sample for sample in ready if sample.request.sampling.constraint is None]
        searched = [sample for sample in ready if sample.request.sampling.constraint is not None]
        if self.loaded.packed:
            ended = generation.decode(self.loaded, drawn, self.config, self.usage)
        else:
            ended = plain.decode(self.loaded, drawn, self.config.batch_sequences, self.usage)
        yield from (completion(sample, self.loaded) for sample in samples if sample.finish_reason == "error")
        for sample in itertools.chain(ended, constrained.decode(self.loaded, searched, self.config, self.usage)):
            self.usage.output_tokens += len(sample.tokens)
            yield completion(sample, self.loaded)

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        """Return one natural log-probability per wanted target token of each pair; one NaN if it exceeds the context."""
        return scoring.logprobs(self.loaded, chat.tokenise(pairs, self.loaded.tokenizer), self.config.pack_tokens, self.usage)

    def top_logprobs(self, rows: Sequence[TokenRow], k: int) -> list[TopLogprobs | None]:
        """Return the k most likely tokens at each wanted position of each row; None for a row that exceeds the context."""
        return distributions.top_logprobs(self.loaded, rows, k, self.config.pack_tokens, self.usage)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the token count of each text, without special tokens."""
        return chat.count_tokens(texts, self.loaded.tokenizer)


def build(config: TransformersConfig, evicted: TransformersEngine | None = None) -> TransformersEngine:
    """Load a model, reusing the memory of an evicted engine of the same architecture if given (which is then unusable)."""
    start = time.perf_counter()
    loaded = reload(evicted.loaded, config) if evicted else None
    if loaded is None:
        loaded = load(config)
    return TransformersEngine(config, loaded, time.perf_counter() - start)
