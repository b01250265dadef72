"""The recipe's `rows:` section: the format of training rows and of evaluation prompts.

One renderer writes both, so that a student is evaluated on prompts like those it was trained on, and the teacher on the same.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from limbeck.cluster.engines.protocol import Message
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.text.control_codes import LENGTHS, LEVELS, Attributes, attribute_prompt
from limbeck.generators.contract import Prompt, Question

Attribute = Literal["length", "extractiveness", "specificity"]
ASKED = "asked_buckets"
"""The key of an answer's facts that stores the buckets it was asked for: attribute → bucket."""

BUCKETS: Mapping[Attribute, int] = {"length": len(LENGTHS), "extractiveness": len(LEVELS), "specificity": len(LEVELS)}


@dataclass(frozen=True)
class Answered:
    """A kept candidate, the input of a renderer; `scores` are keyed by `filter.column`."""

    question: Question
    output: str
    messages: tuple[Message, ...] | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingRow:
    """A training example: two conversations, or two strings of which the second continues the first."""

    prompt: Prompt
    completion: Prompt


class Rows(Config):
    """The base of all formats."""

    def ask(self, question: Question) -> Prompt:
        """The text or conversation that a model answers."""
        raise NotImplementedError

    @property
    def prompts(self) -> int:
        """How many prompts evaluation asks per question."""
        return 1

    def asks(self, question: Question) -> Sequence[tuple[Prompt, Mapping[str, Any]]]:
        """All prompts with which evaluation asks a question, each with the facts that its answers keep."""
        return [(self.ask(question), {})]


class ChatRows(Rows):
    """One user turn (the prompt, then the candidate's input, if any) and one assistant turn."""

    kind: Literal["chat"] = "chat"

    @property
    def chat(self) -> bool:
        """Rows are conversations, so a model needs a chat template."""
        return True

    def ask(self, question: Question) -> Prompt:
        """The conversation that a model answers."""
        return (Message("user", _with_input(question)),)

    def row(self, answered: Answered) -> TrainingRow:
        """The prompt and the output."""
        return TrainingRow(self.ask(answered.question), (Message("assistant", answered.output),))


class PlainRows(Rows):
    """Plain text: the prompt, the candidate's input, if any, and the output after a space."""

    kind: Literal["plain"] = "plain"

    @property
    def chat(self) -> bool:
        """Rows are text."""
        return False

    def ask(self, question: Question) -> Prompt:
        """The text that a model continues."""
        return _with_input(question)

    def row(self, answered: Answered) -> TrainingRow:
        """The prompt and the output."""
        return TrainingRow(self.ask(answered.question), f" {answered.output}")


class AlpacaRows(Rows):
    """The two prompts of Stanford Alpaca (Taori et al., 2023), with and without an input."""

    kind: Literal["alpaca"] = "alpaca"

    @property
    def chat(self) -> bool:
        """Rows are text."""
        return False

    def ask(self, question: Question) -> Prompt:
        """The text that a model continues with its response."""
        more = ", paired with an input that provides further context" if question.input else ""
        given = f"### Input:\n{question.input}\n\n" if question.input else ""
        return (
            f"Below is an instruction that describes a task{more}. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{question.prompt}\n\n{given}### Response:"
        )

    def row(self, answered: Answered) -> TrainingRow:
        """The prompt and the output, with nothing between them, as published."""
        return TrainingRow(self.ask(answered.question), answered.output)


WITH_INPUT = (
    "{instruction}\nInput: {input}\nOutput:",
    "{instruction}\n\nInput: {input}\n\nOutput:",
    "Task: {instruction}\nInput: {input}\nOutput:",
    "{instruction}\n\n{input}\n\nOutput:",
    "{instruction}\n\n{input}\n\n",
    "{instruction}\n{input}\n\n",
    "Task: {instruction}\n\n{input}\n\n",
)
WITHOUT_INPUT = (
    "{instruction} Output:",
    "{instruction}\nOutput:",
    "{instruction}\n\nOutput:",
    "{instruction}\n",
    "{instruction}\n\n",
    "Task: {instruction}\n\n",
)
_FIELD = re.compile(r"(\w+):")


class SelfInstructRows(Rows):
    """The 13 templates of Self-Instruct (Wang et al., 2022), drawn by source; half of the inputs are simplified, as published.

    Simplified: if the input has exactly one `name:`, the name is removed; blank lines are removed.
    """

    kind: Literal["self-instruct"] = "self-instruct"

    @property
    def chat(self) -> bool:
        """Rows are text."""
        return False

    def ask(self, question: Question) -> Prompt:
        """The text that a model continues, the same for every candidate of a source."""
        drawn = derive_seed("rows", "self-instruct", question.source_id)
        given = question.input or ""
        if given and derive_seed("rows", "simplify", question.source_id) % 2:
            given = _simplified(given)
        templates = WITH_INPUT if given else WITHOUT_INPUT
        template = templates[drawn % len(templates)]
        return template.format(instruction=question.prompt.strip(), input=given.strip())

    def row(self, answered: Answered) -> TrainingRow:
        """The prompt and the output; a space goes before the output only after "Output:"."""
        prompt = str(self.ask(answered.question))
        return TrainingRow(prompt, f" {answered.output}" if prompt.endswith("Output:") else answered.output)


