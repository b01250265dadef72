"""What queries return: small frozen records; token ids are int64 arrays in reading order."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """How often a query occurs (without documents taken down), and its half-open range of ranks in every shard (with them)."""

    count: int
    ranges: tuple[tuple[int, int], ...]


class Probability(NamedTuple):
    """How often a prompt occurs, how often with the continuation, their ratio (nan where the prompt never occurs).

    `suffix_tokens` is how many of the prompt's last tokens were used: all of them, or for infini-gram queries as many as occur.
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
    """`Probability` of a batch: arrays, one entry a query."""

    prompt_counts: Integers
    continuation_counts: Integers
    probabilities: Floats
    suffix_tokens: Integers


@dataclass(frozen=True, slots=True)
class NextTokensBatch:
    """`NextTokens` of a batch: query q has ids[offsets[q]:offsets[q + 1]] and the counts beside them."""

    prompt_counts: Integers
    offsets: Integers
    ids: Integers
    counts: Integers
    suffix_tokens: Integers


@dataclass(frozen=True, slots=True)
class Scores:
    """For every position of a text: the longest suffix of what stands before it that occurs, its counts, the token's probability.

    A probability is 0 where that suffix is never followed by the token; there is no further back-off (Liu et al. 2024).
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
    """How many occurrences there are (`approximate` where only some were looked at) and the documents of those drawn."""

    count: int
    approximate: bool
    documents: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class MatchesBatch:
    """Drawn occurrences of many queries; those of query q are rows `offsets[q]` to `offsets[q + 1]` of `hits`."""

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
    """Continuation counts over prompt counts, nan where there is no prompt."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return continuations / prompts
