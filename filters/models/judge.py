"""The judge: a language model grades the output by a rubric, or decides which of two answers meets it better.

The model may give only a few answers, so by default nothing is sampled: the log-probabilities of the answers as continuations of
the prompt give the expected grade exactly (the weighting of G-Eval, Liu et al., 2023, without its sampling). In a comparison each
answer comes first once, because models have a position bias (Zheng et al., 2023).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jinja2
import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.cluster.engines.protocol import Engine
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import load_template, prompt_path
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.sentences import split_sentences
from limbeck.corpus.text.invisible import stripped
from limbeck.filters.config import Cost, EngineFilterConfig, Limit, Name
from limbeck.filters.models.judge_answers import Answers, SamplingConfig, exact, sampled

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

PROMPTS = Path(__file__).parent / "prompts"
RUBRIC = "the answer says what the text says and nothing else, gives its main point, and is fluent."
PLACES = ("A", "B")
GRADED = {"score": "grades", "spread": "grades", "answered": "probability"}
COMPARED = dict.fromkeys(["preference", "position_bias", "answered", "preference_first", "preference_second"], "probability")
"""The score columns and their units."""


class ScaleConfig(Config):
    """The grades, one-digit integers, so that no grade is a prefix of another."""

    lowest: int = Field(1, ge=0, le=8)
    highest: int = Field(5, ge=1, le=9)

    @model_validator(mode="after")
    def _ascending(self) -> "ScaleConfig":
        if self.lowest >= self.highest:
            raise ValueError(f"the lowest grade {self.lowest} must be below the highest, {self.highest}")
        return self


class JudgeConfig(EngineFilterConfig):
    """The judge's engine (null: the round-0 teacher), rubric and method.

    With `compare`, the output is compared with the row's reference or its document's lead, and `scale` is not used. `prompt` is
    the name of a built-in Jinja template or the path of one (null: `judge_score`, or `judge_compare`); it has the variables
    `document`, `rubric` and either `output`, `lowest` and `highest`, or `first` and `second`. With `sampling`, answers are
    sampled and parsed; without, their probabilities are computed.
    """

    semantics: ClassVar[int] = 2
    cost: ClassVar[Cost] = Cost.GENERATION
    reasons: ClassVar[Mapping[str, str]] = {
        "min_answered": "the judge hardly answers in grades",
        "min_score": "the judge grades the output too low",
        "max_spread": "the judge is not sure of its grade",
        "min_preference": "the judge prefers the other answer",
        "max_position_bias": "the judge prefers a place, whatever stands there",
    }

    kind: Literal["judge"] = "judge"
    name: Name = "judge"
    compare: Literal["reference", "lead"] | None = None
    rubric: str = RUBRIC
    scale: ScaleConfig = ScaleConfig()
    prompt: str | None = None
    sampling: SamplingConfig | None = None
    min_answered: Limit = None
    min_score: Limit = None
    max_spread: Limit = None
    min_preference: Limit = None
    max_position_bias: Limit = None

    @model_validator(mode="after")
    def _limits_have_columns(self) -> "JudgeConfig":
        absent = ("min_score", "max_spread") if self.compare else ("min_preference", "max_position_bias")
        for key in absent:
            if getattr(self, key) is not None:
                raise ValueError(f"{key}: this score does not exist {'with' if self.compare else 'without'} compare; remove it")
        if self.compare and self.scale != ScaleConfig():
            raise ValueError("scale: a comparison has no grades; remove it")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The score columns of this config."""
        return tuple(COMPARED if self.compare else GRADED)

    @property
    def template(self) -> str:
        """The name or path of the template."""
        return self.prompt or ("judge_compare" if self.compare else "judge_score")

    def problems(self) -> list[str]:
        """Reports a template that is missing or does not render."""
        try:
            Prompt(self)
        except LimbeckError as error:
            return [f"filter {self.name}: {error}"]
        return []

    def scoring(self) -> dict[str, Any]:
        """As for every filter, plus the text of the template."""
        path = prompt_path(self.template, PROMPTS)
        return super().scoring() | {"prompt_text": path.read_text(encoding="utf-8") if path.is_file() else None}

    def build(self, engines: "Engines") -> "JudgeFilter":
        """Return the filter with a loaded engine; raises LimbeckError if no engine is set or the template fails."""
        return JudgeFilter(self, self.loaded(engines))


