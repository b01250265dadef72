"""The bottleneck critic against the paper's four joint probabilities, one sequence at a time."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from helpers import tiny_engines
from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Bound, Filter
from limbeck.filters.models.bottleneck import BottleneckConfig, BottleneckFilter, pairs

SMOLLM = "embedded:smollm2-135m-instruct"
Row = tuple[str, str, str | None]
ROWS: list[Row] = [
    ("Quern reads weather files.\nIt draws “curves”, too.", "Quern draws weather curves.", "The curves can be saved as images."),
    ("Quern reads weather files.\nIt draws “curves”, too.", "It isn’t here.", "The curves can be saved as images."),
    ("A parser of YAML.", "A  parser\nof text.", "Comments are kept, and so is their place."),
    ("Naïve 測試 text.", "Text 😀.", "測試 again!"),
]


def inputs(rows: list[Row]) -> pa.Table:
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(("document", "output"))}
    following = pa.array([row[2] for row in rows], pa.string())
    return pa.table({"candidate_id": [f"id{i}" for i in range(len(rows))], **columns, "following": following})


def naive(folder: Path, row: Row, dtype: torch.dtype = torch.float32) -> float:
    """[log p(s1 s2) - log p(s1)] - [log p(y s2) - log p(y)], each without its first token, whose probability is not defined."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), tiny_engines.plain_model(folder)

    def log_p(text: str) -> float:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            table = torch.log_softmax(model(ids).logits[0].double(), -1)
        return float(table[:-1].gather(-1, ids[0, 1:, None]).sum())

    document, output, following = (text.replace("“", '"').replace("”", '"').replace("’", "'") for text in row if text is not None)
    document, output = " ".join(document.split()), " ".join(output.split())
    kept = log_p(f"{document} {following}") - log_p(document)
    return kept - (log_p(f"{output} {following}") - log_p(output))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
def test_equal_to_the_four_joint_probabilities(kind: str, tmp_path: Path) -> None:
    tiny_engines.save(tmp_path, kind)
    engine = Engines().get(TransformersConfig(model=str(tmp_path), dtype="float32"))
    scores = BottleneckFilter(engine).score(inputs(ROWS)).to_pylist()
    for row, score in zip(ROWS, scores, strict=True):
        assert score["bottleneck_nats"] == pytest.approx(naive(tmp_path, row), abs=1e-4)
        difference = score["log_p_following_given_document"] - score["log_p_following_given_output"]
        assert score["bottleneck_nats"] == pytest.approx(difference)
        assert score["following_tokens"] == len((" " + (row[2] or "")).encode())  # the tokenizer's tokens are bytes


@pytest.mark.model
def test_equal_to_the_four_joint_probabilities_of_a_real_model() -> None:
    engine = Engines().get(TransformersConfig(model=SMOLLM, dtype="float32"))
    scores = BottleneckFilter(engine).score(inputs(ROWS))["bottleneck_nats"].to_pylist()
    assert scores == pytest.approx([naive(resolve(SMOLLM), row) for row in ROWS], abs=1e-3)  # sums of some -100 nats
    assert scores[0] < scores[1]  # the output that names the curves foresees them


def test_quotes_and_white_space_are_normalised() -> None:
    assert pairs({"document": " “A”\n\n’b’ ", "output": "‘c’", "following": "„d‟ "}) == (
        Pair("\"A\" 'b'", ' "d"'),
        Pair("'c'", ' "d"'),
    )


def test_the_documents_term_is_asked_once() -> None:
    engine = ScriptedEngine()
    BottleneckFilter(engine).score(inputs([("Doc.", output, "Next one.") for output in ("A.", "B.", "A.")]))
    assert len(engine.pairs) == 3


@pytest.mark.parametrize("following", [None, "", " \n"])
def test_where_nothing_follows_nothing_is_lost(following: str | None) -> None:
    engine = ScriptedEngine()
    (row,) = BottleneckFilter(engine).score(inputs([("Doc.", "Out.", following)])).to_pylist()
    assert not engine.pairs
    assert row["bottleneck_nats"] == 0.0 and row["following_tokens"] == 0
    assert math.isnan(row["log_p_following_given_document"]) and math.isnan(row["log_p_following_given_output"])


def test_one_candidate_that_cannot_be_scored_costs_one_row() -> None:
    def measure(pair: Pair) -> list[float]:
        if "long" in pair.context:
            return [math.nan]
        return [-1.0] * (len(pair.target.split()) - ("merged" in pair.context))

    rows: list[Row] = [
        ("Doc.", "Good.", "Two words."),
        ("A long one.", "Out.", "Two words."),
        ("Doc.", "It merged.", "Two words."),
    ]
    scores = BottleneckFilter(ScriptedEngine(measure=measure)).score(inputs(rows))["bottleneck_nats"].to_pylist()
    assert scores[0] == 0.0 and math.isnan(scores[1]) and math.isnan(scores[2])
    assert BottleneckFilter(ScriptedEngine()).score(inputs([])).num_rows == 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tiny_engines.save(tmp_path_factory.mktemp("tiny"), "gpt2")
    return Engines().get(TransformersConfig(model=str(folder), dtype="float32"))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(*[st.text(max_size=30)] * 3), max_size=3))
def test_any_text_gets_a_score_or_a_nan(tiny: Engine, rows: list[Row]) -> None:
    scores = BottleneckFilter(tiny).score(inputs([*rows, ("x" * 100_000, "", "Next.")]))
    assert scores.num_rows == len(rows) + 1
    assert np.isnan(scores["bottleneck_nats"].to_numpy()[-1])


def test_an_empty_output_loses_all_that_the_document_tells(tiny: Engine) -> None:
    (row,) = BottleneckFilter(tiny).score(inputs([("Doc.", "", "Next.")])).to_pylist()
    assert math.isfinite(row["bottleneck_nats"]) and row["following_tokens"] == len(" Next.")


def test_the_config() -> None:
    class Provider:
        def get(self, config: TransformersConfig) -> Engine:
            assert config == TransformersConfig(model="some/model")
            return ScriptedEngine()

    config = BottleneckConfig(engine=TransformersConfig(model="some/model"))
    assert isinstance(config.build(Provider()), Filter)  # type: ignore[arg-type]
    assert config.models == {"engine.model": "some/model"}
    reason = "the output loses what the text behind the document depends on"
    assert config.bounds == (Bound("bottleneck_nats", maximum=6.0, reason=reason),)
    with pytest.raises(LimbeckError, match="filter bottleneck has no engine"):
        BottleneckConfig().build(Provider())  # type: ignore[arg-type]
