"""Summaries: several samples of one summary for each document."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS, MOST_SAMPLES
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import load_template, render_prompt
from limbeck.generators.contract import Draft, Draw, GeneratorConfig, Needs, Question, Script, Source, Task
from limbeck.generators.decoding import PmiDecoding

PROMPTS = Path(__file__).parent / "prompts"
PROMPT_TOKENS = 96  # upper bound for the chat template and the instruction


class SummariesConfig(GeneratorConfig):
    """How summaries are prompted and sampled.

    `prompt` is the name of a built-in Jinja template or the path of one; it has the variables `document` and those drawn by
    `vary`. With `style` chat it is the user's turn, with plain it is the text that the model continues.
    """

    measures: ClassVar[tuple[str, ...] | None] = (
        *("pass_rate", "rouge_1", "rouge_2", "rouge_l", "faithfulness", "saliency", "pmi", "salient_recall", "invention"),
        *("compression", "distinct_2"),
    )
    controls: ClassVar[tuple[str, ...]] = ("first-sentence", "mismatched", "document")

    kind: Literal["summaries"] = "summaries"
    samples: int = Field(default=4, ge=1, le=MOST_SAMPLES)
    prompt: str = "summary"
    style: Literal["chat", "plain"] = "chat"
    max_new_tokens: int = Field(default=56, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=50, ge=0)
    stop: tuple[str, ...] = Field(default=("\n",), strict=False)  # not strict: YAML has lists, not tuples
    contrast: PmiDecoding | None = Field(None, description="PMI decoding of candidates; evaluation samples without it")

    @property
    def decodes_pmi(self) -> bool:
        """With a section `contrast`."""
        return self.contrast is not None

    @property
    def needs(self) -> Needs:
        """One completion per candidate."""
        return Needs(self.samples, self.samples, self.max_new_tokens, PROMPT_TOKENS, chat=self.style == "chat")

    @property
    def sampling(self) -> Sampling:
        """How a summary is sampled."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.top_k, self.stop)

    def build(self) -> "Summaries":
        """Return the generator; raises LimbeckError if the template is missing or malformed."""
        return Summaries(self)

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Reports a template that is missing, malformed, or does not render."""
        try:
            self.build().render("a document", vary)
        except LimbeckError as error:
            return [str(error)]
        return []


class Summaries:
    """Asks for `samples` completions of one prompt per document."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: SummariesConfig) -> None:
        """Read the template."""
        self._config = config
        self._template = load_template(config.prompt, PROMPTS)

    def render(self, document: str, vary: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Return the prompt for a document, without leading or trailing whitespace; raises LimbeckError if the template fails."""
        return render_prompt(self._template, self._config.prompt, {"document": document}, vary)

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """One step; every completion is a candidate."""
        prompt = self.render(source.document, source.vary)
        sampling, contrast = self._config.sampling, self._config.contrast
        if contrast is not None:
            sampling = contrast.on(sampling, self._asked(self.render("", source.vary)))
        answers = yield draw("summary", self._asked(prompt), sampling, n=self._config.samples)
        return [Draft.of(answer, prompt) for answer in answers]

    def _asked(self, prompt: str) -> tuple[Message, ...] | str:
        return (Message("user", prompt),) if self._config.style == "chat" else prompt

    def question(self, source: Source) -> Question:
        """The prompt of a document."""
        return Question(source.source_id, self.render(source.document, source.vary), source.document)
