"""Tokens per second of the engines, for completion and for log-probabilities: plain transformers, ours, and vLLM, in one run.

    .venv-vllm/bin/python -m benchmarks.engines --compiled --prompts 16 --scored-documents 3

The same prompts (descriptions of installed packages), model, dtype and sampling. Plain transformers is measured at the best of
several batch sizes, for completion as in benchmarks/generate.py; its log-probabilities are a forward pass over padded batches,
a log-softmax over the vocabulary, and a gather. vLLM runs through our own engine of kind vllm, with prefix caching on, eager
and, with --compiled, also compiled. All pairs are those of the PMI filter; every contender is credited with the tokens of
all pairs, whether it forwards or shares them. The contenders alternate; vLLM's processes are stopped meanwhile, because they
would use a core while waiting. If vLLM is not installed, its rows are left out.
"""

import argparse
import contextlib
import importlib.util
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.generate import TASK, Run, alternate, complete, documents, plain
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import TransformersEngine
from limbeck.cluster.engines.local.engine import build as build_ours
from limbeck.cluster.engines.protocol import Engine, Pair, Sampling
from limbeck.cluster.engines.vllm.config import VllmConfig

BATCHES = (16, 32, 64, 128)
SCORE_BATCHES = (1, 8, 32)
CONTEXT_TOKENS = 2048


def score(engine: Engine, pairs: Sequence[Pair], tokens: int) -> Run:
    """Time an engine's `logprobs`."""
    start = time.perf_counter()
    found = engine.logprobs(pairs)
    seconds = time.perf_counter() - start
    assert all(np.isfinite(values).all() for values in found)
    return Run(tokens, seconds)


@torch.inference_mode()
def plain_score(engine: TransformersEngine, pairs: Sequence[Pair], tokens: int, sequences: int) -> Run:
    """Time plain forward passes over batches of `sequences` pairs, sorted by length and padded on the right."""
    tokenizer, model = engine.loaded.tokenizer, engine.loaded.model
    tokenizer.padding_side = "right"
    start = time.perf_counter()
    texts = sorted((pair.context + pair.target for pair in pairs), key=len)
    for first in range(0, len(texts), sequences):
        batch = tokenizer(texts[first : first + sequences], padding=True, return_tensors="pt")
        logprobs = torch.log_softmax(model(**batch).logits[:, :-1].float(), -1)
        logprobs.gather(-1, batch["input_ids"][:, 1:, None])
    return Run(tokens, time.perf_counter() - start)


def critic_pairs(engine: TransformersEngine, texts: Sequence[str]) -> list[Pair]:
    """The PMI filter's pairs for sentences of the documents: each as a summary of its document, and alone."""
    from limbeck.corpus.sentences import split_sentences

    pairs = []
    for text in texts:
        for sentence in split_sentences(text)[:8]:
            pairs.append(Pair(f"{text}\n\nIn one sentence:", f" {sentence}"))
            pairs.append(Pair("In one sentence:", f" {sentence}"))
            pairs.append(Pair(f"{sentence}\n\nThe whole text:", f" {text}"))
            pairs.append(Pair("The whole text:", f" {text}"))
    return pairs


