"""Stanford Alpaca: twenty tasks in one response, each an instruction, an input and an output, from three seed tasks.

Taori et al., 2023; constants and rules from github.com/tatsu-lab/stanford_alpaca, commit 4187a25. Every default is a constant of
that code. Its prompt's text is our own.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.instruction_rules import NO_INPUT, tidy
from limbeck.generators.contract import Answer, Draft, Draw, GeneratorConfig, Needs, Prompt, Question, Script, Source, Task
from limbeck.generators.instruction_tasks import SEED_TASKS, broken_rule, rejected, seed_tasks, series, whole

PROMPT = Path(__file__).parent / "prompts" / "alpaca.txt"
PROMPT_TOKENS = 1200  # upper bound for the text with three seed tasks
TASKS = 20  # asked for in one response, the seeds included
PIECES = 7  # of an item that is split at its three fields
_FENCE = "###"
_NUMBERED = re.compile(r"\s*(?:###\s*)?\d+\.\s+Instruction:")


class AlpacaConfig(GeneratorConfig):
    """Twenty tasks per response; a source is one response. There is no step for classification, and one instance per task.

    With style plain the prompt is a text that a base model continues, as published; with chat it is the user's turn.
    """

    invents_inputs: ClassVar[bool] = True
    adds: ClassVar[frozenset[RowText]] = frozenset(("document",))  # the input of an instance
    measures: ClassVar[tuple[str, ...] | None] = ("pass_rate", "distinct_2")
    default_rows: ClassVar[str | None] = "alpaca"

    kind: Literal["alpaca"] = "alpaca"
    seed_tasks: str = Field(SEED_TASKS, description="a table of instruction and instances, or input and output")
    style: Literal["plain", "chat"] = "plain"
    in_context: int = Field(3, ge=1, lt=TASKS, description="seed tasks in the prompt; generated ones are never shown")
    max_new_tokens: int = Field(3072, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: tuple[str, ...] = Field(("\n20", "20."), strict=False)
    answer_tokens: int = Field(128, ge=1, le=MOST_NEW_TOKENS, description="in evaluation, our own; answers are greedy")

    @property
    def needs(self) -> Needs:
        """One response with up to twenty tasks."""
        return Needs(TASKS - self.in_context, 1, self.max_new_tokens, PROMPT_TOKENS, chat=self.style == "chat")

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers to the instructions that were drawn for it."""
        return Sampling(self.answer_tokens, temperature=0.0)

    def build(self) -> "Alpaca":
        """Return the generator; raises LimbeckError if the seed tasks are missing, malformed or too few."""
        return Alpaca(self)


class Item(NamedTuple):
    """A task of a response, and the rule that refuses it, if any; `text` is the piece that it was read from."""

    text: str
    instruction: str
    input: str
    output: str
    rule: str | None


class Alpaca:
    """One request per source."""

    def __init__(self, config: AlpacaConfig) -> None:
        """Read the seed tasks."""
        self._config = config
        self.seeds = seed_tasks(config.seed_tasks)
        if len(self.seeds) < config.in_context:
            raise LimbeckError(
                f"{config.seed_tasks} has {len(self.seeds)} tasks, but in_context is {config.in_context}; add tasks or lower it"
            )

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError("alpaca invents its inputs")

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """One response; each of its items is a draft."""
        config = self._config
        shots = draw.random("shots").sample(self.seeds, config.in_context)
        text = prompt_of(shots)
        asked: Prompt = text if config.style == "plain" else (Message("user", text),)
        sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p, stop=config.stop)
        response = yield draw("tasks", asked, sampling)
        cut_off = response.completion.finish_reason == "length"
        return [_draft(item, response) for item in items(response, config.in_context + 1, cut_off=cut_off)]


def prompt_of(shots: Sequence[Task]) -> str:
    """The request, the seed tasks as items, and the beginning of the next item."""
    text = f"{PROMPT.read_text(encoding='utf-8').strip()}\n"
    for number, (task, instruction) in enumerate(zip(shots, series([task.prompt for task in shots]), strict=True), 1):
        text += f"{_FENCE}\n{number}. Instruction: {instruction}\n"
        text += f"{number}. Input:\n{task.input or NO_INPUT}\n{number}. Output:\n{task.output}\n"
    return f"{text}{_FENCE}\n{len(shots) + 1}. Instruction:"


def items(response: str, first: int, *, cut_off: bool) -> list[Item]:
    """The items of a response whose first has the number `first`; the last of one that was cut off is refused.

    An item must have its own number before each of its three fields, in any order of fields, as published.
    """
    text = response if _NUMBERED.match(response) else f"{first}. Instruction:{response}"
    pieces = text.strip().removeprefix(_FENCE).split(_FENCE)
    if len(pieces) > 1 and not pieces[-1].strip():
        pieces.pop()  # the stop string comes after a fence
    found = [_item(piece, number) for number, piece in enumerate(pieces, first)]
    if cut_off:
        found[-1] = found[-1]._replace(rule="cut_off")
    return found


def _item(piece: str, number: int) -> Item:
    parts = re.split(rf"{number}\.\s+(Instruction|Input|Output):", piece)
    if len(parts) != PIECES:
        return Item(piece.strip(), "", "", "", "unparsed")
    instruction, given, output = (tidy(parts[place], "alpaca") for place in (2, 4, 6))
    given = "" if given.lower() == NO_INPUT else given
    return Item(piece.strip(), instruction, given, output, broken_rule(instruction, "alpaca"))


def _draft(item: Item, response: Answer) -> Draft:
    if item.rule is not None:
        facts: Mapping[str, Any] = {"input": item.input, "output": item.output} if item.instruction else {}
        return rejected(item.instruction or item.text, item.rule, prompt=item.instruction, **facts)
    return Draft(item.instruction, item.output, item.input or None, answer=whole(response))