class TldrRows(Rows):
    """A document, "TL;DR:" on the next line, and its summary after a space: control codes without a code."""

    kind: Literal["tldr"] = "tldr"

    @property
    def chat(self) -> bool:
        """Rows are text."""
        return False

    def ask(self, question: Question) -> Prompt:
        """The document, which is the source's, or else the input of the question."""
        return attribute_prompt(_document(question), Attributes())

    def row(self, answered: Answered) -> TrainingRow:
        """The document and the output."""
        return TrainingRow(self.ask(answered.question), f" {answered.output}")


class ControlCodeRows(Rows):
    """A document with a control code in words, and its summary (as in InfoSumm: "Length: short | Extractiveness: low").

    A training row has the buckets that the filter of kind `attributes` measured on its output. In evaluation, buckets are drawn
    for each source, the same for every model; with `ask_each`, every source is asked for each bucket of that attribute.
    """

    kind: Literal["control_codes"] = "control_codes"
    attributes: tuple[Attribute, ...] = Field(("length", "extractiveness"), min_length=1, strict=False)
    filter: str = Field("attributes", description="the name of the filter of kind attributes that measures the buckets")
    ask_each: Attribute | None = Field(
        None, description="evaluation asks each source for every bucket of this attribute, `samples` times each"
    )

    @model_validator(mode="after")
    def _each_is_coded(self) -> Self:
        if self.ask_each is not None and self.ask_each not in self.attributes:
            raise ValueError(f"ask_each is {self.ask_each}, which is not one of attributes; add it there")
        return self

    @property
    def chat(self) -> bool:
        """Rows are text."""
        return False

    @property
    def columns(self) -> list[str]:
        """The score columns that hold the buckets, as `filter.column`."""
        return [f"{self.filter}.{name}_bucket" for name in self.attributes]

    def asked(self, source_id: str) -> Attributes:
        """The buckets requested for a source in evaluation."""
        return _attributes(self._drawn(source_id))

    def _drawn(self, source_id: str) -> dict[Attribute, int]:
        return {name: derive_seed("rows", name, source_id) % BUCKETS[name] for name in self.attributes}

    def ask(self, question: Question) -> Prompt:
        """The document and the requested buckets."""
        return attribute_prompt(_document(question), self.asked(question.source_id))

    @property
    def prompts(self) -> int:
        """One per bucket of `ask_each`."""
        return 1 if self.ask_each is None else BUCKETS[self.ask_each]

    def accuracy(self, asked: Mapping[str, int], scores: Mapping[str, float | None]) -> float | None:
        """The share of the buckets that an answer was asked for which it has; None if none of them was measured.

        `scores` holds the answer's own buckets by column (`columns`).
        """
        own = [scores.get(column) for column in self.columns]
        measured = [
            (name, value) for name, value in zip(self.attributes, own, strict=True) if value is not None and value == value
        ]
        known = [asked[name] == value for name, value in measured if name in asked]
        return sum(known) / len(known) if known else None

    def asks(self, question: Question) -> Sequence[tuple[Prompt, Mapping[str, Any]]]:
        """One prompt, or one per bucket of `ask_each`; the facts are the requested buckets."""
        drawn = self._drawn(question.source_id)
        each = self.ask_each
        codes = [drawn] if each is None else [{**drawn, each: bucket} for bucket in range(BUCKETS[each])]
        return [(attribute_prompt(_document(question), _attributes(code)), {ASKED: code}) for code in codes]

    def row(self, answered: Answered) -> TrainingRow:
        """The document, the buckets of this output, and the output. Raises LimbeckError if no filter measures them."""
        buckets: dict[Attribute, int | None] = {}
        for name, column in zip(self.attributes, self.columns, strict=True):
            if column not in answered.scores:
                raise LimbeckError(
                    f"rows.kind is control_codes, but no filter scores {column}; add {{kind: attributes}} to filters"
                )
            value = answered.scores[column]
            buckets[name] = None if value is None or value != value else int(value)  # NaN: not measured
        prompt = attribute_prompt(_document(answered.question), _attributes(buckets))
        return TrainingRow(prompt, f" {answered.output}")


