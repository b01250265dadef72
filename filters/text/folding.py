"""A text with its look-alikes folded, for matching patterns: full-width and foreign digits, spaces and hyphens of every kind as
ASCII, invisible characters removed; and the way back to the original positions."""

import re
import unicodedata
from collections.abc import Sequence

from limbeck.corpus.text.invisible import FORMAT

_DROPPED = re.compile(f"[{FORMAT}]")
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212\ufe63"
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_MATHEMATICAL = range(0x1D400, 0x1D800)


class Folded:
    """`text`, folded from `original`. Every folded character stands for one original character."""

    def __init__(self, original: str) -> None:
        self.text = original if original.isascii() else original.translate(_FOLDS)
        self._kept: Sequence[int] = range(len(original))
        if len(self.text) != len(original):
            self._kept = [at for at, character in enumerate(original) if _FOLDS[ord(character)] is not None]

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """The original characters of the folded ones in [begin, end), removed ones between them included; begin < end."""
        return self._kept[begin], self._kept[end - 1] + 1


class _Folds(dict[int, int | None]):
    """Code point → the one that it is folded to; None: removed. Filled on demand."""

    def __missing__(self, code: int) -> int | None:
        self[code] = found = _fold(chr(code))
        return found


def _fold(character: str) -> int | None:
    if character.isascii():
        return ord(character)
    if _DROPPED.match(character):
        return None
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return ord("0") + digit
    if character in _HYPHENS:
        return ord("-")
    if unicodedata.category(character) == "Zs":
        return ord(" ")
    if ord(character) in _FULL_WIDTH or ord(character) in _MATHEMATICAL:
        plain = unicodedata.normalize("NFKC", character)
        return ord(plain) if len(plain) == 1 else ord(character)
    return ord(character)


_FOLDS = _Folds()
