"""Sentence ends, and cutting within a number of tokens."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from limbeck.corpus.sentences import cut, sentence_ends, split_sentences
from limbeck.corpus.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level BPE of some 300 tokens: words are split into pieces, as in a real one."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend.train_from_iterator(["the wheel turns and turns. It never stops turning"] * 3, trainer)
    backend.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two. Three four! Five?", ["One two.", "Three four!", "Five?"]),
        (
            "Mr. Smith met Dr. J. R. Jones, e.g. in Fig. 3. He left.",
            ["Mr. Smith met Dr. J. R. Jones, e.g. in Fig. 3.", "He left."],
        ),
        ("It costs 3.14 in version 2.0.1 of a.b.c now. Yes.", ["It costs 3.14 in version 2.0.1 of a.b.c now.", "Yes."]),
        ("Cats, dogs etc. are fine. Cats, dogs, etc. The end.", ["Cats, dogs etc. are fine.", "Cats, dogs, etc.", "The end."]),
        ('He said "stop." Then (at last!) he stopped.', ['He said "stop."', "Then (at last!) he stopped."]),
        ("1. First point\n2. Second point", ["1. First point\n2. Second point"]),
        ("A heading\n\nA paragraph. More", ["A heading", "A paragraph.", "More"]),
        ("It is Python. pip is a tool, approx. five years old.", ["It is Python.", "pip is a tool, approx. five years old."]),
        ("Wait... what? No.", ["Wait... what?", "No."]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(alphabet=st.sampled_from("aB1 .!?\"')\n-")))
def test_splitting_loses_nothing_but_white_space(text: str) -> None:
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


SENTENCES = st.lists(
    st.sampled_from(["The wheel turns.", "It never stops!", "Dr. Who turns the wheel, e.g. to the left.", "Naïve — 测试."]),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(SENTENCES, st.integers(1, 60))
def test_a_cut_is_the_longest_that_fits(tokenizer: Tokenizer, sentences: list[str], max_tokens: int) -> None:
    text = " ".join(sentences)
    document, tokens = cut(text, tokenizer, max_tokens)
    assert tokens == tokenizer.count([document])[0] <= max_tokens
    assert text.startswith(document)
    whole = [text] if tokenizer.count([text])[0] <= max_tokens else []
    fitting = [text[:end] for end in sentence_ends(text) if tokenizer.count([text[:end]])[0] <= max_tokens]
    if whole or fitting:
        assert document == (whole or fitting)[-1]
    else:  # at a word, or not at all
        assert document == "" or text[len(document)].isspace()


def test_paragraphs_end_where_there_are_no_full_stops(tokenizer: Tokenizer) -> None:
    text = "Short. Yes\n\n" + "\n\n".join(f"the wheel turns and turns {word}" for word in "abcdefgh")
    document, _ = cut(text, tokenizer, 40)
    assert document.rsplit("\n\n", 1)[-1].startswith("the wheel turns and turns")
    assert text[len(document) :].startswith("\n\n")


def test_a_very_long_text_is_read_no_further_than_needed(tokenizer: Tokenizer) -> None:
    read: list[int] = []

    class Watched:
        def count(self, texts: list[str]) -> list[int]:
            read.extend(len(text) for text in texts)
            return tokenizer.count(texts)

        def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
            read.append(len(text))
            return tokenizer.encode_with_offsets(text)

    text = "The wheel turns and never stops. " * 50_000
    document, tokens = cut(text, Watched(), 100)  # type: ignore[arg-type]
    assert document.endswith("stops.") and 80 < tokens <= 100
    assert sum(read) < 20_000


def test_no_limit_keeps_everything(tokenizer: Tokenizer) -> None:
    text = "The wheel turns. " * 100
    assert cut(text, tokenizer, None) == (text, tokenizer.count([text])[0])
