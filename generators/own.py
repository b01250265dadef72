"""User-defined generators: run a script function like any other generator."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, Field, SkipValidation

from limbeck.cluster.engines.config import EngineConfig
from limbeck.cluster.engines.protocol import Sampling
from limbeck.generators.contract import Draw, GeneratorConfig, Needs, Question, Script, ScriptedGenerator, Source, Task

ScriptFunction = Callable[[Source, Draw, Sequence[Task]], Script]


class OwnGenerator(GeneratorConfig):
    """The config of a user-defined script; see `own_generator`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    script: SkipValidation[Any] = Field(exclude=True)
    ask: SkipValidation[Any] = Field(None, exclude=True)
    answers: SkipValidation[Sampling] = Field(Sampling(64, temperature=0.7, top_p=0.95), exclude=True)
    named_engines: SkipValidation[Mapping[str, Any]] = Field({}, exclude=True)
    candidates: int = Field(1, ge=1)
    completions: int = Field(1, ge=1)
    chat: bool = True
    judged_by: tuple[str, ...] | None = None
    compared_with: tuple[str, ...] = ("mismatched",)
    code: str = ""

    @property
    def measures(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The measures that evaluation reports."""
        return self.judged_by

    @property
    def controls(self) -> tuple[str, ...]:  # type: ignore[override]
        """The controls that it is compared with."""
        return self.compared_with

    @property
    def invents_inputs(self) -> bool:  # type: ignore[override]
        """Whether no function gives the question for evaluation."""
        return self.ask is None

    @property
    def engines(self) -> Mapping[str, EngineConfig]:
        """The engines besides the teacher that the script names."""
        return self.named_engines

    @property
    def needs(self) -> Needs:
        """The stated needs."""
        return Needs(self.candidates, self.completions, self.answers.max_new_tokens, 96, self.chat)

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers."""
        return self.answers

    def build(self) -> ScriptedGenerator:
        """Return the script as the runner drives it."""
        return _Own(self.script, self.ask)


def own_generator(
    kind: str, script: ScriptFunction, question: Callable[[Source], str] | None = None, **settings: Any
) -> OwnGenerator:
    """Make a generator from one function, for `run(..., generator=own_generator(name, script))`.

    `script(source, draw, pool)` yields what it wants drawn or scored and returns drafts. Its inputs for evaluation are drawn once
    by the round-0 teacher and frozen, unless `question(source)` returns the question about a source. `settings`: `candidates`,
    `completions` and `chat` for the estimate and the checks; `answers` (a Sampling), `judged_by` and `compared_with` (names of
    measures and controls) for evaluation; `named_engines`. Resume compares the code of `script`, not of functions it calls.
    """
    return OwnGenerator(kind=kind, script=script, ask=question, code=_digest(script), **settings)


class _Own:
    seeds: tuple[Task, ...] = ()

    def __init__(self, script: ScriptFunction, ask: Callable[[Source], str] | None) -> None:
        self._script, self._ask = script, ask

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        return self._script(source, draw, pool)

    def question(self, source: Source) -> Question:
        assert self._ask is not None
        return Question(source.source_id, self._ask(source), source.document)


def _digest(script: ScriptFunction) -> str:
    """Hash of the script's source text, or of its compiled code if the text cannot be read."""
    try:
        text = inspect.getsource(script)
    except (OSError, TypeError):
        text = repr(script.__code__.co_code)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
