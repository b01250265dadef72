"""The nearest texts by ROUGE-L, by comparing with all: the tenth nearest is commonly too far off for any bound to prune."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from limbeck.corpus.text.rouge.words import Floats, Ints, f1

_CHUNK_PAIRS = 1 << 22
_RUN = 64


def nearest_of(texts: Sequence[Any], pool: Sequence[Any], before: Ints, count: int) -> tuple[Floats, Ints]:
    """For each text the `count` highest F1 with the first `before` of the pool, and whose they are, the first among equals.

    Both [texts, count], the best first; NaN and -1 where the pool holds fewer. Texts are strings of one character a word, or
    lists of word numbers. O(texts × pool), in memory O(pool); all cores.
    """
    scores, places = np.full((len(texts), count), np.nan), np.full((len(texts), count), -1)
    pool_lengths = np.fromiter(map(len, pool), np.int64, len(pool))
    rows = max(1, _CHUNK_PAIRS // max(1, len(pool)))
    for begin in range(0, len(texts), rows):
        some = texts[begin : begin + rows]
        size = int(before[begin : begin + rows].max())
        common = cdist(some, pool[:size], scorer=LCSseq.similarity, dtype=np.int32, workers=-1)  # [some, size]
        for row, (text, own) in enumerate(zip(some, common, strict=True), begin):
            found = _best(own[: before[row]], len(text), pool_lengths[: before[row]], count)
            scores[row, : len(found[0])], places[row, : len(found[1])] = found
    return scores, places


def _best(common: Any, length: int, lengths: Ints, count: int) -> tuple[Floats, Ints]:
    """The `count` best scores of one text and their places."""
    rough = 2 * common / np.maximum(length + lengths, 1)
    places = np.flatnonzero(rough >= _at_most_the_last(rough, count) - 1e-12)
    shared = common[places]
    scores = np.where(shared > 0, f1(np.maximum(shared, 1), max(length, 1), np.maximum(lengths[places], 1)), 0.0)
    order = np.lexsort((places, -scores))[:count]
    return scores[order], places[order]


def _at_most_the_last(scores: Floats, count: int) -> float:
    """A score that at least `count` of them reach, and few more: the count-th highest maximum of a run of neighbours."""
    run = min(_RUN, len(scores) // count)
    if run < 2:
        return 0.0
    maxima = scores[: len(scores) // run * run].reshape(-1, run).max(axis=1)  # [at least count]
    return float(np.partition(maxima, len(maxima) - count)[len(maxima) - count])
