"""Input sequences of a masked language model for a text with hidden tokens, and the positions of their probabilities."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.scoring_models.batching import Batch, Lengths, by_length

Tokens = tuple[int, ...]

_FULL_ENOUGH = 0.5  # a batch this full ends when sequences get shorter, so that little of it is padding
_SHORTER = 0.9


@dataclass(frozen=True)
class Pieces:
    """A text by itself: its tokens, and the character range of each."""

    tokens: Tokens
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Hidden:
    """One sequence to run: the probability of `targets[i]` is at position `places[i]` (of the decoder, if there is one)."""

    tokens: Tokens
    segments: Tokens  # one per token
    decoder: Tokens  # what the decoder reads; empty for a model without one
    places: Tokens
    targets: Tokens


@dataclass(frozen=True)
class Cloze:
    """BERT-like: every hidden token becomes the mask token, and all are restored at once.

    `single` and `pair` hold the special tokens before, between and after the texts; `segments` assigns each to one of the two
    texts (0 or 1), and `has_segments` is whether the model takes segments.
    """

    mask: int
    pad: int
    single: tuple[Tokens, Tokens]
    pair: tuple[Tokens, Tokens, Tokens]
    pair_segments: tuple[Tokens, Tokens, Tokens]
    has_segments: bool

    @property
    def special_tokens(self) -> int:
        """Number of special tokens around two texts."""
        return sum(len(tokens) for tokens in self.pair)

    def compose(self, condition: Tokens, text: Tokens, hidden: Sequence[int]) -> Iterator[Hidden]:
        """Yield the sequence that hides the tokens at `hidden` of `text`; none if nothing is hidden."""
        if not hidden:
            return
        hide = set(hidden)
        shown = tuple(self.mask if place in hide else token for place, token in enumerate(text))
        if condition:
            (first, between, last), (a, b, c) = self.pair, self.pair_segments
            before = first + condition + between
            segments = a + (0,) * len(condition) + b + (1,) * len(text) + c
        else:
            before, last = self.single
            segments = (0,) * (len(before) + len(text) + len(last))
        tokens, targets = before + shown + last, tuple(text[place] for place in hidden)
        yield Hidden(tokens, segments, (), tuple(len(before) + place for place in hidden), targets)

    def inputs(self, batch: Sequence[Hidden]) -> dict[str, npt.NDArray[np.int64]]:
        """Inputs of the model's `forward`.  # each [batch, tokens]"""
        inputs = _padded([hidden.tokens for hidden in batch], self.pad)
        if self.has_segments:
            inputs["token_type_ids"] = _padded([hidden.segments for hidden in batch], 0)["input_ids"]
        return inputs

    def trunk(self, model: Any) -> Any:
        """The module whose hidden states the output layer turns into logits."""
        return model.base_model


@dataclass(frozen=True)
class Infilling:
    """T5-like: each run of hidden tokens becomes one sentinel, and the decoder restores the runs in order.

    The condition precedes the text in the encoder. If there are more runs than sentinels, they are distributed over as few passes
    as possible, and each pass shows the runs that the others hide.
    """

    sentinels: Tokens
    start: int
    end: int
    pad: int
    special_tokens: int = 1

    def compose(self, condition: Tokens, text: Tokens, hidden: Sequence[int]) -> Iterator[Hidden]:
        """Yield the sequences that hide the tokens at `hidden` of `text`; none if nothing is hidden."""
        runs = _runs(hidden)
        passes = -(-len(runs) // len(self.sentinels))
        for number in range(passes):
            yield self._pass(condition, text, runs[number::passes])

    def _pass(self, condition: Tokens, text: Tokens, runs: Sequence[tuple[int, int]]) -> Hidden:
        encoder, decoder, places, targets = list(condition), [self.start], [], list[int]()
        shown = 0
        for sentinel, (begin, end) in zip(self.sentinels, runs, strict=False):
            encoder += [*text[shown:begin], sentinel]
            decoder.append(sentinel)
            for token in text[begin:end]:
                places.append(len(decoder) - 1)
                targets.append(token)
                decoder.append(token)
            shown = end
        encoder += [*text[shown:], self.end]
        return Hidden(tuple(encoder), (), tuple(decoder[:-1]), tuple(places), tuple(targets))  # the last token is only a target

    def inputs(self, batch: Sequence[Hidden]) -> dict[str, Any]:
        """Inputs of the model's `forward`.  # [batch, encoder tokens], [batch, decoder tokens]"""
        decoder = _padded([hidden.decoder for hidden in batch], self.pad)["input_ids"]  # causal: does not see padding after it
        return {**_padded([hidden.tokens for hidden in batch], self.pad), "decoder_input_ids": decoder, "use_cache": False}

    def trunk(self, model: Any) -> Any:
        """The module whose hidden states the output layer turns into logits."""
        return model.get_decoder()


Form = Cloze | Infilling


def cloze(template: Mapping[str, Any], mask: int, pad: int, has_segments: bool) -> Cloze:
    """Return the form of a BERT-like model; `template` is its tokenizer's output for the texts ("a",) and ("a", "a").

    Keys `single` and `pair`, each with `ids`, `sequence_ids` (null: a special token) and `type_ids`.
    """
    before, after = _specials(template["single"], "ids", 2)
    pair, segments = _specials(template["pair"], "ids", 3), _specials(template["pair"], "type_ids", 3)
    return Cloze(mask, pad, (before, after), (pair[0], pair[1], pair[2]), (segments[0], segments[1], segments[2]), has_segments)


def batches(lengths: Sequence[tuple[int, int]], batch_tokens: int) -> Iterator[list[int]]:
    """Lists of indices whose padded lengths (encoder and decoder) sum to at most `batch_tokens`, the longest first.

    A longer sequence has its own batch. O(n log n).
    """

    def full(batch: Batch, row: Lengths) -> bool:
        widest = sum(batch.widest)
        filled = batch.rows * widest >= _FULL_ENOUGH * batch_tokens and sum(row) < _SHORTER * widest
        return batch.padded_with(row) > batch_tokens or filled

    return by_length(lengths, full, last_first=True)


def _specials(encoded: Mapping[str, Any], key: str, gaps: int) -> list[Tokens]:
    """The entries of the list `key` before the first text, between the texts, and after the last."""
    found: list[list[int]] = [[]]
    within = False
    for value, sequence in zip(encoded[key], encoded["sequence_ids"], strict=True):
        if sequence is None:
            found[-1].append(value)
        elif not within or sequence != len(found) - 2:
            found.append([])
        within = sequence is not None
    assert len(found) == gaps, encoded
    return [tuple(values) for values in found]


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Maximal runs of consecutive positions, as half-open ranges."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


def _padded(rows: Sequence[Tokens], pad: int) -> dict[str, npt.NDArray[np.int64]]:
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    lengths = np.array([len(tokens) for tokens in rows])
    return {"input_ids": ids, "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64)}
