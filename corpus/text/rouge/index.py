"""ROUGE-L between two texts, and of a text against a growing pool: exact, while comparing with few of its texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist, cpdist

from limbeck.corpus.text.rouge.join import Rows, Segment, prepare
from limbeck.corpus.text.rouge.words import Bools, Floats, Ints, Texts, Vocabulary, f1, words

_BLOCK_TEXTS = 2048
_BLOCK_WORDS = 1 << 16
_CHUNK_PAIRS = 1 << 16
_CDIST_PAIRS = 1 << 22
_RUN = 64


def rouge_l(a: str, b: str) -> float:
    """The ROUGE-L F1 of two texts, the same float as `rouge_score` without a stemmer; 0 if one has no words.

    O(words of `a` × words of `b` / 64).
    """
    ids: dict[str, int] = {}  # rapidfuzz compares hashes; integers hash to themselves
    first, second = ([ids.setdefault(word, len(ids)) for word in words(text)] for text in (a, b))
    common = LCSseq.similarity(first, second)
    return float(f1(common, len(first), len(second))) if common else 0.0


class Neighbour(NamedTuple):
    """A text of an index, by its position in the order of addition, and its ROUGE-L F1 with the query text."""

    place: int
    rouge_l: float


@dataclass(frozen=True)
class Judged:
    """Results for texts that were judged one after another.  # each: [texts]

    `rouge_l` is the maximum over the index before the text was added, NaN if it is not above the floor; `nearest` is the first
    text of the index that reaches it, or -1. `before` is the size of the index when the text was judged.
    """

    accepted: Bools
    rouge_l: Floats
    nearest: Ints
    before: Ints

    def slice(self, begin: int, end: int) -> "Judged":
        """Views of the texts `begin` to `end`."""
        return Judged(self.accepted[begin:end], self.rouge_l[begin:end], self.nearest[begin:end], self.before[begin:end])


class RougeIndex:
    """A growing pool of texts with nearest-neighbour search by ROUGE-L F1 above a floor.

    Exact. Memory is linear in the words. A higher floor is faster: it determines how many of a text's words must be looked up.
    """

    def __init__(self, texts: Sequence[str] = (), *, floor: float = 0.7) -> None:
        """Start with `texts`; maxima up to `floor` (at least 0, below 1) are not reported."""
        assert 0 <= floor < 1, f"a floor of {floor}"
        self._floor = floor
        self._vocabulary = Vocabulary()
        self._counts = np.zeros(0, np.int64)  # per word number
        self._popularity = np.zeros(0, np.int32)  # per word number: 0 is the most frequent
        self._ranked_words = 0  # number of words when the popularity order was computed
        self._texts: list[Texts] = []
        self._strings: list[Any] = []
        self._segments: list[Segment] = []  # of consecutive texts, each less than half as large as the previous one
        self.add(texts)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._strings)

    def add(self, texts: Sequence[str]) -> None:
        """Add every text, regardless of similarity. O(words log words), amortised."""
        if texts:
            encoded, rows = self._read(texts)
            self._append(encoded, rows, np.ones(len(rows), bool), encoded.strings())

    def maximum(self, text: str) -> Neighbour | None:
        """The nearest text, the first added in a tie; None if none is above the floor."""
        scores, nearest = self.maxima([text])
        return Neighbour(int(nearest[0]), float(scores[0])) if nearest[0] >= 0 else None

    def maxima(self, texts: Sequence[str]) -> tuple[Floats, Ints]:
        """For each text, the highest score and the first text that has it; NaN and -1 if none is above the floor."""
        scores, nearest = np.full(len(texts), np.nan), np.full(len(texts), -1)
        if texts:
            encoded, rows = self._read(texts)
            strings = encoded.strings()
            for begin, end in _blocks(encoded):
                self._search(rows.slice(begin, end), strings[begin:end], scores[begin:end], nearest[begin:end])
        return scores, nearest

    def nearest(self, text: str, count: int = 10) -> list[Neighbour]:
        """The `count` nearest texts, the best first, ties in order of addition. Compares with all: O(texts)."""
        scores, places = self.nearest_before([text], np.array([len(self)]), count)
        return [Neighbour(int(place), float(score)) for place, score in zip(places[0], scores[0], strict=True) if place >= 0]

    def nearest_before(self, texts: Sequence[str], before: Ints, count: int) -> tuple[Floats, Ints]:
        """For each text, the `count` nearest of the first `before` of the index, as in `nearest`.  # [texts, count]

        If the index has fewer, the rest are NaN and -1. O(texts × texts in the index).
        """
        return nearest_of(self._vocabulary.encode(texts).strings(), self._strings, before, count)

    def judge(self, texts: Sequence[str], limit: float) -> Judged:
        """Judge the texts one after another and add each one whose maximum is at most `limit`, which must be at least the floor.

        Same result as `maximum` and `add` for each in turn, but much faster.
        """
        assert limit >= self._floor, f"limit {limit} is below the floor of {self._floor}"
        judged = Judged(
            np.ones(len(texts), bool), np.full(len(texts), np.nan), np.full(len(texts), -1), np.zeros(len(texts), np.int64)
        )
        if texts:
            encoded, rows = self._read(texts)
            strings = encoded.strings()
            for begin, end in _blocks(encoded):
                part = judged.slice(begin, end)
                block = rows.slice(begin, end)
                self._search(block, strings[begin:end], part.rouge_l, part.nearest)
                self._decide(block, strings[begin:end], limit, part)
                self._append(encoded.slice(begin, end), block, part.accepted, strings[begin:end])
        return judged

    def _read(self, texts: Sequence[str]) -> tuple[Texts, Rows]:
        """Number the words, update their frequencies, and prepare the texts; occasionally rebuild the index in a new order."""
        encoded = self._vocabulary.encode(texts)
        known = len(self._counts)
        self._counts = np.concatenate([self._counts, np.zeros(len(self._vocabulary) - known, np.int64)])
        self._counts += np.bincount(encoded.numbers, minlength=len(self._counts))
        new = np.arange(known, len(self._counts), dtype=np.int32)
        self._popularity = np.concatenate([self._popularity, new])  # new words are treated as rare
        seen = int(self._counts.sum())
        if seen > 2 * self._ranked_words:
            self._ranked_words = seen
            self._popularity[np.argsort(-self._counts, kind="stable")] = np.arange(len(self._counts), dtype=np.int32)
            self._rebuild()
        return encoded, prepare(encoded, self._popularity, self._floor)

    def _rebuild(self) -> None:
        if self._texts:
            self._texts = [Texts.joined(self._texts)]
            self._segments = [Segment(prepare(self._texts[0], self._popularity, self._floor))]

    def _append(self, texts: Texts, rows: Rows, chosen: Bools, strings: Sequence[Any]) -> None:
        """Add the chosen of these texts as a segment, and merge segments that have become too small."""
        if not chosen.any():
            return
        self._texts.append(texts.where(chosen))
        self._strings.extend(string for string, take in zip(strings, chosen.tolist(), strict=True) if take)
        rows = rows.where(chosen)
        while self._segments and len(self._segments[-1].rows) < 2 * len(rows):
            rows = self._segments.pop().rows.joined(rows)
        self._segments.append(Segment(rows))

    def _search(self, rows: Rows, strings: Sequence[Any], scores: Floats, nearest: Ints) -> None:
        """Write the maxima of these texts over the index into `scores` and `nearest`."""
        base = 0
        for segment in self._segments:
            own, others = segment.candidates(rows)
            others += base
            own, others, found = self._compare(strings, self._strings, (own, others))
            order = np.lexsort((others, -found, own))
            own, others, found = own[order], others[order], found[order]
            best = np.flatnonzero(np.diff(own, prepend=-1))
            better = best[~(scores[own[best]] >= found[best])]  # keep an equal one from an earlier segment
            scores[own[better]], nearest[own[better]] = found[better], others[better]
            base += len(segment.rows)

    def _decide(self, rows: Rows, strings: Sequence[Any], limit: float, part: Judged) -> None:
        """Complete the results of a block, whose texts are also compared with each other."""
        own, others = Segment(rows).candidates(rows)
        earlier = others < own
        own, others, found = self._compare(strings, strings, (own[earlier], others[earlier]))
        starts = np.searchsorted(own, np.arange(len(rows) + 1)).tolist()
        partners, values = others.tolist(), found.tolist()
        places, place = [-1] * len(rows), len(self)  # future index positions of the accepted texts
        for text, (score, nearest) in enumerate(zip(part.rouge_l.tolist(), part.nearest.tolist(), strict=True)):
            for pair in range(starts[text], starts[text + 1]):
                if places[partners[pair]] >= 0 and not values[pair] <= score:  # a NaN score is replaced by any
                    score, nearest = values[pair], places[partners[pair]]
            part.rouge_l[text], part.nearest[text], part.before[text] = score, nearest, place
            if score > limit:
                part.accepted[text] = False
            else:
                places[text] = place
                place += 1

    def _compare(self, own: Sequence[Any], others: Sequence[Any], pairs: tuple[Ints, Ints]) -> tuple[Ints, Ints, Floats]:
        """The pairs (position in `own`, position in `others`) whose score is above the floor, and their scores."""
        kept: list[tuple[Ints, Ints, Floats]] = []
        for begin in range(0, len(pairs[0]), _CHUNK_PAIRS):
            first, second = (places[begin : begin + _CHUNK_PAIRS] for places in pairs)
            mine, theirs = [own[place] for place in first.tolist()], [others[place] for place in second.tolist()]
            common = cpdist(mine, theirs, scorer=LCSseq.similarity, dtype=np.int32)
            lengths = (np.fromiter(map(len, strings), np.int64, len(strings)) for strings in (mine, theirs))
            scores = f1(np.maximum(common, 1), *lengths)
            above = (scores > self._floor) & (common > 0)
            kept.append((first[above], second[above], scores[above]))
        if not kept:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        first, second, scores = (np.concatenate(columns) for columns in zip(*kept, strict=True))
        return first, second, scores


def _blocks(texts: Texts) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of runs of neighbouring texts: short enough that comparing all pairs within a run is cheap."""
    begin = 0
    while begin < len(texts):
        end = int(np.searchsorted(texts.starts, texts.starts[begin] + _BLOCK_WORDS, "right")) - 1
        end = min(max(end, begin + 1), begin + _BLOCK_TEXTS, len(texts))
        yield begin, end
        begin = end


