"""The words of ROUGE, and the F1 of a longest common subsequence, as `rouge_score` computes both (no stemmer)."""

import re

_WORD = re.compile("[a-z0-9]+")


def words(text: str) -> list[str]:
    """The lowercased runs of a-z and 0-9 in `text`; a script without them has no words at all."""
    return _WORD.findall(text.lower())


def f1(common: int, words_a: int, words_b: int) -> float:
    """The F1 of `common` words out of two texts' words, in `rouge_score`'s own order of float operations."""
    if not common:
        return 0.0
    precision, recall = common / words_a, common / words_b
    return 2 * precision * recall / (precision + recall)
