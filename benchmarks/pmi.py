"""PMI scoring against the naive computation: same model, dtype, documents and candidates, in one run.

The naive one is the obvious implementation: for each candidate and each of the four terms, one sequence through the model, a
log-softmax over the whole vocabulary at every position, and a sum over the target's tokens. If no model is named, the masked
forms run a model of the size of t5-small or of a six-layer BERT, with random weights: they cost what trained ones cost. Their
candidates are sentences of the documents.

    python -m benchmarks.pmi [--form causal|t5|bert] [--dtype float32] [--documents 8] [--json]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.cluster.engines.scoring_models.masked import Infill, MaskedConfig, MaskedModel
from limbeck.corpus.schemas import SCORED_INPUT, SOURCES
from limbeck.corpus.sentences import split_sentences
from limbeck.corpus.source_kinds import PackagesSources
from limbeck.corpus.sources import read_sources
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.models.masked_pmi import TERMS as MASKED_TERMS
from limbeck.filters.models.masked_pmi import MaskedPmiFilter
from limbeck.filters.models.masked_pmi import terms as masked_terms
from limbeck.filters.models.pmi import TERMS, PmiFilter, terms
from limbeck.generators.runner import Runner
from limbeck.generators.summaries import SummariesConfig


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", default="causal", choices=["causal", "t5", "bert"])
    parser.add_argument(
        "--model", default="embedded:smollm2-135m-instruct", help="model of the causal form; counts the documents' tokens"
    )
    parser.add_argument("--masked-model", help="a T5 or BERT-like model; default: one with random weights")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--document-tokens", type=int, default=150)
    parser.add_argument("--candidates", type=int, default=8, help="per document")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:>28}  {value}" for name, value in figures.items()))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one run."""
    if arguments.form == "causal":
        config = TransformersConfig(model=arguments.model, dtype=arguments.dtype)
        engine = Engines().get(config)
        candidates = sampled_candidates(arguments, engine)
        filter_, naive, usage = PmiFilter(engine), Naive(config), engine.usage
    else:
        candidates = sentence_candidates(arguments)
        with tempfile.TemporaryDirectory() as folder:
            model = arguments.masked_model or str(random_model(Path(folder), arguments.form, candidates))
            loaded = MaskedConfig(model=model, dtype=arguments.dtype).load()
        filter_, naive, usage = MaskedPmiFilter(loaded), NaiveMasked(loaded), loaded.usage
    filter_.score(candidates.slice(0, 1))  # warm up both
    naive.score(candidates.slice(0, 1))
    forwarded, naive.forwarded_tokens = usage.forwarded_tokens, 0
    scored, expected, seconds, naive_seconds = [], [], [], []
    for group in by_document(candidates):  # alternating, so that load affects both alike
        clock = time.perf_counter()
        scored.append(filter_.score(group))
        seconds.append(time.perf_counter() - clock)
        clock = time.perf_counter()
        expected.append(naive.score(group))
        naive_seconds.append(time.perf_counter() - clock)
    return {
        "form": arguments.form,
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
        "filter_forwarded_tokens": usage.forwarded_tokens - forwarded,
        **differences(pa.concat_tables(scored), np.concatenate(expected), TERMS if arguments.form == "causal" else MASKED_TERMS),
    }


def by_document(candidates: pa.Table) -> list[pa.Table]:
    """The candidates of each document."""
    ids = candidates["source_id"].to_pylist()
    return [candidates.filter(pa.array([id_ == source for id_ in ids])) for source in dict.fromkeys(ids)]


def differences(scores: pa.Table, expected: npt.NDArray[np.float64], terms: Sequence[str] = TERMS) -> dict[str, float]:
    """The largest deviation of the filter from the naive computation: in nats, as a share of the term, and in the final score."""
    found = np.stack([scores[term].to_numpy() for term in terms], axis=1)
    return {
        "max_difference_nats": float(np.abs(found - expected).max()),
        "max_difference_share": float(np.abs(found / expected - 1).max()),
        "max_difference_pmi": float(np.abs(scores["pmi"].to_numpy() - pmi(expected)).max()),
    }


def sampled_candidates(arguments: argparse.Namespace, engine: Engine) -> pa.Table:
    """Non-empty outputs of the model itself about installed packages, with the columns of SCORED_INPUT."""
    sources = read_packages(arguments)
    runner = Runner(SummariesConfig(samples=arguments.candidates).build(), 0, 0)
    candidates = runner.run(sources, {"teacher": engine})
    return scored_input(sources, candidates.to_pylist())


def sentence_candidates(arguments: argparse.Namespace) -> pa.Table:
    """The document's own sentences and its reference as outputs, which need no model."""
    sources = read_packages(arguments)
    rows = []
    for source in sources.to_pylist():
        outputs = [source["reference"] or "", *split_sentences(source["document"])][: arguments.candidates]
        for number, output in enumerate(outputs):
            known = {"candidate_id": f"{source['source_id']}-{number}", "source_id": source["source_id"], "sample": number}
            rows.append({**known, "output": output, "output_tokens": len(output.split())})
    return scored_input(sources, rows)


def read_packages(arguments: argparse.Namespace) -> pa.Table:
    """Descriptions of installed packages, as the columns of SOURCES."""
    settings = {
        "kind": "installed-packages",
        "max_documents": arguments.documents,
        "max_source_tokens": arguments.document_tokens,
        "split": {"train": arguments.documents, "dev": 0, "test": 0},
    }
    sources = read_sources(PackagesSources.model_validate(settings), Tokenizer.load(resolve(arguments.model)), seed=0)
    return sources.filter(pa.array([reason is None for reason in sources["reason"].to_pylist()]))


