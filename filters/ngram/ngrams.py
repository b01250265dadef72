"""The n-gram filter: how much of an output occurs verbatim in a corpus, and how likely the output is under the corpus.

All results are exact, from an infini-gram index (Liu et al., 2024) in this process, in a few calls per part. For every token of
an output the index finds the longest span that starts there and occurs in the corpus; this gives the longest verbatim span and
the coverage: the share of tokens in verbatim spans of at least `span_tokens`. The ∞-gram log-probability is the output's
probability under the corpus as a language model of unbounded order. Contamination uses an index of benchmark texts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.columns import SHARE, Range, ranges_of, score_table
from limbeck.filters.config import Cost, FilterConfig, Limit, Name
from limbeck.filters.contract import Bound
from limbeck.filters.ngram.indexes import (
    covered_tokens,
    encode,
    fingerprint,
    longest_spans,
    ngram_share,
    row_sums,
    usable,
    window_share,
)

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

EARLIER = "run:earlier"
"""The `index` of a recipe that compares with the datasets of the run's own earlier rounds."""
UNITS = {
    **{"tokens": "tokens of the index", "longest_tokens": "tokens of the index", "longest_share": SHARE, "coverage": SHARE},
    **{"infgram_logprob": "nats / token", "contamination": SHARE},
}


class ContaminationConfig(Config):
    """An index of benchmark texts, and the rule by which an output is compared with them.

    `13-gram`: the share of the output's 13-grams (tokens of that index) that occur in it, the rule that the ∞-gram paper used to
    clean the Pile. `50-characters`: the share of the output's 50-character pieces, one per word start, that occur in it, as in
    infini-gram mini; this needs an index of bytes. Both are 0 for an output shorter than one piece.
    """

    index: str
    rule: Literal["13-gram", "50-characters"] = "13-gram"


class NgramsConfig(FilterConfig):
    """The index, the span length, the floor for zero probabilities, and the bounds.

    `index` is a folder, or `run:earlier` for the outputs kept in the run's earlier rounds. `floor_probability` is the minimum
    of an ∞-gram probability: without further back-off it is often 0.
    """

    cost: ClassVar[Cost] = Cost.INDEX
    reasons: ClassVar[Mapping[str, str]] = {
        "max_longest_tokens": "the output holds a long piece of the corpus word for word",
        "max_longest_share": "one piece of the corpus makes up too much of the output",
        "max_coverage": "too much of the output is pieced together from the corpus",
        "min_infgram_logprob": "the output is unlike anything in the corpus",
        "max_infgram_logprob": "the output is all too predictable from the corpus",
        "max_contamination": "the output shares text with the benchmark",
    }

    also: ClassVar[tuple[str, ...]] = ("tokens", "longest_span")

    kind: Literal["ngrams"] = "ngrams"
    name: Name = "ngrams"
    index: str
    span_tokens: int = Field(default=8, ge=1)
    floor_probability: float = Field(default=1e-6, gt=0, le=1)
    contamination: ContaminationConfig | None = None
    max_longest_tokens: Limit = None
    max_longest_share: Limit = None
    max_coverage: Limit = None
    min_infgram_logprob: Limit = None
    max_infgram_logprob: Limit = None
    max_contamination: Limit = None

    @model_validator(mode="after")
    def _has_what_it_bounds(self) -> "NgramsConfig":
        if self.max_contamination is not None and self.contamination is None:
            raise ValueError("max_contamination needs `contamination: {index: FOLDER}`, the benchmark's index")
        return self

    @property
    def reads_earlier(self) -> bool:
        """Whether `index` is `run:earlier`."""
        return self.index == EARLIER

    def against(self, index: str | None) -> "NgramsConfig":
        """The config for one round: `index` replaces `run:earlier`; None in the first round."""
        return self if self.index != EARLIER or index is None else self.model_copy(update={"index": index})

    def problems(self) -> list[str]:
        """Reports an index that is missing, cannot be opened, or has the wrong tokenizer."""
        found = []
        folders = [(f"filters.{self.name}.index", self.index, False)] if self.index != EARLIER else []
        if self.contamination is not None:
            folders.append(
                (f"filters.{self.name}.contamination.index", self.contamination.index, self.contamination.rule == "50-characters")
            )
        for key, folder, bytes_only in folders:
            try:
                usable(folder, by_bytes=bytes_only)
            except LimbeckError as error:
                found.append(f"{key}: {error}")
        return found

    def scoring(self) -> dict[str, Any]:
        """As for every filter, with each index's content in place of its path; raises LimbeckError if one cannot be read."""
        data = super().scoring()
        data["index"] = EARLIER if self.index == EARLIER else fingerprint(self.index)
        if self.contamination is not None:
            data["contamination"]["index"] = fingerprint(self.contamination.index)
        return data

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    def build(self, engines: "Engines") -> "NgramsFilter":
        """Return the filter with open indexes (once per process); raises LimbeckError if one cannot be used."""
        return NgramsFilter(self)


