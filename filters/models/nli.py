"""The NLI filter: does the document entail the output, and the output the document?

As in Impossible Distillation (Jung et al., 2023) and Referee (Sclar et al., 2022): a natural-language inference model,
RoBERTa-large on WANLI in both papers, reads premise and hypothesis together; a pair passes at 0.75.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.cluster.engines.scoring_models.classifier import LABELS, Classifier, ClassifierConfig
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.other_documents import crossed, groups_of, other_rows
from limbeck.corpus.schemas import OTHER
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.invisible import stripped
from limbeck.filters.columns import PROBABILITY, WITHIN_ONE, Range
from limbeck.filters.config import Cost, FilterConfig, Limit, Name, PerSource
from limbeck.filters.contract import Bound
from limbeck.filters.models.premises import Answer, Question, answer, most_windows, sentence_windows

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

_PROBABILITY = {"unit": PROBABILITY}


class NliConfig(FilterConfig):
    """The NLI filter: its classifier, the direction of entailment, how long documents are cut, and its bounds."""

    semantics: ClassVar[int] = 3
    cost: ClassVar[Cost] = Cost.MODEL
    nullable: ClassVar[bool] = True
    unrelated: ClassVar[tuple[str, ...]] = ("min_entailment", "max_neutral")
    reasons: ClassVar[Mapping[str, str]] = {
        "min_entailment": "the document does not entail the output",
        "max_contradiction": "the output contradicts the document",
        "max_neutral": "the output says what the document does not",
        "min_reverse_entailment": "the output does not entail the document",
    }

    also: ClassVar[tuple[str, ...]] = (*LABELS, "cut_tokens", "least_entailed")

    kind: Literal["nli"] = "nli"
    name: Name = "nli"
    classifier: ClassifierConfig = ClassifierConfig()
    direction: Literal["forward", "both"] = Field("forward", description="both: also whether the output entails the document")
    windows: Literal["document", "sentences"] = Field(
        "document", description="sentences: each sentence of the hypothesis against its best window of the premise, averaged"
    )
    window_tokens: int | None = Field(None, ge=1, description="tokens of a window of adjacent sentences; null: one sentence")
    min_entailment: Limit = 0.75
    max_contradiction: Limit = None
    max_neutral: Limit = None
    min_reverse_entailment: Limit = None

    @model_validator(mode="after")
    def _check(self) -> "NliConfig":
        if self.min_reverse_entailment is not None and self.direction == "forward":
            raise ValueError("min_reverse_entailment needs direction: both")
        if self.window_tokens is not None and self.windows == "document":
            raise ValueError("window_tokens needs windows: sentences")
        return self

    def scoring(self) -> dict[str, Any]:
        """What its scores depend on; a bound by false acceptance adds the scores of mismatched pairs."""
        return super().scoring() | {"null_columns": list(self.null_columns)}

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Probabilities."""
        return dict.fromkeys((*LABELS, "reverse_entailment"), WITHIN_ONE)

    @property
    def texts(self) -> Mapping[str, RowText]:
        """Without a document there is no premise."""
        return dict.fromkeys((*LABELS, "reverse_entailment"), "document")

    def nli_pairs(self, source: PerSource) -> int:
        """Each candidate's output against its document, in both directions if configured, and against another document.

        Windows of sentences are counted for sentences of at least `premises.LEAST_TOKENS` tokens.
        """

        def pairs(premise: int, hypothesis: int) -> int:
            if self.windows == "document":
                return 1
            return most_windows(premise, self.window_tokens) * most_windows(hypothesis, None)

        forward = pairs(source.input_tokens, source.output_tokens) * (1 if self.nulls == "none" else 2)
        backward = pairs(source.output_tokens, source.input_tokens) if self.direction == "both" else 0
        return source.candidates * (forward + backward)

    def build(self, engines: "Engines") -> "NliFilter":
        """Return the filter with a loaded classifier; raises LimbeckError for a bound on a class that its model does not have."""
        classifier = engines.hold(self.classifier)
        limited = [bound.column for bound in self.bounds if bound.column in LABELS[1:]]
        if classifier.two_class and limited:
            raise LimbeckError(
                f"filter {self.name}: the model {self.classifier.model} only separates entailment from the rest, so it has no "
                f"{limited[0]} score to bound; keep only min_entailment, or use a three-class model"
            )
        return NliFilter(classifier, self)


