"""Rewriting: a model that was trained on pairs writes sentences again, several times each (the self-distillation of Impossible
Distillation; Jung et al., 2024, arXiv 2305.16635, version 4).

A model trained to rewrite is not asked to write texts: the sentences come from another engine, by default the round-0 teacher,
or from documents.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field

from limbeck.cluster.engines.config import EngineConfig
from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.config import MOST_SAMPLES
from limbeck.generators.contract import Asked, Draft, Draw, Needs, Prompt, Question, Script, Source, Task
from limbeck.generators.impossible_distillation.texts import (
    INPUT_SAMPLES,
    PREFIX_TOKENS,
    PROMPT_TOKENS,
    Instruction,
    LineStep,
    TextsConfig,
    drawn_sentence,
    rejected,
    said,
    text_of,
)

AUTHOR = "author"
"""The name of the engine that writes the texts."""


class RewriteConfig(TextsConfig):
    """Each source has one sentence, which is rewritten `samples` times in the format of chat or plain training rows.

    The sentence of a drawn text follows `min_sentences` to `max_sentences` others, as in pairs; that of a document may be any.
    """

    kind: Literal["rewrite"] = "rewrite"
    author: EngineConfig | None = Field(
        None, description="the engine that writes the texts; null: the round-0 teacher; not used with texts: documents"
    )
    fresh: bool = Field(
        True, description="false: the texts and sentences of round 0 again, so that rounds can be compared on the same ones"
    )
    style: Literal["chat", "plain"] = Field("chat", description="the format of the prompt; that of the training rows")
    samples: int = Field(10, ge=1, le=MOST_SAMPLES, description="rewritten sentences per source")
    sentence: LineStep = LineStep()

    @property
    def engines(self) -> Mapping[str, EngineConfig]:
        """The author, if texts are drawn and it is known."""
        return {AUTHOR: self.author} if self.author is not None and self.texts == "drawn" else {}

    def with_engines(self, change: Callable[[EngineConfig | None], EngineConfig]) -> Self:
        """A copy with the author that `change` makes of it."""
        return self.model_copy(update={"author": change(self.author)}) if self.texts == "drawn" else self

    @property
    def needs(self) -> Needs:
        """A text, and the rewritten sentences."""
        texts = 1 if self.texts == "drawn" else 0
        longest = max(self.sentence.max_new_tokens, self.text.max_new_tokens if texts else 0)
        prompt = max(PREFIX_TOKENS, PROMPT_TOKENS + self.sentence.max_new_tokens)
        return Needs(self.samples, texts + self.samples, longest, prompt, chat=self.style == "chat")

    @property
    def sampling(self) -> Sampling:
        """How sentences are rewritten, in evaluation, too."""
        return self.sentence.sampling

    @property
    def for_inputs(self) -> Self:
        """Few rewritten sentences for a held-out input, of which one must qualify."""
        return self.model_copy(update={"samples": min(self.samples, INPUT_SAMPLES)})

    def build(self) -> "Rewrite":
        """Return the generator; raises LimbeckError if the instruction is missing or malformed."""
        return Rewrite(self)


class Rewrite:
    """One sentence per source."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: RewriteConfig) -> None:
        """Read the instruction."""
        self._config, self._instruction = config, Instruction(config.prompt)

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError("rewrite invents its inputs")

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Draw a sentence, and rewrite it; every rewritten sentence is a candidate."""
        config = self._config
        prompt = self._instruction.render(source.vary)
        found = yield from self._sentence(source, draw)
        if isinstance(found, Draft):
            return [found]
        answers = yield draw("rewrite", self._asked(f"{prompt}\n\n{found}"), config.sentence.sampling, n=config.samples)
        facts = {"temperature": config.sentence.temperature}
        return [said(answer, prompt, found, facts) for answer in answers]

    def _sentence(self, source: Source, draw: Draw) -> Generator[Asked, Any, str | Draft]:
        """The sentence of a source, or the rejected draft if its text has none."""
        config = self._config
        first = draw if config.fresh else replace(draw, round=0)
        text = yield from text_of(config, source, first, AUTHOR)
        places = (0, len(text.sentences)) if config.texts == "documents" else (config.min_sentences, config.max_sentences + 1)
        place = drawn_sentence(text.sentences, first, *places)
        if place is None:
            return rejected(" ".join(text.sentences) or str(text.answer or ""), "few_sentences")
        return text.sentences[place]

    def _asked(self, text: str) -> Prompt:
        return text if self._config.style == "plain" else (Message("user", text),)
