"""The masked form of the PMI critic: its arithmetic on made-up log-probabilities, and whole scores against naive ones."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.tiny_masked import KINDS, SENTENCES, Naive, save
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.masked import Infill, MaskedConfig
from limbeck.corpus.salience import STOP_WORDS
from limbeck.corpus.text.words import WORD
from limbeck.filters.config import Cost, FalseAcceptance
from limbeck.filters.contract import Filter
from limbeck.filters.models.masked_pmi import TERMS, MaskedPmiConfig, MaskedPmiFilter, hidden_words


class Scripted:
    """A masked model of words: -1 a hidden word behind a condition, -2 without one; room for `context_tokens` words."""

    def __init__(self, context_tokens: int = 1000) -> None:
        self.asked: list[Infill] = []
        self.usage = Usage()
        self.context_tokens = context_tokens

    def logprobs(self, infills: Sequence[Infill]) -> list[Any]:
        self.asked += infills
        for infill in infills:
            assert len(infill.text.split()) + len(infill.condition.split()) <= self.context_tokens
        return [np.full(len(infill.spans), -1.0 if infill.condition else -2.0, np.float32) for infill in infills]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def room(self, tokens: int) -> int:
        return self.context_tokens - tokens

    def shortened(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[: max(0, tokens)])


def inputs(outputs: list[str], documents: list[str], salient: list[list[int]] | None = None) -> pa.Table:
    spans = salient or [[match.start(), match.end()] for document in documents for match in list(WORD.finditer(document))[:1]]
    return pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(len(outputs))],
            "source_id": [f"s{documents.index(document)}" for document in documents],
            "group": [f"s{documents.index(document)}" for document in documents],
            "document": documents,
            "output": outputs,
            "salient": pa.array(spans, pa.list_(pa.int32())),
            "output_tokens": pa.array([len(output.split()) for output in outputs], pa.int32()),
            "document_tokens": pa.array([len(document.split()) for document in documents], pa.int32()),
        }
    )


def test_the_four_terms_and_what_follows_from_them() -> None:
    model = Scripted()
    table = inputs(["It  reads\nweather files."], ["Quern reads weather files well."], [[0, 5, 12, 19]])
    (row,) = MaskedPmiFilter(model).score(table).to_pylist()
    document, output = "Quern reads weather files well.", "It reads weather files."
    reads_files, weather = ((3, 8), (17, 22)), ((9, 16),)
    assert [output[a:b] for a, b in reads_files + weather] == ["reads", "files", "weather"]
    assert set(model.asked) == {
        Infill(document, output, reads_files),
        Infill(document, output, weather),
        Infill("", output, reads_files),
        Infill("", output, weather),
        Infill(output, document, ((0, 5), (12, 19))),
        Infill("", document, ((0, 5), (12, 19))),
    }
    assert row == {
        "candidate_id": "id0",
        "faithfulness": 0.5,
        "saliency": 0.5,
        "pmi": 0.5,
        "log_p_hidden_output_given_document": -3.0,
        "log_p_hidden_output": -6.0,
        "log_p_salient_given_output": -2.0,
        "log_p_salient": -4.0,
        "brevity": 0.8,
    }


@given(st.text(), st.integers(1, 5))
def test_every_content_word_is_hidden_once(output: str, masks: int) -> None:
    found = hidden_words(output, masks)
    spans = [span for mask in found for span in mask]
    words = [(match.start(), match.end()) for match in WORD.finditer(output)]
    assert len(spans) == len(set(spans)) and set(spans) <= set(words)
    assert len(found) <= masks and all(found) and bool(spans) == bool(words)
    assert max(map(len, found), default=0) - min(map(len, found), default=0) <= 1
    content = {(a, b) for a, b in words if output[a:b].lower().replace("’", "'") not in STOP_WORDS}
    assert set(spans) == (content or set(words))


def test_what_cannot_be_scored_costs_one_row() -> None:
    outputs = ["", " \n ", "Reads files.", "Reads files.", "... !!", "long " * 60]
    documents = ["Quern reads."] * 3 + ["Quern draws."] + ["Quern reads."] * 2
    salient = [[0, 5], [0, 5], [0, 5], [], [0, 5], [0, 5]]
    rows = MaskedPmiFilter(Scripted(50)).score(inputs(outputs, documents, salient)).to_pylist()
    assert [row["faithfulness"] for row in rows[:4]] == [0.0, 0.0, 0.5, 0.5]
    assert [row["saliency"] for row in rows[:3]] == [0.0, 0.0, 0.5]
    assert math.isnan(rows[3]["saliency"]) and math.isnan(rows[3]["pmi"])
    assert math.isnan(rows[4]["faithfulness"]) and rows[4]["saliency"] == 0.5
    assert all(math.isnan(rows[5][column]) for column in ("faithfulness", "saliency", "pmi")) and rows[5]["brevity"] == 30
    assert rows[0]["brevity"] == 0
    assert MaskedPmiFilter(Scripted(), null=True).score(inputs([], [])).num_rows == 0


def test_a_long_document_is_cut_alike_in_all_terms() -> None:
    model = Scripted(10)
    document = "Quern reads weather files " + "and more " * 20 + "Zebra"
    table = inputs(["A reader."], [document], [[0, 5, len(document) - 5, len(document)]])
    (row,) = MaskedPmiFilter(model).score(table).to_pylist()
    cut = "Quern reads weather files and more and more"
    assert {infill.text for infill in model.asked} | {infill.condition for infill in model.asked} == {cut, "A reader.", ""}
    assert row["saliency"] == 0.5 and row["log_p_salient"] == -2.0  # "Zebra" is cut off


def test_the_null_shares_what_it_can() -> None:
    outputs, documents = ["Reads files.", "Draws curves.", ""], ["Quern reads.", "Zebra draws.", "Gnu counts."]
    plain, model = Scripted(), Scripted()
    own = MaskedPmiFilter(plain).score(inputs(outputs, documents))
    scores = MaskedPmiFilter(model, null=True).score(inputs(outputs, documents))
    assert scores.select(own.column_names) == own
    extra = set(model.asked) - set(plain.asked)
    assert sum(bool(infill.condition) for infill in extra) == 2 * 3  # two masks of each output, and the other document
    assert len(extra) <= 2 * 3 + 1  # and the document whose own output is empty
    rows = scores.to_pylist()
    assert [row["faithfulness_null"] for row in rows[:2]] == [0.5, 0.5] and rows[0]["brevity_null"] == 1.0
    assert all(math.isnan(rows[2][column]) for column in ("faithfulness_null", "saliency_null", "brevity_null"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save(tmp_path_factory.mktemp("masked") / kind, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_naive_computation(kind: str, folders: dict[str, Path]) -> None:
    model = MaskedConfig(model=str(folders[kind]), dtype="float32", batch_tokens=300).load()
    naive = Naive(folders[kind], kind)
    outputs = ["Quern draws the weather.", "A parser of comments.", "It counts requests.", "YAML"]
    documents = [SENTENCES[0], SENTENCES[1], SENTENCES[2], SENTENCES[1]]
    salient = [[0, 5, 12, 19], [2, 6, 17, 21], [4, 11, 12, 17], [2, 6, 17, 21]]
    table = MaskedPmiFilter(model, null=True).score(inputs(outputs, documents, salient))
    for row, output, document, edges in zip(table.to_pylist(), outputs, documents, salient, strict=True):
        masks = hidden_words(output, 2)
        spans = list(zip(edges[::2], edges[1::2], strict=True))
        expected = [
            sum(sum(naive.logprobs(document, output, mask)) for mask in masks),
            sum(sum(naive.logprobs("", output, mask)) for mask in masks),
            sum(naive.logprobs(output, document, spans)),
            sum(naive.logprobs("", document, spans)),
        ]
        np.testing.assert_allclose([row[term] for term in TERMS], expected, rtol=0, atol=1e-4)
        assert row["faithfulness"] == pytest.approx((expected[0] - expected[1]) / -expected[1], abs=1e-5)
        assert row["saliency"] == pytest.approx((expected[2] - expected[3]) / -expected[3], abs=1e-5)
        assert math.isfinite(row["faithfulness_null"]) and math.isfinite(row["saliency_null"])


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_gets_a_score_or_a_nan(kind: str, folders: dict[str, Path]) -> None:
    model = MaskedConfig(model=str(folders[kind]), dtype="float32").load()
    hostile = ["x" * 100_000, "\x00\u202e שלום", "<extra_id_0> [MASK] <mask> </s>", "測試" * 500, "a b " * 3000, "😀" * 10]
    table = MaskedPmiFilter(model, null=True).score(inputs(hostile, hostile[1:] + hostile[:1], [[0, 1]] * len(hostile)))
    assert table.num_rows == len(hostile)
    alone = MaskedPmiFilter(model).score(inputs([SENTENCES[0]], [SENTENCES[1] * 40], [[2, 6]]))
    assert np.isfinite(alone["pmi"].to_numpy()).all()


def test_the_config_builds_with_the_model_it_names() -> None:
    class Provider:
        def hold(self, config: MaskedConfig) -> Scripted:
            assert config == MaskedConfig(model="some/model")
            return Scripted()

    config = MaskedPmiConfig(masked=MaskedConfig(model="some/model"), min_faithfulness=0.3, max_brevity=None)
    filter_ = config.build(Provider())  # type: ignore[arg-type]
    assert isinstance(filter_, Filter)
    assert [(b.column, b.minimum, b.calibrate) for b in filter_.bounds] == [
        ("faithfulness", 0.3, None),
        ("saliency", None, "minimum"),
    ]
    assert [bound.column for bound in MaskedPmiConfig().bounds] == ["faithfulness", "saliency", "brevity"]
    assert all(bound.reason for bound in MaskedPmiConfig().bounds) and MaskedPmiConfig.cost == Cost.MODEL
    assert config.models == {"masked.model": "some/model"}
    assert MaskedPmiConfig(max_brevity=FalseAcceptance(false_acceptance=0.1)).needs_null
