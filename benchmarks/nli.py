"""NLI scoring against the `transformers` pipeline at its best batch size: same model, pairs, dtype and threads, in one run.

The pairs are like those of a pool: descriptions of installed packages, each with several candidate sentences. Inputs are sorted
by length for the pipeline too, every batch size is tried first on a sample, and the best one is measured, alternating with ours.
Weights are random (they do not affect the time); the sizes are those of the named models.

    python benchmarks/nli.py [--sizes tiny minilm base] [--dtypes float32 bfloat16] [--seconds 20] [--json]
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)
from transformers import logging as transformers_logging

from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.scoring_models.classifier import LABELS, Classifier, ClassifierConfig
from limbeck.corpus.packages import read_packages
from limbeck.corpus.sentences import split_sentences

Pairs = list[tuple[str, str]]

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--candidates", type=int, default=8, help="per document")
    parser.add_argument("--document-words", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=20, help="time of the pipeline, for each model and dtype")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    pairs = pool(arguments)
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), size)
            for dtype in arguments.dtypes:
                figures = {"model": size, "dtype": dtype} | measure(folder, dtype, pairs, arguments)
                print(json.dumps(figures) if arguments.json else "  ".join(f"{name} {value}" for name, value in figures.items()))


def pool(arguments: argparse.Namespace) -> Pairs:
    """Documents of installed packages, each with sentences of its own and of others as candidates, shuffled."""
    generator = np.random.default_rng(0)
    documents = [" ".join(row.text.split()[: arguments.document_words]) for row in read_packages() if len(row.text.split()) > 40]
    documents = documents[: arguments.documents]
    sentences = [sentence for document in documents for sentence in split_sentences(document) if 5 <= len(sentence.split()) <= 30]
    pairs = [
        (document, str(sentence))
        for document in documents
        for sentence in generator.choice(sentences, arguments.candidates, replace=False)
    ]
    return [pairs[place] for place in generator.permutation(len(pairs))]


def make(folder: Path, size: str) -> None:
    """Save a model of that size with random weights, and the tokenizer of the packaged encoder (base: RoBERTa's)."""
    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded:all-minilm-l6-v2"))
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.model_max_length = 512
    names = dict(enumerate(LABELS))
    settings = SIZES[size] | {"vocab_size": len(tokenizer), "id2label": names, "label2id": {v: k for k, v in names.items()}}
    if size == "base":
        model = RobertaForSequenceClassification(
            RobertaConfig(max_position_embeddings=514, type_vocab_size=2, pad_token_id=0, **settings)
        )
    else:
        model = BertForSequenceClassification(BertConfig(**settings))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(folder: str, dtype: str, pairs: Pairs, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one model and dtype."""
    ours = ClassifierConfig(model=folder, dtype=dtype, device="cpu").load()
    theirs = pipeline("text-classification", model=folder, dtype=getattr(torch, dtype), device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ordered = sorted(pairs, key=lambda pair: -len(tokenizer(*pair)["input_ids"]))
    budget = arguments.seconds / (arguments.rounds + 2)
    sample = spread(ordered, 16)
    run_pipeline(theirs, sample[:2], 2)  # warm up both
    ours.probabilities(sample[:2])
    rate = len(sample) / timed(lambda: run_pipeline(theirs, sample, 8))[0]
    trial = spread(ordered, int(np.clip(rate * budget / len(BATCH_SIZES), 16, len(ordered))))
    rates = {size: len(trial) / timed(lambda size=size: run_pipeline(theirs, trial, size))[1] for size in BATCH_SIZES}
    best = max(rates, key=rates.__getitem__)
    measured = spread(ordered, int(np.clip(rate * budget, 16, len(ordered))))
    shuffled = [measured[place] for place in np.random.default_rng(1).permutation(len(measured))]
    ours.probabilities(shuffled)  # compiles every kernel, as after the first part of a pool
    seconds = np.array(  # alternating, so that load affects both alike  # [rounds, theirs and ours, wall and processor]
        [
            [timed(lambda: run_pipeline(theirs, measured, best)), timed(lambda: ours.probabilities(shuffled))]
            for _ in range(arguments.rounds)
        ]
    )
    ratios = seconds[:, 0] / seconds[:, 1]  # [rounds, wall and processor]
    difference = np.abs(run_pipeline(theirs, measured, best) - ours.probabilities(measured)).max()
    wall = seconds.mean(axis=0)[:, 0]
    return {
        "threads": arguments.threads,
        "pairs": len(measured),
        "tokens_a_pair": round(tokens_of(ours, measured) / len(measured), 1),
        "best_batch_size": best,
        "pipeline_pairs_per_second": round(len(measured) / float(wall[0]), 1),
        "pairs_per_second": round(len(measured) / float(wall[1]), 1),
        "ratio": round(float(ratios[:, 0].mean()), 2),
        "ratio_range": [round(float(ratios[:, 0].min()), 2), round(float(ratios[:, 0].max()), 2)],
        "processor_ratio": round(float(ratios[:, 1].mean()), 2),
        "processor_ratio_range": [round(float(ratios[:, 1].min()), 2), round(float(ratios[:, 1].max()), 2)],
        "max_difference": float(difference),
    }


def run_pipeline(theirs: Any, pairs: Pairs, batch_size: int) -> np.ndarray:
    """The pipeline's probabilities, in the order of LABELS.  # [pairs, 3]"""
    given = [{"text": premise, "text_pair": hypothesis} for premise, hypothesis in pairs]
    found = theirs(given, batch_size=batch_size, top_k=None, truncation="only_first", max_length=512)
    return np.array([[next(one["score"] for one in row if one["label"] == label) for label in LABELS] for row in found])


def tokens_of(ours: Classifier, pairs: Pairs) -> int:
    """The number of tokens of the pairs, including the template's."""
    before = ours.usage.forwarded_tokens
    ours.probabilities(pairs)
    return ours.usage.forwarded_tokens - before


def spread(pairs: Pairs, number: int) -> Pairs:
    """`number` pairs evenly spread over the lengths, in order."""
    return [pairs[place] for place in np.linspace(0, len(pairs) - 1, number).astype(int)]


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds; the latter are more reliable on a busy machine, with one thread."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


if __name__ == "__main__":
    main()
