"""The information bottleneck of Referee (Sclar et al., 2022): does the output still tell what comes next?

A good summary keeps what the text behind the document depends on. With s1 the document, s2 the text behind it (`following`) and y
the output, the score is log p(s2 | s1) - log p(s2 | y): the nats about what follows that are lost when only the output is read.
The paper writes it with four joint probabilities, [log p(s1 s2) - log p(s1)] - [log p(y s2) - log p(y)]; since s2 stands behind a
space, a text begins with the same tokens as its own beginning alone, so by the chain rule each bracket is what s2's tokens add.
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
    """Referee's bottleneck with its engine (null: the teacher of round 0) and the paper's limit for GPT2-large."""

    reasons: ClassVar[Mapping[str, str]] = {
        "max_bottleneck_nats": "the output loses what the text behind the document depends on"
    }

    also: ClassVar[tuple[str, ...]] = ("log_p_following_given_document", "log_p_following_given_output", "following_tokens")

    kind: Literal["bottleneck"] = "bottleneck"
    name: Name = "bottleneck"
    max_bottleneck_nats: Limit = 6.0

    def build(self, engines: "Engines") -> "BottleneckFilter":
        """Return the filter over a loaded engine; raises LimbeckError where no engine was named or filled in."""
        return BottleneckFilter(self.loaded(engines), self.name, self.bounds)


class BottleneckFilter:
    """Scores candidates by what they lose about the text behind their document."""

    def __init__(self, engine: Engine, name: str = "bottleneck", bounds: Sequence[Bound] = ()) -> None:
        """Score with `engine`; `bounds` are what selection will apply."""
        self.name = name
        self.bounds = tuple(bounds)
        self._engine = engine

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `bottleneck_nats`, its two terms [nats, summed over tokens] and `following_tokens`, one row a candidate.

        Where nothing follows the document, nothing about it can be lost: the score is 0, `following_tokens` 0, and the terms are
        NaN. An empty output loses all that the document tells. A candidate that does not fit the engine's context, or whose
        following text is cut into different tokens behind document and output, scores NaN. Each distinct pair is asked once: the
        document's term is shared by all its candidates.
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
    """The text behind the document given the document, and given the output; none where nothing follows."""
    following = _plain(row["following"] or "")
    if not following:
        return ()
    return Pair(_plain(row["document"]), f" {following}"), Pair(_plain(row["output"]), f" {following}")


def _plain(text: str) -> str:
    """One line, without white space at its ends, quotation marks and apostrophes as typewriters have them."""
    return one_line(text.translate(_QUOTES))