class NgramsFilter:
    """Scores outputs by exact look-ups in an index, batched over rows."""

    def __init__(self, config: NgramsConfig) -> None:
        """Open the indexes. `run:earlier` that was not replaced is treated as an empty index."""
        self.name = config.name
        self.bounds: tuple[Bound, ...] = config.bounds
        self._config = config
        self._index = None if config.index == EARLIER else usable(config.index, by_bytes=False)
        self._benchmark = None
        if config.contamination is not None:
            folder, rule = config.contamination.index, config.contamination.rule
            self._benchmark = usable(folder, by_bytes=rule == "50-characters")

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return one row per candidate, in index tokens.

        `tokens`; `longest_tokens` and its share `longest_share`; the share `coverage`; `infgram_logprob`, the mean natural
        log-probability per token, floored at `floor_probability`; `contamination`, a share of n-grams or pieces, if a benchmark
        is configured; and as evidence the text of the `longest_span`. An empty output has zeros and no log-probability (NaN).
        O(tokens · log(tokens of the index)).
        """
        texts = [output or "" for output in candidates["output"].to_pylist()]
        columns: dict[str, Any] = dict(self._verbatim(texts))
        if self._config.contamination is not None:
            assert self._benchmark is not None
            share = ngram_share if self._config.contamination.rule == "13-gram" else window_share
            columns["contamination"] = share(self._benchmark, texts)
        return score_table(candidates, columns, UNITS)

    def _verbatim(self, texts: Sequence[str]) -> Mapping[str, Any]:
        floor = math.log(self._config.floor_probability)
        if self._index is None:  # nothing to match, and no tokenizer either
            nothing = np.zeros(len(texts))
            spans = pa.array([""] * len(texts), pa.string())
            logs = np.where([not text for text in texts], np.nan, floor)
            names = ("tokens", "longest_tokens", "longest_share", "coverage")
            return {**dict.fromkeys(names, nothing), "infgram_logprob": logs, "longest_span": spans}
        ids, offsets = encode(self._index, texts)
        ends = self._index.creativity_batch(ids, offsets)
        tokens = np.diff(offsets)
        starts, lengths = longest_spans(ends, offsets)
        whole = np.maximum(tokens, 1)
        probabilities = self._index.score_batch(ids, offsets).probabilities
        logs = np.log(np.maximum(np.nan_to_num(probabilities, nan=0.0), self._config.floor_probability))
        return {
            "tokens": tokens.astype(np.float64),
            "longest_tokens": lengths.astype(np.float64),
            "longest_share": lengths / whole,
            "coverage": covered_tokens(ends, offsets, self._config.span_tokens) / whole,
            "infgram_logprob": np.where(tokens > 0, row_sums(logs, offsets) / whole, np.nan),
            "longest_span": pa.array(
                [self._index.tokenizer.decode(ids[at : at + size].tolist()) for at, size in zip(starts, lengths, strict=True)],
                pa.string(),
            ),
        }
