"""The engine of kind transformers over a model that is being trained: samples from its weights without saving them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.chat import end_tokens
from limbeck.cluster.engines.local import attention, generation, plain
from limbeck.cluster.engines.local.config import TransformersConfig
from limbeck.cluster.engines.local.loading import Loaded, takes_packing
from limbeck.cluster.engines.local.samples import Sample, refuse
from limbeck.cluster.engines.models import describe
from limbeck.cluster.engines.protocol import Request, Sampling, Usage
from limbeck.cluster.engines.rendering import Rendered


class LiveSampler:
    """Draws completions of token ids, in the type of the weights; the training's attention and mode are restored afterwards."""

    def __init__(self, model: Any, folder: Path, tokenizer: Any, cache_bytes: int) -> None:
        """`model` is a causal language model before any wrapper; `folder` its base, for the context length."""
        self._model, self._forward = model, model.forward
        self._config = TransformersConfig(model=str(folder), cache_bytes=cache_bytes)
        self.usage = Usage()
        self._attention = ""  # none of its own while it is tried
        with self._generating():
            packed = takes_packing(model)
        self._attention = attention.NAME if packed else ""
        ends = end_tokens(tokenizer, model.config, model.generation_config)
        self._loaded = Loaded(folder, model, tokenizer, describe(folder).context_tokens, ends, packed)

    def complete(self, prompts: Sequence[tuple[int, ...]], sampling: Sampling, seeds: Sequence[int]) -> list[Sample]:
        """One finished sample of each prompt, in order; `finish_reason` is "error" if the prompt leaves no room."""
        samples = [
            Sample(Request(str(place), "", sampling, seed), Rendered(prompt))
            for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        for sample in samples:
            refuse(sample, self._loaded.context_tokens)
        ready = [sample for sample in samples if sample.finish_reason is None]
        with self._generating():
            if self._loaded.packed:
                ended = generation.decode(self._loaded, ready, self._config, self.usage)
            else:
                ended = plain.decode(self._loaded, ready, self._config.batch_sequences, self.usage)
            for _ in ended:
                pass
        return samples

    @contextlib.contextmanager
    def _generating(self) -> Iterator[None]:
        """The model as the engine needs it: its own forward pass, without dropout, with the engine's attention."""
        model = self._model
        before = model.forward, model.training, model.config._attn_implementation
        model.forward = self._forward
        model.eval()
        if self._attention:
            model.set_attn_implementation(self._attention)
        try:
            yield
        finally:
            model.forward = before[0]
            model.train(before[1])
            model.set_attn_implementation(before[2])
