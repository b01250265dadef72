"""The generator interface: a script over one source that yields what it wants drawn or scored, and returns drafts.

A script is a Python generator function. It never sees an engine and does not batch; `runner.py` runs the scripts of a part
together, stores every step, and limits the effect of a failed source to that source.
"""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from limbeck.cluster.engines.config import EngineConfig
from limbeck.cluster.engines.protocol import Completion, Message, Sampling, UserTurn
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.kinds import Kind
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.source_kinds import RowText

TEACHER = "teacher"
Prompt = str | Sequence[Message]


class StepFailed(Exception):
    """The engine could not answer a step; raised inside the script. If it is not caught, the source is rejected."""


class Answer(str):
    """The text of one completion as the engine wrote it, with what the engine reported about it."""

    completion: Completion
    step: str
    number: int  # among the completions of its step
    seed: int

    @classmethod
    def of(cls, completion: Completion, step: str, number: int, seed: int) -> "Answer":
        """Wrap a completion; the text of a failed one is empty."""
        answer = cls("" if completion.finish_reason == "error" else completion.text)
        answer.completion, answer.step, answer.number, answer.seed = completion, step, number, seed
        return answer

    @property
    def error(self) -> str | None:
        """Why there is no text, or None."""
        if self.completion.finish_reason != "error":
            return None
        return self.completion.error or "the engine gave no reason"


@dataclass(frozen=True)
class Draft:
    """One output that a script returns: it becomes one candidate.

    `input` replaces the source's document for filters, `reference` its reference, `messages` holds a conversation of several
    turns, `facts` what else is known (operator, persona, template). `error` makes it a rejected row with that reason. `answer`
    is the completion that the output was made from: its seed, token counts and finish reason become the candidate's.
    """

    prompt: str
    output: str
    input: str | None = None
    reference: str | None = None
    messages: tuple[Message, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    answer: Answer | None = None

    @classmethod
    def of(cls, answer: Answer, prompt: str, **more: Any) -> "Draft":
        """A draft whose output is a completion without leading or trailing whitespace; a failed completion is rejected."""
        return cls(prompt, answer.strip(), error=answer.error, answer=answer, **more)

    @classmethod
    def rejected(cls, text: str, reason: str, prompt: str = "", **more: Any) -> "Draft":
        """A draft that skips the filters: `text` is stored in its facts, with the reason."""
        facts = {**more.pop("facts", {}), "rejected_text": text}
        return cls(prompt, "", error=reason, facts=facts, **more)


@dataclass(frozen=True)
class Task:
    """A task of the task pool: one of the generator's own (`seed`), or one accepted in earlier waves."""

    prompt: str
    output: str = ""
    input: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    seed: bool = False


@dataclass(frozen=True)
class Source:
    """The source of one script: a row of `limbeck.corpus.schemas.SOURCES`."""

    source_id: str
    document: str
    reference: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    """All columns of the input row (seed tasks, labelled tables, conversations), and under `vary` what it drew."""

    @property
    def vary(self) -> Mapping[str, Any]:
        """The values that the source drew, by name."""
        return self.record.get("vary") or {}


@dataclass(frozen=True)
class Question:
    """What a model is asked about one source: a renderer (the recipe's `rows`) turns it into a prompt."""

    source_id: str
    prompt: str
    document: str = ""
    input: str | None = None
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True)
class Drawing:
    """A request for completions: `n` None asks for one and raises StepFailed if it fails, a number asks for a list.

    `round`: the round whose seeds they have.
    """

    step: str
    prompt: Prompt | UserTurn
    sampling: Sampling
    n: int | None
    engine: str
    round: int


@dataclass(frozen=True)
class Scoring:
    """A request for the log-probability of each target after one context, in nats, summed over the target's tokens."""

    step: str
    context: str
    targets: tuple[str, ...]
    engine: str


Asked = Drawing | Scoring
Script = Generator[Asked, Any, Sequence[Draft]]


@dataclass(frozen=True)
class Draw:
    """Creates the requests of a script. Nothing is computed here: the script yields what these methods return.

    A copy with another `round` makes the requests of that round, so that a later round can draw the same texts again.
    """

    run_seed: int
    round: int
    source_id: str

    def __call__(
        self, step: str, prompt: Prompt | UserTurn, sampling: Sampling, *, n: int | None = None, engine: str = TEACHER
    ) -> Drawing:
        """Ask for one completion (an `Answer`), or with `n` for a list of `n`, each with a seed of its own.

        With a constraint, the `n` completions are the best texts that its search finds, the best first.
        """
        return Drawing(step, prompt, sampling, n, engine, self.round)

    def logprobs(self, context: str, targets: Sequence[str], *, step: str = "logprobs", engine: str = TEACHER) -> Scoring:
        """Ask for one number per target: log p(target | context) in nats; NaN if the pair does not fit the context."""
        return Scoring(step, context, tuple(targets), engine)

    def random(self, step: str) -> random.Random:
        """Return a random number generator that depends on the run's seed, the round, the source and `step` alone."""
        return random.Random(derive_seed(self.run_seed, self.round, self.source_id, "random", step))


