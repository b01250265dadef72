"""The ∞-gram language model combined with a neural one: interpolation, weights, perplexity, decontamination (Liu et al. 2024).

Everything here takes arrays: the engines that make neural log-probabilities belong to other packages.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.results import Scores

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

NGRAM_TOKENS = 13
SHARE = 0.8
_PROMPTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Mixture:
    """Weights of the ∞-gram probability: at sparse positions (a single token follows the context in the index), and elsewhere."""

    sparse: float
    dense: float

    def log_probabilities(self, neural: Floats, infinite: Floats, is_sparse: Flags) -> Floats:
        """Return ln(λ P∞ + (1 - λ) P_neural) at every position.

        `neural`: natural log-probabilities [tokens]; `infinite`: ∞-gram probabilities in 0..1 [tokens]; `is_sparse` [tokens].
        """
        _check(neural, infinite, is_sparse)
        weights = np.where(is_sparse, self.sparse, self.dense)
        with np.errstate(divide="ignore"):  # ln 0 if all weight is on an ∞-gram that never saw the token
            mixed: Floats = np.logaddexp(np.log(weights) + np.log(infinite), np.log1p(-weights) + neural)
        return mixed


def fit(neural: Floats, infinite: Floats, is_sparse: Flags) -> Mixture:
    """Return the weights with the lowest perplexity on these (validation) tokens; 0 for a kind of position without tokens.

    The log-likelihood is concave in each weight, so each is found by bisection of its derivative to 1e-9. O(tokens).
    """
    _check(neural, infinite, is_sparse)
    found = [_best_weight(np.exp(neural[mask]), infinite[mask]) for mask in (is_sparse, ~is_sparse)]
    return Mixture(sparse=found[0], dense=found[1])


def perplexity(log_probabilities: Floats) -> float:
    """Return exp of the mean negative natural log-probability; raises BadQuery if there are no tokens."""
    if not len(log_probabilities):
        raise BadQuery("perplexity needs at least one token")
    return float(np.exp(-np.mean(log_probabilities)))


def relative_improvement(mixed: float, neural: float) -> float:
    """Return the relative reduction of the perplexity's distance to 1: 1 - (mixed - 1) / (neural - 1)."""
    return 1.0 - (mixed - 1.0) / (neural - 1.0)


class Matches(Protocol):
    """What decontamination needs from an index of the evaluation texts."""

    def creativity(self, ids: Any) -> npt.NDArray[np.int64]:
        """For every position l of `ids`, the largest r such that ids[l:r] occurs."""
        ...


class Continuations(Protocol):
    """What finding sparse positions needs from an index."""

    def next_tokens_batch(self, ids: Any, offsets: Any) -> Any:
        """Return the next tokens of every prompt as compressed rows delimited by `offsets`."""
        ...


def sparse_flags(index: Continuations, ids: Any, scores: Scores) -> Flags:
    """Return, for every position, whether a single distinct token follows the longest suffix; an end of document is a token.

    `ids` [tokens] is the text of `scores` (from `index.score`). Counts decide most positions; the others need `next_tokens`.
    """
    text = np.asarray(ids)
    flags: Flags = (scores.prompt_counts == 1) | (scores.continuation_counts == scores.prompt_counts)
    undecided = np.flatnonzero(~flags)
    for at in range(0, len(undecided), _PROMPTS_AT_ONCE):
        some = undecided[at : at + _PROMPTS_AT_ONCE]
        prompts = [text[end - size : end] for end, size in zip(some, scores.suffix_tokens[some], strict=True)]
        offsets = np.cumsum([0, *map(len, prompts)])
        flags[some] = np.diff(index.next_tokens_batch(np.concatenate(prompts), offsets).offsets) == 1
    return flags


def contaminated_share(evaluation: Matches, ids: Any, ngram_tokens: int = NGRAM_TOKENS) -> float:
    """Return the share of a document's n-grams that occur in the evaluation texts; 0 for a document shorter than one n-gram."""
    if ngram_tokens < 1:
        raise BadQuery(f"ngram_tokens is {ngram_tokens}; it must be at least 1")
    ngrams = len(ids) - ngram_tokens + 1
    if ngrams < 1:
        return 0.0
    ends = np.asarray(evaluation.creativity(ids))[:ngrams]
    return float(np.mean(ends - np.arange(ngrams) >= ngram_tokens))


def contaminated(
    evaluation: Matches, documents: Iterable[Any], ngram_tokens: int = NGRAM_TOKENS, share: float = SHARE
) -> Iterator[int]:
    """Yield the numbers of documents (given as token ids) with at least `share` of their n-grams in the evaluation texts.

    Default: the rule by which the ∞-gram paper decontaminated the Pile (13-grams, 80 %). O(document · log evaluation) each.
    """
    if not 0 < share <= 1:
        raise BadQuery(f"share is {share}; it must be above 0 and at most 1")
    for number, ids in enumerate(documents):
        if contaminated_share(evaluation, ids, ngram_tokens) >= share:
            yield number


def _best_weight(neural: Floats, infinite: Floats) -> float:
    gain = infinite - neural
    if not gain.any():
        return 0.0
    low, high = 0.0, 1.0 - 1e-12
    if _slope(low, neural, gain) <= 0:
        return low
    if _slope(high, neural, gain) >= 0:
        return high
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(middle, neural, gain) > 0 else (low, middle)
    return (low + high) / 2


def _slope(weight: float, neural: Floats, gain: Floats) -> float:
    """The derivative of Σ ln(neural + weight · gain); a 0/0 term (both models give 0) does not affect the weight."""
    mixed = neural + weight * gain
    return float(np.sum(np.divide(gain, mixed, out=np.zeros_like(gain), where=mixed > 0)))


def _check(neural: Floats, infinite: Floats, is_sparse: Flags) -> None:
    if not len(neural) == len(infinite) == len(is_sparse):
        raise BadQuery(
            f"{len(neural)} neural log-probabilities, {len(infinite)} ∞-gram probabilities and {len(is_sparse)} sparse flags are "
            "of different lengths; give one of each per token"
        )
    if np.any(~(neural <= 0)) or np.any(~((infinite >= 0) & (infinite <= 1))):
        raise BadQuery("neural values must be natural log-probabilities (at most 0) and ∞-gram values probabilities (0 to 1)")