class NliFilter:
    """Scores candidates by an NLI model's probabilities for document and output."""

    def __init__(self, classifier: Classifier, config: NliConfig) -> None:
        """Score with `classifier`, as configured."""
        self.name = config.name
        self.bounds: Sequence[Bound] = config.bounds
        self._classifier = classifier
        self._config = config

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return entailment, neutral and contradiction, one row per candidate.

        With `direction: both` also `reverse_entailment`. `cut_tokens`: tokens of the premises removed by truncation. With windows
        of sentences, `least_entailed` is the output's least supported sentence. With a bound by false acceptance, or if the table
        has other documents, `entailment_null` and the like score each output against its other document
        (`corpus.other_documents`). An empty output or document, and a hypothesis that does not fit the model, score NaN. Every
        distinct pair of texts is scored once, all in one call.
        """
        documents, outputs = (_texts(candidates, column) for column in ("document", "output"))
        sides = {"": (documents, outputs)}
        if self._config.direction == "both":
            sides["reverse"] = (outputs, documents)
        if self._config.null_columns or OTHER.names[0] in candidates.column_names:
            others = crossed(candidates, lambda: other_rows(documents, groups_of(candidates)))
            sides["null"] = (_texts(others, "other_document"), outputs)
        cut = {
            text: self._cut(text) for text in dict.fromkeys(text for pair in sides.values() for texts in pair for text in texts)
        }
        asked = [Question(cut[p][0], cut[h][1]) for pair in sides.values() for p, h in zip(*pair, strict=True)]
        answers, cut_tokens = self._ask(asked)
        rows = len(documents)
        by_side = {side: answers[start * rows : (start + 1) * rows] for start, side in enumerate(sides)}
        columns = {label: _column(by_side[""], label) for label in LABELS}
        if "reverse" in sides:
            columns["reverse_entailment"] = _column(by_side["reverse"], "entailment")
            cut_tokens[:rows] += cut_tokens[rows : 2 * rows]
        if "null" in sides:
            columns |= {f"{label}_null": _column(by_side["null"], label) for label in LABELS}
        fields = [pa.field(name, pa.float64(), metadata=_PROBABILITY) for name in columns]
        table = pa.table(list(columns.values()), schema=pa.schema(fields))
        table = table.add_column(0, candidates.schema.field("candidate_id"), candidates["candidate_id"])
        table = table.append_column(pa.field("cut_tokens", pa.int32(), metadata={b"unit": b"tokens"}), [cut_tokens[:rows]])
        if self._config.windows == "sentences":
            table = table.append_column("least_entailed", [pa.array([a.least_entailed for a in answers[:rows]], pa.string())])
        return table

    def _ask(self, questions: Sequence[Question]) -> tuple[list[Answer], np.ndarray]:
        """Score all questions in one call; return the answers, and the number of premise tokens truncated per question."""
        pairs = [question.pairs for question in questions]
        judged = self._classifier.predict([pair for some in pairs for pair in some])
        ends = np.cumsum([len(some) for some in pairs], dtype=np.int64)
        parts = np.split(judged.probabilities, ends[:-1]) if questions else []
        answers = [answer(question, part) for question, part in zip(questions, parts, strict=True)]
        cut = [int(part.sum()) for part in np.split(judged.cut_tokens, ends[:-1])] if questions else []
        return answers, np.array(cut, dtype=np.int32)

    def _cut(self, text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A text as a premise (its windows) and as a hypothesis (its sentences)."""
        if self._config.windows == "document":
            whole = (text,) if text else ()
            return whole, whole
        windows = sentence_windows(text, self._config.window_tokens, self._classifier.count_tokens)
        return windows, windows if self._config.window_tokens is None else sentence_windows(
            text, None, self._classifier.count_tokens
        )


def _texts(candidates: pa.Table, column: str) -> list[str]:
    return [stripped(text or "") for text in candidates[column].to_pylist()]


def _column(answers: Sequence[Answer], label: str) -> pa.Array:
    return pa.array([getattr(answer, label) for answer in answers], pa.float64())
