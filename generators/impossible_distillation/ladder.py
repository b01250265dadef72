"""One task, one set of filters, and several ways to ask a weak teacher: what share of each way's candidates do the filters keep?

A text is drawn, and one of its sentences. The teacher is asked for that sentence in other words (`plain`); the same prompt is
searched for answers that keep the sentence's salient words (`constraints`); and next sentences after the text before it are
compared in pairs (`pairs`, as the generator `paraphrase`). In later rounds `rewrite` asks the student, with `fresh: false` about
the same sentences. `benchmarks/yield_ladder.py` counts a finished run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.config import MOST_SAMPLES, Config
from limbeck.corpus.salience import STOP_WORDS
from limbeck.corpus.text.words import WORD
from limbeck.generators.constrained import ConstraintSection
from limbeck.generators.contract import Draw, Needs, Prompt, Question, Script, Source, Task
from limbeck.generators.impossible_distillation.pairs import Order, Pairs, PairsConfig
from limbeck.generators.impossible_distillation.texts import (
    INPUT_SAMPLES,
    PROMPT_TOKENS,
    Instruction,
    LineStep,
    drawn_sentence,
    rejected,
    said,
    text_of,
)

SEARCH = "search"
EXAMPLES = (
    (
        "The bridge was closed for two weeks because its cables had to be replaced.",
        "Since new cables were needed, nobody could cross the bridge for two weeks.",
    ),
    ("Most of the visitors arrived by train in the morning.", "In the morning, trains brought the majority of the guests."),
    (
        "The company said it would hire more nurses next year.",
        "More nurses will be employed by the firm next year, it announced.",
    ),
)
"""The examples of the few-shot text."""

EXAMPLE_TOKENS = 160  # upper bound


class SearchWay(Config):
    """Which of a sentence's words its paraphrases must contain, which of its phrases they must not, and how they are searched.

    The completions of a source are the best texts of one search.
    """

    words: int = Field(3, ge=0, description="salient words of the sentence that a completion must contain")
    longest_copy: int | None = Field(4, ge=1, description="words in a row that a completion may copy; null: any number")
    constraint: ConstraintSection = ConstraintSection(beams=8)

    def sampling(self, sentence: str, step: LineStep) -> Sampling:
        """The search for one sentence; raises MissingExtra if inflections are wanted and lemminflect is not installed."""
        copies = () if self.longest_copy is None else phrases(sentence, self.longest_copy + 1)
        section = self.constraint.model_copy(update={"banned": (*self.constraint.banned, *copies)})
        constraint = section.constraint(salient_words(sentence, self.words))
        return Sampling(step.max_new_tokens, temperature=0.0, stop=step.stop, constraint=constraint)


class YieldLadderConfig(PairsConfig):
    """Three ways to ask about the same texts, each with `samples` completions per source; the fact `way` names a draft's.

    `sentence` decodes next sentences (`pairs`), `answer` answers to the prompt (`plain`; `constraints` has its limit and stop).
    """

    kind: Literal["yield_ladder"] = "yield_ladder"
    contexts: Literal[1] = Field(1, description="the text before the sentence that the other ways are asked about")
    samples: int = Field(8, ge=2, le=MOST_SAMPLES, description="completions per source and way")
    style: Literal["few_shot", "chat"] = Field(
        "few_shot", description="how `plain` and `constraints` ask; chat: as the student is"
    )
    answer: LineStep = LineStep()
    search: SearchWay | None = Field(SearchWay(), description="the way `constraints`; null: it is left out")

    @model_validator(mode="after")
    def _beams_suffice(self) -> Self:
        if self.search is not None and self.search.constraint.beams < self.samples:
            beams = self.search.constraint.beams
            raise ValueError(f"search.constraint.beams is {beams}, but a search has to find {self.samples} texts (samples)")
        return self

    @property
    def ordering(self) -> Order:
        """Each of two sentences is an input."""
        return "both"

    @property
    def needs(self) -> Needs:
        """A text, the next sentences of one context, and the answers."""
        pairs = super().needs
        answers = self.samples * (1 if self.search is None else 2)
        longest = max(pairs.new_tokens, self.answer.max_new_tokens)
        prompt = max(pairs.prompt_tokens, PROMPT_TOKENS + EXAMPLE_TOKENS + self.text.max_new_tokens)
        texts = 1 + self.samples + answers
        return Needs(
            pairs.candidates + answers, pairs.completions + answers, longest, prompt, chat=self.style == "chat", texts=texts
        )

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers: like those of the way `plain`."""
        return self.answer.sampling

    @property
    def for_inputs(self) -> Self:
        """Few answers of the way `plain` for a held-out input, of which one must qualify."""
        few = {"samples": min(self.samples, INPUT_SAMPLES), "pairs": 1, "search": None}
        return self.model_copy(update=few)

    @property
    def constrained(self) -> Sequence[str]:
        """The step of the way `constraints`."""
        return () if self.search is None else (SEARCH,)

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Also reports constraints that no search can have."""
        found = [] if self.search is None else self.search.constraint.problems()
        return [*super().problems(vary), *(f"{SEARCH}: {problem}" for problem in found)]

    def build(self) -> "Ladder":  # type: ignore[override]
        """Return the generator; raises LimbeckError if the instruction is missing or malformed."""
        return Ladder(self)


class Ladder:
    """One text, and one sentence of it, per source."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, config: YieldLadderConfig) -> None:
        """Read the instruction."""
        self._config, self._instruction, self._pairs = config, Instruction(config.prompt), Pairs(config)

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError("yield_ladder invents its inputs")

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Draw a text and choose a sentence; ask for it in other words, plainly and with constraints; pair its alternatives."""
        config = self._config
        prompt = self._instruction.render(source.vary)
        text = yield from text_of(config, source, draw)
        place = drawn_sentence(text.sentences, draw, config.min_sentences, config.max_sentences + 1)
        if place is None:
            return [rejected(" ".join(text.sentences) or str(text.answer or ""), "few_sentences")]
        sentence = text.sentences[place]
        asked: Prompt = few_shot(sentence) if config.style == "few_shot" else (Message("user", f"{prompt}\n\n{sentence}"),)
        answers = yield draw("plain", asked, config.answer.sampling, n=config.samples)
        facts: dict[str, Any] = {"way": "plain", "temperature": config.answer.temperature}
        drafts = [said(answer, prompt, sentence, facts) for answer in answers]
        if config.search is not None:
            found = yield draw(SEARCH, asked, config.search.sampling(sentence, config.answer), n=config.samples)
            facts = {"way": "constraints", "words": salient_words(sentence, config.search.words)}
            drafts += [said(one, prompt, sentence, {**facts, "unmet": len(one.completion.unmet)}) for one in found]
        pairs = yield from self._pairs.after(text, place, prompt, draw)
        return [*drafts, *(replace(draft, facts={**draft.facts, "way": "pairs"}) for draft in pairs)]


def few_shot(sentence: str) -> str:
    """A text that a model completes with a sentence in other words."""
    shown = "".join(f"Sentence: {before}\nIn other words: {after}\n\n" for before, after in EXAMPLES)
    return f"{shown}Sentence: {sentence}\nIn other words:"


def salient_words(sentence: str, most: int) -> list[str]:
    """Up to `most` distinct words of a sentence, in its order: those with digits first, then the longest, without stop words.

    In one sentence nearly all words occur once, so their counts say nothing; long words are rare ones. A word of which only the
    first letter is a capital is in lower case, since it may begin the sentence; constraints accept a capital first letter.
    """
    found: dict[str, str] = {}
    for start, end, word in WORD.spans(sentence):
        if word.replace("’", "'") not in STOP_WORDS:
            found.setdefault(word, sentence[start:end])
    chosen = sorted(found, key=lambda word: (not any(character.isdigit() for character in word), -len(word)))[:most]
    return [word if found[word] == word.capitalize() else found[word] for word in found if word in chosen]


def phrases(sentence: str, words: int) -> list[str]:
    """Every run of this many words of a sentence, as written."""
    spans = WORD.spans(sentence)
    return [sentence[start:end] for (start, _, _), (_, end, _) in zip(spans, spans[words - 1 :], strict=False)]
