"""The model card of a trained NLI critic: what it is, what it was made from, how good it is, and what it is not."""

from collections.abc import Mapping
from typing import Any

_CARD = """---
base_model: {encoder}
pipeline_tag: text-classification
tags: [natural-language-inference, limbeck]
---

# A small NLI critic

A sentence encoder ({encoder}) fine-tuned to say whether a premise **entails** a hypothesis, is **neutral** to it, or
**contradicts** it. It was made by `limbeck critic train-nli` for pipelines that must run offline.

## What it was made from

{total:,} pairs made by rule from {documents:,} documents ({corpus}); no annotated data, no other model. Each rule changes a
sentence so that the label is certain: a clause, a modifier or a member of a list dropped (entailed), other words for the same
(entailed), the verb denied, a number, a name or an opposite exchanged (contradicted), content spliced in, the drop turned round,
another sentence (neutral). Exchanged names count as contradictions where the sentence has room for one name.

{made}

{epochs} epochs, learning rate {learning_rate:g}, batches of {batch}, seed {seed}; AdamW on float32 weights; the last loss was
{final_loss}; {train_seconds:.0f} s.

## How good it is

Accuracy on {test_pairs} pairs written by hand on everyday subjects, none of which was trained on, beside a bag-of-words baseline
(softmax regression on shared and unshared words, overlap and negation) that was fitted on the same made pairs.

{quality}

{held_out}

## What it is not

- No substitute for a model trained on annotated inference data: it knows the changes above, and little about the world.
  Hypernyms, paraphrase by other than the listed words, and what follows by common sense were not taught.
- It has seen premises of one to three sentences. For long documents use windows of sentences.
- English only. Its probabilities are not calibrated: choose limits on your own data.
"""


def model_card(figures: Mapping[str, Any]) -> str:
    """Return the card as Markdown, from what `limbeck.filters.nli_model.training.train_nli` returns."""
    training = figures["training"]
    made = figures["pairs"]
    held = figures.get("held_out")
    return _CARD.format(
        encoder=figures["encoder"].removeprefix("embedded:"),
        corpus=figures["corpus"],
        documents=figures["documents"],
        total=sum(sum(phenomena.values()) for phenomena in made.values()),
        made=_table(
            ("label", "phenomenon", "pairs"),
            [(label, phenomenon, f"{pairs:,}") for label, phenomena in made.items() for phenomenon, pairs in phenomena.items()],
        ),
        epochs=training["epochs"],
        learning_rate=training["learning_rate"],
        batch=training["batch"],
        seed=training["seed"],
        final_loss=figures["final_loss"],
        train_seconds=figures["train_seconds"],
        test_pairs=figures["test"]["pairs"],
        quality=quality_table(figures["test"], figures["baseline"]),
        held_out=f"On {held['pairs']} pairs made from documents that were held out: {held['accuracy']:.1%}." if held else "",
    )


def quality_table(test: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> str:
    """Return accuracy by label and phenomenon, beside a baseline's on the same pairs where one is given, as a Markdown table."""
    columns = [test] if baseline is None else [test, baseline]
    rows: list[tuple[Any, ...]] = [("**all**", "", test["pairs"], *(f"{one['accuracy']:.1%}" for one in columns))]
    for label in test["by_label"]:
        found = [[row for row in one["by_phenomenon"] if row["label"] == label] for one in columns]
        pairs = sum(row["pairs"] for row in found[0])
        rows.append((f"**{label}**", "", pairs, *(f"{one['by_label'][label]:.1%}" for one in columns)))
        for kinds in zip(*found, strict=True):
            rows.append(("", kinds[0]["phenomenon"], kinds[0]["pairs"], *(f"{kind['accuracy']:.0%}" for kind in kinds)))
    return _table(("label", "phenomenon", "pairs", "accuracy", "bag of words")[: 3 + len(columns)], rows)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
