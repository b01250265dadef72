"""A generator of five steps that reads the growing task pool: its rows depend on everything that a run could get wrong."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from limbeck.cluster.engines.protocol import Sampling
from limbeck.generators.contract import Draft, Draw, GeneratorConfig, Needs, Question, Script, Source, Task

SAMPLING = Sampling(16, temperature=0.0)


class FiveStepsConfig(GeneratorConfig):
    """Five steps of which two read the task pool and one a log-probability."""

    grows: ClassVar[bool] = True
    kind: Literal["five"] = "five"

    @property
    def needs(self) -> Needs:
        return Needs(2, 5, 16, 16, chat=False)

    @property
    def sampling(self) -> Sampling:
        return SAMPLING

    def build(self) -> "FiveSteps":
        return FiveSteps()


class FiveSteps:
    seeds = (Task("Seed task one", seed=True), Task("Seed task two", seed=True))

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        shots = draw.random("shots").sample(pool, k=min(3, len(pool)))
        first = yield draw("instruction", " / ".join(task.prompt for task in shots) + source.document, SAMPLING)
        if first.endswith(("7", "no")):
            return [Draft.rejected(first, "unlucky")]
        yes, no = yield draw.logprobs(first, (" Yes", " No"))
        inputs = yield draw("input", f"{first} {yes > no} {len(pool)}", SAMPLING, n=2)
        drafts = []
        for one in inputs:
            answer = yield draw("answer", one, SAMPLING)
            drafts.append(Draft.of(answer, str(first).strip(), input=str(one)))
        return drafts

    def question(self, source: Source) -> Question:
        return Question(source.source_id, source.document, source.document)
