"""The recipe: one YAML file that describes a run completely, validated into one frozen object."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from limbeck.cluster.engines.config import EngineConfig
from limbeck.cluster.session import ClusterConfig
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.sources import SourcesConfig
from limbeck.filters.config import FilterConfig, SetFilterConfig
from limbeck.filters.models.bottleneck import BottleneckConfig
from limbeck.filters.models.embedding import EmbeddingConfig
from limbeck.filters.models.equivalence import EquivalenceConfig
from limbeck.filters.models.fluency import FluencyConfig
from limbeck.filters.models.judge import JudgeConfig
from limbeck.filters.models.masked_pmi import MaskedPmiConfig
from limbeck.filters.models.nli import NliConfig
from limbeck.filters.models.pmi import PmiConfig
from limbeck.filters.ngram.ngrams import NgramsConfig
from limbeck.filters.sets.distinct import BestConfig
from limbeck.filters.sets.diversity import DiversityConfig
from limbeck.filters.sets.duplicates import DuplicatesConfig
from limbeck.filters.sets.novelty import NoveltyConfig
from limbeck.filters.text.attributes import AttributesConfig
from limbeck.filters.text.heuristics import HeuristicsConfig
from limbeck.filters.text.instructions import InstructionsConfig
from limbeck.filters.text.language import LanguageConfig
from limbeck.filters.text.length import LengthConfig
from limbeck.filters.text.privacy import PrivacyConfig
from limbeck.filters.text.repetition import RepetitionConfig
from limbeck.filters.text.toxicity import ToxicityConfig
from limbeck.generators.contract import GeneratorConfig
from limbeck.generators.summaries import SummariesConfig
from limbeck.pipelines import recipe_files
from limbeck.pipelines.kinds import add_installed_kinds
from limbeck.pipelines.runs.rows import RowsConfig, default_rows
from limbeck.students.config import SftConfig
from limbeck.students.contract import StudentConfig
from limbeck.students.evaluation.measures import CONTROLS, SCALARS

GeneratorConfig.add(SummariesConfig)
FilterConfig.add(
    AttributesConfig,
    BottleneckConfig,
    EmbeddingConfig,
    EquivalenceConfig,
    FluencyConfig,
    HeuristicsConfig,
    InstructionsConfig,
    JudgeConfig,
    LanguageConfig,
    LengthConfig,
    MaskedPmiConfig,
    NgramsConfig,
    NliConfig,
    PmiConfig,
    PrivacyConfig,
    RepetitionConfig,
    ToxicityConfig,
)
SetFilterConfig.add(BestConfig, DiversityConfig, DuplicatesConfig, NoveltyConfig)
StudentConfig.add(SftConfig)
add_installed_kinds()

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class CalibrationConfig(Config):
    """How bounds that say `calibrated` are found, once, on the train candidates of round 0."""

    pass_rate: float = Field(0.25, gt=0, le=1, description="share of all candidates that passes every bound jointly")
    parts: int = Field(4, ge=1, description="with a target: how many parts are drawn first, to calibrate on")


class TargetConfig(Config):
    """How many rows each round's dataset has, and in which waves they are drawn."""

    rows: int = Field(ge=1, description="rows of each round's dataset, exactly")
    wave_sources: int | None = Field(
        None,
        ge=1,
        description="sources of a wave; the task pool grows from wave to wave. null: waves are sized by what was accepted so far",
    )


class BudgetConfig(Config):
    """What a round with a target may cost; the run stops (exit code 3) where that is spent first, and can be continued."""

    tokens: int | None = Field(None, ge=1, description="tokens that the teacher writes")
    seconds: float | None = Field(None, gt=0, description="seconds of work on train parts, over all sittings")


class EvaluationConfig(Config):
    """How each teacher and student is measured on held-out documents, bounds frozen."""

    samples: int = Field(4, ge=1, description="outputs drawn for each test document")
    dev_samples: int = Field(2, ge=1, description="outputs drawn for each dev document, every round")


_EACH_ROUND = TypeAdapter(tuple[StudentConfig, ...])


def _one_or_each(section: Any, _: ValidatorFunctionWrapHandler) -> StudentConfig | tuple[StudentConfig, ...]:
    """One student or one per round; an error's path is `epochs` or `1.epochs`, as the recipe is written."""
    if isinstance(section, list | tuple):
        return _EACH_ROUND.validate_python(tuple(section))
    return StudentConfig.model_validate(section)


Students = Annotated[StudentConfig | tuple[StudentConfig, ...], WrapValidator(_one_or_each)]


