"""Asks a model the questions of a task for evaluation; the renderer of the training rows writes the prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from limbeck.cluster.engines.protocol import Message
from limbeck.generators.contract import Draft, Draw, GeneratorConfig, Needs, Prompt, Question, Script, Source, Task

QUESTION = "frozen_question"
"""The key of a source's record that stores a frozen question."""


class Renderer(Protocol):
    """Renders the prompts of a question."""

    @property
    def prompts(self) -> int:
        """How many there are."""
        ...

    def ask(self, question: Question) -> Prompt:
        """The text or conversation for a model to answer."""
        ...

    def asks(self, question: Question) -> Sequence[tuple[Prompt, Mapping[str, Any]]]:
        """All prompts of a question, each with the facts of its answers."""
        ...


@dataclass(frozen=True)
class AskingConfig:
    """Asks every prompt of a source's question `samples` times; a frozen question in its record takes precedence."""

    task: GeneratorConfig
    rows: Renderer
    samples: int
    kind: Literal["asking"] = "asking"

    @property
    def engines(self) -> Mapping[str, Any]:
        """None besides the model under evaluation."""
        return {}

    @property
    def needs(self) -> Needs:
        """One completion per answer."""
        needs = self.task.needs
        answers = self.samples * self.rows.prompts
        return Needs(answers, answers, self.task.sampling.max_new_tokens, needs.prompt_tokens, needs.chat)

    def build(self) -> "Asking":
        """Return the generator."""
        return Asking(self)


class Asking:
    """One step per prompt of the rendered question."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: AskingConfig) -> None:
        self._config, self._task = config, config.task.build()

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Every completion is a candidate."""
        question, drafts = self.question(source), list[Draft]()
        more = {"input": question.input, "messages": question.messages}
        for prompt, facts in self._config.rows.asks(question):
            answers = yield draw("answer", prompt, self._config.task.sampling, n=self._config.samples)
            drafts += [Draft.of(answer, question.prompt, facts=facts, **more) for answer in answers]
        return drafts

    def question(self, source: Source) -> Question:
        """The frozen question of a source, or the task's own."""
        kept = frozen_question(source)
        if kept is not None:
            return kept
        assert not self._config.task.invents_inputs, f"source {source.source_id}: its question was not drawn"
        return self._task.question(source)


def frozen(question: Question) -> dict[str, Any]:
    """A question as stored in a source's record."""
    turns = None if question.messages is None else [vars(turn) for turn in question.messages]
    return {QUESTION: {"prompt": question.prompt, "input": question.input, "messages": turns}}


def frozen_question(source: Source) -> Question | None:
    """The question in a source's record, or None."""
    kept = source.record.get(QUESTION)
    if not isinstance(kept, dict):
        return None
    turns = None if kept["messages"] is None else tuple(Message(turn["role"], turn["content"]) for turn in kept["messages"])
    return Question(source.source_id, kept["prompt"], source.document, kept["input"], turns)
