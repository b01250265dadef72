"""The fluency critic against transformers' own loss of the whole text, one at a time."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AutoTokenizer

from helpers import tiny_engines
from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.protocol import Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.text.invisible import is_blank
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.contract import Bound, Filter
from limbeck.filters.models.fluency import FluencyConfig, FluencyFilter, end_token

SMOLLM = "embedded:smollm2-135m-instruct"
ROWS = [
    ("Quern reads weather files.\nIt draws curves, too.", "Quern draws the weather."),
    ("A parser of YAML.", "A  parser\nof text, that"),
    ("A parser of YAML.", "x"),
    ("Well, naïve 測試 text.", "Text 😀."),
]


def inputs(rows: list[tuple[str, str]]) -> pa.Table:
    columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(("document", "output"))}
    return pa.table({"candidate_id": [f"id{i}" for i in range(len(rows))], **columns})


def save(folder: Path, kind: str, *, begins: bool) -> Path:
    """A tiny model; with `begins` its tokenizer puts a beginning token before every text."""
    tiny_engines.save(folder, kind)
    if begins:
        tokenizer = tiny_engines.tokenizer()
        template = processors.TemplateProcessing(
            single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[("<|im_start|>", 256)]
        )
        tokenizer.backend_tokenizer.post_processor = template
        tokenizer.save_pretrained(folder)
    return folder


def naive(folder: Path, text: str, end: str) -> float:
    """The mean loss [nats] of all tokens but the first and a beginning token, as transformers reports it."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), tiny_engines.plain_model(folder)
    ids = tokenizer(text)["input_ids"] + [tokenizer.convert_tokens_to_ids(end)]
    labels = [-100, -100, *ids[2:]] if ids[0] == tokenizer.bos_token_id else ids  # the loss leaves out the first of all
    with torch.no_grad():
        return float(model(torch.tensor([ids]), labels=torch.tensor([labels])).loss)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
@pytest.mark.parametrize("begins", [False, True])
def test_equal_to_the_loss_of_the_whole_text(kind: str, begins: bool, tmp_path: Path) -> None:
    config = FluencyConfig(engine=TransformersConfig(model=str(save(tmp_path, kind, begins=begins)), dtype="float32"))
    scores = config.build(Engines()).score(inputs(ROWS)).to_pylist()
    for (document, output), score in zip(ROWS, scores, strict=True):
        expected = [naive(tmp_path, text, tiny_engines.END) for text in (" ".join(output.split()), document)]
        assert [score["output_nats_per_token"], score["document_nats_per_token"]] == pytest.approx(expected, abs=1e-4)
        assert score["fluency"] == pytest.approx(expected[0] / expected[1], abs=1e-4)


@pytest.mark.model
def test_equal_to_the_loss_of_a_real_model_and_broken_text_reads_worse() -> None:
    config = FluencyConfig(engine=TransformersConfig(model=SMOLLM, dtype="float32"))
    document = "Quern reads weather files and draws their curves. It runs on every platform and needs no other library."
    rows = [(document, "Quern draws curves of the weather."), (document, "Quern curves weather of the draws.")]
    scores = config.build(Engines()).score(inputs(rows)).to_pylist()
    for (text, output), score in zip(rows, scores, strict=True):
        expected = naive(resolve(SMOLLM), output, "<|im_end|>") / naive(resolve(SMOLLM), text, "<|im_end|>")
        assert score["fluency"] == pytest.approx(expected, abs=1e-3)
    assert scores[0]["fluency"] < scores[1]["fluency"]


def test_each_distinct_text_is_asked_once(tmp_path: Path) -> None:
    engine = ScriptedEngine(measure=lambda pair: [-2.0, -4.0] if "Doc" in pair.context + pair.target else [-1.5])
    tokenizer = Tokenizer.load(save(tmp_path, "llama", begins=False))
    table = inputs([("Doc.", "A."), ("Doc.", "B."), ("Doc.", " A.\n")])
    scores = FluencyFilter(engine, tokenizer, "<end>").score(table).to_pylist()
    assert engine.pairs == [Pair("A", ".<end>"), Pair("B", ".<end>"), Pair("D", "oc.<end>")]  # its tokens are bytes
    assert scores[0] == {"candidate_id": "id0", "fluency": 0.5, "output_nats_per_token": 1.5, "document_nats_per_token": 3.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FluencyFilter:
    folder = save(tmp_path_factory.mktemp("tiny"), "gpt2", begins=False)
    return FluencyConfig(engine=TransformersConfig(model=str(folder), dtype="float32")).build(Engines())


def test_what_cannot_be_scored_costs_one_row(tiny: FluencyFilter) -> None:
    rows = [("Doc.", ""), ("", "Out."), ("Doc.", " \n"), ("x" * 100_000, "Out."), ("Doc.", "Out.")]
    scores = tiny.score(inputs(rows))["fluency"].to_pylist()
    assert [math.isnan(score) for score in scores] == [True, True, True, True, False]
    assert tiny.score(inputs([])).num_rows == 0


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=3))
def test_any_text_gets_a_score_or_a_nan(tiny: FluencyFilter, rows: list[tuple[str, str]]) -> None:
    for (document, output), score in zip(rows, tiny.score(inputs(rows))["fluency"].to_pylist(), strict=True):
        assert math.isfinite(score) == (not is_blank(document) and not is_blank(output))


@pytest.mark.parametrize(
    ("tokenizer_config", "config", "expected"),
    [
        ({"eos_token": "<|im_end|>"}, {}, "<|im_end|>"),
        ({"eos_token": {"content": "<|im_end|>"}}, {}, "<|im_end|>"),
        ({}, {"eos_token_id": 257}, "<|im_end|>"),
        ({"eos_token": None}, {"eos_token_id": [256, 257]}, "<|im_start|>"),
        ({}, {}, None),
        ({"eos_token": "<unknown>"}, {}, None),
    ],
)
def test_the_end_token(tokenizer_config: object, config: object, expected: str | None, tmp_path: Path) -> None:
    tiny_engines.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (tmp_path / "config.json").write_text(json.dumps(config))
    if expected is None:
        with pytest.raises(LimbeckError, match="names no end token"):
            end_token(Tokenizer.load(tmp_path))
    else:
        assert end_token(Tokenizer.load(tmp_path)) == expected


def test_the_config(tiny: FluencyFilter) -> None:
    assert isinstance(tiny, Filter)
    assert tiny.bounds == (Bound("fluency", calibrate="maximum", reason="the output reads worse than its document"),)
    assert FluencyConfig(max_fluency=None).bounds == () and FluencyConfig().models == {}
    with pytest.raises(LimbeckError, match="filter fluency has no engine"):
        FluencyConfig().build(Engines())
    assert np.isfinite(tiny.score(inputs(ROWS))["fluency"].to_numpy()).all()