class Recipe(Config):
    """A complete run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    rounds: int = Field(1, ge=1)
    sources: SourcesConfig
    teacher: EngineConfig
    generator: GeneratorConfig
    later: GeneratorConfig | None = Field(None, description="the generator from round 1 on; null: the same")
    task: GeneratorConfig | None = Field(None, description="what evaluation asks of every model; null: what `later` asks")
    rows: RowsConfig | None = Field(
        None,
        description="the form of training rows and of evaluation's prompts; null: chat or plain, as the generator asks",
    )
    filters: tuple[FilterConfig, ...] = Field(min_length=1, strict=False)  # not strict: YAML has lists, not tuples
    select: tuple[SetFilterConfig, ...] = Field((), strict=False)
    calibration: CalibrationConfig = CalibrationConfig()
    target: TargetConfig | None = Field(
        None, description="rows of each round's dataset, as a number or with its waves; null: whatever the sources give"
    )
    budget: BudgetConfig = BudgetConfig()
    student: Students | None = Field(None, description="one section for all rounds, or a list with one per round")
    next_teacher: Literal["student", "teacher"] = "student"
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("target", mode="before")
    @classmethod
    def _rows_alone(cls, value: Any) -> Any:
        return {"rows": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @property
    def students(self) -> tuple[StudentConfig, ...]:
        """The student of each round; empty if none is trained."""
        if self.student is None:
            return ()
        return self.student if isinstance(self.student, tuple) else (self.student,) * self.rounds

    def student_of(self, number: int) -> StudentConfig | None:
        """The student of a round."""
        return self.students[number] if self.students else None

    @property
    def student_sections(self) -> dict[str, StudentConfig]:
        """The sections that describe students: key → config."""
        if isinstance(self.student, tuple):
            return {f"student.{number}": student for number, student in enumerate(self.student)}
        return {} if self.student is None else {"student": self.student}

    def generator_of(self, number: int) -> GeneratorConfig:
        """The generator of a round."""
        return self.generator if number == 0 or self.later is None else self.later

    @property
    def asked(self) -> GeneratorConfig:
        """Whose questions evaluation asks."""
        return self.task or self.later or self.generator

    @property
    def renderer(self) -> RowsConfig:
        """What writes training rows and evaluation's prompts."""
        return self.rows or default_rows(self.asked.needs.chat)

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        names = [part.name for part in (*self.filters, *self.select)]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"two filters are called {double[0]!r}; give one of them another name")
        growing = [part.kind for part in (self.generator, self.later) if part is not None and part.grows]
        if growing and (self.target is None or self.target.wave_sources is None):
            raise ValueError(
                f"generator {growing[0]} reads what earlier waves accepted; set target: {{rows: N, wave_sources: W}}"
            )
        if self.target is None and self.budget != BudgetConfig():
            raise ValueError("budget needs a target: without one every source is drawn from once")
        for what, stated, known in (("measure", self.asked.measures or (), SCALARS), ("control", self.asked.controls, CONTROLS)):
            if strange := [name for name in stated if name not in known]:
                raise ValueError(f"generator {self.asked.kind} declares the {what} {strange[0]!r}; known: {', '.join(known)}")
        if isinstance(self.student, tuple) and len(self.student) != self.rounds:
            raise ValueError(
                f"student is a list of {len(self.student)} and rounds is {self.rounds}; give one per round, or one section"
            )
        if self.student is None and self.rounds > 1 and self.next_teacher == "student":
            raise ValueError(
                "rounds > 1 needs a student to be the next teacher; add a student section or set next_teacher: teacher"
            )
        return self

    def resolved(self) -> "Recipe":
        """The recipe with every engine chosen that is `auto`, and every `null` filled in that stands for another section.

        A filter's engine, if it names none, is the round-0 teacher.
        """
        teacher = self.teacher.choose(self.cluster.gpus_per_worker)
        gpus = (self.cluster.critics or self.cluster).gpus_per_worker
        filters = tuple(part.with_engine(part.asks.choose(gpus) if part.asks else teacher) for part in self.filters)
        return self.model_copy(update={"teacher": teacher, "filters": filters})


def load(path: Path | str, settings: Sequence[str] = (), overrides: Sequence[Path | str] = ()) -> Recipe:
    """Read a recipe (a file, or the name of a shipped one) and validate it; raises LimbeckError with every fault in one sentence.

    `overrides` are files, or names, merged into it in order (`--with`); then environment variables are filled in; then
    `settings` (`--set`) are applied.
    """
    file = recipe_files.find(path)
    data = recipe_files.read(file, [recipe_files.find_override(file, override) for override in overrides])
    data = interpolate(data)
    for setting in settings:
        apply_override(data, setting)
    return validate(data, str(path))


def validate(data: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from plain data, or raise LimbeckError."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise LimbeckError(f"{where}: {'; '.join(_sentence(detail) for detail in error.errors())}") from error


def interpolate(value: Any) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every string by the environment's value."""
    if isinstance(value, dict):
        return {key: interpolate(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolate(inner) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _VARIABLE.fullmatch(value)
    text = _VARIABLE.sub(_from_environment, value)
    return yaml.safe_load(text) if whole else text  # a value that is nothing but a variable may be a number


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one dotted key, as in `--set generator.samples=8` or `--set filters.pmi.min_faithfulness=0.2`; the value is YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise LimbeckError(f"--set {override}: expected a dotted key, '=' and a value, as in generator.samples=8")
    node: Any = data
    *parents, last = key.split(".")
    for name in parents:
        if isinstance(node, list):
            node = node[_index(node, name, override)]
            continue
        if node.get(name) is None:
            node[name] = {}
        node = node[name]
        if not isinstance(node, dict | list):
            raise LimbeckError(f"--set {override}: {name!r} holds a single value, so nothing can be set below it")
    value = yaml.safe_load(text) if text else None
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _index(node: list[Any], name: str, override: str) -> int:
    """Where in a list the key points: a position, or the name or kind of a filter."""
    if name.isdigit() and int(name) < len(node):
        return int(name)
    entries = [entry if isinstance(entry, dict) else {} for entry in node]
    called = [entry.get("name", entry.get("kind")) for entry in entries]
    if name in called:
        return called.index(name)
    if name.isdigit() or not any(called):
        raise LimbeckError(f"--set {override}: {name!r} is not one of the positions 0 to {len(node) - 1}")
    raise LimbeckError(f"--set {override}: no filter is called {name!r}; here are {', '.join(filter(None, called))}")


def _from_environment(match: re.Match[str]) -> str:
    value = os.environ.get(match[1], match[2])
    if value is None:
        raise LimbeckError(f"the recipe uses ${{{match[1]}}}, which is not set; export it, or write ${{{match[1]}:-default}}")
    return value


def _sentence(detail: Any) -> str:
    where = ".".join(str(step) for step in detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) and "unknown key" not in message else ""
    return f"{where + ': ' if where else ''}{message}{shown}"