class ConversationRows(Rows):
    """All turns of a candidate's conversation: those before the last assistant turn are the prompt, that turn the completion."""

    kind: Literal["conversation"] = "conversation"

    @property
    def chat(self) -> bool:
        """Rows are conversations, so a model needs a chat template."""
        return True

    def ask(self, question: Question) -> Prompt:
        """The conversation that a model continues."""
        return question.messages or (Message("user", _with_input(question)),)

    def row(self, answered: Answered) -> TrainingRow:
        """The conversation up to its last assistant turn; a candidate without stored turns has two."""
        turns = answered.messages
        if turns is None:
            return TrainingRow(self.ask(answered.question), (Message("assistant", answered.output),))
        last = max((position for position, turn in enumerate(turns) if turn.role == "assistant"), default=0)
        if last == 0:
            raise LimbeckError(f"the conversation of source {answered.question.source_id} has no assistant turn to train on")
        return TrainingRow(turns[:last], (turns[last],))


RowsConfig = Annotated[
    ChatRows | PlainRows | AlpacaRows | SelfInstructRows | TldrRows | ControlCodeRows | ConversationRows,
    Field(discriminator="kind"),
]
"""The formats that render a prompt and its completion."""


class PreferenceRows(Config):
    """Pairs of answers to one prompt, one of which scores better: prompt, chosen and rejected, for DPO and reward models.

    Candidates of one source whose training prompts are equal are compared, in the format `render`. A pair's scores differ, and by
    `margin` at least. `pairs`: `best_worst` is the pair that differs most, `best_random` the best answer and a random one below
    it (as in Zephyr; Tunstall et al., 2023), `best_each` the best answer with each one below it, `all` every pair. With
    `form: labelled`, each answer of these pairs is a row with a label, as KTO reads them (Ethayarajh et al., 2024).
    """

    kind: Literal["preferences"] = "preferences"
    by: str = Field(pattern=r"^[^.]+\.[^.]+$", description="the score that answers are compared by, as filter.column")
    order: Literal["highest", "lowest"] = Field("highest", description="which score is the better one")
    margin: float = Field(0.0, ge=0, description="the least difference of the two scores")
    pairs: Literal["best_worst", "best_random", "best_each", "all"] = "best_worst"
    chosen: Literal["kept", "passed"] = Field(
        "kept", description="what may be chosen; passed: also what only set-wise filters dropped"
    )
    rejected: Literal["scored", "kept", "failed"] = Field(
        "scored", description="what may be rejected: whatever has a score, only kept candidates, or only those below a bound"
    )
    max_length_ratio: float | None = Field(None, ge=1, description="the longer answer's words divided by the shorter one's")
    form: Literal["pairs", "labelled"] = "pairs"
    judge: Literal["tested", "any"] = Field(
        "tested", description="tested: refuse the scores of a judging filter that is not above chance in its self-test"
    )
    render: RowsConfig | None = Field(None, description="the format of prompts and answers; null: as without preferences")

    @property
    def filter(self) -> str:
        """The name of the filter whose score is compared."""
        return self.by.partition(".")[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the dataset that a student may train on."""
        return ("prompt", "chosen", "rejected") if self.form == "pairs" else ("prompt", "completion", "label")


RecipeRows = Annotated[
    ChatRows | PlainRows | AlpacaRows | SelfInstructRows | TldrRows | ControlCodeRows | ConversationRows | PreferenceRows,
    Field(discriminator="kind"),
]
"""What the recipe's `rows` may be."""


_ROWS: TypeAdapter[RowsConfig] = TypeAdapter(RowsConfig)


def default_rows(chat: bool, declared: str | None = None) -> RowsConfig:
    """The default format: the kind that the generator declares, else conversations if it uses chat, else plain text."""
    return _ROWS.validate_python({"kind": declared or ("chat" if chat else "plain")})


def plain(prompt: Prompt) -> str | list[dict[str, str]]:
    """A prompt as a dataset stores it: a string, or a list of {role, content}."""
    return prompt if isinstance(prompt, str) else [vars(message) for message in prompt]


def turns(stored: Sequence[Mapping[str, Any]] | None) -> tuple[Message, ...] | None:
    """A stored conversation as messages."""
    return None if stored is None else tuple(Message(turn["role"], turn["content"]) for turn in stored)


def asked_turns(stored: Sequence[Mapping[str, Any]] | None) -> tuple[Message, ...] | None:
    """A stored conversation up to the answer that ends it: what another model is asked."""
    found = turns(stored)
    return found[:-1] if found and found[-1].role == "assistant" else found


def _attributes(buckets: Mapping[Attribute, int | None]) -> Attributes:
    return Attributes(buckets.get("length"), buckets.get("extractiveness"), buckets.get("specificity"))


def _document(question: Question) -> str:
    """The document of the source; if it has none, the one that the teacher wrote."""
    return question.document or question.input or ""


def _with_input(question: Question) -> str:
    return f"{question.prompt}\n\n{question.input}" if question.input else question.prompt


def _simplified(text: str) -> str:
    """Self-Instruct's simplification of an input: a single field name and blank lines are removed."""
    names = set(_FIELD.findall(text))
    if len(names) == 1:
        text = re.sub(rf"{re.escape(names.pop())}:\s*", "", text)
    return re.sub(r"\n\s*\n", "\n", text)
