"""InfoSumm: a language model continues datelines to whole reports and summarises them; mutual information chooses.

A reconstruction from the abstract of Jung et al. (2024, arXiv 2403.13780) and what reviewers report of it: documents are made by
continuing news prefixes, summaries are sampled, filters of mutual information keep the informative ones, and the model is trained
on them, round after round. No threshold, prompt or count of the paper is known; those here are ours (docs/recipes/infosumm.md).
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from limbeck.cluster.engines.config import EngineConfig
from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS, MOST_SAMPLES
from limbeck.corpus.sentences import sentence_ends
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.words import normal, one_line, plain_words
from limbeck.generators.contract import (
    TEACHER,
    Answer,
    Asked,
    Draft,
    Draw,
    GeneratorConfig,
    Needs,
    Question,
    Script,
    Source,
    Task,
)
from limbeck.generators.decoding import Decoding, PmiDecoding
from limbeck.generators.prefixes import biomedical_prefix, news_prefix

WRITER = "writer"
TLDR = "TL;DR:"
PROMPT_TOKENS = 128  # upper bound for the chat template and the instruction
PREFIX_TOKENS = 24
PREFIXES = {"news": news_prefix, "biomedical": biomedical_prefix}

REASONS: Mapping[str, str] = {
    "few_sentences": "the document has too few complete sentences",
    "short": "the document has too few words",
    "repeated": "the document repeats one of its sentences",
}
"""Rule → the reason of the documents that it rejects."""


class DocumentStep(Decoding):
    """A document from its beginning: how it is drawn, and which are used.

    It is cut after its last complete sentence, and after `max_sentences`.
    """

    max_new_tokens: int = Field(400, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    stop: tuple[str, ...] = Field(("\n\n",), strict=False)
    begin: Literal["news", "biomedical"] = Field("news", description="news: a dateline; biomedical: the heading of a section")
    min_sentences: int = Field(5, ge=1)
    max_sentences: int = Field(15, ge=1)
    min_words: int = Field(60, ge=1)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.min_sentences > self.max_sentences:
            raise ValueError(f"min_sentences is {self.min_sentences}, above max_sentences, which is {self.max_sentences}")
        return self


class InfosummConfig(GeneratorConfig):
    """Summaries of documents that are sources, or that a model writes from a prefix; a source is then a draw.

    With style plain the model continues "TL;DR:" after the document, with chat the user's turn is `instruction` and the document.
    """

    kind: Literal["infosumm"] = "infosumm"
    documents: Literal["sources", "prefixes"] = "sources"
    document: DocumentStep = Field(DocumentStep(), description="with documents: prefixes")
    writer: EngineConfig | None = Field(None, description="the engine that writes documents; null: the round's teacher")
    samples: int = Field(8, ge=1, le=MOST_SAMPLES, description="summaries per document")
    style: Literal["plain", "chat"] = "plain"
    instruction: str = Field("Summarise the text below in one short sentence.", min_length=1, description="with style: chat")
    max_new_tokens: int = Field(56, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    stop: tuple[str, ...] = Field(("\n",), strict=False)
    contrast: PmiDecoding | None = Field(None, description="PMI decoding of candidates; evaluation samples without it")

    measures: ClassVar[tuple[str, ...] | None] = (
        *("pass_rate", "rouge_1", "rouge_2", "rouge_l", "faithfulness", "saliency", "pmi", "salient_recall", "compression"),
        "distinct_2",
    )
    controls: ClassVar[tuple[str, ...]] = ("first-sentence", "mismatched", "document")

    @model_validator(mode="after")
    def _writer_has_work(self) -> Self:
        if self.documents == "sources" and (self.writer is not None or self.document != DocumentStep()):
            key = "document" if self.writer is None else "writer"
            raise ValueError(f"{key} is for documents that a model writes; set documents: prefixes, or remove it")
        return self

    @property
    def writes(self) -> bool:
        """Whether documents are written from prefixes."""
        return self.documents == "prefixes"

    @property
    def invents_inputs(self) -> bool:  # type: ignore[override]
        """With documents from prefixes."""
        return self.writes

    @property
    def reads(self) -> frozenset[RowText]:  # type: ignore[override]
        """A document, unless it is written."""
        return frozenset() if self.writes else frozenset(("document",))

    @property
    def adds(self) -> frozenset[RowText]:  # type: ignore[override]
        """A document, if it is written."""
        return frozenset(("document",)) if self.writes else frozenset()

    @property
    def default_rows(self) -> str | None:  # type: ignore[override]
        """The format in which the generator itself asks."""
        return "tldr" if self.style == "plain" else "chat"

    @property
    def decodes_pmi(self) -> bool:
        """With a section `contrast`."""
        return self.contrast is not None

    @property
    def engines(self) -> Mapping[str, EngineConfig]:
        """The writer, if it is not the teacher."""
        return {WRITER: self.writer} if self.writer is not None else {}

    @property
    def needs(self) -> Needs:
        """A document, if it is written, and its summaries."""
        prompt = PROMPT_TOKENS + (self.document.max_new_tokens + PREFIX_TOKENS if self.writes else 0)
        longest = max(self.max_new_tokens, self.document.max_new_tokens if self.writes else 0)
        return Needs(self.samples, self.samples + self.writes, longest, prompt, chat=self.style == "chat")

    @property
    def sampling(self) -> Sampling:
        """How a summary is sampled, without the contrast."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, stop=self.stop)

    def build(self) -> "Infosumm":
        """Return the generator."""
        return Infosumm(self)


