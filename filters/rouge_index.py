"""ROUGE-L between two texts."""

from rapidfuzz.distance import LCSseq

from filters.rouge_tokens import f1, words


def rouge_l(a: str, b: str) -> float:
    """The ROUGE-L F1 of two texts, the same float that `rouge_score` gives without a stemmer; 0 where one has no words.

    O(words of `a` × words of `b` / 64).
    """
    ids: dict[str, int] = {}  # rapidfuzz compares the hashes of what it is given: whole numbers are their own
    first, second = ([ids.setdefault(word, len(ids)) for word in words(text)] for text in (a, b))
    return f1(LCSseq.similarity(first, second), len(first), len(second))
