"""Encoding by words against the tokenizer itself, on texts made to break it."""

import itertools
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from limbeck.infinigram.words import WordEncoder, word_encoder

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
# white space, marks, digits and letters of other scripts, what is composed by normalizing, and neighbours of all these
PIECES += [
    "\u3000",
    "\u200b",
    "\u2003",
    "\u0085\u0085",
    "\ufeff",
    "\u00ad",
    "\u1680",
    "\u202f",
    "٣",
    "१२",
    "Ⅷ",
    "½",
    "𝟜",
    "ǅ",
    "ʰ",
    "ª",
]
PIECES += [
    "\u0338",
    "=\u0338",
    "한",
    "\u1112\u1161\u11ab",
    "ก็",
    "क्ष",
    "אבג",
    "עִברִית",
    "𠮷",
    "\U0001f468\u200d\U0001f469",
    "\U000e0001",
    "\U0010ffff",
]
PIECES += [
    "'S",
    "’s",
    "'re",
    "'ve",
    "'",
    "' s",
    " 's",
    "'s's",
    "\r",
    " \n ",
    "\n \t",
    "0x1F",
    "snake_case",
    "<|end|><|end|>",
    "<|end|>'s",
    "x" * 70,
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
@settings(max_examples=150, deadline=None)
def test_added_tokens_of_every_kind(backend, texts):
    full = Tokenizer.from_str(backend.to_str())
    full.add_special_tokens([AddedToken("<b>", normalized=False), AddedToken("<|end|><|end|>", normalized=False)])
    full.add_tokens([AddedToken("  ", normalized=True), AddedToken("   ", normalized=True), AddedToken("é", normalized=True)])
    full.add_tokens([AddedToken("a", single_word=True), AddedToken("\n\n", normalized=False), AddedToken("=", normalized=False)])
    encoder = word_encoder(full, full.to_str().encode())
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == [full.encode(text).ids for text in texts]


@given(st.characters(exclude_categories=["Cs"]), st.sampled_from(["", "a", "1", "!", " ", "\n", "'", "é", "中"]))
@settings(max_examples=500, deadline=None)
def test_every_character_beside_every_class(backend, character, other):
    encoder = word_encoder(backend, backend.to_str().encode())
    texts = [
        other + character + other,
        character + other + character,
        f" {other} {character} {other}",
        character * 3 + " " + other,
    ]
    assert [ids.tolist() for ids in encoder.encode_batch(texts)] == [backend.encode(text).ids for text in texts]


def test_threads_share_what_is_remembered(backend):
    encoder = WordEncoder(backend, most_bytes=200_000)
    texts = [" ".join(f"{word}{number % 700}" for number in range(start, start + 2000)) for start in range(8) for word in "abé"]
    expected = [backend.encode(text).ids for text in texts]
    wrong = []

    def encode(shift):
        for at in range(3 * len(texts)):
            at = (at * shift) % len(texts)
            if encoder.encode_batch([texts[at]])[0].tolist() != expected[at]:
                wrong.append(at)

    threads = [threading.Thread(target=encode, args=(shift,)) for shift in (1, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("text", ["\ud800", "a\udc80b"])
def test_half_of_a_surrogate_pair_is_no_text(backend, text):
    with pytest.raises(UnicodeEncodeError):
        WordEncoder(backend).encode_batch(["fine", text])


def test_what_is_no_text_is_refused(backend):
    with pytest.raises(TypeError):
        WordEncoder(backend).encode_batch(["fine", 7])


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
    assert encoder.words == 1


def test_it_starts_again_when_it_remembers_too_much(backend):
    encoder = WordEncoder(backend, most_bytes=200_000)
    remembered = []
    for begin in range(0, 20_000, 1000):
        text = " ".join(f"w{number:x}{'x' * (number % 20)}" for number in range(begin, begin + 1000))
        assert encoder.encode_batch([text])[0].tolist() == backend.encode(text).ids
        remembered.append(encoder.words)
    assert max(remembered) < 20_000
    assert any(after < before for before, after in itertools.pairwise(remembered))


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
