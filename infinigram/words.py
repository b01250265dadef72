"""Byte-level BPE by whole words: text is split into words like GPT-2, and every distinct word is encoded once.

If the pre-tokenizer is GPT-2's (`ByteLevel` with its expression: GPT-2, RoBERTa, GPT-NeoX, OLMo and many more), a token never
crosses a word boundary, so the tokens of a text are those of its words. Splitting and the word cache are in C++, without the GIL.
The pre-tokenizer determines which characters are letters, numbers and whitespace, and the tokenizer encodes each new word, so the
result is the same as without this module.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck import _infinigram

_PAGE = 256
_LETTER, _NUMBER, _SPACE, _OTHER = 1, 2, 3, 4
MOST_BYTES = 96 << 20  # for cached words, about two million
_RUN_WORDS = 256  # encoded per piece: enough to amortise the overhead, few enough to balance the load
_SAFE_NORMALIZERS = (None, "NFC")  # these leave ASCII unchanged

Ids = NDArray[np.uint32]


class WordEncoder:
    """A tokenizer's `encode_batch` with a cache of word tokens; thread-safe."""

    def __init__(self, backend: Any, most_bytes: int = MOST_BYTES) -> None:
        self._backend = backend
        added: list[Any] = list(backend.get_added_tokens_decoder().values())
        as_searched = {token.content: self._normalized(token.content) if token.normalized else token.content for token in added}
        # these absorb whitespace, or depend on their neighbours
        hard = [token for token in added if token.lstrip or token.rstrip or token.single_word]
        easy = [token for token in added if token not in hard]
        self._words = _infinigram.WordEncoder(
            first=[token.content for token in easy if not token.normalized],
            second=[as_searched[token.content] for token in easy if token.normalized],
            hard=[as_searched[token.content] for token in hard],
            most_bytes=most_bytes,
        )

    @property
    def words(self) -> int:
        """Number of cached words."""
        return self._words.words

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text. O(characters)."""
        whole = [at for at, text in enumerate(texts) if self._is_whole(text)]
        by_words = [text for at, text in enumerate(texts) if at not in set(whole)] if whole else list(texts)
        ids, offsets = self._words.encode(by_words, self._classes, self._tokens)
        encoded = [ids[begin:end] for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
        encodings = self._backend.encode_batch_fast([texts[at] for at in whole], add_special_tokens=False)
        for at, encoding in zip(whole, encodings, strict=True):
            encoded.insert(at, np.array(encoding.ids, dtype=np.uint32))
        return encoded

    def _is_whole(self, text: str) -> bool:
        """Whether a text must go to the tokenizer whole: it contains a token that cannot be split off, or would be normalized."""
        return self._words.is_hard(text) or (not text.isascii() and self._normalized(text) != text)

    def _normalized(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _classes(self, page: int) -> bytes:
        """The classes of 256 characters, by the pre-tokenizer's expression: which characters they form a word with."""
        cut = self._backend.pre_tokenizer.pre_tokenize_str
        classes = bytearray()
        for code in range(page * _PAGE, (page + 1) * _PAGE):
            partners = (("a", _LETTER), ("1", _NUMBER), ("!", _OTHER))
            is_half = 0xD800 <= code < 0xE000  # an unpaired surrogate: in no valid text
            joined = (kind for partner, kind in partners if not is_half and len(cut(partner + chr(code))) == 1)
            classes.append(next(joined, _SPACE))
        return bytes(classes)

    def _tokens(self, words: list[str]) -> list[tuple[int, list[int], list[int]]]:
        """The tokens of words, in runs: number of words, ids, and the word index of each id."""
        runs = [words[begin : begin + _RUN_WORDS] for begin in range(0, len(words), _RUN_WORDS)]
        encodings = self._backend.encode_batch(runs, is_pretokenized=True, add_special_tokens=False)
        return [(len(run), encoding.ids, encoding.word_ids) for run, encoding in zip(runs, encodings, strict=True)]


def word_encoder(backend: Any, content: bytes, most_bytes: int = MOST_BYTES) -> WordEncoder | None:
    """The fast encoder for a tokenizer.json with GPT-2's words, None for others."""
    described = json.loads(content)
    normalizer = (described.get("normalizer") or {}).get("type")
    splitter = described.get("pre_tokenizer") or {}
    model = described.get("model") or {}
    is_gpt2 = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True) and not splitter.get("add_prefix_space")
    is_plain_bpe = model.get("type", "BPE") == "BPE" and not model.get("dropout") and "merges" in model
    return WordEncoder(backend, most_bytes) if is_gpt2 and is_plain_bpe and normalizer in _SAFE_NORMALIZERS else None
