"""The results of evaluation, in the form in which report.json and its schema hold them."""

from typing import Literal

from pydantic import Field

from limbeck.corpus.config import Config

Model = Literal["teacher", "student", "first-sentence", "mismatched", "document"]
Split = Literal["dev", "test"]
CONTROLS: tuple[Model, ...] = ("first-sentence", "mismatched", "document")
SCALARS = (
    *("pass_rate", "rouge_1", "rouge_2", "rouge_l", "faithfulness", "saliency", "pmi", "salient_recall", "invention"),
    *("compression", "code_accuracy", "distinct_2"),
)
"""The measures of an `EvaluationRow`, in the order in which reports show them."""

HEADINGS = {
    "pass_rate": "pass rate",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "faithfulness": "faithfulness",
    "saliency": "saliency",
    "pmi": "PMI",
    "salient_recall": "salient recall",
    "invention": "invention",
    "compression": "compression",
    "code_accuracy": "code accuracy",
    "distinct_2": "distinct-2",
}
"""What reports and sentences call each measure."""

SHARES = frozenset({"pass_rate", "invention", "code_accuracy"})
"""The measures that are shown in per cent."""


class Measure(Config):
    """A mean over documents and its bootstrap 95 % interval; with a single document the interval is that one value."""

    mean: float
    low: float
    high: float


class OutputForm(Config):
    """The form of a model's outputs on one split; texts are compared without the whitespace around them."""

    words: float = Field(ge=0, description="mean words per output")
    distinct: float = Field(ge=0, le=1, description="distinct outputs over all outputs")
    commonest: float = Field(ge=0, le=1, description="share of the outputs that are the most common one")
    empty: float = Field(ge=0, le=1, description="share of the outputs without a visible character")


class EvaluationRow(Config):
    """One model (or control) on one split, bounds frozen; null: not measured."""

    model: Model
    split: Split
    documents: int = Field(ge=0)
    candidates: int | None = Field(None, ge=0, description="null: measured by a version that did not count them")
    passing: int | None = Field(None, ge=0, description="how many of the candidates pass every bound")
    pass_rate: Measure | None
    pass_rate_by_filter: dict[str, Measure | None]
    rouge_1: Measure | None
    rouge_2: Measure | None
    rouge_l: Measure | None
    faithfulness: Measure | None
    saliency: Measure | None
    pmi: Measure | None
    salient_recall: Measure | None
    invention: Measure | None = Field(
        None,
        description="share of outputs with a name or number that the document lacks; null: measured by a version without it",
    )
    compression: Measure | None
    code_accuracy: Measure | None = Field(
        None, description="share of the buckets that control codes asked for which the output has; null: no codes were asked"
    )
    distinct_2: Measure | None
    form: OutputForm | None = Field(None, description="null: measured by a version that did not record it")
    difference_to_round_0_teacher: dict[str, Measure | None] | None = Field(
        description="By measure, the mean over shared documents of this model minus the teacher of round 0"
    )
