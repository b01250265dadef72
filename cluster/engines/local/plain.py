"""Fallback for models that cannot be packed (sliding windows, linear attention): the model's own cache, one prompt at a time.

The prompt still runs once for all its samples: its cache is replicated.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from limbeck.cluster.engines.local.contrast import contrasted
from limbeck.cluster.engines.local.loading import Loaded
from limbeck.cluster.engines.local.samples import Group, Sample, accept, group_samples
from limbeck.cluster.engines.local.sampling import draw
from limbeck.cluster.engines.protocol import Usage


def decode(loaded: Loaded, samples: Sequence[Sample], batch_sequences: int, usage: Usage) -> Iterator[Sample]:
    """Yield the samples as they finish; those of one prompt are decoded together."""
    for group in group_samples(samples, batch_sequences):
        start = time.perf_counter()
        with torch.inference_mode():
            _decode_group(loaded, group, usage)
        usage.model_seconds += time.perf_counter() - start
        yield from group.samples


def _decode_group(loaded: Loaded, group: Group, usage: Usage) -> None:
    model, samples = loaded.model, group.samples
    caches, logits = [], list[torch.Tensor]()  # of the group, and of its shadow
    for prompt in (slot.prompt for slot in group.slots):
        output = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=True, logits_to_keep=1)
        usage.forwarded_tokens += len(prompt)
        if len(samples) > 1:
            output.past_key_values.batch_repeat_interleave(len(samples))
        caches.append(output.past_key_values)
        logits.append(output.logits[:, -1].expand(len(samples), -1))
    while True:
        live = [i for i, sample in enumerate(samples) if sample.finish_reason is None]
        shadows = [(samples[i].request.sampling.contrast, logits[-1][i]) for i in live]
        scores = contrasted(logits[0][live], shadows)
        for i, token in zip(live, draw(scores, [samples[i].next_draw() for i in live]), strict=True):
            accept(samples[i], token, loaded)
        if all(sample.finish_reason is not None for sample in samples):
            return
        newest = torch.tensor([[sample.tokens[-1] if sample.tokens else 0] for sample in samples], device=model.device)
        for place, cache in enumerate(caches):
            output = model(input_ids=newest, past_key_values=cache, use_cache=True)
            usage.forwarded_tokens += len(samples)
            caches[place], logits[place] = output.past_key_values, output.logits[:, -1]


def logprobs(loaded: Loaded, tokens: Sequence[int], wanted: Sequence[int], usage: Usage) -> npt.NDArray[np.float32]:
    """Return log p(tokens[w] | tokens[:w]) for each wanted position, from one forward pass of the whole sequence."""
    start = time.perf_counter()
    with torch.inference_mode():
        ids = torch.tensor([tokens], device=loaded.model.device)
        rows = loaded.model(input_ids=ids, use_cache=False).logits[0, [w - 1 for w in wanted]].float()
        found = torch.log_softmax(rows, -1).gather(-1, ids[0, list(wanted), None])[:, 0]
    usage.model_seconds += time.perf_counter() - start
    usage.forwarded_tokens += len(tokens)
    return found.cpu().numpy()
