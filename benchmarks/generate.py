"""Tokens per second of `complete` against plain `model.generate` at its best batch size, all else equal.

    python benchmarks/generate.py --prompts 64 --samples 4 --threads 2

Prompts, dtype, sampling and stop rule are the same; documents are installed packages' descriptions. Tokens are counted up
to the first end token; the runs alternate, so that load on the machine affects both; the ratio is that of the medians.
"""

import argparse
import importlib.metadata
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import TransformersEngine, build
from limbeck.cluster.engines.protocol import Engine, Message, Request, Sampling

TASK = "Summarize the following text in one sentence.\n\n"


@dataclass(frozen=True)
class Run:
    """One timed run over all prompts."""

    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second."""
        return self.tokens / self.seconds


def documents(engine: TransformersEngine, count: int, tokens: int) -> list[str]:
    """Return the descriptions of installed packages, without markup, truncated to `tokens` tokens each."""
    found: list[str] = []
    for distribution in sorted(importlib.metadata.distributions(), key=lambda d: d.name):
        text = str(distribution.metadata.json.get("description", ""))
        text = re.sub(r"<[^>]*>|\[!\[.*?\]\(.*?\)\]\(.*?\)|!?\[(.*?)\]\(.*?\)|[=\-~^*#`|]{2,}", r"\1", text)
        text = re.sub(r"\s+", " ", text).strip()
        encoded = engine.loaded.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        if len(encoded["input_ids"]) >= tokens:
            found.append(text[: encoded["offset_mapping"][tokens - 1][1]])
    if len(found) < count:
        raise SystemExit(f"only {len(found)} installed packages have {tokens} tokens of description; ask for fewer --prompts")
    return found[:count]


def complete(engine: Engine, prompts: Sequence[str], samples: int, sampling: Sampling) -> Run:
    """Time an engine's `complete`."""
    requests = [
        Request(f"{i}.{j}", (Message("user", prompt),), sampling, 1000 * i + j)
        for i, prompt in enumerate(prompts)
        for j in range(samples)
    ]
    start = time.perf_counter()
    tokens = sum(len(c.token_ids) + (c.finish_reason == "stop") for c in engine.complete(requests))
    return Run(tokens, time.perf_counter() - start)


def plain(engine: TransformersEngine, prompts: Sequence[str], samples: int, sampling: Sampling, sequences: int) -> Run:
    """Time `generate` on batches of `sequences` samples, prompts sorted by length and padded on the left."""
    tokenizer, model = engine.loaded.tokenizer, engine.loaded.model
    tokenizer.padding_side = "left"
    start = time.perf_counter()
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    texts.sort(key=lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    step, tokens = max(1, sequences // samples), 0
    ends = sorted(engine.loaded.end_tokens)
    for first in range(0, len(texts), step):
        batch = tokenizer(texts[first : first + step], padding=True, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(
                **batch,
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                max_new_tokens=sampling.max_new_tokens,
                num_return_sequences=samples,
                eos_token_id=ends,
                pad_token_id=ends[0],
            )
        new = output[:, batch["input_ids"].shape[1] :]
        ended = torch.isin(new, torch.tensor(ends))
        tokens += int(((ended.cumsum(1) - ended.int()) == 0).sum())
    return Run(tokens, time.perf_counter() - start)


def alternate(contenders: dict[str, Callable[[], Run]], repeats: int) -> dict[str, list[Run]]:
    """Run every contender `repeats` times, alternating."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            runs[name].append(contender())
    return runs


def main() -> None:
    """Print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--document-tokens", type=int, default=150)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128], help="batch sizes of plain generate to try")
    parser.add_argument("--probe-prompts", type=int, default=16, help="number of prompts for finding the best batch size")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sampling = Sampling(arguments.new_tokens, temperature=0.7, top_p=0.9)
    fast = build(TransformersConfig(model=arguments.model, dtype=arguments.dtype, device="cpu"))
    slow = build(TransformersConfig(model=arguments.model, dtype=arguments.dtype, device="cpu"))
    slow.loaded.model.set_attn_implementation("sdpa")
    prompts = [TASK + document for document in documents(fast, arguments.prompts, arguments.document_tokens)]
    torch.manual_seed(0)
    complete(fast, prompts[:4], arguments.samples, sampling)  # warm up
    plain(slow, prompts[:4], arguments.samples, sampling, 8)
    probe = prompts[: max(arguments.probe_prompts, max(arguments.batches) // arguments.samples)]
    tried = {b: plain(slow, probe, arguments.samples, sampling, b).tokens_per_second for b in arguments.batches}
    best = max(tried, key=lambda b: tried[b])
    runs = alternate(
        {
            "plain generate": lambda: plain(slow, prompts, arguments.samples, sampling, best),
            "complete": lambda: complete(fast, prompts, arguments.samples, sampling),
        },
        arguments.repeats,
    )
    medians = {name: statistics.median(run.tokens_per_second for run in done) for name, done in runs.items()}
    ratio = medians["complete"] / medians["plain generate"]
    if arguments.json:
        every = {name: [round(run.tokens_per_second, 1) for run in done] for name, done in runs.items()}
        print(json.dumps({"ratio": round(ratio, 2), "best_batch": best, "tried": tried, "tokens_per_second": every}))
        return
    print(f"{arguments.prompts} prompts x {arguments.samples} samples, up to {arguments.new_tokens} tokens, {arguments.dtype}")
    for batch, speed in tried.items():
        print(f"  plain generate, {batch:4d} sequences, {len(probe)} prompts {speed:8.1f} tokens/s")
    for name, done in runs.items():
        speeds = [run.tokens_per_second for run in done]
        tokens = statistics.median(run.tokens for run in done)
        print(f"  {name:15s} {medians[name]:8.1f} tokens/s ({min(speeds):.1f} to {max(speeds):.1f}), {tokens:.0f} tokens per run")
    print(f"ratio {ratio:.2f} (plain generate at {best} sequences)")


if __name__ == "__main__":
    main()
