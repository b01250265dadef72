"""The schema of report.json, a public interface; `python -m limbeck.pipelines.runs.report_model` writes its JSON Schema."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from limbeck.corpus.config import Config
from limbeck.pipelines.runs.mixture.facts import MixedComponent
from limbeck.pipelines.runs.preference_pairs import Preferences
from limbeck.pipelines.runs.self_test import SelfTest
from limbeck.pipelines.runs.separation import Separation
from limbeck.students.evaluation.measures import EvaluationRow

SCHEMA = Path(__file__).with_name("report.schema.json")

BEYOND_TARGET = "target"
"""`rejected_by` of an accepted row beyond the target's N rows."""


class Rows(Config):
    """The funnel of one round; kept + the sum of rejected_by = candidates."""

    sources: int = Field(ge=0)
    candidates: int = Field(ge=0)
    kept: int = Field(ge=0)
    rejected_by: dict[str, int]

    @model_validator(mode="after")
    def _nothing_vanishes(self) -> "Rows":
        rejected = sum(self.rejected_by.values())
        if self.kept + rejected != self.candidates:
            raise ValueError(
                f"kept {self.kept} + rejected {rejected} does not equal candidates {self.candidates}: rows are missing"
            )
        return self


class ModelIdentity(Config):
    """A model: its id or its folder in the run, and the fingerprint of its content."""

    name: str
    fingerprint: str | None = None


class Task(Config):
    """What evaluation asked: the generator whose questions it used, and what that generator declares of its task."""

    generator: str
    measures: list[str] | None = Field(None, description="null: all that have values")
    controls: list[str]
    inputs: str = Field("documents", description="what the held-out inputs are: documents, tasks, rows, ...")


class RoundDecision(Config):
    """stop.json: whether the run ends after a round, from dev figures alone."""

    stops: list[str] = Field(description="one sentence per rule of the recipe's `stop` that fired; empty: the run goes on")
    warnings: list[str] = Field(description="signs that outputs collapse, and rules that could not be tested")
    best: int | None = Field(description="the best round so far; null: no student was measured on dev")
    rules: dict[str, Any] | None = Field(description="the recipe's `stop` at that time; null: it has none")


class RoundReport(Config):
    """One round; `teacher` and `student` identify the models, `training` holds the metrics of the student's training."""

    rows: Rows
    evaluation: list[EvaluationRow]
    task: Task | None = Field(None, description="null: not evaluated yet, or by a version that did not record it")
    training: dict[str, Any] | None = None
    mixture: list[MixedComponent] | None = Field(None, description="what the student was trained on; null: its dataset alone")
    teacher: ModelIdentity | None = None
    student: ModelIdentity | None = None
    generator: str | None = Field(None, description="the kind that made its candidates; null: not recorded")
    decision: RoundDecision | None = Field(None, description="null: not made yet, or by a version without it")
    preferences: Preferences | None = Field(None, description="the pairs of its dataset; null: its rows are not preferences")


class Best(Config):
    """The round whose student has the highest dev value of one measure; its student is the folder `best`."""

    round: int = Field(ge=0)
    by: str = Field(description="the measure: the recipe's stop.by, or pass_rate")
    value: float
    teacher: float | None = Field(description="the same measure of the round-0 teacher")


class Origin(Config):
    """An earlier run that rows or the teacher of a run come from, and through it those before."""

    gives: Literal["sources", "teacher", "mixture"]
    run: str = Field(description="its folder")
    round: int | None = Field(description="null: not known, because the folder is not there any more")
    selection: str | None = None
    of: str = Field(description="the run that uses it: a folder's name")


class Sources(Config):
    """How many sources were used, by split, and why the others were not."""

    rows_are: str = Field("documents", description="what a source is: documents, tasks, rows, conversations, draws")
    used: int = Field(ge=0)
    train: int = Field(ge=0)
    dev: int = Field(ge=0)
    test: int = Field(ge=0)
    rejected: dict[str, int]


class StageSeconds(Config):
    """Wall-clock seconds of a stage, and those inside forward, backward and sampling."""

    total: float = Field(ge=0)
    model: float = Field(ge=0)


class Seconds(Config):
    """Wall-clock seconds of the run, those inside models, and both by stage."""

    total: float = Field(ge=0)
    model: float = Field(ge=0)
    by_stage: dict[str, StageSeconds]


class Limits(Config):
    """The frozen bounds of one score column; null: unbounded on that side."""

    minimum: float | None = None
    maximum: float | None = None


class Bounds(Config):
    """calibration.json: the bounds that apply to all later rounds and to evaluation."""

    bounds: dict[str, dict[str, Limits]]  # filter -> column
    pass_rate_target: float | None = None
    pass_rate: float | None = None
    candidates: int | None = None
    level: float | None = Field(default=None, description="The common quantile of all calibrated bounds")
    note: str | None = None
    separation: list[Separation] = Field(
        default_factory=list, description="Whether bounds separate candidates from mismatched pairs; empty: not measured"
    )

    def restricts(self, column: str) -> bool:
        """Whether a filter has a bound on a score column of this name."""
        return any(columns.get(column, Limits()) != Limits() for columns in self.bounds.values())


class Report(Config):
    """report.json."""

    name: str
    created: str = Field(description="ISO 8601, UTC")
    finished: bool
    first_line: str
    rounds: list[RoundReport]
    sources: Sources | None
    seconds: Seconds
    bounds: Bounds | None
    best: Best | None = Field(None, description="null: no student was measured on dev")
    planned_rounds: int | None = Field(None, description="the recipe's `rounds`; a run may end earlier by `stop`")
    ended: str | None = Field(None, description="why the run ended before its planned rounds; null: it did not")
    seen_test_after: list[int] = Field(
        default_factory=list, description="numbers of rounds after which test was measured, before more rounds were added"
    )
    origins: list[Origin] = Field(default_factory=list, description="earlier runs that this run is made from, nearest first")
    self_tests: list[SelfTest] = Field(
        default_factory=list, description="Whether judging filters tell outputs from corrupted ones; empty: there are none"
    )
    versions: dict[str, str]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of report.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema()}


def schema_text() -> str:
    """The content of `report.schema.json`."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    print(SCHEMA)
