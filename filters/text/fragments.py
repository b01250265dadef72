"""The words that two texts share verbatim: the longest common run from every position, in linear time."""

from collections.abc import Sequence
from functools import lru_cache

from limbeck.corpus.text.words import words_with_apostrophes


class Runs:
    """All runs of words of a text, as a suffix automaton (Blumer et al., 1985) over the reversed words. O(words) to build."""

    def __init__(self, words: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        last = 0
        for word in reversed(words):
            last = self._extend(last, word)

    def matches(self, words: Sequence[str]) -> list[int]:
        """For every position of `words`, the length of the longest run from it that is in the text. O(words).  # [words]"""
        found = [0] * len(words)
        state, length = 0, 0
        following, link, lengths = self._next, self._link, self._length
        for place in range(len(words) - 1, -1, -1):
            word = words[place]
            while state and word not in following[state]:
                state = link[state]
                length = lengths[state]
            if word in following[state]:
                state = following[state][word]
                length += 1
            found[place] = length
        return found

    def _extend(self, last: int, word: str) -> int:
        new = self._state(self._length[last] + 1, {}, 0)
        state = last
        while state >= 0 and word not in self._next[state]:
            self._next[state][word] = new
            state = self._link[state]
        if state < 0:
            return new
        old = self._next[state][word]
        if self._length[state] + 1 == self._length[old]:
            self._link[new] = old
            return new
        copy = self._state(self._length[state] + 1, dict(self._next[old]), self._link[old])
        while state >= 0 and self._next[state].get(word) == old:
            self._next[state][word] = copy
            state = self._link[state]
        self._link[old] = self._link[new] = copy
        return new

    def _state(self, length: int, following: dict[str, int], link: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        return len(self._next) - 1


@lru_cache(maxsize=8)
def runs_of(text: str) -> Runs:
    """The runs of a text's words, cached for a few texts because the candidates of a source are scored one after another."""
    return Runs(words_with_apostrophes(text))


def fragments(matches: Sequence[int]) -> list[int]:
    """The lengths of the extractive fragments of a text, greedily the longest from the left (Grusky et al., 2018, figure 3).

    `matches`: `Runs.matches` of its words. Fragments do not overlap.
    """
    found = []
    place = 0
    while place < len(matches):
        if matches[place]:
            found.append(matches[place])
        place += matches[place] or 1
    return found
