"""Sentence encoders, against one text at a time and against sentence-transformers; and the filter over them."""

import json
import math
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from transformers import AutoModel, PreTrainedTokenizerFast

from helpers.tiny_encoder import make_encoder, sentence
from limbeck.cluster.engines.scoring_models.encoder import Encoder, EncoderConfig, batches, pooling
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.config import Cost
from limbeck.filters.contract import Filter
from limbeck.filters.models.embedding import EmbeddingConfig, EmbeddingFilter
from limbeck.filters.sets.duplicates import DuplicatesConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return EncoderConfig(model=str(folder), device="cpu", batch_tokens=512).load()


def alone(folder: Path, text: str, pooled: str = "mean", max_tokens: int = 64) -> np.ndarray:
    """The vector of one text by itself, with a mask, as the model's card says."""
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer([text], return_tensors="pt", truncation=True, max_length=max_tokens)
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state[0]
    vector = hidden[0] if pooled == "first" else hidden.mean(dim=0)
    return (vector / vector.norm()).numpy()


@pytest.mark.parametrize(("kind", "pooled"), [("bert", "mean"), ("bert", "first"), ("mpnet", "mean")])
def test_batches_equal_one_text_at_a_time(tmp_path: Path, kind: str, pooled: str) -> None:
    made = make_encoder(tmp_path, kind, pooled)
    texts = ["", "bar", *(sentence(i, i % 40 + 1) for i in range(60)), "bar", "δ ☃ \u202e", sentence(1, 3000)]
    vectors = EncoderConfig(model=str(made), device="cpu", batch_tokens=512).load().encode(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (len(texts), 24)
    assert np.abs(vectors - [alone(made, text, pooled) for text in texts]).max() < 1e-4
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_equal_texts_are_encoded_once_and_usage_counts_no_padding(encoder: Encoder) -> None:
    before = encoder.usage.forwarded_tokens
    vectors = encoder.encode(["bar dat", "bar", "bar dat"])
    assert np.array_equal(vectors[0], vectors[2])
    tokens = [len(encoder._tokenizer(text)["input_ids"]) for text in ("bar dat", "bar")]
    assert encoder.usage.forwarded_tokens - before == sum(tokens)
    assert encoder.encode([]).shape == (0, 24)
    assert encoder.usage.model_seconds > 0 and encoder.usage.load_seconds > 0


@given(st.lists(st.integers(1, 300), max_size=400), st.integers(8, 5000))
@settings(max_examples=100, deadline=None)
def test_batches_hold_each_row_once_and_little_padding(lengths: list[int], batch_tokens: int) -> None:
    made = list(batches(lengths, batch_tokens))
    assert sorted(place for batch in made for place in batch) == list(range(len(lengths)))
    for batch in made:
        widths = [lengths[place] for place in batch]
        assert len(batch) == 1 or max(widths) * len(batch) <= batch_tokens
        tokens, padded = sum(widths[:-1]), max(widths) * len(batch)
        assert padded - sum(widths) <= padded / 16 or tokens < 512


def test_the_limit_is_the_least_of_what_is_said(tmp_path: Path) -> None:
    made = make_encoder(tmp_path, max_tokens=70)
    assert EncoderConfig(model=str(made)).load().max_tokens == 70
    assert EncoderConfig(model=str(made), max_tokens=16).load().max_tokens == 16
    assert EncoderConfig(model=str(made), max_tokens=500).load().max_tokens == 80  # what the positions allow
    (made / "sentence_bert_config.json").unlink()
    assert EncoderConfig(model=str(made)).load().max_tokens == 80


def test_ways_of_pooling(tmp_path: Path) -> None:
    assert pooling(tmp_path) == "mean"
    (tmp_path / "1_Pooling").mkdir()
    config = tmp_path / "1_Pooling/config.json"
    for stated, expected in (
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
    ):
        config.write_text(json.dumps(stated))
        assert pooling(tmp_path) == expected
    config.write_text(json.dumps({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}))
    with pytest.raises(LimbeckError, match="uses max_tokens and mean_tokens pooling; use one with mean or cls pooling"):
        pooling(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]))
    with pytest.raises(LimbeckError, match="has an unsupported Dense layer"):
        pooling(tmp_path)
    (tmp_path / "modules.json").write_text("[{")
    with pytest.raises(LimbeckError, match="is not valid JSON"):
        pooling(tmp_path)


def test_a_model_that_is_no_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="nowhere does not exist"):
        EncoderConfig(model=str(tmp_path / "nowhere")).load()
    made = make_encoder(tmp_path / "m")
    (made / "config.json").write_text('{"model_type": "not-a-model"}')
    with pytest.raises(LimbeckError, match="cannot be loaded as an encoder"):
        EncoderConfig(model=str(made)).load()


