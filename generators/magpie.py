"""Magpie: an aligned model writes the user's turn from its bare chat template, and then answers it.

Xu et al., 2024, arXiv 2406.08464; constants from github.com/magpie-align/magpie, commit 1023808. The template comes from the
model's tokenizer (`limbeck.cluster.engines.rendering`), not from a table of models.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import jinja2
from pydantic import Field

from limbeck.cluster.engines.protocol import Message, Sampling, UserTurn
from limbeck.corpus.config import MOST_NEW_TOKENS, MOST_SAMPLES
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import parse_template
from limbeck.corpus.text.words import normal
from limbeck.generators.contract import (
    Answer,
    Asked,
    Draft,
    Draw,
    GeneratorConfig,
    Needs,
    Question,
    Script,
    Source,
    StepFailed,
    Task,
)
from limbeck.generators.decoding import Decoding

TEMPLATE_TOKENS = 128  # upper bound for one turn's marks, and for a default system text
SYSTEM_TOKENS = 512  # for a system text of the recipe
MOST_TURNS = 31  # each takes two of the 64 steps that a source may have

REASONS: Mapping[str, str] = {
    "empty": "the user's turn is empty",
    "cut_off": "the user's turn was cut off by the token limit",
    "repeated": "the user's turn repeats an earlier one of the conversation",
}
"""Rule → the reason of the user's turns that it rejects."""


class InstructionStep(Decoding):
    """A user's turn."""

    max_new_tokens: int = Field(512, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(1.0, ge=0)
    stop: tuple[str, ...] = Field(("\n",), strict=False, description="besides the ends of the model's chat template")


class ResponseStep(Decoding):
    """The answer to a user's turn."""

    max_new_tokens: int = Field(2048, ge=1, le=MOST_NEW_TOKENS)


class MagpieConfig(GeneratorConfig):
    """User's turns drawn from the chat template cut before the user's text, and their answers; every source is a draw.

    `system` is a Jinja template with the names that `vary` draws. With several `turns`, the next user's turn is drawn after the
    answer; a conversation ends early at a turn that a rule rejects.
    """

    invents_inputs: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...] | None] = ("pass_rate", "distinct_2")
    default_rows: ClassVar[str | None] = "conversation"

    kind: Literal["magpie"] = "magpie"
    turns: int = Field(1, ge=1, le=MOST_TURNS, description="user's turns of a conversation, at most")
    responses: int = Field(
        1, ge=1, le=MOST_SAMPLES, description="answers to the last turn; the published preference data has 5, at temperature 0.8"
    )
    system: str | None = Field(None, description="system text, a Jinja template; null: what the chat template writes by itself")
    system_for: Literal["instructions", "conversation"] = Field(
        "instructions", description="conversation: answers and training rows have the system text, too"
    )
    instruction: InstructionStep = InstructionStep()
    response: ResponseStep = ResponseStep()

    @property
    def needs(self) -> Needs:
        """All turns of one conversation."""
        turn = self.instruction.max_new_tokens + self.response.max_new_tokens + TEMPLATE_TOKENS
        before = (self.turns - 1) * turn + self.instruction.max_new_tokens + TEMPLATE_TOKENS
        prompt = before + (SYSTEM_TOKENS if self.system else 0)
        longest = max(self.instruction.max_new_tokens, self.response.max_new_tokens)
        return Needs(self.responses, 2 * self.turns - 1 + self.responses, longest, prompt, chat=True)

    @property
    def conversational(self) -> bool:
        """With several turns, or a system text that answers see."""
        return self.turns > 1 or (self.system is not None and self.system_for == "conversation")

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers to the turns that were drawn for it."""
        return self.response.sampling

    def user_turns(self, vary: Mapping[str, Any]) -> Sequence[UserTurn]:
        """The first turn, and one after an exchange."""
        system = self.build().system(vary)
        exchange = (Message("user", "A question?"), Message("assistant", "An answer."))
        return [UserTurn(system), *([UserTurn((*system, *exchange))] if self.turns > 1 else [])]

    def build(self) -> "Magpie":
        """Return the generator; raises LimbeckError if the system text is malformed."""
        return Magpie(self)

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Reports a system text that is malformed or does not render."""
        try:
            self.build().system(vary)
        except LimbeckError as error:
            return [str(error)]
        return []


