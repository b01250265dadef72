"""Byte-level BPE by whole words: text is cut into words as GPT-2 cuts it, and every different word is encoded once.

Where the pre-tokenizer is GPT-2's (`ByteLevel` with its expression: GPT-2, RoBERTa, GPT-NeoX, OLMo and many more), a token never
reaches over a word, so a text's tokens are its words' tokens. ASCII is cut into words here, where every engine of regular
expressions agrees; other lines are cut at spaces only, and lines that spell a special token are not cut. Exact, and two to four
times as quick as the tokenizer on a text it has not seen; Python's lock is held for most of that.
"""

import json
import re
import threading
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+",
)
# What no version of Unicode takes for a space; where a space or a new line follows, a word has ended in any case.
_SOLID = "!-~\u00a1-\u167f\u1681-\u180d\u180f-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\u2fff\u3001-\ufefe\uff00-\U0010ffff"
_LINE_BORDER = re.compile(f"(?<=[{_SOLID}])(?=\n)")
_BORDER = re.compile(f"(?<=[{_SOLID}])(?=[\n ])")
_MOST_WORDS = 1 << 17  # some 25 MB
_LONGEST_WORD = 64  # longer ones hardly come again
_SAFE_NORMALIZERS = (None, "NFC")  # which leave ASCII as it is

Ids = NDArray[np.uint32]


class WordEncoder:
    """A tokenizer's `encode_batch` that remembers the tokens of words; may be called from several threads."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._of_thread = threading.local()
        special = backend.get_added_tokens_decoder().values()
        self._special = re.compile("|".join(re.escape(token.content) for token in special) or r"(?!)")
        # those that take spaces with them, or hold some, may reach over lines
        self._far = any(
            token.lstrip or token.rstrip or not token.content.isprintable() or " " in token.content for token in special
        )

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text. O(characters)."""
        known = self._known()
        words = [list(self._words(text)) for text in texts]
        new = [word for word in set(chain.from_iterable(words)) if word not in known]
        encodings = self._backend.encode_batch_fast(new, add_special_tokens=False)
        known.update((word, encoding.ids) for word, encoding in zip(new, encodings, strict=True))
        encoded = [np.fromiter(chain.from_iterable(map(known.__getitem__, one)), dtype=np.uint32) for one in words]
        for word in new:
            if len(word) > _LONGEST_WORD:
                del known[word]
        return encoded

    def _known(self) -> dict[str, list[int]]:
        """The tokens of words, of this thread alone; it starts again when there are too many."""
        known: dict[str, list[int]] | None = getattr(self._of_thread, "known", None)
        if known is None or len(known) >= _MOST_WORDS:
            known = self._of_thread.known = {}
        return known

    def _words(self, text: str) -> Iterable[str]:
        """A text cut at ends of words; what is not ASCII may hold several words in one."""
        has_special = self._special.search(text) is not None
        if has_special and self._far:
            return [text]
        if text.isascii() and not has_special:
            return _WORDS.findall(text)
        return chain.from_iterable(map(self._words_of_line, _LINE_BORDER.split(text)))

    def _words_of_line(self, line: str) -> list[str]:
        if self._special.search(line) is not None:
            return [line]
        return _WORDS.findall(line) if line.isascii() else _BORDER.split(line)


def word_encoder(backend: Any, content: bytes) -> WordEncoder | None:
    """The quick way for a tokenizer.json whose words are GPT-2's, None for others."""
    described = json.loads(content)
    normalizer = (described.get("normalizer") or {}).get("type")
    splitter = described.get("pre_tokenizer") or {}
    model = described.get("model") or {}
    is_gpt2 = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True) and not splitter.get("add_prefix_space")
    is_plain_bpe = model.get("type", "BPE") == "BPE" and not model.get("dropout") and "merges" in model
    return WordEncoder(backend) if is_gpt2 and is_plain_bpe and normalizer in _SAFE_NORMALIZERS else None
