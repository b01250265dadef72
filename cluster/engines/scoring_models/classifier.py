"""Which natural-language-inference model to load, and what a loaded one answers; read on the driver, so it imports nothing heavy.

A classifier reads a premise and a hypothesis as one row and says how likely it is that the first entails the second, is neutral
to it, or contradicts it (Bowman et al., 2015; Williams et al., 2018).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.contract import ScoringModelConfig
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.classifier_pairs import Joiner, Rows, batches

LABELS = ("entailment", "neutral", "contradiction")
"""The order of the columns of every answer, whatever the model's own."""


class ClassifierConfig(ScoringModelConfig):
    """Any Hugging Face sequence-classification model for natural-language inference, on a CPU or one GPU.

    `batch_tokens` bounds the tokens of one forward pass (null: 2048 on a CPU, 32768 on a GPU), `max_tokens` lowers the model's
    own limit. `label_names` names the model's classes by number where its config does not, for example
    [contradiction, entailment, neutral].
    """

    model: str = "alisawuffles/roberta-large-wanli"
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_tokens: int | None = Field(default=None, ge=16)
    max_tokens: int | None = Field(default=None, ge=8)
    label_names: tuple[str, ...] | None = Field(None, strict=False)  # not strict: YAML has lists, not tuples

    def load(self) -> "Classifier":
        """Load the model; raises LimbeckError where it is missing, is no such model, or its classes have no known names."""
        from limbeck.cluster.engines.scoring_models.classifier_loading import load

        return load(self)


class Forward(Protocol):
    """A model that answers rows of tokens."""

    def __call__(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the logits of the rows, longest row first.  # [rows, classes]"""
        ...


@dataclass(frozen=True)
class Judged:
    """What a classifier says of some pairs.

    `probabilities` [pairs, 3] float32 as `LABELS`; `cut_tokens` [pairs] int32: how many tokens of the premise's end the model did
    not see, because both together are too long for it.
    """

    probabilities: npt.NDArray[np.float32]
    cut_tokens: npt.NDArray[np.int32]


class Classifier:
    """A loaded model; `two_class`: it tells entailment from the rest only, so neutral and contradiction are NaN."""

    def __init__(self, joiner: Joiner, forward: Forward, places: Sequence[int], batch_tokens: int) -> None:
        """Take the tokenizer, the model, and the class numbers of entailment, neutral and contradiction (or the rest)."""
        assert len(places) in (2, 3)
        self.usage = Usage()
        self.two_class = len(places) == 2
        self._joiner = joiner
        self._forward = forward
        self._places = list(places)
        self._batch_tokens = batch_tokens

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return the probabilities of entailment, neutral and contradiction of each (premise, hypothesis).  # [pairs, 3]

        See `judge`.
        """
        return self.judge(pairs).probabilities

    def judge(self, pairs: Sequence[tuple[str, str]]) -> Judged:
        """Return the probabilities of each (premise, hypothesis), and how much of the premise had to be cut.

        Each distinct pair goes through the model once, each distinct text through the tokenizer once. Where both together are too
        long, the premise loses its end; where the hypothesis leaves no room for a premise, the row is NaN. Cost: one forward pass
        over the tokens of the distinct pairs, without padding for models of the BERT family.
        """
        places = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        joined = self._joiner.join(list(places))
        lengths = joined.lengths  # 0: does not fit
        found = np.full((len(places), len(LABELS)), np.nan, dtype=np.float32)
        for batch in batches(lengths, self._batch_tokens):
            clock = time.perf_counter()
            logits = self._forward(joined.rows(batch))
            self.usage.model_seconds += time.perf_counter() - clock
            found[batch] = self._probabilities(logits)
        self.usage.forwarded_tokens += int(lengths.sum())
        self._count("pairs", len(places))
        self._count("pairs_with_cut_premise", int((joined.cut_tokens > 0).sum()))
        order = np.array([places[pair] for pair in pairs], dtype=np.int64)
        return Judged(found[order], joined.cut_tokens[order])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, without special ones."""
        return self._joiner.count(texts)

    def _probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))  # [rows, classes]
        shares: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True))[:, self._places].astype(np.float32)
        if self.two_class:
            shares = np.column_stack([shares[:, 0], np.full((len(shares), 2), np.nan, dtype=np.float32)])
        return shares

    def _count(self, what: str, number: int) -> None:
        self.usage.extra[what] = self.usage.extra.get(what, 0.0) + number
