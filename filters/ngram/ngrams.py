"""The n-gram critic: how much of an output stands word for word in a corpus, and how likely the corpus makes it.

Everything is exact and asked of an infini-gram index (Liu et al., 2024) in this process, a whole part in a few calls. For every
token of an output the index knows the longest piece from there that occurs; from these follow the longest verbatim span, and the
coverage: the share of tokens that lie in a verbatim span of at least `span_tokens`. The ∞-gram log-probability is what the
corpus, read as a language model of unbounded order, thinks of the output. Contamination asks an index of benchmark texts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.columns import SHARE, score_table
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
"""What a recipe names as its index to compare with the datasets of the run's own earlier rounds."""
UNITS = {
    **{"tokens": "tokens of the index", "longest_tokens": "tokens of the index", "longest_share": SHARE, "coverage": SHARE},
    **{"infgram_logprob": "nats / token", "contamination": SHARE},
}


class ContaminationConfig(Config):
    """An index of benchmark texts, and the rule by which an output shares text with them.

    `13-gram`: the share of the output's 13-grams (tokens of that index) that occur there, with which the ∞-gram paper cleaned the
    Pile. `50-characters`: the share of its pieces of 50 characters, one from each word's beginning, that occur there, as
    infini-gram mini counts; this takes an index of bytes. Both are 0 for an output shorter than one piece.
    """

    index: str
    rule: Literal["13-gram", "50-characters"] = "13-gram"


class NgramsConfig(FilterConfig):
    """The index, what counts as a span, the probability that stands for zero, and the limits.

    `index` is a folder, or `run:earlier` for the outputs that the run's earlier rounds kept. `floor_probability` is what an
    ∞-gram probability counts at least: without further back-off it is often 0.
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
        """The config for one round of a run: `index` stands for `run:earlier`; None where there is no earlier round."""
        return self if self.index != EARLIER or index is None else self.model_copy(update={"index": index})

    def problems(self) -> list[str]:
        """Say which index is missing, cannot be opened, or does not suit its use."""
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
        """The content of the indexes stands for their paths; raises LimbeckError where one cannot be read."""
        data = super().scoring()
        data["index"] = EARLIER if self.index == EARLIER else fingerprint(self.index)
        if self.contamination is not None:
            data["contamination"]["index"] = fingerprint(self.contamination.index)
        return data

    def build(self, engines: "Engines") -> "NgramsFilter":
        """Return the filter over open indexes (once a process); raises LimbeckError where one cannot be used."""
        return NgramsFilter(self)


class NgramsFilter:
    """Scores outputs by exact look-ups in an index; batched over the rows that it is given."""

    def __init__(self, config: NgramsConfig) -> None:
        """Open the indexes. An index of earlier rounds that nobody filled in is one without a document."""
        self.name = config.name
        self.bounds: tuple[Bound, ...] = config.bounds
        self._config = config
        self._index = None if config.index == EARLIER else usable(config.index, by_bytes=False)
        self._benchmark = None
        if config.contamination is not None:
            folder, rule = config.contamination.index, config.contamination.rule
            self._benchmark = usable(folder, by_bytes=rule == "50-characters")

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return one row a candidate, in the tokens of the index.

        `tokens`; `longest_tokens` and its share of them `longest_share`; `coverage`, a share of them; `infgram_logprob`, the mean
        natural log-probability a token, none below that of `floor_probability`; `contamination`, a share of n-grams or pieces,
        where a benchmark is named; and as evidence the `longest_span` as text. An empty output has zeros and no log-probability
        (NaN). O(tokens · log(tokens of the index)).
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
        if self._index is None:  # nothing to be found in: no tokens either
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
