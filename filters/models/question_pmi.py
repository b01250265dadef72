"""Whether a question belongs to its document: how much likelier the document makes it than other documents of the split do.

Pointwise mutual information of question q and document d is log p(q|d) - log p(q) = log p(d|q) - log p(d). The difference between
the own document and another one d' can be taken on either side; here it is log p(q|d) - mean over d' of log p(q|d'): log p(q)
cancels, and all terms are sums over the same tokens. The other side, log p(d|q) - log p(d'|q), compares texts of different
lengths, needs log p of every document as well, and forwards the documents once per question instead of once.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.other_documents import others_of
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.words import one_line
from limbeck.filters.columns import WITHIN_ONE, Range
from limbeck.filters.config import Cost, EngineFilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

# Ends without trailing whitespace, so the question's first token is the same after every document.
CONTEXT = "{document}\nQuestion:"

UNITS = {
    "margin": "nats per token",
    "beaten": "share of the other documents",
    "log_p_given_document": "nats",
    "log_p_given_others": "nats",
}


class QuestionPmiConfig(EngineFilterConfig):
    """The question's text, the number of other documents, and the bounds; the engine is by default the round-0 teacher."""

    also: ClassVar[tuple[str, ...]] = ("log_p_given_document", "log_p_given_others")
    cost: ClassVar[Cost] = Cost.MODEL
    reasons: ClassVar[Mapping[str, str]] = {
        "min_margin": "other documents make the question as likely as its own",
        "min_beaten": "too many other documents make the question likelier than its own",
    }

    kind: Literal["question_pmi"] = "question_pmi"
    name: Name = "question_pmi"
    question: Literal["prompt", "output"] = Field("prompt", description="which text is the question")
    documents: int = Field(4, ge=1, le=64, description="other documents that each question is compared on")
    min_margin: Limit = 0.0
    min_beaten: Limit = None

    @property
    def others(self) -> int:
        """The other documents that it needs of every candidate."""
        return self.documents

    @property
    def ranges(self) -> Mapping[str, Range]:
        """`beaten` is a share."""
        return {"beaten": WITHIN_ONE}

    @property
    def texts(self) -> Mapping[str, RowText]:
        """A question can only be compared on its own document."""
        return {"margin": "document", "beaten": "document"}

    def build(self, engines: "Engines") -> "QuestionPmiFilter":
        """Return the filter with a loaded engine; raises LimbeckError if no engine is set."""
        return QuestionPmiFilter(self.loaded(engines), self)


class QuestionPmiFilter:
    """Scores the question of each candidate; log-probabilities are natural, summed over tokens."""

    def __init__(self, engine: Engine, config: QuestionPmiConfig) -> None:
        """Score with `engine`, as configured."""
        self.name = config.name
        self.bounds: Sequence[Bound] = config.bounds
        self._engine = engine
        self._config = config

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return one row per candidate: `margin`, `beaten`, and the log-probabilities of the question.

        `margin`: log p(question | own document) - mean of log p(question | other document), per token of the question.
        `beaten`: the share of the other documents after which the question is less likely than after its own.
        `log_p_given_others` is the mean. NaN without a question, a document or another document, or if the own document does
        not fit the engine's context; other documents that do not fit are left out. Every distinct pair is scored once, all in
        one call.
        """
        questions, documents = (candidates[name].to_pylist() for name in (self._config.question, "document"))
        asked = [
            _pairs(one_line(question or ""), [document or "", *others])
            for question, document, others in zip(
                questions, documents, others_of(candidates, self._config.documents).to_pylist(), strict=True
            )
        ]
        pairs = list(dict.fromkeys(pair for row in asked for pair in row))
        found = dict(zip(pairs, self._engine.logprobs(pairs), strict=True)) if pairs else {}
        scores = [_scores([found[pair] for pair in row]) for row in asked]
        columns = {name: np.array([score.get(name, np.nan) for score in scores], np.float64) for name in UNITS}
        fields = [pa.field(name, pa.float64(), metadata={"unit": unit}) for name, unit in UNITS.items()]
        schema = pa.schema([pa.field("candidate_id", pa.string()), *fields])
        return pa.table([candidates["candidate_id"], *columns.values()], schema=schema)


def _pairs(question: str, documents: Sequence[str]) -> list[Pair]:
    """The question after its own document and after each other one; none if there is nothing to compare."""
    if not question or not documents[0] or len(documents) == 1:
        return []
    return [Pair(CONTEXT.format(document=document), f" {question}") for document in documents]


def _scores(logprobs: Sequence[npt.NDArray[np.float32]]) -> dict[str, Any]:
    """The scores from the question's log-probabilities after its own document, and after the others."""
    if not logprobs or not np.isfinite(logprobs[0]).all():
        return {}
    own, tokens = float(logprobs[0].sum(dtype=np.float64)), len(logprobs[0])
    # sums over different tokens are not comparable
    usable = [values for values in logprobs[1:] if len(values) == tokens and np.isfinite(values).all()]
    if not usable or not tokens:
        return {}
    others = np.array([values.sum(dtype=np.float64) for values in usable])
    return {
        "margin": (own - others.mean()) / tokens,
        "beaten": float((others < own).mean()),
        "log_p_given_document": own,
        "log_p_given_others": others.mean(),
    }
