"""Sentences that may follow the same context, measured: how many pairs of them say the same, and how alike are these?

The teacher writes texts after datelines of news. After their first sentence, and after their first five, it draws next sentences
at two temperatures. A pair of them is equivalent if each entails the other (probability at least 0.75). According to Jung et al.
(2024, figure 3), the share of equivalent pairs is higher at T 0.5 than at 1.0, and after five sentences than after one. Intervals
are of a bootstrap over texts; differences are between cells of the same texts.

    python -m benchmarks.paraphrase_pairs [--contexts 100] [--samples 5] [--json]
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Completion, Engine, Request
from limbeck.cluster.engines.scoring_models.classifier import Classifier, ClassifierConfig
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.text.rouge.index import rouge_l
from limbeck.generators.contract import Answer, Draw
from limbeck.generators.impossible_distillation.pairs import ParaphraseConfig
from limbeck.generators.impossible_distillation.texts import (
    SentenceStep,
    Text,
    broken_rule,
    complete_sentences,
    first_sentence,
)
from limbeck.generators.prefixes import news_prefix

ENTAILED = 0.75
LENGTHS, TEMPERATURES = (1, 5), (0.5, 1.0)
BATCH = 50  # texts drawn at a time
MOST_DRAWS = 20  # per context
RESAMPLES = 2000
Floats = npt.NDArray[np.float64]
Cell = tuple[int, float]
"""Sentences of the context, temperature."""


@dataclass(frozen=True)
class Found:
    """The pairs of one context at one temperature: how many, and the ROUGE-L of the equivalent ones."""

    qualifying: int
    pairs: int
    alike: tuple[float, ...]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--nli", default="embedded:nli-minilm")
    parser.add_argument("--contexts", type=int, default=100, help="texts with at least five sentences")
    parser.add_argument("--samples", type=int, default=5, help="next sentences per context and temperature")
    parser.add_argument("--tokens", type=int, default=48, help="of a next sentence, at most; longer ones do not qualify")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    engine, classifier = Engines().get(TransformersConfig(model=arguments.teacher)), ClassifierConfig(model=arguments.nli).load()
    texts, drawn = written(engine, arguments.contexts)
    sentence = ParaphraseConfig().sentence.model_copy(update={"max_new_tokens": arguments.tokens})
    found = {
        cell: measured(
            engine, classifier, texts, cell[0], sentence.model_copy(update={"temperature": cell[1]}), arguments.samples
        )
        for cell in product(LENGTHS, TEMPERATURES)
    }
    figures = {"texts_drawn": drawn, "contexts": len(texts), "samples": arguments.samples, **summary(found)}
    figures["seconds"] = round(time.monotonic() - began)
    print(json.dumps(figures) if arguments.json else shown(figures))


def written(engine: Engine, contexts: int) -> tuple[list[Text], int]:
    """Texts with at least five complete sentences, and how many were drawn for them."""
    sampling, texts, drawn = ParaphraseConfig().text.sampling, list[Text](), 0
    while len(texts) < contexts and drawn < MOST_DRAWS * contexts:
        names = [f"draw {place}" for place in range(drawn, drawn + BATCH)]
        prefixes = {name: news_prefix(Draw(0, 0, name).random("prefix")) for name in names}
        requests = [Request(name, prefixes[name], sampling, derive_seed(0, 0, name, 0)) for name in names]
        done = {completion.request_id: completion.text for completion in engine.complete(requests)}
        found = [Text(complete_sentences(done[name]), prefixes[name]) for name in names]
        texts += [text for text in found if len(text.sentences) >= max(LENGTHS)]
        drawn += BATCH
    return texts[:contexts], drawn


def measured(
    engine: Engine, classifier: Classifier, texts: Sequence[Text], length: int, step: SentenceStep, samples: int
) -> list[Found]:
    """The pairs of each text's context of this length; equal sentences are one."""
    requests = [
        Request(f"{place}/{sample}", text.beginning(length), step.sampling, derive_seed(0, 1, f"draw {place}", length, sample))
        for place, text in enumerate(texts)
        for sample in range(samples)
    ]
    done = {completion.request_id: completion for completion in engine.complete(requests)}
    every = [qualifying([done[f"{place}/{sample}"] for sample in range(samples)]) for place in range(len(texts))]
    pairs = [(place, x, y) for place, sentences in enumerate(every) for x, y in combinations(sentences, 2)]
    asked = [(x, y) for _, x, y in pairs] + [(y, x) for _, x, y in pairs]
    entailed = classifier.probabilities(asked)[:, 0].reshape(2, -1).min(axis=0) >= ENTAILED if pairs else np.zeros(0, bool)
    alike: list[list[float]] = [[] for _ in texts]
    for (place, x, y), equivalent in zip(pairs, entailed.tolist(), strict=True):
        if equivalent:
            alike[place].append(rouge_l(x, y))
    counts = [len(sentences) for sentences in every]
    return [Found(count, count * (count - 1) // 2, tuple(of)) for count, of in zip(counts, alike, strict=True)]


def qualifying(completions: Sequence[Completion]) -> list[str]:
    """The distinct sentences that the generator would pair."""
    sentences: list[str] = []
    for number, completion in enumerate(completions):
        sentence = first_sentence(Answer.of(completion, "sentence", number, 0)).strip()
        if broken_rule(sentence, sentences) is None:
            sentences.append(sentence)
    return sentences


def summary(found: dict[Cell, list[Found]]) -> dict[str, Any]:
    """The figures of every cell, and the differences that the paper predicts to be positive."""
    cells = [
        {
            "sentences": length,
            "temperature": temperature,
            "qualifying": round(float(np.mean([one.qualifying for one in of])), 2),
            "pairs": sum(one.pairs for one in of),
            "equivalent": sum(len(one.alike) for one in of),
            "share": interval([of], difference=False),
            "rouge_l": mean([score for one in of for score in one.alike]),
            "usable": sum(score <= ENTAILED for one in of for score in one.alike),
        }
        for (length, temperature), of in found.items()
    ]
    low, high = TEMPERATURES
    short, long = LENGTHS
    differences = {
        **{f"T {low} - T {high}, {length} sentences": interval([found[length, low], found[length, high]]) for length in LENGTHS},
        **{f"{long} - {short} sentences, T {t}": interval([found[long, t], found[short, t]]) for t in TEMPERATURES},
    }
    return {"cells": cells, "differences": differences}


def mean(scores: Sequence[float]) -> float | None:
    """The mean, or None if there are no scores."""
    return round(float(np.mean(scores)), 3) if scores else None


def interval(cells: Sequence[Sequence[Found]], *, difference: bool = True) -> list[float]:
    """The share of equivalent pairs (of two cells: the difference of theirs), and its bootstrap 95 % interval over contexts."""
    counts = np.array([[(len(one.alike), one.pairs) for one in of] for of in cells], float)  # [cells, contexts, 2]
    rng = np.random.default_rng(0)
    places = rng.integers(0, counts.shape[1], (RESAMPLES, counts.shape[1]))
    shares = [_share(counts.sum(axis=1)), *(_share(counts[:, chosen].sum(axis=1)) for chosen in places)]
    values = np.array([share[0] - share[1] if difference else share[0] for share in shares])
    return [round(float(value), 4) for value in (values[0], *np.quantile(values[1:], (0.025, 0.975)))]


def _share(sums: Floats) -> Floats:
    """Equivalent pairs of all pairs.  # [cells, 2] -> [cells]"""
    shares: Floats = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return shares


def shown(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    lines = [
        f"{figures['texts_drawn']} texts drawn, {figures['contexts']} with {max(LENGTHS)} sentences; {figures['seconds']} s\n",
        "| context | T | qualifying of "
        + str(figures["samples"])
        + " | pairs | equivalent | share (95 %) | their ROUGE-L | ROUGE-L ≤ 0.75 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in figures["cells"]:
        share, low, high = (f"{value:.1%}" for value in cell["share"])
        lines.append(
            f"| {cell['sentences']} | {cell['temperature']} | {cell['qualifying']} | {cell['pairs']:,} | {cell['equivalent']} "
            f"| {share} ({low} to {high}) | {'' if cell['rouge_l'] is None else cell['rouge_l']} | {cell['usable']} |"
        )
    lines += ["", "| difference of shares | (95 %) |", "|---|---|"]
    for name, values in figures["differences"].items():
        share, low, high = (f"{100 * value:+.1f}" for value in values)
        lines.append(f"| {name} | {share} ({low} to {high}) points |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
