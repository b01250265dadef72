"""PMI scoring against the naive computation: same model, dtype, documents and candidates, in one run.

The naive one is what a person would write first: for each candidate and each of the four terms, one sequence through the model, a
log-softmax over the whole vocabulary at every place, and a sum over the target's tokens.

    python benchmarks/pmi.py [--dtype float32] [--documents 8] [--json]
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.engines.config import TransformersConfig
from cluster.engines.models import resolve
from cluster.engines.protocol import Engine, Pair
from cluster.engines.provider import Engines
from corpus.schemas import SCORED_INPUT, SOURCES
from corpus.sources import PackagesSources, read_sources
from corpus.tokenizer import Tokenizer
from filters.pmi import PmiFilter, terms
from generators.summaries import SummariesConfig

TERMS = ["log_p_output_given_document", "log_p_output", "log_p_salient_given_output", "log_p_salient"]


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--document-tokens", type=int, default=150)
    parser.add_argument("--candidates", type=int, default=8, help="of each document")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:>28}  {value}" for name, value in figures.items()))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one run."""
    config = TransformersConfig(model=arguments.model, dtype=arguments.dtype)
    engine = Engines().get(config)
    candidates = sampled_candidates(arguments, engine)
    filter_ = PmiFilter(engine)
    naive = Naive(config)
    filter_.score(candidates.slice(0, 1))  # both warm
    naive.score(candidates.slice(0, 1))
    forwarded, naive.forwarded_tokens = engine.usage.forwarded_tokens, 0
    scored, expected, seconds, naive_seconds = [], [], [], []
    for group in by_document(candidates):  # in turns, so that a busy machine slows both alike
        clock = time.perf_counter()
        scored.append(filter_.score(group))
        seconds.append(time.perf_counter() - clock)
        clock = time.perf_counter()
        expected.append(naive.score(group))
        naive_seconds.append(time.perf_counter() - clock)
    return {
        "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
        "documents": len(scored),
        "document_tokens_at_most": arguments.document_tokens,
        "candidates": candidates.num_rows,
        "naive_seconds": round(sum(naive_seconds), 2),
        "filter_seconds": round(sum(seconds), 2),
        "ratio": round(sum(naive_seconds) / sum(seconds), 2),
        "ratio_of_medians": round(float(np.median(naive_seconds) / np.median(seconds)), 2),
        "naive_forwarded_tokens": naive.forwarded_tokens,
        "filter_forwarded_tokens": engine.usage.forwarded_tokens - forwarded,
        **differences(pa.concat_tables(scored), np.concatenate(expected)),
    }


def by_document(candidates: pa.Table) -> list[pa.Table]:
    """The candidates of each document."""
    ids = candidates["source_id"].to_pylist()
    return [candidates.filter(pa.array([id_ == source for id_ in ids])) for source in dict.fromkeys(ids)]


def differences(scores: pa.Table, expected: npt.NDArray[np.float64]) -> dict[str, float]:
    """How far the filter is from the naive computation, at most: in nats, as a share of the term, and in the final score."""
    found = np.stack([scores[term].to_numpy() for term in TERMS], axis=1)
    return {
        "max_difference_nats": float(np.abs(found - expected).max()),
        "max_difference_share": float(np.abs(found / expected - 1).max()),
        "max_difference_pmi": float(np.abs(scores["pmi"].to_numpy() - pmi(expected)).max()),
    }


def sampled_candidates(arguments: argparse.Namespace, engine: Engine) -> pa.Table:
    """Non-empty outputs of the model itself about installed packages, with the columns of SCORED_INPUT."""
    settings = {
        "kind": "installed-packages",
        "max_documents": arguments.documents,
        "max_source_tokens": arguments.document_tokens,
        "split": {"train": arguments.documents, "dev": 0, "test": 0},
    }
    sources = read_sources(PackagesSources.model_validate(settings), Tokenizer.load(resolve(arguments.model)), seed=0)
    sources = sources.filter(pa.array([reason is None for reason in sources["reason"].to_pylist()]))
    candidates = SummariesConfig(samples=arguments.candidates).build(run_seed=0, round=0).generate(sources, engine)
    columns = ["source_id", *(name for name in SCORED_INPUT.names if name in SOURCES.names and name != "source_id")]
    by_id = {row["source_id"]: row for row in sources.select(columns).to_pylist()}
    rows = [row | by_id[row["source_id"]] for row in candidates.to_pylist() if row["output"]]
    return pa.Table.from_pylist(rows, schema=SCORED_INPUT)


class Naive:
    """One sequence at a time."""

    def __init__(self, config: TransformersConfig) -> None:
        """Load the model the plain way."""
        folder = resolve(config.model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, config.dtype)).eval()
        self.forwarded_tokens = 0

    def score(self, candidates: pa.Table) -> npt.NDArray[np.float64]:
        """Return the four summed log-probabilities of each candidate.  # [candidates, 4]"""
        return np.array([[self.log_p(pair) for pair in terms(row)] for row in candidates.to_pylist()])

    @torch.inference_mode()
    def log_p(self, pair: Pair) -> float:
        """The summed log-probability [nats] of the target's wanted tokens given the context."""
        encoded = self.tokenizer(pair.context + pair.target, return_offsets_mapping=True, return_tensors="pt")
        tokens = encoded["input_ids"]  # [1, tokens]
        self.forwarded_tokens += tokens.shape[1]
        logprobs = torch.log_softmax(self.model(tokens).logits[0].float(), dim=-1)  # [tokens, vocabulary]
        begin = len(pair.context)
        total = 0.0
        for place, (start, end) in enumerate(encoded["offset_mapping"][0].tolist()):
            spans = pair.spans or ((0, len(pair.target)),)
            if end > begin and any(start - begin < b and end - begin > a for a, b in spans):
                total += float(logprobs[place - 1, tokens[0, place]])
        return total


def pmi(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of faithfulness and saliency.  # [candidates, 4] -> [candidates]"""
    faithfulness = (sums[:, 0] - sums[:, 1]) / -sums[:, 1]
    saliency = (sums[:, 2] - sums[:, 3]) / -sums[:, 3]
    mean: npt.NDArray[np.float64] = (faithfulness + saliency) / 2
    return mean


if __name__ == "__main__":
    main()
