"""Questions from documents and their answers: for every document some questions, and for each an answer from the same document.

In the manner of question generation from passages (Genstruct and others); prompts and examples are our own. The filters `pmi` and
`nli` check the answer on the document, `question_pmi` checks the question.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.words import normal
from limbeck.generators.contract import Answer, Draft, Draw, GeneratorConfig, Needs, Prompt, Question, Script, Source, Task
from limbeck.generators.documents_qa import steps
from limbeck.generators.documents_qa.steps import REASONS, AnswerStep, QuestionStep, Read, Step

PROMPT_TOKENS = {"plain": 400, "chat": 160}  # upper bounds for a prompt without its document
MOST_QUESTIONS = 63  # each answer takes one of the 64 steps that a source may have


class DocumentsQaConfig(GeneratorConfig):
    """Questions about each document, and an answer to each of them from the document.

    With style plain the prompts are few-shot texts that a model continues, with chat a user's turn. A candidate is a question
    with the document as its input, and the answer.
    """

    invents_inputs: ClassVar[bool] = True
    reads: ClassVar[frozenset[RowText]] = frozenset(("document",))
    measures: ClassVar[tuple[str, ...] | None] = ("pass_rate", "faithfulness", "invention", "compression", "distinct_2")
    controls: ClassVar[tuple[str, ...]] = ("first-sentence", "mismatched")
    default_rows: ClassVar[str | None] = "chat"

    kind: Literal["documents_qa"] = "documents_qa"
    style: Literal["chat", "plain"] = "chat"
    questions: int = Field(3, ge=1, le=MOST_QUESTIONS, description="questions drawn per document")
    question: QuestionStep = QuestionStep()
    answer: AnswerStep = AnswerStep()

    @model_validator(mode="after")
    def _schemas_fit(self) -> Self:
        if self.json_schemas and self.style == "plain":
            raise ValueError("json_schema needs style: chat, since the examples of style plain are text")
        if both := sorted(self.question.further & self.answer.further):
            raise ValueError(f"both json_schema have the property {both[0]!r}, which goes to the facts; rename one")
        return self

    @property
    def needs(self) -> Needs:
        """A question and an answer per candidate."""
        most = max(self.question.max_new_tokens, self.answer.max_new_tokens)
        prompt = PROMPT_TOKENS[self.style] + self.question.max_new_tokens
        return Needs(self.questions, 2 * self.questions, most, prompt, chat=self.style == "chat")

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers: as text, since training rows have no JSON."""
        return self.answer.model_copy(update={"json_schema": None}).sampling

    @property
    def json_schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """The schemas of its steps that have one."""
        named = {"question": self.question.json_schema, "answer": self.answer.json_schema}
        return {step: schema for step, schema in named.items() if schema is not None}

    def build(self) -> "DocumentsQa":
        """Return the generator; raises LimbeckError if a template is missing or malformed."""
        return DocumentsQa(self)

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Reports a template that is missing, malformed, or does not render."""
        return super().problems(vary) or self.build().problems(vary)


class DocumentsQa:
    """One document per source."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: DocumentsQaConfig) -> None:
        """Read the templates."""
        self._config = config
        self._question, self._answer = (steps.Prompt(step, config.style) for step in (config.question, config.answer))

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Why the templates do not render with these values."""
        try:
            self._question.render(document="a document", **vary)
            self._answer.render(document="a document", question="a question?", **vary)
        except LimbeckError as error:
            return [str(error)]
        return []

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError("documents_qa invents its inputs")

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Draw all questions, then an answer to each that no rule rejects, in their order."""
        config, document = self._config, source.document
        prompt = self._question.render(document=document, **source.vary)
        drawn = yield draw("question", self._asked(prompt), config.question.sampling, n=config.questions)
        drafts: list[Draft] = []
        earlier: list[str] = []
        for written in drawn:
            found = question_of(written, config.question, earlier)
            if isinstance(found, Draft):
                drafts.append(found)
                continue
            earlier.append(found.text)
            prompt = self._answer.render(document=document, question=found.text, **source.vary)
            (answer,) = yield draw("answer", self._asked(prompt), config.answer.sampling, n=1)
            drafts.append(_answered(answer, found, document, config.answer))
        return drafts

    def _asked(self, text: str) -> Prompt:
        return text if self._config.style == "plain" else (Message("user", text),)


def question_of(written: Answer, step: Step, earlier: Sequence[str]) -> Read | Draft:
    """The question of a completion, or the rejected draft; `earlier` are the accepted questions of the document."""
    if written.error is not None:
        return Draft.rejected("", written.error)
    found = steps.read(written, step)
    rule = found.rule
    if written.completion.finish_reason == "length":
        rule = "cut_off"
    elif rule is None and not found.text:
        rule = "empty"
    elif rule is None and not found.text.endswith(steps.QUESTION_MARKS):
        rule = "not_a_question"
    elif rule is None and _key(found.text) in map(_key, earlier):
        rule = "repeated"
    return found if rule is None else _rejected(found.text, rule)


def _answered(answer: Answer, question: Read, document: str, step: Step) -> Draft:
    """The candidate of a question: filters judge the answer, except one that is not JSON."""
    found = steps.read(answer, step)
    facts = {**question.facts, **found.facts}
    if answer.error is None and found.rule is not None:
        rule = "cut_off_answer" if answer.completion.finish_reason == "length" else found.rule
        return _rejected(found.text, rule, prompt=question.text, input=document, facts=facts)
    return Draft(question.text, found.text, document, facts=facts, error=answer.error, answer=answer)


def _rejected(text: str, rule: str, **more: Any) -> Draft:
    return Draft.rejected(text, REASONS[rule], **{**more, "facts": {**more.pop("facts", {}), "rule": rule}})


def _key(question: str) -> str:
    """Equal for questions that differ only in case and whitespace."""
    return " ".join(normal(question).casefold().split())
