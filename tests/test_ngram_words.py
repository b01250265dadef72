"""Encoding by words against the tokenizer itself, on texts made to break it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from infinigram.words import word_encoder

PIECES = [
    "'s",
    "'",
    "''",
    "'ll",
    "can't",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "\x0b",
    "\x1c",
    "\x85",
    "\xa0",
    "\u180e",
    "\u2028",
]
PIECES += [
    "a",
    "the",
    " the",
    "Z9",
    "12",
    "_",
    "-",
    "...",
    "é",
    "e\u0301",
    "ß",
    "²",
    "中文",
    "🙂",
    "\u0301",
    "<|end|>",
    "<|end",
    "<b>",
    "\x00",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=40).map("".join)


@pytest.fixture(scope="module", params=[None, "NFC"])
def backend(request):
    tokenizer = Tokenizer(models.BPE())
    if request.param:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the then  can't they'll 12 the\n\n  them... é ß 中文"] * 20, trainer)
    return tokenizer


@given(texts=st.lists(TEXTS, max_size=4))
@settings(max_examples=300, deadline=None)
def test_tokens_are_those_of_the_tokenizer(backend, texts):
    encoder = word_encoder(backend, backend.to_str().encode())
    expected = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == expected
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == expected  # now from what is remembered


@given(texts=st.lists(TEXTS, max_size=4))
@settings(max_examples=100, deadline=None)
def test_special_tokens_that_take_spaces_with_them(backend, texts):
    greedy = Tokenizer.from_str(backend.to_str())
    greedy.add_special_tokens([AddedToken("<b>", lstrip=True, rstrip=True)])
    encoder = word_encoder(greedy, greedy.to_str().encode())
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == [greedy.encode(text).ids for text in texts]


def test_long_words_are_not_kept(backend):
    encoder = word_encoder(backend, backend.to_str().encode())
    long = "a" * 1000
    assert encoder.encode_batch([long, "the"])[0].tolist() == backend.encode(long).ids
    assert set(encoder._known()) == {"the"}


def test_it_starts_again_when_it_remembers_too_much(backend, monkeypatch):
    monkeypatch.setattr("infinigram.words._MOST_WORDS", 2)
    encoder = word_encoder(backend, backend.to_str().encode())
    for text in ("the them", "they then", "the them"):
        assert encoder.encode_batch([text])[0].tolist() == backend.encode(text).ids
    assert set(encoder._of_thread.known) == {"the", " them"}


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
        {"pre_tokenizer": None},
        {"model": {"type": "Unigram"}},
    ],
)
def test_other_tokenizers_have_no_quick_way(backend, change):
    described = json.loads(backend.to_str()) | change
    assert word_encoder(backend, json.dumps(described).encode()) is None
