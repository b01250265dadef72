"""Where the sentences of Impossible Distillation come from: texts that a teacher writes, or documents, and their rules.

Jung et al., 2024, arXiv 2305.16635 (version 4). Constants are those of the paper and its released code; prompts are our own.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import jinja2
from pydantic import Field, model_validator

from limbeck.corpus.config import MOST_NEW_TOKENS
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import load_template
from limbeck.corpus.sentences import ends_like_a_sentence, split_sentences
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.copies import key
from limbeck.corpus.text.words import one_line
from limbeck.generators.contract import TEACHER, Answer, Asked, Draft, Draw, GeneratorConfig, Source
from limbeck.generators.decoding import Decoding
from limbeck.generators.prefixes import biomedical_prefix, news_prefix

PROMPTS = Path(__file__).parent / "prompts"
PREFIX_TOKENS = 48  # upper bound for the beginning of a text
PROMPT_TOKENS = 96  # upper bound for the chat template and an instruction
MOST_SENTENCES = 5
LEAST_CHARACTERS = 3
INPUT_SAMPLES = 4  # sentences drawn to have one held-out input, some of which will not qualify

REASONS: Mapping[str, str] = {
    "few_sentences": "the text has too few complete sentences",
    "short": f"the sentence has fewer than {LEAST_CHARACTERS} characters",
    "line_break": "the sentence contains a line break",
    "unfinished": "the sentence does not end with a full stop, a question mark or an exclamation mark",
    "repeated": "the sentence is equal to an earlier one of its context, but for case, spacing and punctuation",
    "alone": "no other sentence of its context qualifies",
}
"""Rule → the reason of the texts and sentences that it rejects."""


class TextStep(Decoding):
    """The text from which contexts and sentences are cut."""

    max_new_tokens: int = Field(150, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)


class SentenceStep(Decoding):
    """One sentence."""

    max_new_tokens: int = Field(100, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(0.7, ge=0, description="the paper's; its released code draws next sentences at 0.5")
    top_p: float = Field(0.9, gt=0, le=1)


class LineStep(SentenceStep):
    """One sentence as the answer to an instruction, which ends at a line break."""

    temperature: float = Field(0.7, ge=0)
    stop: tuple[str, ...] = Field(("\n",), strict=False)


class TextsConfig(GeneratorConfig):
    """The base of the generators of this method: where their texts come from, and the instruction of their task."""

    adds: ClassVar[frozenset[RowText]] = frozenset(("document",))
    invents_inputs: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...] | None] = ("pass_rate", "distinct_2")
    controls: ClassVar[tuple[str, ...]] = ("mismatched", "document")
    default_rows: ClassVar[str | None] = "chat"

    texts: Literal["drawn", "documents"] = Field(
        "drawn", description="documents: the beginnings of the sources' documents, in place of texts that the teacher writes"
    )
    prefix: Literal["news", "biomedical"] = Field("news", description="the beginning from which the teacher writes a text")
    min_sentences: int = Field(1, ge=1, le=MOST_SENTENCES, description="shortest context before a sentence")
    max_sentences: int = Field(MOST_SENTENCES, ge=1, le=MOST_SENTENCES, description="longest context before a sentence")
    text: TextStep = TextStep()
    prompt: str = Field("paraphrase", description="the task's instruction: the name of a built-in Jinja template, or a path")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_sentences > self.max_sentences:
            raise ValueError(f"min_sentences {self.min_sentences} exceeds max_sentences {self.max_sentences}")
        return self

    @property
    def reads(self) -> frozenset[RowText]:  # type: ignore[override]
        """The document, if texts are taken from there."""
        return frozenset(("document",)) if self.texts == "documents" else frozenset()

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Reports an instruction that is missing, malformed, or does not render."""
        try:
            Instruction(self.prompt).render(vary)
        except LimbeckError as error:
            return [str(error)]
        return []


class Instruction:
    """The instruction of the task, the same for every sentence."""

    def __init__(self, prompt: str) -> None:
        """Read the template; raises LimbeckError if it is missing or malformed."""
        self._name, self._template = prompt, load_template(prompt, PROMPTS)

    def render(self, vary: Mapping[str, Any]) -> str:
        """The instruction with the values that a source drew; raises LimbeckError if the template fails."""
        try:
            return self._template.render(**vary).strip()
        except (jinja2.TemplateError, TypeError) as error:
            known = f"it may use {', '.join(vary)}" if vary else "sources.vary draws no names that it could use"
            raise LimbeckError(f"the prompt {self._name} does not render: {error}; {known}") from error


@dataclass(frozen=True)
class Text:
    """The complete sentences of a text, what it began with ("" for a document), and the answer that it is."""

    sentences: tuple[str, ...]
    prefix: str = ""
    answer: Answer | None = None

    def beginning(self, sentences: int) -> str:
        """The text up to this number of sentences, with its prefix."""
        return " ".join([*([self.prefix] if self.prefix else []), *self.sentences[:sentences]])


def text_of(config: TextsConfig, source: Source, draw: Draw, engine: str = TEACHER) -> Generator[Asked, Any, Text]:
    """The source's document, or a text that `engine` writes; raises StepFailed if the engine fails."""
    if config.texts == "documents":
        return Text(complete_sentences(source.document))
    begin = news_prefix if config.prefix == "news" else biomedical_prefix
    prefix = begin(draw.random("prefix"))
    answer = yield draw("text", prefix, config.text.sampling, engine=engine)
    return Text(complete_sentences(answer), prefix, answer)


def drawn_sentence(sentences: Sequence[str], draw: Draw, first: int, last: int) -> int | None:
    """The position of one sentence from `first` to before `last` that qualifies, drawn by seed; None if none does."""
    usable = [place for place, sentence in enumerate(sentences[:last]) if place >= first and broken_rule(sentence) is None]
    return draw.random("sentence").choice(usable) if usable else None


def complete_sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, each on one line, without headings, items of lists and a last one that do not end."""
    return tuple(one_line(sentence) for sentence in split_sentences(text) if ends_like_a_sentence(sentence))


def first_sentence(answer: Answer) -> Answer:
    """A completion cut after its first sentence, which may be complete although the completion was cut off.

    Line breaks before it are skipped: after a paragraph that ends with the context, the next sentence begins another one.
    """
    found = split_sentences(answer)
    if not found:
        return answer
    done = replace(answer.completion, text=found[0])
    if ends_like_a_sentence(found[0]):
        done = replace(done, finish_reason="stop")
    return Answer.of(done, answer.step, answer.number, answer.seed)


def broken_rule(sentence: str, earlier: Sequence[str] = ()) -> str | None:
    """The first rule that a sentence breaks, or None; `earlier` are the qualifying ones before it."""
    if len(sentence) < LEAST_CHARACTERS:
        return "short"
    if "\n" in sentence:
        return "line_break"
    if not ends_like_a_sentence(sentence):
        return "unfinished"
    return "repeated" if key(sentence) in map(key, earlier) else None


def rejected(text: str, rule: str, **facts: Any) -> Draft:
    """A draft that a rule rejects."""
    return Draft.rejected(text, REASONS[rule], facts={"rule": rule, **facts})


def said(answer: Answer, prompt: str, sentence: str, facts: Mapping[str, Any]) -> Draft:
    """The draft of a sentence in other words, as a completion gives it; one that does not qualify is rejected."""
    rule = None if answer.error is not None else broken_rule(answer.strip())
    if rule is not None:
        return rejected(answer.strip(), rule, **facts)
    return Draft.of(answer, prompt, input=sentence, facts=facts)
