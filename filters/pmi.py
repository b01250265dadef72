"""The PMI critic: does the document make the output more likely, and does the output give the document's content away?

A reconstruction in the style of InfoSumm (Jung et al., 2024) for a causal language model. Pointwise mutual information can be
read from either side: log p(y|x) - log p(y) says how much of the output y follows from the document x (faithfulness), and log
p(x|y) - log p(x), summed over the document's salient tokens, says how much of the document the output carries (saliency). A
causal model is no coherent joint distribution, so these are two estimates and both are stored. Each is divided by the
self-information that the condition could explain at best, so 1 means fully determined, 0 means no help, and less than 0 means
that the condition misleads.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.engines.config import EngineConfig
from cluster.engines.protocol import Engine, Pair
from corpus.errors import LimbeckError
from filters.contract import Bound
from filters.limits import Cost, CriticConfig, Limit, Name

if TYPE_CHECKING:
    from cluster.engines.provider import Engines

# Both contexts of a term end in the same words, and without white space, so that the target's first token is the same in both.
OUTPUT_GIVEN_DOCUMENT = "{document}\nTL;DR:"
OUTPUT_ALONE = "TL;DR:"
DOCUMENT_GIVEN_OUTPUT = "Summary: {output}\nArticle:"
DOCUMENT_ALONE = "Article:"

UNFAITHFUL = "too little of the output follows from the document"
UNINFORMATIVE = "the output tells too little of what the document says"


class PmiConfig(CriticConfig):
    """The PMI critic with its engine (null: the teacher of round 0) and its two limits."""

    cost: ClassVar[Cost] = Cost.MODEL
    reasons: ClassVar[Mapping[str, str]] = {"min_faithfulness": UNFAITHFUL, "min_saliency": UNINFORMATIVE}

    kind: Literal["pmi"] = "pmi"
    name: Name = "pmi"
    engine: EngineConfig | None = None
    min_faithfulness: Limit = "calibrated"
    min_saliency: Limit = "calibrated"

    @property
    def models(self) -> Mapping[str, str]:
        """The engine's model, where one is named."""
        return {"engine.model": self.engine.model} if self.engine else {}

    def build(self, engines: "Engines") -> "PmiFilter":
        """Return the filter over a loaded engine; raises LimbeckError where no engine was named or filled in."""
        if self.engine is None:
            raise LimbeckError(f"filter {self.name} has no engine; name one under `engine:`, or use a recipe that has a teacher")
        return PmiFilter(engines.get(self.engine), self.name, self.bounds)


class PmiFilter:
    """Scores candidates by pointwise mutual information; log-probabilities are natural, summed over tokens."""

    def __init__(self, engine: Engine, name: str = "pmi", bounds: Sequence[Bound] = ()) -> None:
        """Score with `engine`; `bounds` are what selection will apply."""
        self.name = name
        self.bounds = tuple(bounds)
        self._engine = engine

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return faithfulness, saliency, their mean `pmi`, and the four summed log-probabilities, one row a candidate.

        An empty output scores 0. A candidate that does not fit the engine's context, whose document has no salient words, or
        whose target was cut into different tokens under the two contexts, scores NaN. The four terms of all candidates go to
        the engine in one call, each distinct pair once, so work on a shared document or prefix is done once.
        """
        asked = [terms(row) for row in candidates.select(["document", "output", "salient"]).to_pylist()]
        pairs = list(dict.fromkeys(pair for pairs in asked for pair in pairs))
        arrays = self._engine.logprobs(pairs) if pairs else []
        logprobs = dict(zip(pairs, arrays, strict=True))
        sums = np.zeros((len(asked), 4))  # [candidates, terms]
        for row, four in zip(sums, asked, strict=True):
            if four:
                given_document, output, given_output, salient = (logprobs[pair] for pair in four)
                row[:2] = _comparable_sums(given_document, output)
                row[2:] = _comparable_sums(given_output, salient)
        empty = np.array([not four for four in asked], dtype=bool)
        faithfulness = np.where(empty, 0.0, _gain(sums[:, 0], sums[:, 1]))
        saliency = np.where(empty, 0.0, _gain(sums[:, 2], sums[:, 3]))
        return pa.table(
            {
                "candidate_id": candidates["candidate_id"],
                "faithfulness": faithfulness,
                "saliency": saliency,
                "pmi": (faithfulness + saliency) / 2,
                "log_p_output_given_document": sums[:, 0],
                "log_p_output": sums[:, 1],
                "log_p_salient_given_output": sums[:, 2],
                "log_p_salient": sums[:, 3],
            }
        )


def terms(row: Mapping[str, Any]) -> tuple[Pair, ...]:
    """The four pairs of a candidate, in the order of the stored columns, or none where the output is empty."""
    output = " ".join(row["output"].split())  # a context must not end in white space, nor a target begin with two
    if not output:
        return ()
    document, edges = row["document"], row["salient"]
    spans = tuple((start + 1, end + 1) for start, end in zip(edges[::2], edges[1::2], strict=True))  # + 1: the leading space
    return (
        Pair(OUTPUT_GIVEN_DOCUMENT.format(document=document), f" {output}"),
        Pair(OUTPUT_ALONE, f" {output}"),
        Pair(DOCUMENT_GIVEN_OUTPUT.format(output=output), f" {document}", spans),
        Pair(DOCUMENT_ALONE, f" {document}", spans),
    )


def _comparable_sums(given: npt.NDArray[np.float32], alone: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Sum both in float64; NaN where they cover different tokens, since their difference would then mean nothing."""
    if len(given) != len(alone):
        return float("nan"), float("nan")
    return float(given.sum(dtype=np.float64)), float(alone.sum(dtype=np.float64))


def _gain(given: npt.NDArray[np.float64], alone: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The share of the self-information -`alone` [nats] that the condition explains; NaN where there is none to explain."""
    gain: npt.NDArray[np.float64] = (given - alone) / np.where(alone < 0, -alone, np.nan)
    return gain