class Vllm:
    """Our engine of kind vllm, whose processes run only during its turn."""

    def __init__(self, model: str, dtype: Any, eager: bool) -> None:
        """Start vLLM and stop its processes."""
        from limbeck.cluster.engines.vllm.engine import build

        before = set(psutil.Process().children(recursive=True))
        self.engine = build(VllmConfig(model=model, dtype=dtype, context_tokens=CONTEXT_TOKENS, enforce_eager=eager))
        self._processes = [child for child in psutil.Process().children(recursive=True) if child not in before]
        self._signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def awake(self) -> Iterator[Engine]:
        """The engine, running for the duration of the block."""
        self._signal(signal.SIGCONT)
        try:
            yield self.engine
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """Shut it down."""
        self._signal(signal.SIGCONT)
        self.engine.close()

    def _signal(self, number: int) -> None:
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one run."""
    torch.set_num_threads(arguments.threads)
    ours = build_ours(
        TransformersConfig(model=arguments.model, dtype=arguments.dtype, device="cpu", context_tokens=CONTEXT_TOKENS)
    )
    slow = build_ours(TransformersConfig(model=arguments.model, dtype=arguments.dtype, device="cpu"))
    slow.loaded.model.set_attn_implementation("sdpa")
    texts = documents(ours, arguments.prompts, arguments.document_tokens)
    prompts, pairs = [TASK + text for text in texts], critic_pairs(ours, texts[: arguments.scored_documents])
    tokens = sum(ours.count_tokens([pair.context + pair.target for pair in pairs]))
    sampling = Sampling(arguments.new_tokens, temperature=0.7, top_p=0.9)
    torch.manual_seed(0)
    tried = {b: plain(slow, prompts[:16], arguments.samples, sampling, b).tokens_per_second for b in BATCHES}
    scored = {b: plain_score(slow, pairs[:32], 1, b).seconds for b in SCORE_BATCHES}
    batch, score_batch = max(tried, key=lambda b: tried[b]), min(scored, key=lambda b: scored[b])
    completing: dict[str, Callable[[], Run]] = {
        f"transformers generate, {batch} sequences": lambda: plain(slow, prompts, arguments.samples, sampling, batch),
        "transformers engine (ours)": lambda: complete(ours, prompts, arguments.samples, sampling),
    }
    scoring: dict[str, Callable[[], Run]] = {
        f"transformers forward, {score_batch} sequences": lambda: plain_score(slow, pairs, tokens, score_batch),
        "transformers engine (ours)": lambda: score(ours, pairs, tokens),
    }
    with contextlib.ExitStack() as stack:
        for name, eager in vllm_kinds(arguments.compiled):
            vllm = Vllm(arguments.model, arguments.dtype, eager)
            stack.callback(vllm.close)
            completing[name] = lambda vllm=vllm: awake(vllm, lambda e: complete(e, prompts, arguments.samples, sampling))  # type: ignore[misc]
            scoring[name] = lambda vllm=vllm: awake(vllm, lambda e: score(e, pairs, tokens))  # type: ignore[misc]
        alternate(completing | {f"score {name}": contender for name, contender in scoring.items()}, 1)  # all warm
        runs = {
            "completion": alternate(completing, arguments.repeats),
            "log-probabilities": alternate(scoring, arguments.repeats),
        }
    return {
        "prompts": len(prompts),
        "pairs": len(pairs),
        "pair_tokens": tokens,
        "tokens_per_second": {
            task: {name: [round(run.tokens_per_second, 1) for run in done] for name, done in by_name.items()}
            for task, by_name in runs.items()
        },
    }


def awake(vllm: Vllm, contender: Callable[[Engine], Run]) -> Run:
    with vllm.awake() as engine:
        return contender(engine)


def vllm_kinds(compiled: bool) -> list[tuple[str, bool]]:
    """(name, eager) of each vLLM to measure; empty if it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        return []
    return [("vLLM, eager", True), *([("vLLM, compiled", False)] if compiled else [])]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--document-tokens", type=int, default=150)
    parser.add_argument("--scored-documents", type=int, default=12)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--compiled", action="store_true", help="measure a compiled vLLM as well; it takes minutes to start")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments)
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{figures['prompts']} prompts x {arguments.samples}, {figures['pairs']} pairs of {figures['pair_tokens']} tokens")
    for task, contenders in figures["tokens_per_second"].items():
        medians = {name: statistics.median(speeds) for name, speeds in contenders.items()}
        print(task)
        for name, speeds in contenders.items():
            share = medians[name] / max(medians.values())
            print(f"  {name:40s} {medians[name]:8.1f} tokens/s ({min(speeds):.1f} to {max(speeds):.1f}), {share:.2f} of the best")


if __name__ == "__main__":
    main()
