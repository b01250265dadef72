"""Pairs of sentences that a model may continue the same context with: paraphrases, and sentences with their summaries.

Jung et al., 2024, arXiv 2305.16635 (version 4). Sentences drawn after one context are likely to say the same in other words;
no model is asked for a paraphrase. The filters `equivalence` and `diversity` decide which pairs are kept.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Literal, Self

from pydantic import Field

from limbeck.cluster.engines.protocol import Sampling
from limbeck.corpus.config import MOST_SAMPLES
from limbeck.generators.contract import Answer, Asked, Draft, Draw, Needs, Question, Script, Source, Task
from limbeck.generators.impossible_distillation.texts import (
    INPUT_SAMPLES,
    MOST_SENTENCES,
    PREFIX_TOKENS,
    PROMPT_TOKENS,
    Instruction,
    LineStep,
    SentenceStep,
    Text,
    TextsConfig,
    broken_rule,
    first_sentence,
    rejected,
    text_of,
)

Order = Literal["both", "once", "shorter"]
Pair = tuple[int, int]
"""The positions of an input and an output among the sentences of a context."""


class PairsConfig(TextsConfig):
    """The base of both kinds. A source is a text, and `contexts` beginnings of it, each with `samples` next sentences.

    The candidates of a source are pairs of distinct sentences of one context, at most `pairs` per context, drawn by seed.
    """

    contexts: int = Field(
        1, ge=1, le=MOST_SENTENCES, description="per draw, at most: beginnings of its text, of different lengths"
    )
    samples: int = Field(100, ge=2, le=MOST_SAMPLES, description="next sentences drawn per context")
    pairs: int | None = Field(None, ge=1, description="pairs per context, at most, drawn by seed; null: all")
    sentence: SentenceStep = SentenceStep()

    @property
    def ordering(self) -> Order:
        """Which of the two pairs of two sentences are candidates."""
        raise NotImplementedError

    @property
    def needs(self) -> Needs:
        """A text, and all sentences of its contexts; the candidates are pairs, without rows for sentences that do not qualify."""
        most = self.samples * (self.samples - 1) // (1 if self.ordering == "both" else 2)
        most = most if self.pairs is None else min(most, self.pairs)
        contexts = min(self.contexts, 1 + self.max_sentences - self.min_sentences)
        texts = 1 if self.texts == "drawn" else 0
        longest = max(self.sentence.max_new_tokens, self.text.max_new_tokens if texts else 0)
        before = texts * (PREFIX_TOKENS + self.text.max_new_tokens)
        completions = texts + contexts * self.samples
        return Needs(
            *(contexts * most, completions, longest, max(before, PROMPT_TOKENS + self.sentence.max_new_tokens)),
            chat=False,
            texts=contexts * self.samples,
        )

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers: like the sentences, up to a line break."""
        return replace(self.sentence.sampling, stop=LineStep().stop)

    @property
    def for_inputs(self) -> Self:
        """Few sentences of one context for a held-out input, of which two must qualify."""
        return self.model_copy(update={"contexts": 1, "samples": min(self.samples, INPUT_SAMPLES), "pairs": 1})

    def build(self) -> "Pairs":
        """Return the generator; raises LimbeckError if the instruction is missing or malformed."""
        return Pairs(self)


class ParaphraseConfig(PairsConfig):
    """Pairs of sentences that may be paraphrases."""

    kind: Literal["paraphrase"] = "paraphrase"
    direction: Literal["both", "once"] = Field(
        "both",
        description="both: each of two sentences is an input, as in the paper; once: the earlier one, as in its code",
    )

    @property
    def ordering(self) -> Order:
        """As configured."""
        return self.direction


class SentenceSummarizationConfig(PairsConfig):
    """Pairs of sentences of which the shorter one may summarize the longer one, its input."""

    kind: Literal["sentence_summarization"] = "sentence_summarization"
    prompt: str = Field("sentence_summarization", description="as in `paraphrase`")

    @property
    def ordering(self) -> Order:
        """The longer sentence is the input."""
        return "shorter"


class Pairs:
    """One text per source."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: PairsConfig) -> None:
        """Read the instruction."""
        self._config, self._instruction = config, Instruction(config.prompt)

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError(f"{self._config.kind} invents its inputs")

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Draw a text, then the next sentences of each of its contexts; sentences that do not qualify are drafts of their own."""
        config = self._config
        prompt = self._instruction.render(source.vary)
        text = yield from text_of(config, source, draw)
        lengths = range(config.min_sentences, 1 + min(config.max_sentences, len(text.sentences)))
        if not lengths:
            return [rejected(" ".join(text.sentences) or str(text.answer or ""), "few_sentences")]
        chosen = draw.random("contexts").sample(lengths, min(config.contexts, len(lengths)))
        drafts: list[Draft] = []
        for length in sorted(chosen):
            drafts += yield from self.after(text, length, prompt, draw)
        return drafts

    def after(self, text: Text, length: int, prompt: str, draw: Draw) -> Generator[Asked, Any, list[Draft]]:
        """Draw the next sentences of one context, the first `length` sentences of a text; returns its drafts."""
        config, context = self._config, text.beginning(length)
        answers = yield draw("sentence", context, config.sentence.sampling, n=config.samples)
        facts = {"context": context, "sentences": length, "temperature": config.sentence.temperature}
        return list(self._drafts(answers, prompt, facts, draw.random(f"pairs {length}")))

    def _drafts(self, answers: Sequence[Answer], prompt: str, facts: Mapping[str, Any], random: Random) -> Iterator[Draft]:
        """The pairs of one context, then its sentences that do not qualify."""
        sentences: list[Answer] = []
        others: list[Draft] = []
        for answer in answers:
            if answer.error is not None:
                others.append(Draft.rejected("", answer.error, facts=facts))
                continue
            sentence = first_sentence(answer)
            rule = broken_rule(sentence.strip(), sentences)
            if rule is None:
                sentences.append(sentence)
            else:
                others.append(rejected(sentence.strip(), rule, **facts))
        if len(sentences) == 1:
            others.append(rejected(sentences[0].strip(), "alone", **facts))
        every = pairs_of(sentences, self._config.ordering)
        counts = {"qualifying": len(sentences), "possible_pairs": len(every)}
        for x, y in drawn(every, self._config.pairs, random):
            yield Draft.of(sentences[y], prompt, input=sentences[x].strip(), facts={**facts, **counts})
        yield from others


def pairs_of(sentences: Sequence[str], order: Order) -> list[Pair]:
    """The pairs of sentences by position: in `both` orders, `once` with the earlier first, or with the `shorter` as the output.

    Of two sentences of equal length (in characters), neither is the shorter one.
    """
    places = range(len(sentences))
    if order == "shorter":
        return [(x, y) for x in places for y in places if len(sentences[y]) < len(sentences[x])]
    return [(x, y) for x in places for y in places if x < y or (x > y and order == "both")]


def drawn(pairs: Sequence[Pair], most: int | None, random: Random) -> list[Pair]:
    """All pairs, or `most` of them at random, in their order."""
    if most is None or len(pairs) <= most:
        return list(pairs)
    return [pairs[place] for place in sorted(random.sample(range(len(pairs)), most))]
