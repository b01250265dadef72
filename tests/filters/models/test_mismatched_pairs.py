"""Every filter that scores mismatched pairs, on the candidates of a split cut into parts of different sizes."""

import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.run_folder import candidates, sources
from helpers.scripted_engine import ScriptedEngine
from helpers.tiny_encoder import make_encoder
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.protocol import Pair, Usage
from limbeck.cluster.engines.scoring_models.classifier import Predictions
from limbeck.cluster.engines.scoring_models.encoder import EncoderConfig
from limbeck.cluster.engines.scoring_models.masked import Infill
from limbeck.corpus.parts import part_names, read_parts, write_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.filters.config import FilterConfig
from limbeck.filters.models.embedding import EmbeddingConfig
from limbeck.filters.models.masked_pmi import MaskedPmiConfig
from limbeck.filters.models.nli import NliConfig
from limbeck.filters.models.pmi import PmiConfig
from limbeck.pipelines.driver import jobs
from limbeck.pipelines.driver.jobs import ScoreJob
from limbeck.pipelines.recipe import FilterConfig as Family

SOURCES_COUNT, SAMPLES = 11, 3


def overlap(one: str, other: str) -> float:
    """The share of the words of `other` that are also in `one`."""
    words = other.lower().split()
    return len(set(words) & set(one.lower().split())) / max(1, len(words))


class Masked:
    """A masked model whose log-probability follows the words that text and condition share."""

    usage = Usage()

    def logprobs(self, infills: list[Infill]) -> list[Any]:
        return [pa.array([-2.0 + overlap(i.condition, i.text)] * len(i.spans)).to_numpy() for i in infills]

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def room(self, tokens: int) -> int:
        return 1000


class Classifier:
    """Entails by shared words."""

    usage, two_class = Usage(), False

    def predict(self, pairs: list[tuple[str, str]]) -> Predictions:
        shares = [overlap(*pair) for pair in pairs]
        found = pa.array([[share, (1 - share) / 2, (1 - share) / 2] for share in shares], pa.list_(pa.float32(), 3))
        return Predictions(found.flatten().to_numpy().reshape(-1, 3), pa.array([0] * len(pairs), pa.int32()).to_numpy())


def measure(pair: Pair) -> list[float]:
    """Log-probabilities that follow the words that context and target share."""
    count = len(pair.spans) if pair.spans is not None else len(pair.target.split())
    return [-2.0 + overlap(pair.context, pair.target)] * count


class Models:
    """What a worker holds."""

    def __init__(self, folder: Path) -> None:
        self.encoder = EncoderConfig(model=str(make_encoder(folder))).load()

    def get(self, config: Any) -> Any:
        return ScriptedEngine(measure=measure)

    def hold(self, config: Any) -> Any:
        return {"EncoderConfig": self.encoder, "MaskedConfig": Masked(), "ClassifierConfig": Classifier()}[type(config).__name__]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("encoder") / "model")


RATE = {"false_acceptance": 0.1}
FILTERS: dict[str, tuple[FilterConfig, list[str]]] = {
    "pmi": (PmiConfig(engine=TransformersConfig(model="m"), null=True), ["faithfulness_null", "saliency_null"]),
    "pmi-calibrated": (PmiConfig(engine=TransformersConfig(model="m")), ["faithfulness_null", "saliency_null"]),
    "masked_pmi": (MaskedPmiConfig(null=True), ["faithfulness_null", "saliency_null", "brevity_null"]),
    "nli": (NliConfig.model_validate({"min_entailment": RATE}), ["entailment_null", "neutral_null", "contradiction_null"]),
    "nli-calibrated": (NliConfig.model_validate({"min_entailment": "calibrated"}), ["entailment_null"]),
    "embedding": (EmbeddingConfig(), ["similarity_null"]),
}


def test_no_filter_with_a_null_is_missing_here() -> None:
    here = {filter_.kind for filter_, _ in FILTERS.values()}
    assert here == {name for name, kind in Family.kinds.items() if issubclass(kind, FilterConfig) and kind.nullable}


def scored(folder: Path, filter_: FilterConfig, models: Models, rows_per_part: int) -> dict[str, dict[str, Any]]:
    """Candidate → its scores, of a split in parts of that many sources, scored in an arbitrary order."""
    split = sources("train", SOURCES_COUNT)
    drawn = candidates(split, SAMPLES, 0)
    write_parts(folder / "sources", split, rows_per_part, SOURCES)
    write_parts(folder / "candidates", drawn, rows_per_part * SAMPLES, CANDIDATES)
    job = ScoreJob("s", folder / "sources", folder / "candidates", folder / "out", filter_, nulls=filter_.nulls)
    names = part_names(folder / "candidates")
    for part in random.Random(rows_per_part).sample(names, len(names)):
        job.publish(part, job.compute(part, 0, job.rows(part), models))  # type: ignore[arg-type]
    return {row["candidate_id"]: row for row in read_parts(folder / "out").to_pylist()}


@pytest.mark.parametrize("name", FILTERS)
def test_scores_do_not_depend_on_the_size_of_parts(name: str, tmp_path: Path, models: Models) -> None:
    filter_, columns = FILTERS[name]
    small, large = (scored(tmp_path / str(size), filter_, models, size) for size in (2, 32))
    assert small.keys() == large.keys() and len(small) == SOURCES_COUNT * SAMPLES
    for id_, row in small.items():
        numbers = [column for column, value in row.items() if isinstance(value, float | list)]
        assert set(columns) <= set(numbers)
        for column in numbers:
            assert row[column] == pytest.approx(large[id_][column], abs=1e-5), (id_, column)
        assert not any(math.isnan(row[column]) for column in columns), row
    alone = scored(tmp_path / "one", filter_, models, 1)  # a part without any other document in it
    for id_, row in alone.items():
        assert row[columns[0]] == pytest.approx(large[id_][columns[0]], abs=1e-5)


@pytest.mark.parametrize(("pairs", "expected"), [(5, 5), (25, 22), (1000, 33)])
def test_some_pairs_are_enough_to_check_a_calibrated_bound(
    pairs: int, expected: int, tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About `MISMATCHED_PAIRS`, of as many sources as possible, the same for every size of parts."""
    filter_ = FILTERS["pmi-calibrated"][0]
    assert filter_.nulls == "some"
    monkeypatch.setattr(jobs, "MISMATCHED_PAIRS", pairs)
    by_size = []
    for size in (1, 4, 32):
        rows = scored(tmp_path / str(size), filter_, models, size)
        by_size.append({id_ for id_, row in rows.items() if not math.isnan(row["faithfulness_null"])})
        assert not any(math.isnan(row["faithfulness"]) for row in rows.values())
    assert by_size[0] == by_size[1] == by_size[2] and len(by_size[0]) == expected
    assert len({id_.rsplit("-", 1)[0] for id_ in by_size[0]}) == min(pairs, SOURCES_COUNT)


def test_no_pairs_are_scored_where_no_bound_needs_them(tmp_path: Path, models: Models) -> None:
    fixed = PmiConfig(engine=TransformersConfig(model="m"), min_faithfulness=0.2, min_saliency=0.1)
    assert fixed.nulls == "none"
    rows = scored(tmp_path, fixed, models, 4)
    assert not any(name.endswith("_null") for row in rows.values() for name in row)
