"""Byte-level BPE by whole words: text is cut into words as GPT-2 cuts it, and every different word is encoded once.

Where the pre-tokenizer is GPT-2's (`ByteLevel` with its expression: GPT-2, RoBERTa, GPT-NeoX, OLMo and many more), a token never
reaches over a word, so a text's tokens are its words' tokens. Texts are cut and the tokens of words remembered in C++, without
Python's lock. Which characters are letters, numbers and white space is asked of the pre-tokenizer, the tokens of a word that was
not met before of the tokenizer, so both are what they would be without this module.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck import _infinigram

_PAGE = 256
_LETTER, _NUMBER, _SPACE, _OTHER = 1, 2, 3, 4
MOST_BYTES = 96 << 20  # of words remembered, about two million
_RUN_WORDS = 256  # encoded in one piece: enough to make little of what each piece costs, few enough to share out
_SAFE_NORMALIZERS = (None, "NFC")  # which leave ASCII as it is

Ids = NDArray[np.uint32]


class WordEncoder:
    """A tokenizer's `encode_batch` that remembers the tokens of words; may be called from several threads."""

    def __init__(self, backend: Any, most_bytes: int = MOST_BYTES) -> None:
        self._backend = backend
        added: list[Any] = list(backend.get_added_tokens_decoder().values())
        as_searched = {token.content: self._normalized(token.content) if token.normalized else token.content for token in added}
        # these take white space with them, or look at their neighbours
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
        """How many words are remembered."""
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
        """Whether a text is left to the tokenizer: it holds a token that cannot be cut out, or would be normalized."""
        return self._words.is_hard(text) or (not text.isascii() and self._normalized(text) != text)

    def _normalized(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _classes(self, page: int) -> bytes:
        """The classes of 256 characters, as the pre-tokenizer's expression takes them: by what they make one word with."""
        cut = self._backend.pre_tokenizer.pre_tokenize_str
        classes = bytearray()
        for code in range(page * _PAGE, (page + 1) * _PAGE):
            partners = (("a", _LETTER), ("1", _NUMBER), ("!", _OTHER))
            is_half = 0xD800 <= code < 0xE000  # of a surrogate pair: in no text
            joined = (kind for partner, kind in partners if not is_half and len(cut(partner + chr(code))) == 1)
            classes.append(next(joined, _SPACE))
        return bytes(classes)

    def _tokens(self, words: list[str]) -> list[tuple[int, list[int], list[int]]]:
        """The tokens of words, in runs: how many words, the ids, and of which word each is."""
        runs = [words[begin : begin + _RUN_WORDS] for begin in range(0, len(words), _RUN_WORDS)]
        encodings = self._backend.encode_batch(runs, is_pretokenized=True, add_special_tokens=False)
        return [(len(run), encoding.ids, encoding.word_ids) for run, encoding in zip(runs, encodings, strict=True)]


def word_encoder(backend: Any, content: bytes, most_bytes: int = MOST_BYTES) -> WordEncoder | None:
    """The quick way for a tokenizer.json whose words are GPT-2's, None for others."""
    described = json.loads(content)
    normalizer = (described.get("normalizer") or {}).get("type")
    splitter = described.get("pre_tokenizer") or {}
    model = described.get("model") or {}
    is_gpt2 = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True) and not splitter.get("add_prefix_space")
    is_plain_bpe = model.get("type", "BPE") == "BPE" and not model.get("dropout") and "merges" in model
    return WordEncoder(backend, most_bytes) if is_gpt2 and is_plain_bpe and normalizer in _SAFE_NORMALIZERS else None