class Written(NamedTuple):
    """A document, and the rule that rejects it, if any."""

    text: str
    rule: str | None


class Infosumm:
    """One document per source."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: InfosummConfig) -> None:
        self._config = config

    def question(self, source: Source) -> Question:
        """The document of a source, in the format of the drafts; never asked if documents are written."""
        assert not self._config.writes, "its documents are drawn"
        return Question(source.source_id, self._prompt, source.document, source.document)

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Write the document, if sources have none, and draw its summaries; a document that a rule rejects is one draft."""
        config, facts = self._config, dict[str, Any]()
        document = source.document
        if config.writes:
            prefix = PREFIXES[config.document.begin](draw.random("prefix"))
            facts = {"prefix": prefix}
            found = yield from self._written(draw, prefix)
            if found.rule is not None:
                return [Draft.rejected(found.text, REASONS[found.rule], facts={**facts, "rule": found.rule})]
            document = found.text
        sampling = config.sampling
        if config.contrast is not None:
            sampling = config.contrast.on(sampling, self._asked(None))
        answers = yield draw("summary", self._asked(document), sampling, n=config.samples)
        return [Draft.of(answer, self._prompt, input=document, facts=facts) for answer in answers]

    def _written(self, draw: Draw, prefix: str) -> Generator[Asked, Any, Written]:
        """Draw a document; a failed completion raises StepFailed, which rejects the source."""
        config = self._config
        engine = TEACHER if config.writer is None else WRITER
        answer: Answer = yield draw("document", prefix, config.document.sampling, engine=engine)
        return cut_document(prefix, answer, config.document)

    @property
    def _prompt(self) -> str:
        """The prompt without its document, which is the input of every draft."""
        return TLDR if self._config.style == "plain" else self._config.instruction

    def _asked(self, document: str | None) -> tuple[Message, ...] | str:
        """The prompt with a document; None: without one, for the contrast."""
        if self._config.style == "chat":
            return (Message("user", self._prompt if document is None else f"{self._prompt}\n\n{document}"),)
        return TLDR if document is None else f"{document.rstrip()}\n{TLDR}"


def cut_document(prefix: str, continuation: str, step: DocumentStep) -> Written:
    """Prefix and continuation on one line, cut after at most `max_sentences` complete sentences, and the rule it breaks, if any.

    A text that breaks a rule is returned whole if no sentence of it is complete. O(characters).
    """
    text = one_line(f"{prefix} {continuation}")
    ends = [end for end in sentence_ends(text) if end > len(prefix)][: step.max_sentences]
    if len(ends) < step.min_sentences:
        return Written(text, "few_sentences")
    document = text[: ends[-1]]
    if len(plain_words(document)) < step.min_words:
        return Written(document, "short")
    sentences = [normal(document[start:end].strip()) for start, end in zip([len(prefix), *ends], ends, strict=False)]
    return Written(document, "repeated" if len(set(sentences)) < len(sentences) else None)