def nearest_of(texts: Sequence[Any], pool: Sequence[Any], before: Ints, count: int) -> tuple[Floats, Ints]:
    """For each text, the `count` highest F1 with the first `before` of the pool, and their positions, the first in a tie.

    Both [texts, count], the best first; NaN and -1 if the pool has fewer. Texts are strings with one character per word, or
    lists of word numbers. O(texts × pool), in memory O(pool); all cores.
    """
    scores, places = np.full((len(texts), count), np.nan), np.full((len(texts), count), -1)
    pool_lengths = np.fromiter(map(len, pool), np.int64, len(pool))
    rows = max(1, _CDIST_PAIRS // max(1, len(pool)))
    for begin in range(0, len(texts), rows):
        some = texts[begin : begin + rows]
        size = int(before[begin : begin + rows].max())
        common = cdist(some, pool[:size], scorer=LCSseq.similarity, dtype=np.int32, workers=-1)  # [some, size]
        for row, (text, own) in enumerate(zip(some, common, strict=True), begin):
            found = _best(own[: before[row]], len(text), pool_lengths[: before[row]], count)
            scores[row, : len(found[0])], places[row, : len(found[1])] = found
    return scores, places


def _best(common: Any, length: int, lengths: Ints, count: int) -> tuple[Floats, Ints]:
    """The `count` best scores of one text and their positions."""
    rough = 2 * common / np.maximum(length + lengths, 1)
    places = np.flatnonzero(rough >= _at_most_the_last(rough, count) - 1e-12)
    shared = common[places]
    scores = np.where(shared > 0, f1(np.maximum(shared, 1), max(length, 1), np.maximum(lengths[places], 1)), 0.0)
    order = np.lexsort((places, -scores))[:count]
    return scores[order], places[order]


def _at_most_the_last(scores: Floats, count: int) -> float:
    """A score that at least `count` of them reach, and few others: the count-th highest maximum over runs of neighbours."""
    run = min(_RUN, len(scores) // count)
    if run < 2:
        return 0.0
    maxima = scores[: len(scores) // run * run].reshape(-1, run).max(axis=1)  # [at least count]
    return float(np.partition(maxima, len(maxima) - count)[len(maxima) - count])
