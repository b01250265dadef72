"""User-defined generators: run a script function like any other generator."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, SkipValidation, ValidationError

from limbeck.cluster.engines.config import EngineConfig
from limbeck.cluster.engines.protocol import Sampling
from limbeck.corpus.config import NAME
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.source_kinds import ROW_TEXTS, RowText
from limbeck.generators.contract import Draw, GeneratorConfig, Needs, Question, Script, ScriptedGenerator, Source, Task

_ANSWERS = Sampling(64, temperature=0.7, top_p=0.95)
ScriptFunction = Callable[[Source, Draw, Sequence[Task]], Script]


class OwnGenerator(GeneratorConfig):
    """The config of a user-defined script; see `own_generator`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    adds: ClassVar[frozenset[RowText]] = ROW_TEXTS

    kind: str = Field(pattern=f"^{NAME}$")
    script: SkipValidation[Any] = Field(exclude=True)
    ask: SkipValidation[Any] = Field(None, exclude=True)
    answers: SkipValidation[Sampling] = Field(_ANSWERS, exclude=True)
    named_engines: SkipValidation[Mapping[str, Any]] = Field({}, exclude=True)
    candidates: int = Field(1, ge=1)
    completions: int = Field(1, ge=1)
    chat: bool = True
    judged_by: tuple[str, ...] | None = None
    compared_with: tuple[str, ...] = ("mismatched",)
    reads_pool: bool = False
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
    def grows(self) -> bool:  # type: ignore[override]
        """Whether the script reads what earlier waves accepted."""
        return self.reads_pool

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
    kind: str,
    script: ScriptFunction,
    question: Callable[[Source], str] | None = None,
    *,
    measures: Sequence[str] | None = None,
    controls: Sequence[str] = ("mismatched",),
    grows: bool = False,
    **settings: Any,
) -> OwnGenerator:
    """Make a generator from one function, for `run(..., generator=own_generator(name, script))`.

    `script(source, draw, pool)` yields what it wants drawn or scored and returns drafts. Its inputs for evaluation are drawn once
    by the round-0 teacher and frozen, unless `question(source)` returns the question about a source. `measures` and `controls` of
    its task: see `GeneratorConfig`. `grows`: `pool` holds what earlier waves accepted; the recipe needs a `target` with
    `wave_sources`. `settings`: `candidates`, `completions` and `chat` for the estimate and the checks, `answers` (a Sampling) for
    evaluation, `named_engines`. Resume compares the code of `script`, not of functions it calls. Raises LimbeckError if `script`
    is not a function of three arguments, and for unknown settings.
    """
    if not (inspect.isfunction(script) or inspect.ismethod(script)):
        raise LimbeckError(f"the script of generator {kind!r} is {script!r}; define it with def, as script(source, draw, pool)")
    try:
        inspect.signature(script).bind(None, None, None)
    except TypeError as error:
        raise LimbeckError(
            f"the script of generator {kind!r} has other arguments ({error}); define script(source, draw, pool)"
        ) from error
    if not isinstance(settings.get("answers", _ANSWERS), Sampling):
        raise LimbeckError(f"answers of generator {kind!r} is not a Sampling")
    for name, engine in dict(settings.get("named_engines", {})).items():
        if not isinstance(engine, EngineConfig):
            raise LimbeckError(f"engine {name!r} of generator {kind!r} is {engine!r}; give an engine config")
    stated: dict[str, Any] = {
        "judged_by": None if measures is None else tuple(measures),
        "compared_with": tuple(controls),
        "reads_pool": grows,
    }
    try:
        return OwnGenerator(kind=kind, script=script, ask=question, code=_digest(script), **stated, **settings)
    except ValidationError as error:
        fault = error.errors()[0]
        raise LimbeckError(f"generator {kind!r}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


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
