"""A tokenizer with one token per byte, for tests that count tokens without a model."""

from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from limbeck.corpus.tokenizer import Tokenizer


def byte_tokenizer(folder: Path) -> Tokenizer:
    """Save the tokenizer in `folder` and load it."""
    alphabet = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)
