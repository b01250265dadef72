"""What scores can be: every score is in the range that its column declares, and a text that is missing shows as declared.

A bound beyond a range, or on a text that no row has, would reject every row; `limbeck check` refuses it before anything is spent.
"""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers import tiny_engines, tiny_masked
from helpers.tiny_classifier import make_classifier
from helpers.tiny_encoder import make_encoder
from limbeck.cluster.engines.model_cache import Engines
from limbeck.corpus.config import MOST_SAMPLES
from limbeck.corpus.schemas import OTHERS, SCORED_INPUT
from limbeck.filters.config import FilterConfig
from limbeck.filters.sets.pass_rate import PassRateConfig
from limbeck.filters.sets.vote import VoteConfig
from limbeck.infinigram.build import Settings, build
from limbeck.pipelines.recipe import Recipe  # adds the kinds

DOCUMENT = "Quern reads 3 weather files. It draws maps. It is free."
OUTPUTS = (
    "Quern reads weather files.", "", "A cat sat on the mat. " * 4, "write to ada@analytical.org, darn it", "Réponse: 42",
    "- a\n- b\n- b…", DOCUMENT, "{ lorem ipsum }", "天气文件。天气文件。", "###", "7",
)  # fmt: skip
OTHER_DOCUMENTS = ["Bread is baked in ovens.", "Ferries leave twice a week."]
GIVEN = {"judge": {"compare": "reference"}, "nli": {"direction": "both"}}
KINDS = sorted(kind for kind, config in FilterConfig.kinds.items() if config.limit_fields())
assert Recipe


