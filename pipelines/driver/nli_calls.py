"""How many pairs of texts a run's natural-language-inference models read at most: the largest cost of filters that have one."""

import math
from collections.abc import Mapping
from typing import Any

from limbeck.filters.config import PerSource
from limbeck.generators.contract import GeneratorConfig, Needs
from limbeck.pipelines.recipe import Recipe

ONE_OUTPUT = ("first-sentence", "document")
"""The controls that have one output per source; the others have those of the teacher."""


def nli_calls(recipe: Recipe, documents: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """By filter, upper bounds of the pairs that it reads; filters without such a model are left out.

    `per_source` and `per_source_later` are those of a train source in round 0 and in later rounds, `train` and `held_out`
    those of all rounds, models and controls, `total` their sum. `documents`: the number of sources per split, and the tokens of
    all documents. A filter that skips rows reads fewer.
    """
    length = math.ceil(documents["document_tokens"] / max(1, documents["used"]))
    first, later = (_of_train(recipe.generator_of(number), length) for number in (0, 1))
    answers = recipe.asked.sampling.max_new_tokens
    invented = answers if recipe.asked.invents_inputs else 0
    test, dev = (
        PerSource(samples, samples + 1, max(length, invented), answers)
        for samples in (recipe.evaluation.samples, recipe.evaluation.dev_samples)
    )
    models = recipe.rounds + 1 if recipe.students else 1
    single = [name for name in recipe.asked.controls if name in ONE_OUTPUT]
    found = {}
    for filter_ in recipe.filters:
        each, each_later = filter_.nli_pairs(first), filter_.nli_pairs(later)
        train = documents["train"] * (each + (recipe.rounds - 1) * each_later)
        of_one = filter_.nli_pairs(PerSource(1, 2, test.input_tokens, max(answers, length)))
        controls = len(single) * of_one + (len(recipe.asked.controls) - len(single)) * filter_.nli_pairs(test)
        held_out = models * documents["dev"] * filter_.nli_pairs(dev)
        held_out += documents["test"] * (models * filter_.nli_pairs(test) + controls)
        if train + held_out:
            counts = {"train": train, "held_out": held_out, "total": train + held_out}
            found[filter_.name] = {"per_source": each, "per_source_later": each_later, **counts}
    return found


def _of_train(generator: GeneratorConfig, length: int) -> PerSource:
    needs: Needs = generator.needs
    texts = 1 + needs.candidates if needs.texts is None else needs.texts
    return PerSource(needs.candidates, texts, max(length, needs.new_tokens if generator.adds else 0), needs.new_tokens)


def shown(calls: Mapping[str, Mapping[str, Any]], rounds: int) -> list[str]:
    """The counts in sentences, one per filter."""
    return [
        f"estimate: the NLI model of {name} reads up to {counts['total']:,} pairs of texts: "
        f"{counts['per_source']:,} per train source"
        + (f" in round 0 and {counts['per_source_later']:,} in later ones" if rounds > 1 else "")
        + f", {counts['held_out']:,} for held-out sources"
        for name, counts in calls.items()
    ]
