"""Several answers to one prompt, from one or several engines and under sampled principles: candidates for preference pairs.

In the manner of UltraFeedback (Cui et al., 2023): answers to a prompt come from several models, each with a principle as its
system text, and are scored per aspect afterwards. Principles, counts and sampling settings are our own. The system text is in the
facts of a candidate and not in its prompt, so training rows do not show it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from limbeck.cluster.engines.config import EngineConfig
from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS, NAME
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import load_template, render_prompt
from limbeck.corpus.source_kinds import RowText
from limbeck.generators.contract import TEACHER, Draft, Draw, GeneratorConfig, Needs, Question, Script, Source, Task

PROMPTS = Path(__file__).parent / "prompts"
OWN_PRINCIPLES = "principles"
PROMPT_TOKENS = 192  # upper bound for the chat template, the instruction and a principle
MOST_ANSWERS = 63  # each takes one of the 64 steps that a source may have

EngineName = Annotated[str, Field(pattern=f"^{NAME}$")]
Item = TypeVar("Item")


class PreferencesConfig(GeneratorConfig):
    """Answers per prompt, the engines that give them, and the principles that they follow.

    `prompt` is the name of a built-in Jinja template (`task`: the source's text as it is, `summary`) or the path of one, with the
    variables `document` and those drawn by `vary`; it is the user's turn. `principles` is the path of a text file with a line
    `name: system text` per principle. Principles and engines are shuffled for each source and used in turn.
    """

    reads: ClassVar[frozenset[RowText]] = frozenset(("document",))
    default_rows: ClassVar[str | None] = "chat"

    kind: Literal["preferences"] = "preferences"
    answers: int = Field(4, ge=2, le=MOST_ANSWERS, description="answers per source")
    prompt: str = "task"
    principles: str | None = Field(OWN_PRINCIPLES, description="a file, or `principles`, the built-in list; null: no system text")
    answered_by: Mapping[EngineName, EngineConfig] = Field({}, description="engines that answer besides the teacher, by name")
    max_new_tokens: int = Field(256, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(0.9, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(50, ge=0)
    stop: tuple[str, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _answers_differ(self) -> Self:
        if TEACHER in self.answered_by:
            raise ValueError(f"answered_by: {TEACHER!r} is the recipe's teacher, which answers anyway; rename that engine")
        if self.temperature == 0 and self.principles is None and len(self.answered_by) + 1 < self.answers:
            raise ValueError("with temperature 0 and no principles, an engine gives the same answer each time; raise temperature")
        return self

    @property
    def needs(self) -> Needs:
        """One completion per answer."""
        return Needs(self.answers, self.answers, self.max_new_tokens, PROMPT_TOKENS, chat=True)

    @property
    def engines(self) -> Mapping[str, EngineConfig]:
        """Those of `answered_by`."""
        return self.answered_by

    def with_engines(self, change: Callable[[EngineConfig | None], EngineConfig]) -> Self:
        """A copy with what `change` makes of each engine."""
        return self.model_copy(update={"answered_by": {name: change(engine) for name, engine in self.answered_by.items()}})

    @property
    def sampling(self) -> Sampling:
        """How an answer is sampled."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.top_k, self.stop)

    def build(self) -> "PreferenceAnswers":
        """Return the generator; raises LimbeckError if the template or the principles are missing or malformed."""
        return PreferenceAnswers(self)

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Reports a template or principles that are missing or malformed, and a template that does not render."""
        try:
            self.build().render("a document", vary)
        except LimbeckError as error:
            return [str(error)]
        return []


@dataclass(frozen=True)
class Principle:
    """A principle and the system text that asks for it."""

    name: str
    text: str


class PreferenceAnswers:
    """Asks for every answer in a step of its own."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: PreferencesConfig) -> None:
        """Read the template and the principles."""
        self._config = config
        self._template = load_template(config.prompt, PROMPTS, "[st]*")
        self._principles = () if config.principles is None else principles(config.principles)

    def render(self, document: str, vary: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Return the prompt for a source's text, without leading or trailing whitespace; raises LimbeckError if it fails."""
        return render_prompt(self._template, self._config.prompt, {"document": document}, vary)

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """One step per answer; an answer that fails is a rejected candidate, and the others are drawn all the same."""
        config, prompt = self._config, self.render(source.document, source.vary)
        engines = _in_turn((TEACHER, *config.answered_by), config.answers, draw.random("engines"))
        chosen = _in_turn(self._principles or (None,), config.answers, draw.random("principles"))
        drafts = []
        for engine, principle in zip(engines, chosen, strict=True):
            system = () if principle is None else (Message("system", principle.text),)
            (answer,) = yield draw("answer", (*system, Message("user", prompt)), config.sampling, n=1, engine=engine)
            facts = {"engine": engine, **({} if principle is None else {"principle": principle.name})}
            drafts.append(Draft.of(answer, prompt, facts=facts))
        return drafts

    def question(self, source: Source) -> Question:
        """The prompt of a source, without a principle."""
        return Question(source.source_id, self.render(source.document, source.vary), source.document)


def _in_turn(items: Sequence[Item], count: int, random: Random) -> list[Item]:
    """The items in a random order, from the beginning again until there are `count`."""
    return list(islice(cycle(random.sample(items, len(items))), count))


def principles(file: str) -> tuple[Principle, ...]:
    """Read a file of principles, or the built-in one; raises LimbeckError if it is missing or a line is malformed."""
    path = PROMPTS / f"{OWN_PRINCIPLES}.txt" if file == OWN_PRINCIPLES else Path(file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LimbeckError(f"generator.principles: {path} cannot be read as text; name a file, or {OWN_PRINCIPLES}") from error
    found: dict[str, Principle] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, text = (part.strip() for part in line.partition(":"))
        if not (name and colon and text):
            raise LimbeckError(f"generator.principles: line {number} of {path} is not `name: system text`; correct it")
        if name in found:
            raise LimbeckError(f"generator.principles: line {number} of {path} has the name {name!r} again; rename one of them")
        found[name] = Principle(name, text)
    if not found:
        raise LimbeckError(f"generator.principles: {path} has no principle; add lines `name: system text`, or set null")
    return tuple(found.values())
