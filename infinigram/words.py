"""Byte-level BPE by whole words: text is cut into words as GPT-2 cuts it, and every different word is encoded once.

Where the pre-tokenizer is GPT-2's (`ByteLevel` with its expression: GPT-2, RoBERTa, GPT-NeoX, OLMo and many more), a token never
reaches over a word, so a text's tokens are its words' tokens. Only ASCII is cut here, where every engine of regular expressions
agrees; the rest, and texts that spell a special token, go through the tokenizer whole. Exact, and about five times as quick.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+",
)
_BORDER = re.compile(r"(?<=[!-~])(?=\n)")  # always the end of a word
_MOST_WORDS = 1 << 17  # some 25 MB
_LONGEST_WORD = 64  # longer ones hardly come again
_SAFE_NORMALIZERS = (None, "NFC")  # which leave ASCII as it is

Ids = NDArray[np.uint32]


class WordEncoder:
    """A tokenizer's `encode_batch` that remembers the tokens of words; may be called from several threads."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._of_thread = threading.local()
        special = [re.escape(token.content) for token in backend.get_added_tokens_decoder().values()]
        self._special = re.compile("|".join(special) or r"(?!)")

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text. O(characters)."""
        known = self._known()
        cut = [list(self._pieces(text)) for text in texts]
        words = [list(chain.from_iterable(_WORDS.findall(piece) if plain else [piece] for piece, plain in one)) for one in cut]
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

    def _pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """A text in pieces, and whether each may be cut into words; neighbours that may not stay together."""
        if self._special.search(text) is not None:
            yield text, False
            return
        if text.isascii():
            yield text, True
            return
        held: list[str] = []
        for piece in _BORDER.split(text):
            if not piece.isascii():
                held.append(piece)
                continue
            if held:
                yield "".join(held), False
                held = []
            yield piece, True
        if held:
            yield "".join(held), False


def word_encoder(backend: Any, content: bytes) -> WordEncoder | None:
    """The quick way for a tokenizer.json whose words are GPT-2's, None for others."""
    described = json.loads(content)
    normalizer = (described.get("normalizer") or {}).get("type")
    splitter = described.get("pre_tokenizer") or {}
    model = described.get("model") or {}
    is_gpt2 = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True) and not splitter.get("add_prefix_space")
    is_plain_bpe = model.get("type", "BPE") == "BPE" and not model.get("dropout") and "merges" in model
    return WordEncoder(backend) if is_gpt2 and is_plain_bpe and normalizer in _SAFE_NORMALIZERS else None