class Prompt:
    """The question for the judge."""

    def __init__(self, config: JudgeConfig) -> None:
        """Read the template and render it once to validate it; raises LimbeckError."""
        self._config = config
        self._template = load_template(config.template, PROMPTS, "judge*")
        self.render("a document", "an output", "another")

    def render(self, document: str, output: str, other: str = "") -> str:
        """Return the prompt, without leading or trailing whitespace. In a comparison `output` comes first, then `other`."""
        names: dict[str, Any] = {"document": document, "rubric": self._config.rubric}
        if self._config.compare:
            names |= {"first": output, "second": other}
        else:
            names |= {"output": output, **self._config.scale.model_dump()}
        try:
            return self._template.render(names).strip()
        except jinja2.TemplateError as error:
            known = ", ".join(f"`{name}`" for name in names)
            raise LimbeckError(f"the prompt {self._config.template} does not render: {error}; it may use {known}") from error


class JudgeFilter:
    """Grades or compares outputs with a language model."""

    def __init__(self, config: JudgeConfig, engine: Engine) -> None:
        """Judge with `engine`; raises LimbeckError if the template is missing or does not render."""
        self.name = config.name
        self.bounds = config.bounds
        self._config = config
        self._engine = engine
        self._prompt = Prompt(config)

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `score`, `spread` and `answered`, or with `compare` the columns of `_compared`, one row per candidate.

        An empty output gets the lowest grade and is never preferred, without asking the model. NaN: the prompt does not fit the
        engine's context, no answer could be parsed, or there is nothing to compare with.
        """
        rows = candidates.select(["document", "output", "reference", "seed"]).to_pylist()
        for row in rows:
            row |= {name: stripped(row[name] or "") for name in ("output", "document", "reference")}
        columns = self._compared(rows) if self._config.compare else self._graded(rows)
        units = COMPARED if self._config.compare else GRADED
        table = candidates.select(["candidate_id"])
        for name, unit in units.items():
            table = table.append_column(pa.field(name, pa.float64(), metadata={"unit": unit}), [columns[name]])
        return table

    def _graded(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        scale = self._config.scale
        grades = np.arange(scale.lowest, scale.highest + 1)
        asked = np.array([bool(row["output"]) for row in rows], dtype=bool)
        questions = [(self._prompt.render(row["document"], row["output"]), row["seed"], 0) for row in rows if row["output"]]
        answers = self._ask(questions, [str(grade) for grade in grades])
        columns = {
            "score": np.full(len(rows), float(scale.lowest)),
            "spread": np.zeros(len(rows)),
            "answered": np.ones(len(rows)),
        }
        mean = answers.shares @ grades
        columns["score"][asked] = np.round(mean, 12)  # so that the mean of three 4s is not slightly below a bound of 4
        columns["spread"][asked] = np.sqrt((answers.shares * (grades - mean[:, None]) ** 2).sum(axis=1))
        columns["answered"][asked] = answers.answered
        return columns

    def _compared(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`preference`: the probability that the output is the better answer, averaged over both orders.

        `preference_first` and `preference_second` are the same with the output in that position, `position_bias` is their
        difference, `answered` the mean over both.
        """
        others = [
            row["reference"] if self._config.compare == "reference" else lead(row["document"], row["output"]) for row in rows
        ]
        places = [place for place, row in enumerate(rows) if row["output"] and others[place]]
        questions = []
        for place in places:
            document, output, seed = (rows[place][name] for name in ("document", "output", "seed"))
            questions.append((self._prompt.render(document, output, others[place]), seed, 0))
            questions.append((self._prompt.render(document, others[place], output), seed, 1))
        answers = self._ask(questions, PLACES)
        unasked = np.array([np.nan if row["output"] else 0.0 for row in rows])  # an empty output always loses
        first, second, answered = unasked.copy(), unasked.copy(), np.where(np.isnan(unasked), np.nan, 1.0)
        first[places], second[places] = answers.shares[::2, 0], answers.shares[1::2, 1]
        answered[places] = (answers.answered[::2] + answers.answered[1::2]) / 2
        return {
            "preference": (first + second) / 2,
            "position_bias": np.abs(first - second),
            "answered": answered,
            "preference_first": first,
            "preference_second": second,
        }

    def _ask(self, questions: Sequence[tuple[str, int, int]], allowed: Sequence[str]) -> Answers:
        """Send questions of (prompt, seed of the candidate, index of the question) to the model in one call."""
        prompts = [prompt for prompt, _, _ in questions]
        if self._config.sampling is None:
            return exact(self._engine, prompts, allowed)
        seeds = [derive_seed("judge", seed, number) for _, seed, number in questions]
        return sampled(self._engine, prompts, seeds, allowed, self._config.sampling)


def lead(document: str, output: str) -> str:
    """The document's first sentences, as many as the output has: a free summary that is hard to beat."""
    return " ".join(split_sentences(document)[: max(1, len(split_sentences(output)))])
