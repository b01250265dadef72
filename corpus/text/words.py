"""Splitting text into words: one function per rule. ROUGE's own rule is in `rouge/words.py`, which needs it on bytes."""

import re

from limbeck.corpus.text.invisible import is_blank

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
"""Letters and digits, with apostrophes inside: salient words, the words that masked PMI hides, terms of a word list."""

_PLAIN = re.compile(r"\w+")
_WITH_APOSTROPHES = re.compile(r"\w+(?:['’]\w+)*")


def plain_words(text: str) -> list[str]:
    """Runs of word characters, underscores among them, in lower case: near-duplicates of documents, distinct n-grams."""
    return _PLAIN.findall(text.lower())


def words_with_apostrophes(text: str) -> list[str]:
    """Runs of word characters, underscores and inner apostrophes among them, in lower case: what two texts share verbatim."""
    return _WITH_APOSTROPHES.findall(text.lower())


def one_line(text: str) -> str:
    """The text with every run of whitespace as one space, and none at its ends; "" if it has no visible character."""
    return "" if is_blank(text) else " ".join(text.split())
