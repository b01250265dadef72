"""Premise windows: how a long text is split for a model that reads a few sentences well, and how its answers are combined.

This follows SummaC (Laban et al., 2022, the zero-shot form): every sentence of the hypothesis is compared with every window of
the premise, the best window counts, and the sentences are averaged. With `window_tokens`, a window is a run of adjacent sentences
of up to that many tokens, as in AlignScore (Zha et al., 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from limbeck.corpus.sentences import split_sentences

Probabilities = npt.NDArray[np.float32]  # [pairs, 3]: entailment, neutral, contradiction
Count = Callable[[Sequence[str]], list[int]]

LEAST_TOKENS = 8
"""Of a sentence, for the estimate of how many windows a text has."""


@dataclass(frozen=True)
class Question:
    """Whether a premise entails a hypothesis: every window of the premise against every sentence of the hypothesis."""

    windows: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs to score, sentence by sentence; empty if either side is empty."""
        return [(window, sentence) for sentence, window in product(self.sentences, self.windows)]


@dataclass(frozen=True)
class Answer:
    """The combined probabilities of a question's pairs, and the least entailed sentence ("" if none could be scored)."""

    entailment: float
    neutral: float
    contradiction: float
    least_entailed: str


def sentence_windows(text: str, window_tokens: int | None, count: Count) -> tuple[str, ...]:
    """Split a text into its sentences, or into runs of adjacent sentences of at most `window_tokens` together.

    A longer sentence is a window of its own. `count` returns the token count of each text.
    """
    sentences = split_sentences(text)
    if window_tokens is None or not sentences:
        return tuple(sentences)
    windows: list[list[str]] = []
    filled = 0
    for sentence, tokens in zip(sentences, count(sentences), strict=True):
        if not windows or filled + tokens > window_tokens:
            windows.append([])
            filled = 0
        windows[-1].append(sentence)
        filled += tokens
    return tuple(" ".join(window) for window in windows)


def most_windows(tokens: int, window_tokens: int | None) -> int:
    """How many windows a text of this length has at most, if no sentence is shorter than `LEAST_TOKENS`."""
    sentences = max(1, -(-tokens // LEAST_TOKENS))
    if window_tokens is None:
        return sentences
    return min(sentences, 1 + 2 * tokens // window_tokens)  # two adjacent windows are together longer than one may be


def answer(question: Question, found: Probabilities) -> Answer:
    """Combine the probabilities of a question's pairs.

    For each sentence: the highest entailment and contradiction and the lowest neutral over the windows; then the mean over the
    sentences. Windows that could not be scored are ignored; a sentence without any scored window makes all three NaN.
    """
    if not question.windows or not question.sentences:
        return Answer(float("nan"), float("nan"), float("nan"), "")
    by_sentence = found.reshape(len(question.sentences), len(question.windows), 3).astype(np.float64)
    entailment = _best(by_sentence[:, :, 0])
    neutral = -_best(-by_sentence[:, :, 1])
    contradiction = _best(by_sentence[:, :, 2])
    least = "" if np.isnan(entailment).any() else question.sentences[int(entailment.argmin())]
    return Answer(float(entailment.mean()), float(neutral.mean()), float(contradiction.mean()), least)


def _best(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The highest number of each row, NaN if there is none.  # [sentences, windows] -> [sentences]"""
    highest = np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
    return np.where(np.isinf(highest), np.nan, highest)
