"""The words of ROUGE, split like `rouge_score` (no stemmer), their numbers, and the F1 of a longest common subsequence.

`rouge_score` reads only a-z and 0-9, so a text in another script has no words, and a copy of it scores 0. Here, letters and
digits that are not Latin form words by the rule of `corpus.text.words`; Latin text has the words, and so the scores, of
`rouge_score`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.text.words import alone, is_plain, normal, plain_words, run_of, without_typography

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int32]

_WORD = re.compile("[a-z0-9]+")
_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789"
_LATIN = (
    "\x00-\u02ff\u1d00-\u1dbf\u1e00-\u1eff\u2000-\u218f\u2460-\u24ff\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f\ufb00-\ufb06"
    "\U0001d400-\U0001d7ff"
)
"""Blocks of Latin letters and of symbols made of them, for a class of a regular expression."""

_END = b"\n"
_LAST_CHARACTER = 0x10FFFF
# Class of each byte of lowercased UTF-8: itself within a word, the end of a text, or a space.
_FOLDED = bytes(byte if byte in _WORD_BYTES + _END else ord(" ") for byte in range(256))


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of a-z and 0-9, and the words of other scripts (NFC).

    A text that has neither, such as one of accented letters alone or of emoji, has those of `plain_words`. O(characters).
    """
    text = text.lower()
    if text.isascii():
        return _WORD.findall(text)
    if _has_other_scripts(text):
        found = _words_of_all_scripts().findall(normal(text))
    else:
        found = _WORD.findall(text)
    return found or plain_words(text)


def _has_other_scripts(text: str) -> bool:
    rest = without_typography(text)
    return not rest.isascii() and (_not_latin().search(rest) is not None or not is_plain(rest))


@cache
def _not_latin() -> re.Pattern[str]:
    return re.compile(rf"[^\W{_LATIN}]")


@cache
def _words_of_all_scripts() -> re.Pattern[str]:
    return re.compile(f"{_WORD.pattern}|{run_of(_LATIN)}|{alone()}")


def f1(common: Any, words_a: Any, words_b: Any) -> Any:
    """The F1 of `common` > 0 words out of two texts' words, numbers or arrays, in `rouge_score`'s own order of operations."""
    precision, recall = common / words_a, common / words_b
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class Texts:
    """Texts as word numbers: text `t` is `numbers[starts[t] : starts[t + 1]]`."""

    numbers: Numbers  # [words]
    starts: Ints  # [texts + 1]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """Words of each text.  # [texts]"""
        return np.diff(self.starts)

    def slice(self, begin: int, end: int) -> "Texts":
        """Texts `begin` to `end`."""
        first, last = self.starts[begin], self.starts[end]
        return Texts(self.numbers[first:last], self.starts[begin : end + 1] - first)

    def where(self, chosen: Bools) -> "Texts":
        """The chosen texts.  # chosen: [texts]"""
        lengths = self.lengths
        return Texts(self.numbers[np.repeat(chosen, lengths)], np.concatenate([[0], np.cumsum(lengths[chosen])]))

    @staticmethod
    def joined(parts: Sequence["Texts"]) -> "Texts":
        """All texts of all parts, in order."""
        lengths = np.concatenate([part.lengths for part in parts])
        return Texts(np.concatenate([part.numbers for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))

    def strings(self) -> list[Any]:
        """The fastest form for rapidfuzz: strings with one character per word; lists of numbers if there are too many words."""
        starts = self.starts.tolist()
        if len(self.numbers) and self.numbers.max() > _LAST_CHARACTER:
            numbers = self.numbers.tolist()
            return [numbers[start:end] for start, end in zip(starts, starts[1:], strict=False)]
        text = self.numbers.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        return [text[start:end] for start, end in zip(starts, starts[1:], strict=False)]


class Vocabulary:
    """Numbers words by first appearance, from 0."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Number of distinct words."""
        return len(self._numbers)

    def encode(self, texts: Sequence[str]) -> Texts:
        """Split and number the texts; new words get new numbers. O(characters), in arrays."""
        lowered = [text.lower().replace("\n", " ") for text in texts]
        lowered.append("")
        joined = "\n".join(lowered)
        folded = joined.encode().translate(_FOLDED) if joined.isascii() else _END.join(map(_folded, lowered))
        characters = np.frombuffer(folded, np.uint8)
        within = characters > ord(" ")
        edges = np.flatnonzero(within[1:] != within[:-1]) + 1  # word starts and ends, alternating
        if len(within) and within[0]:
            edges = np.concatenate([[0], edges])
        firsts, ends = edges[::2], edges[1::2]
        starts = np.concatenate([[0], np.searchsorted(firsts, np.flatnonzero(characters == ord(_END)))])
        return Texts(self._number(characters[within], ends - firsts), starts.astype(np.int64))

    def _number(self, letters: npt.NDArray[np.uint8], lengths: Ints) -> Numbers:
        """The numbers of words that are stored without gaps in `letters`."""
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(letters)]
        coded = pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers).dictionary_encode()
        numbers = self._numbers
        known = [numbers.setdefault(word, len(numbers)) for word in coded.dictionary.to_pylist()]
        found: Numbers = np.array(known, np.int32)[coded.indices.to_numpy()]
        return found


def _folded(text: str) -> bytes:
    """The words of a text in lower case, between spaces."""
    folded = text.encode("utf-8", "surrogatepass").translate(_FOLDED)
    if text.isascii() or (folded.strip() and not _has_other_scripts(text)):
        return folded
    return " ".join(words(text)).encode()