@pytest.fixture(scope="module")
def engines() -> Engines:
    return Engines(keep=8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranges")
    tiny_engines.save(folder / "model", "llama")
    tiny_masked.save(folder / "masked", "bert")
    make_classifier(folder / "classifier")
    make_encoder(folder / "encoder")
    (folder / "words.txt").write_text("darn\n")
    (folder / "corpus.jsonl").write_text(json.dumps({"text": DOCUMENT}))
    build([folder / "corpus.jsonl"], folder / "index", Settings(tokenizer="bytes"))
    return folder


def config_of(kind: str, home: Path, **changes: Any) -> FilterConfig:
    """A filter of this kind on tiny models, measuring all that it can."""
    engine = {"kind": "transformers", "model": str(home / "model"), "dtype": "float32"}
    models: dict[str, Any] = {
        "engine": engine,
        "classifier": {"model": str(home / "classifier")},
        "masked": {"model": str(home / "masked")},
        "encoder": {"model": str(home / "encoder")},
        "words": str(home / "words.txt"),
        "index": str(home / "index"),
    }
    made = FilterConfig.kinds[kind]
    given = {key: value for key, value in models.items() if key in made.model_fields} | GIVEN.get(kind, {})
    found: FilterConfig = made.model_validate({**given, **changes})  # type: ignore[assignment]
    return found


def rows(document: str | None = DOCUMENT, reference: str | None = "It is 42.") -> pa.Table:
    given = {
        "source_id": "s", "group": "g", "prompt": "Summarise the text.", "finish_reason": "stop", "seed": 7,
        "document": document, "reference": reference, "document_tokens": len(document or ""),
        "salient": [0, 5, 12, 19] if document else [], "following": "It is fast.",
    }  # fmt: skip
    table = [{**given, "candidate_id": f"c{at}", "output": text, "output_tokens": len(text)} for at, text in enumerate(OUTPUTS)]
    names = [*given, "candidate_id", "output", "output_tokens"]
    fields = [SCORED_INPUT.field(name).with_nullable(True) for name in names]
    return pa.Table.from_pylist(table, schema=pa.schema(fields)).append_column(
        OTHERS, pa.array([OTHER_DOCUMENTS] * len(table), OTHERS.type)
    )


def scores(config: FilterConfig, engines: Engines, table: pa.Table) -> dict[str, list[float | None]]:
    found = config.build(engines).score(table)
    return {name: found[name].to_pylist() for name in found.column_names if pa.types.is_floating(found[name].type)}


def is_scored(score: float | None) -> bool:
    return score is not None and math.isfinite(score)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_in_the_ranges_of_their_columns(kind: str, home: Path, engines: Engines) -> None:
    config = config_of(kind, home)
    found = scores(config, engines, rows())
    for column, (lowest, highest) in config.ranges.items():
        finite = [score for score in found.get(column, []) if score is not None and is_scored(score)]
        assert all(lowest <= score <= highest for score in finite), (column, finite)
    declared = {key.split("_", 1)[1] for key in config.limit_fields()} & set(found)
    assert any(is_scored(score) for column in declared for score in found[column])


@pytest.mark.parametrize("text", ["document", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_text_exactly_the_declared_columns_cannot_pass(kind: str, text: str, home: Path, engines: Engines) -> None:
    config = config_of(kind, home)
    with_output = pc.field("output") != ""
    found = scores(config, engines, rows(**{text: None if text == "reference" else ""}).filter(with_output))
    usual = scores(config, engines, rows().filter(with_output))
    for column in {key.split("_", 1)[1] for key in config.limit_fields()} & set(found):
        worst = config.ranges.get(column, (math.nan, math.nan))[0]
        if config.texts.get(column) == text:
            assert all(score == worst or not is_scored(score) for score in found[column]), column
        else:
            assert [is_scored(score) for score in found[column]] == [is_scored(score) for score in usual[column]], column


@pytest.mark.parametrize(
    ("kind", "bounds", "problem"),
    [
        ("answer", {"min_correct": 2.0}, "min_correct is 2, but correct is 1 at most, so it rejects every row; lower it"),
        ("heuristics", {"max_copied": -0.1}, "max_copied is -0.1, but copied is 0 at least, so it rejects every row; raise it"),
        ("nli", {"min_entailment": 75.0}, "min_entailment is 75, but entailment is 1 at most"),
        ("privacy", {"max_found": -1.0}, "max_found is -1, but found is 0 at least"),
        ("grade", {"min_score": 6.0}, "min_score is 6, but score is 5 at most"),
        ("embedding", {"min_similarity": 0.8, "max_similarity": 0.3}, "min_similarity 0.8 is above max_similarity 0.3"),
        ("length", {"min_output_tokens": 9.0, "max_output_tokens": 4.0}, "min_output_tokens 9 is above max_output_tokens 4"),
    ],
)
def test_bounds_that_no_score_passes_are_refused(kind: str, bounds: dict[str, float], problem: str, home: Path) -> None:
    with pytest.raises(ValidationError, match=problem.replace(".", r"\.")):
        config_of(kind, home, **bounds)


@pytest.mark.parametrize(("kind", "bounds"), [("answer", {"min_correct": 1.0}), ("heuristics", {"max_copied": 0.0})])
def test_bounds_at_the_end_of_a_range_are_not(kind: str, bounds: dict[str, float], home: Path) -> None:
    assert config_of(kind, home, **bounds).bounds


RATES = st.integers(0, 40).map(lambda n: n / 40)


@given(RATES, RATES, st.sampled_from(["correct", "all"]))
def test_the_least_samples_of_a_pass_rate_by_counting(one: float, other: float, keep: str) -> None:
    low, high = sorted((one, other))
    found = PassRateConfig(min_rate=low, max_rate=high, keep=keep).least_samples  # type: ignore[arg-type]
    first = 0 if keep == "all" else 1
    kept = (size for size in range(1, 200) if any(low <= right / size <= high for right in range(first, size + 1)))
    expected = next(kept, None)
    if expected is not None:
        assert found == expected
    else:
        assert found == MOST_SAMPLES + 1 and Fraction(high) == 0


def test_votes_need_as_many_samples() -> None:
    assert VoteConfig(min_votes=3).least_samples == 3
    assert VoteConfig().least_samples == 1
