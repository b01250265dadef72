"""Perplexity of a neural model with and without the ∞-gram model on held-out documents, with and without decontamination.

    python -m benchmarks.ngram_perplexity WORK [--tokens 40000]

WORK is a folder made by benchmarks/ngram.py: the index of the corpus is WORK/ours, the documents WORK/corpus/held_out.jsonl,
every second one for validation (λ is fitted on it), the others for the test. Decontaminated is the same index without the
documents of whose 13-grams at least 80 % occur in the evaluated documents, the rule of Liu et al. (2024) for the Pile. That rule
keeps large documents that contain quotations, so both are evaluated on all held-out documents and on the novel ones, of whose own
13-grams less than half occur in the whole corpus.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.index import Index
from limbeck.infinigram.maintain import remove
from limbeck.infinigram.model import contaminated, contaminated_share, fit, perplexity, relative_improvement, sparse_flags

_CHARACTERS = 3000  # of each document, to fit the model's context
_SPLITS = ("validation", "test")

Arrays = dict[str, npt.NDArray[Any]]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--held-out", type=Path, help="WORK/corpus/held_out.jsonl")
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct", help="its tokenizer is the index's")
    parser.add_argument("--tokens", type=int, default=40_000, help="approximate number per split")
    arguments = parser.parse_args()
    work: Path = arguments.work
    index = Index.open(work / "ours")
    texts = chosen(arguments.held_out or work / "corpus" / "held_out.jsonl", index, arguments.tokens)
    ids = {split: [np.array(index.ids(text)) for text in texts[split]] for split in _SPLITS}
    neural = _neural(work / "neural.npz", texts, ids, Engines().get(TransformersConfig(model=arguments.model)))
    number_down = decontaminate(work, [document for split in _SPLITS for document in ids[split]])
    every = {split: np.ones(len(neural[split]), dtype=bool) for split in _SPLITS}
    novel = {split: np.concatenate([_is_novel(index, document) for document in ids[split]]) for split in _SPLITS}
    lines = [
        "| reference data | held out | test tokens | λ sparse, other | sparse positions | neural | with ∞-gram | improvement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, folder in (("all", "ours"), (f"decontaminated ({number_down:,} documents removed)", "decontaminated")):
        scored = infinite(Index.open(work / folder), ids)
        for measured, kept in (("all", every), ("novel", novel)):
            lines.append(f"| {name} | {measured} | {_row(scored, neural, kept)}")
    print("\n".join(lines))


def _is_novel(index: Index, document: Any) -> Any:
    """Whether less than half of a document's 13-grams occur in an index, repeated for each of its tokens."""
    return np.full(len(document), contaminated_share(index, document) < 0.5)


def chosen(held_out: Path, index: Index, tokens: int) -> dict[str, list[str]]:
    """The beginnings of held-out documents, alternately for validation and test, about `tokens` tokens each."""
    texts: dict[str, list[str]] = {split: [] for split in _SPLITS}
    left = dict.fromkeys(_SPLITS, tokens)
    with open(held_out, encoding="utf-8") as lines:
        documents = [json.loads(line)["text"] for line in lines]
    order = np.random.default_rng(0).permutation(len(documents))  # the file is sorted by package
    for turn, number in enumerate(order.tolist()):
        split = _SPLITS[turn % 2]
        if left[split] > 0:
            texts[split].append(documents[number][:_CHARACTERS])
            left[split] -= len(index.ids(texts[split][-1]))
    return texts


def _neural(cache: Path, texts: dict[str, list[str]], ids: dict[str, list[Any]], engine: Engine) -> Arrays:
    """Natural log-probabilities of every token, [tokens] per split; cached in a file, because they take minutes."""
    wanted = {split: sum(map(len, ids[split])) for split in _SPLITS}
    if cache.exists():
        kept = dict(np.load(cache))
        if {split: len(kept[split]) for split in _SPLITS} == wanted:
            return kept
    found = {
        split: np.concatenate(engine.logprobs([Pair("", text) for text in texts[split]])).astype(np.float64) for split in _SPLITS
    }
    assert {split: len(found[split]) for split in _SPLITS} == wanted, "not one log-probability per token"
    np.savez(cache, **found)  # type: ignore[arg-type]
    return found


def infinite(index: Index, ids: dict[str, list[Any]]) -> dict[str, tuple[Any, Any]]:
    """∞-gram probabilities and sparse flags of every token, [tokens] per split."""
    found = {}
    for split in _SPLITS:
        scores = [index.score(document) for document in ids[split]]
        flags = [sparse_flags(index, document, score) for document, score in zip(ids[split], scores, strict=True)]
        found[split] = np.concatenate([score.probabilities for score in scores]), np.concatenate(flags)
    return found


def _row(infinite: dict[str, tuple[Any, Any]], neural: Arrays, kept: Arrays) -> str:
    """Fit on the validation split's kept tokens and evaluate on the test split's."""
    fitted, tested = (
        (neural[split][kept[split]], infinite[split][0][kept[split]], infinite[split][1][kept[split]]) for split in _SPLITS
    )
    weights = fit(*fitted)
    before = perplexity(tested[0])
    after = perplexity(weights.log_probabilities(*tested))
    return (
        f"{len(tested[0]):,} | {weights.sparse:.3f}, {weights.dense:.3f} | {np.mean(tested[2]):.1%} | {before:.2f} | {after:.2f} "
        f"| {relative_improvement(after, before):.1%} |"
    )


def decontaminate(work: Path, evaluation: list[Any]) -> int:
    """Make WORK/decontaminated, unless it exists: links to the index's files and the removed documents; return their number."""
    folder = work / "decontaminated"
    record = work / "decontaminated.json"
    if record.exists():
        return int(json.loads(record.read_text()))
    np.save(work / "evaluation.npy", np.concatenate(evaluation))
    np.save(work / "evaluation.offsets.npy", np.cumsum([0, *map(len, evaluation)]))
    build([work / "evaluation.npy"], work / "evaluation", Settings())
    found = list(contaminated(Index.open(work / "evaluation"), documents_of(work / "ours")))
    folder.mkdir()
    for file in (work / "ours").iterdir():
        if file.is_file():
            os.link(file, folder / file.name)
    remove(folder, found)
    record.write_text(json.dumps(len(found)))
    return len(found)


def documents_of(index: Path) -> Iterator[Any]:
    """The token ids of every document of a single-shard index."""
    tokens = np.memmap(index / "tokenized.0", dtype="<u2", mode="r")
    begins = np.fromfile(index / "offset.0", dtype="<u8").astype(np.int64) // 2
    for begin, end in zip(begins, [*begins[1:], len(tokens)], strict=True):
        yield np.array(tokens[begin + 1 : end])


if __name__ == "__main__":
    main()