def candidates(outputs: list[str | None], documents: list[str | None]) -> pa.Table:
    return pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(len(outputs))],
            "source_id": [f"s{i:02d}" for i in range(len(outputs))],
            "sample": pa.array(range(len(outputs)), pa.int32()),
            "output": pa.array(outputs, pa.string()),
            "document": pa.array(documents, pa.string()),
        }
    )


def test_similarity_is_the_cosine_with_the_document_and_with_another(encoder: Encoder) -> None:
    documents = [sentence(i // 2, 30) for i in range(6)]
    outputs = [sentence(i, 6) for i in range(5)] + [documents[5]]
    scores = EmbeddingFilter(encoder).score(candidates(outputs, documents))
    assert scores.column_names == ["candidate_id", "similarity", "similarity_null", "vector"]
    assert scores.schema.field("similarity").metadata == {b"unit": b"cosine, -1 to 1"}
    vectors, others = encoder.encode(outputs), encoder.encode(documents)
    assert scores["vector"].to_pylist() == [pytest.approx(vector) for vector in vectors.tolist()]
    assert scores["similarity"].to_pylist() == pytest.approx((vectors * others).sum(axis=1).tolist(), abs=1e-6)
    assert scores["similarity"][5].as_py() == pytest.approx(1.0)
    shifted = others[[2, 2, 4, 4, 0, 0]]
    assert scores["similarity_null"].to_pylist() == pytest.approx((vectors * shifted).sum(axis=1).tolist(), abs=1e-6)


def test_blank_texts_have_no_similarity_and_are_no_duplicates(encoder: Encoder) -> None:
    table = candidates(["", " \n", None, "bar", "bar"], ["dat", "dat", "dat", "dat", " "])
    scores = EmbeddingFilter(encoder).score(table)
    assert [math.isnan(value) for value in scores["similarity"].to_pylist()] == [True, True, True, False, True]
    assert all(math.isnan(value) or value <= 1 for value in scores["similarity_null"].to_pylist())
    assert not any(math.isnan(x) for vector in scores["vector"].to_pylist() for x in vector)
    joined = table.append_column("embedding.vector", scores["vector"])
    (told,) = DuplicatesConfig(method="embedding").build().select(joined).to_pylist()
    assert (told["candidate_id"], told["duplicate_of"], told["similarity"]) == ("id4", "id3", pytest.approx(1.0))


def test_a_near_duplicate_is_no_other_document(encoder: Encoder) -> None:
    documents = [sentence(0, 30), sentence(1, 30), sentence(2, 30)]
    table = candidates([sentence(i, 6) for i in range(3)], documents).append_column("group", [["g", "g", "h"]])
    found = EmbeddingFilter(encoder).score(table)["similarity_null"].to_pylist()
    vectors = encoder.encode(table["output"].to_pylist())
    expected = (vectors * encoder.encode([documents[2], documents[2], documents[0]])).sum(axis=1)
    assert found == pytest.approx(expected.tolist(), abs=1e-6)


def test_one_document_has_no_other(encoder: Encoder) -> None:
    scores = EmbeddingFilter(encoder).score(candidates(["bar", "dat"], ["dat", "dat"]))
    assert all(map(math.isnan, scores["similarity_null"].to_pylist()))
    empty = EmbeddingFilter(encoder).score(candidates([], []))
    assert empty.num_rows == 0 and empty.schema == scores.schema


def test_the_config_holds_the_encoder_it_names(folder: Path) -> None:
    class Provider:
        def hold(self, config: EncoderConfig) -> Encoder:
            return config.load()

    config = EmbeddingConfig(encoder=EncoderConfig(model=str(folder)), min_similarity=0.3)
    built = config.build(Provider())
    assert isinstance(built, Filter) and built.name == "embedding" and config.cost == Cost.ENCODER
    assert [(bound.column, bound.minimum, bound.maximum) for bound in built.bounds] == [("similarity", 0.3, None)]
    assert config.models == {"encoder": str(folder)}
    assert config.scoring() == config.model_copy(update={"min_similarity": None}).scoring()
    assert config.scoring() != EmbeddingConfig(encoder=EncoderConfig(model=str(folder), max_tokens=8)).scoring()


@pytest.mark.model
def test_all_minilm_equals_sentence_transformers() -> None:
    library = pytest.importorskip("sentence_transformers")
    config = EncoderConfig(device="cpu")
    encoder = config.load()
    from limbeck.cluster.engines.models import resolve

    texts = ["A storm reader.", "It reads storms!", "", "naïve café 天気", "word " * 500, *(sentence(i, i) for i in range(1, 30))]
    theirs = library.SentenceTransformer(str(resolve(config.model)), device="cpu").encode(texts, normalize_embeddings=True)
    ours = encoder.encode(texts)
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(ours - np.concatenate([encoder.encode([text]) for text in texts])).max() < 1e-4
    reads, parses, chess = encoder.encode(
        ["A tool that reads weather reports.", "This program parses weather reports.", "A game of chess."]
    )
    assert reads @ parses > reads @ chess + 0.3
