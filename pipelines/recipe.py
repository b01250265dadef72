"""The recipe: one YAML file that describes a run completely, validated into one frozen object."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
from limbeck.cluster.engines.precision import Concrete, cpu_dtype, gpu_here, settled
from limbeck.cluster.session import ClusterConfig
from limbeck.corpus.config import MOST_ROWS, MOST_SAMPLES, Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.filters.config import FilterConfig, SetFilterConfig
from limbeck.filters.models.bottleneck import BottleneckConfig
from limbeck.filters.models.embedding import EmbeddingConfig
from limbeck.filters.models.equivalence import EquivalenceConfig
from limbeck.filters.models.fluency import FluencyConfig
from limbeck.filters.models.grade import GradeConfig
from limbeck.filters.models.instruction_likeness import InstructionLikenessConfig
from limbeck.filters.models.judge import JudgeConfig
from limbeck.filters.models.masked_pmi import MaskedPmiConfig
from limbeck.filters.models.nli import NliConfig
from limbeck.filters.models.pmi import PmiConfig
from limbeck.filters.models.question_pmi import QuestionPmiConfig
from limbeck.filters.ngram.ngrams import NgramsConfig
from limbeck.filters.sets.cap import CapConfig
from limbeck.filters.sets.distinct import BestConfig
from limbeck.filters.sets.diversity import DiversityConfig
from limbeck.filters.sets.duplicates import DuplicatesConfig
from limbeck.filters.sets.novelty import NoveltyConfig
from limbeck.filters.sets.pass_rate import PassRateConfig
from limbeck.filters.sets.spread import SpreadConfig
from limbeck.filters.sets.vote import VoteConfig
from limbeck.filters.text.answer import AnswerConfig
from limbeck.filters.text.attributes import AttributesConfig
from limbeck.filters.text.heuristics import HeuristicsConfig
from limbeck.filters.text.instructions import InstructionsConfig
from limbeck.filters.text.invention import InventionConfig
from limbeck.filters.text.language import LanguageConfig
from limbeck.filters.text.length import LengthConfig
from limbeck.filters.text.privacy import PrivacyConfig
from limbeck.filters.text.repetition import RepetitionConfig
from limbeck.filters.text.toxicity import ToxicityConfig
from limbeck.generators.alpaca import AlpacaConfig
from limbeck.generators.contract import GeneratorConfig
from limbeck.generators.documents_qa.generator import DocumentsQaConfig
from limbeck.generators.impossible_distillation.ladder import YieldLadderConfig
from limbeck.generators.impossible_distillation.pairs import ParaphraseConfig, SentenceSummarizationConfig
from limbeck.generators.impossible_distillation.rewrite import RewriteConfig
from limbeck.generators.infosumm import InfosummConfig
from limbeck.generators.magpie import MagpieConfig
from limbeck.generators.preferences import PreferencesConfig
from limbeck.generators.self_instruct.generator import SelfInstructConfig
from limbeck.generators.summaries import SummariesConfig
from limbeck.generators.templates.generator import TemplatesConfig
from limbeck.pipelines import recipe_files
from limbeck.pipelines.kinds import add_installed_kinds
from limbeck.pipelines.runs.mixture.config import MixConfig
from limbeck.pipelines.runs.rows import PreferenceRows, RecipeRows, RowsConfig, default_rows
from limbeck.pipelines.runs.stopping import StopConfig
from limbeck.pipelines.wording import sentences
from limbeck.students.contract import StudentConfig
from limbeck.students.distil import DistilConfig
from limbeck.students.evaluation.measures import CONTROLS, HEADINGS, SCALARS
from limbeck.students.sft import SftConfig

GeneratorConfig.add(
    AlpacaConfig,
    DocumentsQaConfig,
    InfosummConfig,
    MagpieConfig,
    ParaphraseConfig,
    PreferencesConfig,
    RewriteConfig,
    SelfInstructConfig,
    SentenceSummarizationConfig,
    SummariesConfig,
    TemplatesConfig,
    YieldLadderConfig,
)
FilterConfig.add(
    AnswerConfig,
    AttributesConfig,
    BottleneckConfig,
    EmbeddingConfig,
    EquivalenceConfig,
    FluencyConfig,
    GradeConfig,
    HeuristicsConfig,
    InstructionLikenessConfig,
    InstructionsConfig,
    InventionConfig,
    JudgeConfig,
    LanguageConfig,
    LengthConfig,
    MaskedPmiConfig,
    NgramsConfig,
    NliConfig,
    PmiConfig,
    PrivacyConfig,
    QuestionPmiConfig,
    RepetitionConfig,
    ToxicityConfig,
)
SetFilterConfig.add(
    BestConfig, CapConfig, DiversityConfig, DuplicatesConfig, NoveltyConfig, PassRateConfig, SpreadConfig, VoteConfig
)
StudentConfig.add(DistilConfig, SftConfig)
add_installed_kinds()

MOST_ROUNDS = 1000  # their folders have three digits
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class CalibrationConfig(Config):
    """How bounds set to `calibrated` are chosen, once, on the train candidates of round 0."""

    pass_rate: float = Field(0.25, gt=0, le=1, description="share of all candidates that pass every bound")
    parts: int = Field(4, ge=1, description="with a target: number of parts drawn first, for calibration")


class TargetConfig(Config):
    """Number of rows of each round's dataset, and the waves in which they are drawn."""

    rows: int = Field(ge=1, le=MOST_ROWS, description="exact number of rows of each round's dataset")
    wave_sources: int | None = Field(
        None,
        ge=1,
        description="sources per wave; the task pool grows after each wave. null: waves are sized by the acceptance rate so far",
    )


