"""Masked language models: how likely the hidden words of a text are, alone or behind another text.

Two families, told apart by what the model folder holds. T5-like ones (an encoder and a decoder, `<extra_id_0>` among the tokens)
restore each run of hidden tokens behind one sentinel, by the decoder's chain rule (Raffel et al., 2020). BERT-like ones (a mask
token) restore all hidden tokens at once, each given the visible ones alone, so the hidden are taken as independent (Devlin et
al., 2019). `masked_forms.py` composes the sequences of both.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from limbeck.cluster.engines.contract import ScoringModelConfig
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.masked_forms import Form, Hidden, Pieces, batches

Logprobs = npt.NDArray[np.float32]

_CHARACTERS_PER_TOKEN = 12  # a first guess at how much text to tokenise; it grows where it was too little


class MaskedConfig(ScoringModelConfig):
    """A masked language model in this process; `batch_tokens` bounds one forward pass, padding counted.

    `context_tokens` lowers the model's own limit on the tokens that it reads at once.
    """

    model: str = "google-t5/t5-large"
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_tokens: int = Field(default=2048, ge=16)
    context_tokens: int | None = Field(default=None, ge=8)

    def load(self) -> "MaskedModel":
        """Return the loaded model; raises LimbeckError where it is missing, cut off or no masked language model."""
        from limbeck.cluster.engines.scoring_models.masked_loading import load  # imports torch

        return load(self)


@dataclass(frozen=True)
class Infill:
    """A text whose characters in `spans` are hidden, read behind `condition` ("": alone).

    The two are tokenised apart, so a text has the same tokens behind any condition. Whole tokens are hidden: all that overlap a
    span.
    """

    condition: str
    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass
class MaskedModel:
    """A loaded masked language model; `context_tokens` bounds condition, text and special tokens together."""

    model: Any
    tokenizer: Any
    form: Form
    context_tokens: int
    batch_tokens: int
    usage: Usage = field(default_factory=Usage)

    def logprobs(self, infills: Sequence[Infill]) -> list[Logprobs]:
        """Return one natural log-probability for each hidden token of each text; one NaN where condition and text do not fit.

        Every distinct sequence runs once; sequences of like length run together, and the output layer only at hidden tokens.
        Equal to one sequence at a time within rounding. A text without hidden tokens gives an empty array.
        """
        pieces = self._pieces(text for infill in infills for text in (infill.condition, infill.text))
        composed = {infill: self._compose(infill, pieces) for infill in dict.fromkeys(infills)}
        distinct = list(dict.fromkeys(sequence for sequences in composed.values() for sequence in sequences or ()))
        found = dict(zip(distinct, self._run(distinct), strict=True))
        answers: dict[Infill, Logprobs] = {}
        for infill, sequences in composed.items():
            parts = [found[sequence] for sequence in sequences] if sequences is not None else [np.full(1, np.nan, np.float32)]
            answers[infill] = np.concatenate([np.zeros(0, np.float32), *parts])
        return [answers[infill] for infill in infills]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, without special tokens."""
        pieces = self._pieces(texts)
        return [len(pieces[text].tokens) for text in texts]

    def room(self, tokens: int) -> int:
        """How many tokens another text may have beside one of so many `tokens`; 0 or less: none."""
        return self.context_tokens - self.form.special_tokens - tokens

    def shortened(self, text: str, tokens: int) -> str:
        """Return the longest beginning of `text` that has at most `tokens` tokens and ends at a word, where one does."""
        if tokens <= 0:
            return ""
        window = tokens * _CHARACTERS_PER_TOKEN
        while True:
            offsets = self._pieces([text[:window]])[text[:window]].offsets
            if len(offsets) > tokens or window >= len(text):
                break
            window *= 4
        if len(offsets) <= tokens:
            return text
        end = offsets[tokens - 1][1]
        while end > 0:
            head = _up_to_a_word(text, end)
            if self.count_tokens([head])[0] <= tokens:  # a tokenizer may split a shorter text differently
                return head
            end = len(head) - 1
        return ""

    def _pieces(self, texts: Iterable[str]) -> dict[str, Pieces]:
        """The tokens of each distinct text by itself, without special tokens."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        encoded = self.tokenizer(distinct, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        both = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return {text: Pieces(tuple(ids), tuple(offsets)) for text, (ids, offsets) in zip(distinct, both, strict=True)}

    def _compose(self, infill: Infill, pieces: dict[str, Pieces]) -> tuple[Hidden, ...] | None:
        """The sequences that hide the spans; None where condition and text do not fit."""
        condition, text = pieces[infill.condition], pieces[infill.text]
        if len(text.tokens) > self.room(len(condition.tokens)):
            return None
        hidden = [place for place, (a, b) in enumerate(text.offsets) if any(a < end and b > start for start, end in infill.spans)]
        return tuple(self.form.compose(condition.tokens, text.tokens, hidden))

    def _run(self, sequences: Sequence[Hidden]) -> list[Logprobs]:
        from limbeck.cluster.engines.scoring_models.masked_loading import forward  # imports torch

        found: dict[int, Logprobs] = {}
        for members in batches([(len(s.tokens), len(s.decoder)) for s in sequences], self.batch_tokens):
            start = time.perf_counter()
            batch = [sequences[member] for member in members]
            found.update(zip(members, forward(self.model, self.form, batch), strict=True))
            self.usage.model_seconds += time.perf_counter() - start
            self.usage.forwarded_tokens += sum(len(sequence.tokens) + len(sequence.decoder) for sequence in batch)
        return [found[place] for place in range(len(sequences))]


def _up_to_a_word(text: str, end: int) -> str:
    """`text[:end]`, without the word that `end` falls into; with it where that would leave nothing."""
    if end >= len(text) or text[end].isspace():
        return text[:end].rstrip() or text[:end]
    words = text[:end].rsplit(None, 1)
    return words[0] if len(words) == 2 else text[:end]
