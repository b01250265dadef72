"""How many pairs `limbeck check` expects the NLI models to read: against those that a run's filters ask for, and by hand."""

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from helpers.commands import limbeck
from helpers.tiny_classifier import make_classifier
from helpers.tiny_run import recipe as tiny_recipe
from helpers.tiny_run import write_recipe
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.filters.config import PerSource
from limbeck.filters.models.equivalence import EquivalenceConfig, EquivalenceFilter
from limbeck.filters.models.nli import NliConfig
from limbeck.filters.models.premises import most_windows
from limbeck.generators.impossible_distillation.pairs import ParaphraseConfig, pairs_of
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.nli_calls import nli_calls, shown

DOCUMENTS = {"train": 12, "dev": 2, "test": 4, "used": 18, "document_tokens": 0}


class Counting:
    """A classifier that says the same of every pair, and counts them."""

    def __init__(self, entails: float) -> None:
        self.pairs, self._entails = 0, entails

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        self.pairs += len(pairs)
        return np.tile(np.array([self._entails, 1 - self._entails, 0], np.float32), (len(pairs), 1))


@pytest.mark.parametrize("entails", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "settings",
    [{}, {"graph": {}}, {"graph": {"sides": "both"}}, {"only": "forward"}, {"only": "forward", "graph": {"ask": "components"}}],
)
def test_no_source_asks_for_more_than_the_bound(settings: dict[str, Any], entails: float) -> None:
    """Pairs of one context, and outputs of one document; with nothing rejected before the model, the bound is reached."""
    config = EquivalenceConfig.model_validate({**settings, "max_rouge_l": None, "max_character_ratio": None, "min_forward": None})
    config = config.model_copy(update={"min_backward": None})
    sentences = [f"Sentence {'x' * n}." for n in range(6)]
    of_pairs = [(sentences[x], sentences[y]) for x, y in pairs_of(sentences, "both")]
    of_document = [("The document.", sentence) for sentence in sentences]
    bounds = ParaphraseConfig(samples=6).needs
    for pairs, source in (
        (of_pairs, PerSource(bounds.candidates, bounds.texts or 0, 0, 0)),
        (of_document, PerSource(6, 7, 0, 0)),
    ):
        rows = [{"candidate_id": f"c{i}", "source_id": "s", "document": x, "output": y} for i, (x, y) in enumerate(pairs)]
        schema = pa.schema([SCORED_INPUT.field(name) for name in rows[0]])
        counting = Counting(entails)
        EquivalenceFilter(config, counting).score(pa.Table.from_pylist(rows, schema=schema))
        assert 0 < counting.pairs <= config.nli_pairs(source)
        if not settings:
            assert counting.pairs == config.nli_pairs(source) == len({*pairs, *((y, x) for x, y in pairs)})
    assert EquivalenceConfig().nli_pairs(PerSource(30, 6, 0, 0)) == len(list(permutations(sentences, 2)))


def test_windows_of_sentences_are_counted() -> None:
    source = PerSource(candidates=4, texts=5, input_tokens=100, output_tokens=20)
    assert NliConfig().nli_pairs(source) == 4
    assert NliConfig(direction="both").nli_pairs(source) == 8
    assert NliConfig(windows="sentences").nli_pairs(source) == 4 * 13 * 3  # of 8 tokens and more
    assert NliConfig.model_validate({"min_entailment": {"false_acceptance": 0.1}}).nli_pairs(source) == 8
    assert most_windows(100, 50) == 5 and most_windows(0, None) == 1 and most_windows(100, 1) == 13


def test_the_recipe_s_counts_are_those_of_its_rounds_models_and_controls() -> None:
    recipe = recipes.load("paraphrase", overrides=["toy"])
    found = nli_calls(recipe, DOCUMENTS)
    # eight sentences in round 0; four rewritten in round 1, each with one input; three models; copies and mismatched outputs
    train = 12 * (8 * 7) + 12 * (5 * 4)
    held_out = 3 * (2 * 2 + 4 * 2) + 4 * (2 + 2)
    counts = {"train": train, "held_out": held_out, "total": train + held_out}
    assert found == {"equivalence": {"per_source": 56, "per_source_later": 20, **counts}}
    (line,) = shown(found, 2)
    assert line == (
        "estimate: the NLI model of equivalence reads up to 964 pairs of texts: 56 per train source in round 0 and "
        "20 in later ones, 52 for held-out sources"
    )
    assert "round 0" not in shown(nli_calls(recipes.load("documents-qa"), DOCUMENTS), 1)[0]
    assert nli_calls(recipes.load("quickstart"), DOCUMENTS) == {}


def test_check_says_it_in_text_and_as_data(tmp_path: Path) -> None:
    own = {"kind": "nli", "classifier": {"model": str(make_classifier(tmp_path / "nli"))}}
    path = write_recipe(tmp_path, rounds=1, student=None, filters=[*tiny_recipe(tmp_path)["filters"], own])
    said = limbeck("check", path, "--out", tmp_path / "run")
    assert "estimate: the NLI model of nli reads up to " in said.stdout, said.stdout + said.stderr
    data = json.loads(limbeck("check", path, "--out", tmp_path / "run", "--json").stdout)
    counts = data["estimate"]["nli_pairs"]["nli"]
    assert counts["total"] == counts["train"] + counts["held_out"] > 0
    assert counts["train"] == data["documents"]["train"] * counts["per_source"]
