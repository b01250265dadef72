"""Premise windows: how a long text is cut for a model that reads a few sentences well, and how its answers are put together.

The rule is SummaC's (Laban et al., 2022, the zero-shot form): every sentence of the hypothesis is held against every window of
the premise, the best window counts, and the sentences are averaged. With `window_tokens`, windows are neighbouring sentences of
so many tokens together, as AlignScore has them (Zha et al., 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from limbeck.corpus.sentences import split_sentences

Probabilities = npt.NDArray[np.float32]  # [pairs, 3]: entailment, neutral, contradiction
Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Question:
    """Whether a premise entails a hypothesis: every window of the one against every sentence of the other."""

    windows: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs to ask for, sentence by sentence; none where either side is empty."""
        return [(window, sentence) for sentence, window in product(self.sentences, self.windows)]


@dataclass(frozen=True)
class Answer:
    """What the pairs of a question say together, and the sentence that is entailed least ("" where none could be judged)."""

    entailment: float
    neutral: float
    contradiction: float
    least_entailed: str


def sentence_windows(text: str, window_tokens: int | None, count: Count) -> tuple[str, ...]:
    """Cut a text into its sentences, or into runs of neighbouring sentences of at most `window_tokens` together.

    A sentence longer than that is a window of its own. `count` gives each text's tokens.
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


def answer(question: Question, found: Probabilities) -> Answer:
    """Put the probabilities of a question's pairs together.

    Of each sentence: the highest entailment and the highest contradiction over the windows, and the lowest neutral. Then the mean
    over the sentences. Windows that could not be judged are left out; a sentence that no window could judge makes all three NaN.
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
    """The highest of each row that is a number, NaN where there is none.  # [sentences, windows] -> [sentences]"""
    highest = np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
    return np.where(np.isinf(highest), np.nan, highest)