class BudgetConfig(Config):
    """Budget of a round with a target; when it is spent, the run stops with exit code 3. Raise it to resume."""

    tokens: int | None = Field(None, ge=1, description="tokens generated by the teacher")
    seconds: float | None = Field(None, gt=0, description="wall-clock seconds of work on train parts, summed over all resumes")


class EvaluationConfig(Config):
    """How the teacher and every student are measured on held-out documents, with frozen bounds."""

    samples: int = Field(4, ge=1, le=MOST_SAMPLES, description="outputs per test document")
    dev_samples: int = Field(2, ge=1, le=MOST_SAMPLES, description="outputs per dev document, in every round")


_EACH_ROUND = TypeAdapter(tuple[StudentConfig, ...])


def _one_or_each(section: Any, _: ValidatorFunctionWrapHandler) -> StudentConfig | tuple[StudentConfig, ...]:
    """Validate one student, or one per round; the path of an error is `epochs` or `1.epochs` accordingly."""
    if isinstance(section, list | tuple):
        return _EACH_ROUND.validate_python(tuple(section))
    return StudentConfig.model_validate(section)


Students = Annotated[StudentConfig | tuple[StudentConfig, ...], WrapValidator(_one_or_each)]


class Recipe(Config):
    """A complete run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    rounds: int = Field(1, ge=1, le=MOST_ROUNDS)
    stop: StopConfig | None = Field(None, description="rules that end the run before `rounds`; null: all rounds run")
    sources: SourcesConfig
    teacher: EngineConfig
    generator: GeneratorConfig
    later: GeneratorConfig | None = Field(None, description="the generator from round 1 on; null: `generator`")
    task: GeneratorConfig | None = Field(
        None, description="the generator whose prompts evaluation uses; null: `later`, if given, else `generator`"
    )
    rows: RecipeRows | None = Field(
        None,
        description="format of training rows and evaluation prompts; null: the generator's, else chat or plain, as it prompts",
    )
    filters: tuple[FilterConfig, ...] = Field(min_length=1, strict=False)  # not strict: YAML has lists, not tuples
    select: tuple[SetFilterConfig, ...] = Field((), strict=False)
    calibration: CalibrationConfig = CalibrationConfig()
    target: TargetConfig | None = Field(
        None, description="rows of each round's dataset: a number, or {rows, wave_sources}; null: every source is used once"
    )
    budget: BudgetConfig = BudgetConfig()
    student: Students | None = Field(None, description="one section for all rounds, or a list with one per round")
    mix: MixConfig | None = Field(
        None, description="datasets that students are trained on together with that of their round; null: that one alone"
    )
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
        """The student of a round, or None."""
        return self.students[number] if self.students else None

    @property
    def student_sections(self) -> dict[str, StudentConfig]:
        """Student sections of the recipe: key → config."""
        if isinstance(self.student, tuple):
            return {f"student.{number}": student for number, student in enumerate(self.student)}
        return {} if self.student is None else {"student": self.student}

    def generator_of(self, number: int) -> GeneratorConfig:
        """The generator of a round: `later` from round 1 on, if given."""
        return self.generator if number == 0 or self.later is None else self.later

    def select_of(self, number: int) -> tuple[SetFilterConfig, ...]:
        """The set-wise filters of a round."""
        return tuple(filter_ for filter_ in self.select if filter_.applies_to(number))

    @property
    def asked(self) -> GeneratorConfig:
        """The generator whose prompts evaluation uses."""
        return self.task or self.later or self.generator

    @property
    def renderer(self) -> RowsConfig:
        """The format of training rows and evaluation prompts; of preferences, that of their prompts and answers."""
        own = self.rows.render if isinstance(self.rows, PreferenceRows) else self.rows
        return own or default_rows(self.asked.needs.chat, self.asked.default_rows)

    @property
    def preferences(self) -> PreferenceRows | None:
        """How candidates are paired, if rows are preferences."""
        return self.rows if isinstance(self.rows, PreferenceRows) else None

    @property
    def recorded_rows(self) -> RecipeRows:
        """`rows` with the formats that it leaves to the generator, as a run records it."""
        return self.renderer if self.preferences is None else self.preferences.model_copy(update={"render": self.renderer})

    @property
    def measures(self) -> tuple[str, ...] | None:
        """The measures that evaluation reports: those of the task, and with control codes whether they are followed."""
        own = self.asked.measures
        return own if own is None or self.renderer.kind != "control_codes" else tuple(dict.fromkeys((*own, "code_accuracy")))

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        names = [filter_.name for filter_ in (*self.filters, *self.select)]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"two filters are named {double[0]!r}; rename one of them")
        self._generators_fit()
        self._students_fit()
        self._mix_fits()
        self._stop_fits()
        return self

    def refuse_contradictions(self) -> None:
        """Raise LimbeckError if a generator that was put into the recipe does not fit its other sections."""
        try:
            self._generators_fit()
            self._stop_fits()
        except ValueError as error:
            raise LimbeckError(f"{error}") from error

    def _generators_fit(self) -> None:
        growing = [section.kind for section in (self.generator, self.later) if section is not None and section.grows]
        if growing and (self.target is None or self.target.wave_sources is None):
            raise ValueError(
                f"generator {growing[0]} uses rows accepted in earlier waves; set target: {{rows: N, wave_sources: W}}"
            )
        talking = [section.kind for section in (self.generator, self.later) if section is not None and section.conversational]
        if talking and self.renderer.kind != "conversation":
            raise ValueError(
                f"generator {talking[0]} makes whole conversations, of which rows.kind {self.renderer.kind} would keep the last "
                "question and answer alone; set rows: {kind: conversation}"
            )
        if self.preferences is not None and self.target is not None:
            raise ValueError(
                "target counts kept candidates, but rows.kind preferences writes pairs of them; remove target, or remove "
                "rows and export the pairs of the finished run (limbeck export --format preferences)"
            )
        if self.target is None and self.budget != BudgetConfig():
            raise ValueError("budget needs a target: without one every source is used once; set target or remove budget")
        for what, stated, known in (("measure", self.asked.measures or (), SCALARS), ("control", self.asked.controls, CONTROLS)):
            if strange := [name for name in stated if name not in known]:
                raise ValueError(f"generator {self.asked.kind} declares the {what} {strange[0]!r}; known: {', '.join(known)}")

    def _stop_fits(self) -> None:
        """The rules of `stop` compare what this recipe measures after each round."""
        if self.stop is None:
            return
        if self.rounds == 1:
            raise ValueError("stop ends a run before its last round, but rounds is 1; raise rounds, or remove stop")
        if self.student is None:
            raise ValueError("stop compares the students of rounds, but the recipe trains none; add a student, or remove stop")
        if not self.sources.split.dev:
            raise ValueError("stop looks at dev figures, but sources.split.dev is 0; raise it, or remove stop")
        measured = self.asked.measures
        for key, name in self.stop.measures.items():
            if measured is not None and name not in ("pass_rate", *measured):
                raise ValueError(
                    f"stop.{key} needs {HEADINGS[name]} ({name}), which the task {self.asked.kind} does not measure; it measures "
                    f"{', '.join(dict.fromkeys(('pass_rate', *measured)))}"
                )

    def _students_fit(self) -> None:
        if isinstance(self.student, tuple) and len(self.student) != self.rounds:
            raise ValueError(
                f"student is a list of length {len(self.student)}, but rounds is {self.rounds}; "
                "give one per round, or one for all"
            )
        if self.student is None and self.rounds > 1 and self.next_teacher == "student":
            raise ValueError(
                "rounds > 1 needs a student to be the next teacher; add a student section or set next_teacher: teacher"
            )

    def _mix_fits(self) -> None:
        """A mixture is for students, and takes rows of rounds that come before the last one."""
        if self.mix is None:
            return
        if self.student is None:
            raise ValueError(
                "mix is what students are trained on, but the recipe trains none; add a student, or use the command `limbeck mix`"
            )
        for component in self.mix.components:
            if component.kind != "earlier":
                continue
            if self.rounds == 1:
                raise ValueError(f"component {component.name!r} of mix has rows of earlier rounds, but rounds is 1; remove it")
            late = [number for number in component.rounds or () if number >= self.rounds - 1]
            if late:
                raise ValueError(
                    f"component {component.name!r} of mix names round {late[0]}, but the last student's is round "
                    f"{self.rounds - 1}; name rounds before it"
                )

    def resolved(self, cpu: Concrete | None = None) -> "Recipe":
        """The recipe with `auto` engines and number types chosen; where a generator or filter has none, the round-0 teacher's.

        `cpu`: the number type of models on CPUs, as a run recorded it; None: the faster one on this machine.
        """
        cpu = cpu or cpu_dtype()
        workers, critics = self.cluster.gpus_per_worker, (self.cluster.critics or self.cluster).gpus_per_worker
        teacher = settled(self.teacher, workers > 0, cpu).choose(workers)
        filters = tuple(
            filter_.with_engine(filter_.asks.choose(critics) if filter_.asks else teacher)
            for filter_ in settled(self.filters, critics > 0, cpu)
        )
        generators: dict[str, GeneratorConfig | None] = {"generator": self.generator, "later": self.later, "task": self.task}
        for name, section in generators.items():
            if section is not None:
                own = settled(section, workers > 0, cpu)
                generators[name] = own.with_engines(lambda engine: engine.choose(workers) if engine else teacher)
        changes = {
            "teacher": teacher,
            **generators,
            "filters": filters,
            "student": settled(self.student, workers > 0 or critics > 0 or gpu_here(), cpu),
        }
        return self.model_copy(update=changes)


def load(path: Path | str, settings: Sequence[str] = (), overrides: Sequence[Path | str] = ()) -> Recipe:
    """Read a recipe (a file, or the name of a shipped one) and validate it; raises a LimbeckError that lists all problems.

    `overrides` (`--with`) are files or names and are merged in order; then environment variables are substituted; then
    `settings` (`--set`) are applied.
    """
    file = recipe_files.find(path)
    data = recipe_files.read(file, [recipe_files.find_override(file, override) for override in overrides])
    data = interpolate(data)
    for setting in settings:
        apply_override(data, setting)
    return validate(data, " --with ".join(map(str, (path, *overrides))))


def validate(data: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from plain data, or raise LimbeckError."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise LimbeckError(f"{where}: {'; '.join(sentences(error, data))}") from error


def interpolate(value: Any) -> Any:
    """Substitute environment variables, `${NAME}` or `${NAME:-default}`, in every string."""
    if isinstance(value, dict):
        return {key: interpolate(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolate(inner) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _VARIABLE.fullmatch(value)
    text = _VARIABLE.sub(_from_environment, value)
    return recipe_files.parse(text, value) if whole else text  # a value that is only a variable may be a number


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one dotted key, as in `--set generator.samples=8` or `--set filters.pmi.min_faithfulness=0.2`; the value is YAML.

    `--set filters.pmi=null` takes a filter out.
    """
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
            raise LimbeckError(f"--set {override}: {name!r} is a single value, so it has no keys to set")
    value = recipe_files.parse(text, f"--set {override}") if text else None
    if isinstance(node, list):
        place = _index(node, last, override)
        node[place : place + 1] = [] if value is None else [value]
    else:
        node[last] = value


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _index(node: list[Any], name: str, override: str) -> int:
    """The list index of a key: a position, or a filter's name or kind."""
    if name.isdigit() and int(name) < len(node):
        return int(name)
    entries = [entry if isinstance(entry, dict) else {} for entry in node]
    called = [entry.get("name", entry.get("kind")) for entry in entries]
    if name in called:
        return called.index(name)
    if name.isdigit() or not any(called):
        raise LimbeckError(f"--set {override}: {name!r} is not a position from 0 to {len(node) - 1}")
    raise LimbeckError(f"--set {override}: no filter is named {name!r}; known filters: {', '.join(filter(None, called))}")


def _from_environment(match: re.Match[str]) -> str:
    value = os.environ.get(match[1], match[2])
    if value is None:
        raise LimbeckError(f"the recipe uses ${{{match[1]}}}, which is not set; export it, or write ${{{match[1]}:-default}}")
    return value
