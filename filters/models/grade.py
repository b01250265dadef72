"""Grades: a language model grades each aspect of a candidate by its criteria, and the expected grade is the score.

The grades are few, so by default nothing is sampled: with s_k = log p(" k" | prompt), the expected grade is Σ k · softmax(s)_k in
one forward pass, as in Deita (Liu et al., 2024); G-Eval (Liu et al., 2023) estimates the same from samples. The grades of several
aspects are multiplied, as Deita multiplies complexity and quality.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.cluster.engines.protocol import Engine
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.text.invisible import stripped
from limbeck.filters.columns import AT_LEAST_ZERO, PROBABILITY, WITHIN_ONE, Range, score_table
from limbeck.filters.config import Cost, EngineFilterConfig, Limit, Name, Probing
from limbeck.filters.contract import PROBED
from limbeck.filters.models.closed_questions import Asker, Floats, SamplingConfig
from limbeck.filters.models.judge import SELF_TEST, JudgeConfig, JudgeFilter
from limbeck.filters.models.rubrics import RUBRICS, Of, Question, prompt_text, read_rows

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

UNITS = {"score": "grades", "weakest": "grades", "spread": "grades", "answered": PROBABILITY}
"""The columns beside one per aspect; with several aspects, `score` and `spread` have the unit of a product of grades."""


class ScaleConfig(Config):
    """The grades, one-digit integers, so that no grade is a prefix of another."""

    lowest: int = Field(1, ge=0, le=8)
    highest: int = Field(5, ge=1, le=9)

    @model_validator(mode="after")
    def _ascending(self) -> "ScaleConfig":
        if self.lowest >= self.highest:
            raise ValueError(f"the lowest grade {self.lowest} must be below the highest, {self.highest}")
        return self


class AspectConfig(Config):
    """What is graded (`of`), by which criteria (`rubric`), and the template; null: as built in for an aspect of this name.

    `of: output`: an answer about its document. `of: response`: the output as the response to the prompt. `of: instruction`: the
    instruction alone. An aspect that is not built in is about the response unless `of` says otherwise. `prompt` is the name of a
    built-in Jinja template or the path of one (null: `grade_output`, `grade_response` or `grade_instruction`); its variables are
    `document`, `instruction`, `input`, `output`, `rubric`, `lowest` and `highest`.
    """

    of: Of | None = None
    rubric: str | None = None
    prompt: str | None = None


class GradeConfig(EngineFilterConfig):
    """The engine (null: the round-0 teacher), the aspects and the scale.

    `instruction` is the column of the instruction: `prompt`, or `output` if the candidates themselves are new instructions. With
    `sampling`, grades are sampled and parsed; without, their probabilities are computed.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"self_test"})
    cost: ClassVar[Cost] = Cost.GENERATION
    reasons: ClassVar[Mapping[str, str]] = {
        "min_answered": "the model hardly answers in grades",
        "min_score": "the grade is too low",
        "min_weakest": "the grade of one aspect is too low",
        "max_spread": "the model is not sure of its grade",
    }

    kind: Literal["grade"] = "grade"
    name: Name = "grade"
    aspects: Mapping[str, AspectConfig] = Field({"summary": AspectConfig()}, min_length=1)
    instruction: Literal["prompt", "output"] = "prompt"
    scale: ScaleConfig = ScaleConfig()
    sampling: SamplingConfig | None = None
    self_test: int = SELF_TEST
    min_answered: Limit = None
    min_score: Limit = None
    min_weakest: Limit = None
    max_spread: Limit = None

    @model_validator(mode="after")
    def _aspects_are_known(self) -> "GradeConfig":
        for name, aspect in self.aspects.items():
            if not name.isidentifier() or not name.islower() or name in UNITS or name.endswith("_null"):
                raise ValueError(
                    f"aspects: {name!r} cannot be the name of an aspect; use lower-case letters, digits and '_', "
                    f"and none of {', '.join(UNITS)}"
                )
            if aspect.rubric is None and name not in RUBRICS:
                raise ValueError(f"aspects.{name}: set its rubric, or use one of the built-in aspects {', '.join(RUBRICS)}")
        return self

    @property
    def ranges(self) -> Mapping[str, Range]:
        """Grades; `score` is the product of one per aspect."""
        lowest, highest, aspects = self.scale.lowest, self.scale.highest, len(self.aspects)
        return {
            "weakest": (lowest, highest),
            "score": (lowest**aspects, highest**aspects),
            "spread": AT_LEAST_ZERO,
            "answered": WITHIN_ONE,
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The score columns of this config."""
        return (*UNITS, *self.aspects)

    @property
    def probing(self) -> Probing:
        """Its self-test: the grades of both outputs of each pair, and a comparison in both orders."""
        if not self.of_outputs:
            return Probing(0, "scores", 0, "it grades instructions alone, which a corrupted output does not change")
        texts = 2 * len(self.of_outputs) + 2
        return Probing(self.self_test, "scores", texts, None if self.self_test else "its self_test is 0")

    @property
    def of_outputs(self) -> tuple[str, ...]:
        """The aspects that depend on the output."""
        return tuple(name for name in self.aspects if self.subject(name) != "instruction")

    def subject(self, aspect: str) -> Of:
        """What an aspect is about."""
        built_in = RUBRICS[aspect][0] if aspect in RUBRICS else "response"
        return self.aspects[aspect].of or built_in

    def rubric(self, aspect: str) -> str:
        """The criteria of an aspect."""
        return self.aspects[aspect].rubric or RUBRICS[aspect][1]

    def template(self, aspect: str) -> str:
        """The name or path of an aspect's template."""
        return self.aspects[aspect].prompt or f"grade_{self.subject(aspect)}"

    def question(self, aspect: str) -> Question:
        """The question about an aspect; raises LimbeckError if its template is missing or does not render."""
        return Question(self.template(aspect), self.rubric(aspect), "grade*", ("output",), **self.scale.model_dump())

    def problems(self) -> list[str]:
        """Reports templates that are missing or do not render."""
        found = []
        for aspect in self.aspects:
            try:
                self.question(aspect)
            except LimbeckError as error:
                found.append(f"aspects.{aspect}: {error}")
        return found

    def scoring(self) -> dict[str, Any]:
        """As for every filter, plus the criteria and the texts of the templates."""
        asked = {name: [self.subject(name), self.rubric(name), prompt_text(self.template(name))] for name in self.aspects}
        return super().scoring() | {"asked": asked}

    def build(self, engines: "Engines") -> "GradeFilter":
        """Return the filter with a loaded engine; raises LimbeckError if no engine is set or a template fails."""
        return GradeFilter(self, self.loaded(engines))


class GradeFilter:
    """Grades candidates by a language model."""

    def __init__(self, config: GradeConfig, engine: Engine) -> None:
        """Grade with `engine`; raises LimbeckError if a template is missing or does not render."""
        self.name = config.name
        self.bounds = config.bounds
        self._config, self._engine = config, engine
        self._questions = {name: config.question(name) for name in config.aspects}
        self._asker = Asker(engine, config.sampling, "grade")
        self._grades = np.arange(config.scale.lowest, config.scale.highest + 1)

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return the columns of `UNITS` and one per aspect, one row per candidate.

        Each aspect's column is its expected grade; `score` is their product, `weakest` the lowest of them, `spread` the standard
        deviation of the product if the grades of the aspects are independent, `answered` the lowest total probability of all
        grades. An empty text has the lowest grade, without asking the model. NaN: a prompt does not fit the engine's context, or
        no grade could be parsed.
        """
        graded = self._graded(read_rows(candidates, self._config.instruction), tuple(self._config.aspects))
        return score_table(candidates, graded, {**UNITS, **dict.fromkeys(self._config.aspects, "grades")})

    def probe(self, pairs: pa.Table) -> pa.Table:
        """Grade each output and its corrupted version, and compare both in both orders: the columns `contract.PROBED`.

        Only aspects that depend on the output are graded; the comparison is by the criteria of the first of them.
        """
        rows = read_rows(pairs)
        corrupted = [stripped(text or "") for text in pairs["corrupted"].to_pylist()]
        aspects = self._config.of_outputs
        true = self._graded(rows, aspects)["score"]
        other = self._graded([{**row, "output": text} for row, text in zip(rows, corrupted, strict=True)], aspects)["score"]
        first = {"of": self._config.subject(aspects[0]), "rubric": self._config.rubric(aspects[0])}
        comparing = JudgeConfig.model_validate({**first, "compare": "lead", "sampling": self._config.sampling})
        compared = JudgeFilter(comparing, self._engine).compared(rows, corrupted)
        columns = {name: compared[name] for name in ("preference_first", "preference_second")}
        return pa.table({**columns, "score_true": true, "score_corrupted": other}).select(PROBED.names).cast(PROBED)

    def _graded(self, rows: Sequence[Mapping[str, Any]], aspects: Sequence[str]) -> dict[str, Floats]:
        """The columns of `UNITS` over some aspects, and one per aspect."""
        means, squares, answered = zip(*(self._expected(rows, aspect) for aspect in aspects), strict=True)
        score = np.prod(means, axis=0)
        variance = np.prod(squares, axis=0) - score**2
        return {
            "score": np.round(score, 12),  # so that the mean of three 4s is not slightly below a bound of 4
            "weakest": np.min(means, axis=0),
            "spread": np.sqrt(np.maximum(variance, 0.0)),
            "answered": np.min(answered, axis=0),
            **dict(zip(aspects, means, strict=True)),
        }

    def _expected(self, rows: Sequence[Mapping[str, Any]], aspect: str) -> tuple[Floats, Floats, Floats]:
        """Expected grade, expected squared grade, and total probability of all grades.  # each [rows]"""
        text = "instruction" if self._config.subject(aspect) == "instruction" else "output"
        asked = np.array([bool(row[text]) for row in rows], dtype=bool)
        number = list(self._config.aspects).index(aspect)
        question = self._questions[aspect]
        questions = [(question.render(row, output=row["output"]), row["seed"], number) for row in rows if row[text]]
        answers = self._asker.ask(questions, [str(grade) for grade in self._grades])
        lowest = float(self._grades[0])
        mean, square, answered = (np.full(len(rows), value) for value in (lowest, lowest**2, 1.0))
        mean[asked] = np.round(answers.shares @ self._grades, 12)
        square[asked] = answers.shares @ self._grades**2
        answered[asked] = answers.answered
        return mean, square, answered
