"""The equivalence critic over a real (tiny, random) classifier, from scores to the choice of one of each component."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from helpers.tiny_classifier import make_classifier
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
from limbeck.filters.models.entailment_graph import GraphConfig
from limbeck.filters.models.equivalence import EquivalenceConfig
from limbeck.filters.sets.diversity import DiversityConfig

DOCUMENT = "the cat sat on the mat under the old tree"
OUTPUTS = [
    "the cat sat",
    "a cat sat on the mat",
    "the bird ran",
    "Tom and Ann ran",
    "it was not very new",
    "the old dog",
    "a tree !",
]


@pytest.mark.parametrize("ask", ["edges", "components"])
def test_scores_links_and_choice_are_those_of_one_question_at_a_time(tmp_path: Path, ask: str) -> None:
    config = EquivalenceConfig(
        classifier=ClassifierConfig(model=str(make_classifier(tmp_path / "m")), dtype="float32", device="cpu"),
        graph=GraphConfig(ask=ask, tau=0.8),  # type: ignore[arg-type]
        max_rouge_l=None,
        min_forward=0.5,
        min_backward=None,
    )
    engines = Engines()
    classifier = engines.hold(config.classifier)

    def entails(premise: str, hypothesis: str) -> float:
        return float(classifier.probabilities([(premise, hypothesis)])[0, 0])

    candidates = pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(len(OUTPUTS))],
            "source_id": ["s"] * len(OUTPUTS),
            "document": [DOCUMENT] * len(OUTPUTS),
            "output": OUTPUTS,
        }
    )
    scores = config.build(engines).score(candidates)
    forward, backward = (np.array([entails(*pair[::way]) for pair in ((DOCUMENT, y) for y in OUTPUTS)]) for way in (1, -1))
    np.testing.assert_allclose(scores["forward"].to_numpy(), forward, atol=1e-4)
    np.testing.assert_allclose(scores["backward"].to_numpy(), backward, atol=1e-4)
    passing = [i for i in range(len(OUTPUTS)) if forward[i] >= 0.5]
    assert 2 <= len(passing) < len(OUTPUTS)
    assert [i for i, links in enumerate(scores["entails"].to_pylist()) if links is not None] == passing
    groups = [{i} for i in passing]
    for i, j in itertools.combinations(passing, 2):
        if max(entails(OUTPUTS[i], OUTPUTS[j]), entails(OUTPUTS[j], OUTPUTS[i])) > 0.8:
            one, other = (next(group for group in groups if node in group) for node in (i, j))
            if one is not other:
                one |= other
                groups.remove(other)
    assert sorted(map(len, groups)) == [1, 4]
    joined = candidates.append_column("sample", pa.array(range(len(OUTPUTS)), pa.int32()))
    for name in config.columns:
        joined = joined.append_column(f"equivalence.{name}", scores[name])
    judged = DiversityConfig().build().select(joined.take(passing)).to_pylist()
    kept = {int(row["candidate_id"][2:]) for row in judged if row["reason"] is None}
    assert kept == {max(group, key=lambda i: forward[i] + backward[i]) for group in groups}
