"""Which answers to one prompt are a preference pair, and what all pairs of a dataset have in common: margins and lengths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from pydantic import Field

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.runs.rows import PreferenceRows
from limbeck.pipelines.runs.self_test import Share, counted, percent, wilson

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LEAKING_SHARE, LEAKING_RATIO = 0.6, 1.25
"""Lengths differ much from here on: the share of pairs whose longer answer is the same one, and the ratio of the means."""


@dataclass(frozen=True)
class Contender:
    """An answer to a prompt: its score, its words, and which side of a pair it may be on."""

    text: str
    score: float
    words: int
    may_win: bool = True
    may_lose: bool = True
    tokens: int = 0


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, by their places among the contenders; `margin` is at least 0."""

    chosen: int
    rejected: int
    margin: float


def pairs_of(contenders: Sequence[Contender], rows: PreferenceRows, random: Random) -> list[Pair]:
    """Return the pairs of one prompt, those that differ most first; `random` draws for `best_random`.

    Contenders are in order of their samples: the earlier one is taken if scores or differences are equal. Two answers with the
    same text are never a pair, and no two pairs have the same two texts. O(contenders²).
    """
    found = _distinct(
        sorted(_eligible(contenders, rows), key=lambda pair: (-pair.margin, pair.chosen, pair.rejected)), contenders
    )
    if rows.pairs == "all" or not found:
        return found
    if rows.pairs == "best_worst":
        return found[:1]
    sign = 1 if rows.order == "highest" else -1
    best = min({pair.chosen for pair in found}, key=lambda place: (-sign * contenders[place].score, place))
    below = [pair for pair in found if pair.chosen == best]
    return below if rows.pairs == "best_each" else [random.choice(below)]


def _eligible(contenders: Sequence[Contender], rows: PreferenceRows) -> list[Pair]:
    """Every pair that the margin, the lengths and the sides allow."""
    sign, most = (1 if rows.order == "highest" else -1), rows.max_length_ratio
    usable = [(place, one) for place, one in enumerate(contenders) if math.isfinite(one.score)]
    pairs = []
    for place, winner in usable:
        for other, loser in usable:
            margin = sign * (winner.score - loser.score)
            if not (winner.may_win and loser.may_lose and margin > 0 and margin >= rows.margin) or winner.text == loser.text:
                continue
            if most is None or max(winner.words, loser.words) <= most * max(1, min(winner.words, loser.words)):
                pairs.append(Pair(place, other, margin))
    return pairs


def _distinct(pairs: Sequence[Pair], contenders: Sequence[Contender]) -> list[Pair]:
    """The first pair of each two texts, in either order."""
    texts = {frozenset((contenders[pair.chosen].text, contenders[pair.rejected].text)): pair for pair in reversed(pairs)}
    kept = set(texts.values())
    return [pair for pair in pairs if pair in kept]


class Quantiles(Config):
    """The distribution of one figure over pairs."""

    mean: float
    minimum: float
    q05: float
    q25: float
    median: float
    q75: float
    q95: float
    maximum: float


class Lengths(Config):
    """Lengths of chosen and rejected answers, and in how many pairs the chosen one is longer (ties count half)."""

    chosen: Quantiles
    rejected: Quantiles
    ratio: float | None = Field(description="mean of the chosen answers / mean of the rejected ones; null: the latter is 0")
    chosen_longer: Share


class Preferences(Config):
    """preferences.json: the pairs of a dataset. Intervals count prompts, since pairs of one prompt depend on each other."""

    by: str
    order: str
    pairs_are: str = Field(description="the recipe's rows.pairs")
    form: str
    asked_margin: float
    prompts: int = Field(description="prompts with a scored answer that may be in a pair")
    compared: int = Field(description="prompts with two such answers or more")
    prompts_with_pair: int
    unscored: int = Field(description="candidates with an output but without this score: in no pair")
    pairs: int
    rows: int = Field(description="rows of the dataset: its pairs, or their answers with a label")
    both: int = Field(description="labelled: answers left out, since they are chosen in one pair and rejected in another")
    margins: Quantiles
    words: Lengths
    tokens: Lengths