def scored_input(sources: pa.Table, candidates: list[dict[str, Any]]) -> pa.Table:
    """Each non-empty candidate with its source."""
    columns = ["source_id", *(name for name in SCORED_INPUT.names if name in SOURCES.names and name != "source_id")]
    by_id = {row["source_id"]: row for row in sources.select(columns).to_pylist()}
    rows = [row | by_id[row["source_id"]] for row in candidates if row["output"]]
    return pa.Table.from_pylist(rows, schema=SCORED_INPUT)


class Naive:
    """One sequence at a time."""

    def __init__(self, config: TransformersConfig) -> None:
        """Load the model with transformers."""
        folder = resolve(config.model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, config.dtype)).eval()
        self.forwarded_tokens = 0

    def score(self, candidates: pa.Table) -> npt.NDArray[np.float64]:
        """Return the four summed log-probabilities of each candidate.  # [candidates, 4]"""
        return np.array([[self.log_p(pair) for pair in terms(row)] for row in candidates.to_pylist()])

    @torch.inference_mode()
    def log_p(self, pair: Pair) -> float:
        """The summed log-probability [nats] of the target's selected tokens given the context."""
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


class NaiveMasked:
    """One sequence at a time through the plain model."""

    def __init__(self, loaded: MaskedModel) -> None:
        """Share the weights, since a second copy would only use memory."""
        self.tokenizer, self.model = loaded.tokenizer, loaded.model
        self.forwarded_tokens = 0

    def score(self, candidates: pa.Table) -> npt.NDArray[np.float64]:
        """Return the four summed log-probabilities of each candidate.  # [candidates, 4]"""
        rows = candidates.to_pylist()
        asked = [masked_terms(row, row["document"], output_masks=2) for row in rows]
        return np.array([[sum(self.log_p(infill) for infill in term) for term in four] for four in asked])

    @torch.inference_mode()
    def log_p(self, infill: Infill) -> float:
        """The summed log-probability [nats] of the hidden tokens."""
        encoded = self.tokenizer(infill.text, add_special_tokens=False, return_offsets_mapping=True)
        tokens = encoded["input_ids"]
        hidden = [any(a < end and b > start for start, end in infill.spans) for a, b in encoded["offset_mapping"]]
        before = self.tokenizer(infill.condition, add_special_tokens=False)["input_ids"]
        fill = self._infill if self.model.config.is_encoder_decoder else self._cloze
        logits, places = fill(before, tokens, hidden)
        logprobs = torch.log_softmax(logits.float(), dim=-1)  # [tokens, vocabulary]
        return sum(float(logprobs[place, tokens[i]]) for i, place in places.items())

    def _cloze(self, before: list[int], tokens: list[int], hidden: list[bool]) -> tuple[torch.Tensor, dict[int, int]]:
        first, last, mask = (getattr(self.tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask"))
        head = [first, *before, last] if before else [first]
        row = [*head, *(mask if hide else token for token, hide in zip(tokens, hidden, strict=True)), last]
        segments = [0] * len(head) + [int(bool(before))] * (len(tokens) + 1)
        self.forwarded_tokens += len(row)
        logits = self.model(input_ids=torch.tensor([row]), token_type_ids=torch.tensor([segments])).logits[0]
        return logits, {i: len(head) + i for i in range(len(tokens)) if hidden[i]}

    def _infill(self, before: list[int], tokens: list[int], hidden: list[bool]) -> tuple[torch.Tensor, dict[int, int]]:
        row, labels, places = list(before), list[int](), dict[int, int]()
        sentinels = iter(range(100))
        for i, token in enumerate(tokens):
            if hidden[i] and (i == 0 or not hidden[i - 1]):
                sentinel = self.tokenizer.convert_tokens_to_ids(f"<extra_id_{next(sentinels)}>")
                row.append(sentinel)
                labels.append(sentinel)
            if hidden[i]:
                places[i] = len(labels)
            (labels if hidden[i] else row).append(token)
        row.append(self.tokenizer.eos_token_id)
        self.forwarded_tokens += len(row) + len(labels)
        return self.model(input_ids=torch.tensor([row]), labels=torch.tensor([labels])).logits[0], places


def random_model(folder: Path, form: str, candidates: pa.Table) -> Path:
    """Save a model with random weights, and a byte-level tokenizer of the candidates' texts."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *(f"<extra_id_{number}>" for number in range(100))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(candidates["document"].to_pylist() + candidates["output"].to_pylist(), trainer)
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "eos_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **names).save_pretrained(folder)
    torch.manual_seed(0)
    if form == "t5":
        model = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0))  # its defaults are t5-small's
    else:
        model = BertForMaskedLM(BertConfig(num_hidden_layers=6))
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def pmi(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of faithfulness and saliency.  # [candidates, 4] -> [candidates]"""
    faithfulness = (sums[:, 0] - sums[:, 1]) / -sums[:, 1]
    saliency = (sums[:, 2] - sums[:, 3]) / -sums[:, 3]
    mean: npt.NDArray[np.float64] = (faithfulness + saliency) / 2
    return mean


if __name__ == "__main__":
    main()