@dataclass(frozen=True)
class Said:
    """A user's turn that no rule rejects, or the rejected draft."""

    text: str
    rejected: Draft | None = None


class Magpie:
    """One conversation per source."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: MagpieConfig) -> None:
        """Compile the system text."""
        self._config = config
        self._system = None if config.system is None else parse_template(config.system, "generator.system")

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError("magpie invents its inputs")

    def system(self, vary: Mapping[str, Any] = MappingProxyType({})) -> tuple[Message, ...]:
        """The system message with the values that a source drew; none if it is blank. Raises LimbeckError if it fails."""
        if self._system is None:
            return ()
        try:
            text = self._system.render(**vary).strip()
        except (jinja2.TemplateError, TypeError) as error:
            known = f"it may use {', '.join(vary)}" if vary else "sources.vary draws no names that it could use"
            raise LimbeckError(f"generator.system does not render: {error}; {known}") from error
        return (Message("system", text),) if text else ()

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Draw a user's turn and its answer, `turns` times; the last exchange is the prompt and output of the drafts.

        A turn that is rejected, or that the engine fails to draw, is a draft of its own, and ends the conversation.
        """
        config, system = self._config, self.system(source.vary)
        shown = system if config.system_for == "conversation" else ()
        turns: tuple[Message, ...] = ()
        drafts: list[Draft] = []
        for number in range(1, config.turns + 1):
            said = yield from self._said(draw, system, turns)
            if said.rejected is not None:
                return [*drafts, said.rejected]
            turns = (*turns, Message("user", said.text))
            last = number == config.turns
            answers = yield draw("response", (*shown, *turns), config.response.sampling, n=config.responses if last else 1)
            facts = {"turns": number, **({"system": system[0].content} if system else {})}
            drafts = [self._draft(answer, (*shown, *turns), facts) for answer in answers]
            if last or not _continues(answers[0]):
                break
            turns = (*turns, Message("assistant", answers[0].strip()))
        return drafts

    def _said(self, draw: Draw, system: Sequence[Message], turns: Sequence[Message]) -> Generator[Asked, Any, Said]:
        """Draw the next user's turn, and apply the rules to it."""
        try:
            answer = yield draw("instruction", UserTurn((*system, *turns)), self._config.instruction.sampling)
        except StepFailed as failure:
            return Said("", Draft.rejected("", str(failure)))
        text = answer.strip()
        rule = broken_rule(answer, [turn.content for turn in turns if turn.role == "user"])
        return Said(text, None if rule is None else Draft.rejected(text, REASONS[rule], facts={"rule": rule}))

    @staticmethod
    def _draft(answer: Answer, asked: tuple[Message, ...], facts: Mapping[str, Any]) -> Draft:
        """The last exchange, with all turns if there are more than these two."""
        messages = (*asked, Message("assistant", answer.strip())) if len(asked) > 1 else None
        return Draft.of(answer, asked[-1].content, messages=messages, facts=facts)


def broken_rule(answer: Answer, earlier: Sequence[str]) -> str | None:
    """The first rule that a user's turn breaks, or None; `earlier` are those before it."""
    if not answer.strip():
        return "empty"
    if answer.completion.finish_reason == "length":
        return "cut_off"
    return "repeated" if normal(answer.strip()) in map(normal, earlier) else None


def _continues(answer: Answer) -> bool:
    """Whether a user may answer: the text is there, and complete."""
    return bool(answer.strip()) and answer.completion.finish_reason == "stop"