class ScriptedGenerator(Protocol):
    """A generator as called by the runner."""

    @property
    def seeds(self) -> Sequence[Task]:
        """The initial tasks of its task pool; most generators have none."""
        ...

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Start the script of one source; `pool`: `seeds`, then what earlier waves accepted, by part and row."""
        ...

    def question(self, source: Source) -> "Question":
        """The question that evaluation asks about a source; never called if the generator invents its inputs."""
        ...


@dataclass(frozen=True)
class Needs:
    """The cost of one source, for `check` and the estimate; token counts are upper bounds per completion."""

    candidates: int
    completions: int
    new_tokens: int
    prompt_tokens: int
    """Upper bound for instructions and template around the document."""
    chat: bool
    """Whether it needs a model with a chat template."""
    texts: int | None = None
    """Distinct texts among the inputs and outputs of a source's candidates, at most; None: one input, and every output."""


class GeneratorConfig(Kind):
    """Base class of generator configs: all that `check`, the estimate, evaluation and the dataset need to know."""

    family: ClassVar[str] = "generator"
    default_kind: ClassVar[str | None] = "summaries"

    reads: ClassVar[frozenset[RowText]] = frozenset()
    """The texts that a source must have."""

    adds: ClassVar[frozenset[RowText]] = frozenset()
    """The texts that its drafts may have although their source has none."""

    grows: ClassVar[bool] = False
    """Whether its scripts read what earlier waves accepted; the recipe then needs a `target`."""

    invents_inputs: ClassVar[bool] = False
    """Whether sources have no question; the round-0 teacher then draws the held-out inputs once, and they are frozen."""

    default_rows: ClassVar[str | None] = None
    """The kind of `rows` if the recipe has none: the published format of the method; None: chat or plain, as it prompts."""

    measures: ClassVar[tuple[str, ...] | None] = None
    """The measures that evaluation reports for its task, in this order, after the pass rate; None: all with a value."""

    controls: ClassVar[tuple[str, ...]] = ("mismatched",)
    """The controls its task is compared with. `first-sentence` and `document` need documents, `mismatched` other sources."""

    @property
    def needs(self) -> Needs:
        """The cost of one source."""
        raise NotImplementedError

    @property
    def engines(self) -> Mapping[str, EngineConfig]:
        """Engines besides the teacher that its script names; `check` places them."""
        return {}

    def with_engines(self, change: Callable[[EngineConfig | None], EngineConfig]) -> Self:
        """A copy with what `change` makes of each of `engines`; of None for one that is to be the round-0 teacher."""
        return self

    @property
    def for_inputs(self) -> Self:
        """What the round-0 teacher draws held-out inputs with: a copy that draws no more than it takes to have one per source."""
        return self

    @property
    def conversational(self) -> bool:
        """Whether its candidates are conversations that a question and an output do not hold: `rows` must be conversation."""
        return False

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples the answers to its questions."""
        raise NotImplementedError

    def user_turns(self, vary: Mapping[str, Any]) -> Sequence[UserTurn]:
        """Examples of the user's turns that its script lets the teacher write: `check` cuts the chat template before each.

        `vary` holds example values that a source may have drawn; raises LimbeckError as `problems` reports.
        """
        return ()

    @property
    def json_schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """The JSON schemas that its script asks engines to hold completions to: step → schema."""
        return {}

    @property
    def constrained(self) -> Sequence[str]:
        """The steps whose completions have a constraint (`Sampling.constraint`), for `check`."""
        return ()

    @property
    def decodes_pmi(self) -> bool:
        """Whether its script asks for PMI decoding (`Sampling.contrast`), in a section `contrast`."""
        return False

    def build(self) -> ScriptedGenerator:
        """Return the generator; raises LimbeckError if its prompts are missing or malformed."""
        raise NotImplementedError

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Its errors, one sentence each; `vary` holds example values that a source may have drawn."""
        try:
            self.build()
        except LimbeckError as error:
            return [str(error)]
        return []
