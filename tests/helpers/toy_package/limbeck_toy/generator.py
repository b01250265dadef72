"""A generator of two steps: a title for the document, then a sentence under that title."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.cluster.engines.protocol import Sampling
from limbeck.generators.contract import Draft, Draw, GeneratorConfig, Needs, Question, Script, Source, Task

SAMPLING = Sampling(24, temperature=0.7, stop=("\n",))


class TitlesConfig(GeneratorConfig):
    """Titles for each document, and a sentence under each."""

    measures: ClassVar[tuple[str, ...] | None] = ("distinct_2", "compression")
    controls: ClassVar[tuple[str, ...]] = ("mismatched", "first-sentence")

    kind: Literal["titles"] = "titles"
    samples: int = Field(2, ge=1)

    @property
    def needs(self) -> Needs:
        return Needs(self.samples, 2 * self.samples, SAMPLING.max_new_tokens, 64, chat=False)

    @property
    def sampling(self) -> Sampling:
        return SAMPLING

    def build(self) -> "Titles":
        return Titles(self.samples)


class Titles:
    seeds: tuple[Task, ...] = ()

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        drafts = []
        for title in (yield draw("title", f"{source.document}\n\nTitle:", SAMPLING, n=self._samples)):
            sentence = yield draw("sentence", f"{source.document}\n\n{title.strip()}:", SAMPLING)
            drafts.append(Draft.of(sentence, self.question(source).prompt, facts={"title": title.strip()}))
        return drafts

    def question(self, source: Source) -> Question:
        return Question(source.source_id, f"{source.document}\n\nIn one sentence:", source.document)
