"""The information bottleneck of Referee (Sclar et al., 2022): does the output still predict the text that comes next?

A good summary keeps what the text after the document depends on. With s1 the document, s2 the text after it (`following`) and y
the output, the score is log p(s2 | s1) - log p(s2 | y): the nats about s2 that are lost when only the output is read.
The paper writes it with four joint probabilities, [log p(s1 s2) - log p(s1)] - [log p(y s2) - log p(y)]. Since a space precedes
s2, s1 and y tokenise the same with and without s2, so by the chain rule each bracket is the log-probability of s2's tokens.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.text.words import one_line
from limbeck.filters.config import EngineFilterConfig, Limit, Name
from limbeck.filters.contract import Bound
from limbeck.filters.models.pmi import NATS, comparable_sums

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

_QUOTES = str.maketrans("‘’‚‛“”„‟", "''''\"\"\"\"")
_SCHEMA = pa.schema(
    [
        pa.field("candidate_id", pa.string()),
        *(
            pa.field(name, pa.float64(), metadata=NATS)
            for name in ("bottleneck_nats", "log_p_following_given_document", "log_p_following_given_output")
        ),
        pa.field("following_tokens", pa.int32(), metadata={"unit": "tokens"}),
    ]
)


class BottleneckConfig(EngineFilterConfig):
    """Referee's bottleneck with its engine (null: the round-0 teacher) and the paper's bound for GPT2-large."""

    semantics: ClassVar[int] = 2
    reasons: ClassVar[Mapping[str, str]] = {
        "max_bottleneck_nats": "the output loses what the text behind the document depends on"
    }

    also: ClassVar[tuple[str, ...]] = ("log_p_following_given_document", "log_p_following_given_output", "following_tokens")

    kind: Literal["bottleneck"] = "bottleneck"
    name: Name = "bottleneck"
    max_bottleneck_nats: Limit = 6.0

    def build(self, engines: "Engines") -> "BottleneckFilter":
        """Return the filter with a loaded engine; raises LimbeckError if no engine is set."""
        return BottleneckFilter(self.loaded(engines), self.name, self.bounds)


class BottleneckFilter:
    """Scores candidates by the information they lose about the text after their document."""

    def __init__(self, engine: Engine, name: str = "bottleneck", bounds: Sequence[Bound] = ()) -> None:
        """Score with `engine`; selection applies `bounds`."""
        self.name = name
        self.bounds = tuple(bounds)
        self._engine = engine

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `bottleneck_nats`, its two terms [nats, summed over tokens] and `following_tokens`, one row per candidate.

        If no text follows the document, nothing can be lost: the score and `following_tokens` are 0 and the terms are NaN. An
        empty output loses all that the document says. The score is NaN if a candidate does not fit the engine's context, or if
        the following text is tokenised differently after the document and after the output. Each distinct pair is scored once;
        all candidates of a document share the document's term.
        """
        asked = [pairs(row) for row in candidates.select(["document", "output", "following"]).to_pylist()]
        distinct = list(dict.fromkeys(pair for both in asked for pair in both))
        arrays = self._engine.logprobs(distinct) if distinct else []
        found = dict(zip(distinct, arrays, strict=True))
        terms = np.full((len(asked), 2), np.nan)  # [candidates, document and output]
        tokens = np.zeros(len(asked), np.int32)
        for row, both in enumerate(asked):
            if both:
                given_document, given_output = (found[pair] for pair in both)
                terms[row] = comparable_sums(given_document, given_output)
                tokens[row] = len(given_output)
        lost = np.where([not both for both in asked], 0.0, terms[:, 0] - terms[:, 1])
        return pa.table([candidates["candidate_id"], lost, terms[:, 0], terms[:, 1], tokens], schema=_SCHEMA)


def pairs(row: Mapping[str, Any]) -> tuple[Pair, ...]:
    """The following text given the document, and given the output; empty if there is no following text."""
    following = _plain(row["following"] or "")
    if not following:
        return ()
    return Pair(_plain(row["document"]), f" {following}"), Pair(_plain(row["output"]), f" {following}")


def _plain(text: str) -> str:
    """One line, without leading or trailing whitespace, with straight quotation marks and apostrophes."""
    return one_line(text.translate(_QUOTES))