@dataclass
class Tally:
    """Counts prompts and pairs as they are made; 5 numbers per pair stay in memory."""

    rows: PreferenceRows
    prompts: int = 0
    compared: int = 0
    prompts_with_pair: int = 0
    written: int = 0
    both: int = 0
    unscored: int = 0
    largest: float = 0.0
    """The largest difference of two scores of one prompt, in a pair or not."""
    margins: list[float] = field(default_factory=list)
    words: list[tuple[int, int]] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)

    def add(self, contenders: Sequence[Contender], pairs: Sequence[Pair], written: int, both: int) -> None:
        """Count one prompt: its answers, its pairs, and the rows made of them."""
        scores = [one.score for one in contenders if math.isfinite(one.score)]
        self.prompts += bool(scores)
        self.compared += len(scores) > 1
        self.prompts_with_pair += bool(pairs)
        self.written += written
        self.both += both
        if scores:
            self.largest = max(self.largest, max(scores) - min(scores))
        for pair in pairs:
            chosen, rejected = contenders[pair.chosen], contenders[pair.rejected]
            self.margins.append(pair.margin)
            self.words.append((chosen.words, rejected.words))
            self.tokens.append((chosen.tokens, rejected.tokens))

    def facts(self) -> Preferences:
        """All of it; raises LimbeckError if there is no pair."""
        rows = self.rows
        if not self.margins:
            raise LimbeckError(f"no two answers to one prompt are a pair by {rows.by}: {self._why()}")
        if not self.written:
            raise LimbeckError(
                "every answer is chosen in one pair and rejected in another, so none can be labelled; set rows.pairs: best_worst"
            )
        prompts = self.prompts_with_pair
        return Preferences(
            by=rows.by,
            order=rows.order,
            pairs_are=rows.pairs,
            form=rows.form,
            asked_margin=rows.margin,
            prompts=self.prompts,
            compared=self.compared,
            prompts_with_pair=prompts,
            unscored=self.unscored,
            pairs=len(self.margins),
            rows=self.written,
            both=self.both,
            margins=_quantiles(np.array(self.margins)),
            words=_lengths(np.array(self.words), prompts),
            tokens=_lengths(np.array(self.tokens), prompts),
        )

    def _why(self) -> str:
        """What stands in the way of a pair, and the way out."""
        rows = self.rows
        if not self.prompts:
            return "no answer has this score; choose another column, or score every candidate (filters.NAME.lazy: false)"
        if not self.compared:
            return "no prompt has two scored answers; draw several answers per prompt"
        if self.largest < rows.margin:
            return f"the largest difference is {self.largest:.4g}, below rows.margin {rows.margin:g}; lower it"
        return (
            f"{self.compared} prompts have two scored answers or more, and differences reach {self.largest:.4g}, but none has "
            f"one that may be chosen ({rows.chosen}) beside a worse one that may be rejected ({rows.rejected}); "
            "change rows.chosen, rows.rejected, rows.margin or rows.max_length_ratio"
        )


def _quantiles(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Quantiles:
    names = list(Quantiles.model_fields)[1:]
    found = np.quantile(values, QUANTILES).tolist()
    return Quantiles(mean=float(values.mean()), **dict(zip(names, found, strict=True)))


def _lengths(both: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", prompts: int) -> Lengths:
    """`both`: lengths of the chosen and of the rejected answer.  # [pairs, 2]"""
    chosen, rejected = both[:, 0].astype(np.float64), both[:, 1].astype(np.float64)
    longer = np.where(chosen > rejected, 1.0, np.where(chosen == rejected, 0.5, 0.0))
    mean = float(rejected.mean())
    return Lengths(
        chosen=_quantiles(chosen),
        rejected=_quantiles(rejected),
        ratio=float(chosen.mean()) / mean if mean else None,
        chosen_longer=wilson(float(longer.mean()), prompts),
    )


def warning(found: Preferences) -> str | None:
    """A sentence if lengths tell chosen from rejected answers, which a model would learn first; else None."""
    words = found.words
    share, ratio = words.chosen_longer, words.ratio or 1.0
    clear = share.low > 0.5 or share.high < 0.5
    often = share.share >= LEAKING_SHARE or share.share <= 1 - LEAKING_SHARE
    far = ratio >= LEAKING_RATIO or ratio <= 1 / LEAKING_RATIO
    if not (clear and (often or far)):
        return None
    side, part = ("longer", share) if share.share > 0.5 else ("shorter", _other(share))
    return (
        f"Length tells chosen from rejected answers: the chosen one is {side} in {percent(part)} of the pairs, with "
        f"{words.chosen.mean:.1f} words on average against {words.rejected.mean:.1f}, so a model may learn the length and not "
        "the preference; set rows.max_length_ratio, or compare by another score."
    )


def summary(found: Preferences) -> str:
    """The pairs in two sentences."""
    rows = f", as {found.rows} labelled answers" if found.form == "labelled" else ""
    margins, words = found.margins, found.words
    left = f" {found.both} answers are left out, since they are chosen in one pair and rejected in another." if found.both else ""
    return (
        f"{counted(found.pairs, 'pair')} by {found.by}{rows}, from {found.prompts_with_pair} of {found.compared} prompts with "
        f"two scored answers that may be paired. Median margin {margins.median:.3g} (5 % to 95 %: {margins.q05:.3g} to "
        f"{margins.q95:.3g}); the chosen answer has {words.chosen.mean:.1f} words on average, the rejected one "
        f"{words.rejected.mean:.1f}, and the chosen one is longer in {percent(words.chosen_longer)} of the pairs.{left}"
    )


def _other(share: Share) -> Share:
    return Share(share=1 - share.share, low=1 - share.high, high=1 - share.low)
