"""Query results: small frozen records; token ids are int64 arrays in reading order."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """Count of a query (without removed documents), and its half-open range of ranks in every shard (with them)."""

    count: int
    ranges: tuple[tuple[int, int], ...]


class Probability(NamedTuple):
    """Count of a prompt, count with the continuation, and their ratio (nan if the prompt never occurs).

    `suffix_tokens` is the number of prompt tokens used, from the end: all, or for infini-gram queries the longest suffix that
    occurs.
    """

    prompt_count: int
    continuation_count: int
    probability: float
    suffix_tokens: int


@dataclass(frozen=True, slots=True)
class NextTokens:
    """The tokens that follow a prompt, ascending by id, and their exact counts; the end of a document counts under the eos id."""

    prompt_count: int
    ids: Integers
    counts: Integers
    suffix_tokens: int

    @property
    def probabilities(self) -> Floats:
        """Each token's share of the prompt's occurrences."""
        return self.counts / max(1, self.prompt_count)


@dataclass(frozen=True, slots=True)
class Probabilities:
    """`Probability` of a batch: arrays, one entry per query."""

    prompt_counts: Integers
    continuation_counts: Integers
    probabilities: Floats
    suffix_tokens: Integers


@dataclass(frozen=True, slots=True)
class NextTokensBatch:
    """`NextTokens` of a batch: query q has ids[offsets[q]:offsets[q + 1]] and the matching counts."""

    prompt_counts: Integers
    offsets: Integers
    ids: Integers
    counts: Integers
    suffix_tokens: Integers


@dataclass(frozen=True, slots=True)
class Scores:
    """For every position of a text: the longest suffix before it that occurs, its counts, and the token's probability.

    A probability is 0 if that suffix is never followed by the token; there is no further back-off (Liu et al. 2024).
    """

    suffix_tokens: Integers
    prompt_counts: Integers
    continuation_counts: Integers
    probabilities: Floats


@dataclass(frozen=True, slots=True)
class Document:
    """A window of a document: `ids` are its tokens [begin, begin + len(ids)) and the match begins at ids[needle]."""

    number: int
    shard: int
    tokens: int
    begin: int
    needle: int
    ids: Integers
    metadata: dict[str, Any] | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Matches:
    """Number of occurrences (`approximate` if only a sample was examined) and the documents of the sampled ones."""

    count: int
    approximate: bool
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class MatchesBatch:
    """Sampled occurrences of a batch of queries; those of query q are rows `offsets[q]` to `offsets[q + 1]` of `hits`."""

    counts: Integers  # [queries]
    offsets: Integers  # [queries + 1]
    hits: Integers  # [hits, 4]: shard, byte offset of the occurrence, document of the shard, number of the occurrence


@dataclass(frozen=True, slots=True)
class TracedDocument:
    """A document that holds a span, and its BM25 relevance to the whole text."""

    document: Document
    relevance: float


@dataclass(frozen=True, slots=True)
class TracedSpan:
    """The span [begin, end) of a text that occurs in the index word for word, and where."""

    begin: int
    end: int
    count: int
    unigram_log_probability: float
    documents: tuple[TracedDocument, ...]


def ratio(continuations: Integers, prompts: Integers) -> Floats:
    """Continuation counts over prompt counts, nan if the prompt count is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return continuations / prompts
