"""Readable text of tokens: the pieces of a text, token by token."""

from collections.abc import Iterable, Sequence
from typing import Any

_SPACE_MARK = "▁"  # SentencePiece's marker for a space
_MOST_CACHED = 1 << 20


class Pieces:
    """The text of single tokens of one tokenizer; each is decoded once and cached."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend", None)
        self._name = getattr(backend, "id_to_token", None)
        self._texts: dict[int, str] = {}
        self._names: dict[int, str | None] = {}
        # the official service prepends a space to queries for byte-level vocabularies, in which words include the preceding space
        self.word_start = _word_start(tokenizer)

    def text(self, token: int) -> str:
        """The text of one token; bytes that are not a complete character become replacement characters."""
        known = self._texts.get(token)
        if known is None:
            known = self._decoded(token)
            if len(self._texts) < _MOST_CACHED:
                self._texts[token] = known
        return known

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds to `ids`; a character made of several tokens is assigned to the first."""
        pieces = [self.text(token) for token in ids]
        at = 0
        while at < len(pieces):
            end = at + 1
            if "\ufffd" in pieces[at]:
                whole = self.decode(ids[at:end])
                while "\ufffd" in whole and end < min(len(ids), at + 8):
                    end += 1
                    whole = self.decode(ids[at:end])
                if "\ufffd" not in whole:
                    pieces[at:end] = [whole, *[""] * (end - at - 1)]
                else:
                    end = at + 1
            at = end
        return pieces

    def names(self, ids: Iterable[int]) -> list[str | None]:
        """The vocabulary's own spelling of each token (such as "Ġof"), as the official service shows it."""
        names = self._names
        return [names[token] if token in names else self._named(token) for token in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; unknown ids add nothing."""
        if self._tokenizer is None:
            return ""
        try:
            return str(self._tokenizer.decode(ids))
        except (KeyError, ValueError, OverflowError):  # an id above the vocabulary, such as a separator
            return "" if len(ids) == 1 else "".join(self.decode([token]) for token in ids)

    def _named(self, token: int) -> str | None:
        if self._name is not None:
            name: str | None = self._name(token)
        else:  # a byte is named by the character with that code, as in the official service
            name = self.decode([token]) if hasattr(self._tokenizer, "backend") else chr(token)
        if len(self._names) < _MOST_CACHED:
            self._names[token] = name
        return name

    def _decoded(self, token: int) -> str:
        name = self._name(token) if self._name is not None else None
        if name is not None and name.startswith(_SPACE_MARK):  # decoding it alone would drop the space
            return str(name).replace(_SPACE_MARK, " ")
        return self.decode([token])


def _word_start(tokenizer: Any) -> str:
    """Prefix that makes a query begin a word: " " if words include the preceding space, otherwise ""."""
    if tokenizer is None:
        return ""
    spaced, bare = tokenizer.encode(" the"), tokenizer.encode("the")
    one_token_each = len(spaced) == len(bare) == 1 and spaced != bare
    return " " if one_token_each and tokenizer.decode(spaced) == " the" else ""
