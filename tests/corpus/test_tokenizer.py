"""The light tokenizer handle."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes as tokens, but " the" is one; truncation is switched on in the file and must not be obeyed."""
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for merged in ("Ġt", "he", "Ġthe"):
        vocabulary[merged] = len(vocabulary)
    backend = Backend(models.BPE(vocabulary, [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.enable_truncation(4)
    backend.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


def test_counts_without_truncation(tokenizer: Tokenizer) -> None:
    assert tokenizer.count(["", "a the the", "abcdefgh"]) == [0, 3, 8]


@given(text=st.text(max_size=40))
def test_offsets_cover_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert len(ids) == len(offsets) == tokenizer.count([text])[0]
    assert {place for start, end in offsets for place in range(start, end)} == set(range(len(text)))


def test_fingerprint_follows_content(tokenizer: Tokenizer, tmp_path: Path) -> None:
    content = (tokenizer.folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content)
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint
    (tmp_path / "tokenizer.json").write_text(content + "\n")
    assert Tokenizer.load(tmp_path).fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize("content", [None, "", "{", '{"model": 3}'])
def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(LimbeckError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
