"""Self-Instruct: one response of new instructions per source, then for each accepted one its kind and its instances.

Wang et al., 2023, arXiv 2212.10560; constants from github.com/yizhongw/self-instruct, commit 10dd06e. The prompts have
texts of our own.
"""

import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from limbeck.cluster.engines.protocol import Message, Sampling
from limbeck.corpus.config import MOST_SAMPLES
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.source_kinds import RowText
from limbeck.corpus.text.rouge.index import RougeIndex, rouge_l
from limbeck.generators.contract import (
    Answer,
    Asked,
    Draft,
    Draw,
    GeneratorConfig,
    Needs,
    Prompt,
    Question,
    Script,
    Source,
    StepFailed,
    Task,
)
from limbeck.generators.instruction_tasks import SEED_TASKS, broken_rule, rejected, seed_tasks, whole
from limbeck.generators.self_instruct import parsing, prompts
from limbeck.generators.self_instruct.decoding import AnswersStep, ClassificationStep, InstancesStep, InstructionsStep

PROMPT_TOKENS = 1200  # upper bound for the few-shot texts of steps 2 and 3 with a task
TASKS_PER_RESPONSE = 8  # a list of eight is continued up to sixteen
COMPLETIONS = 1  # of the length of step 1's limit, for the estimate: responses and instances end long before their limits
MOST_TASKS = 21  # accepted instructions per source, ours: each takes three of the 64 steps that a source may have

Part = Generator[Asked, Any, list[Draft]]


class SelfInstructConfig(GeneratorConfig):
    """Instructions, inputs and outputs from a few seed tasks: steps 1 to 3 of Self-Instruct; step 4 are the recipe's `rows`.

    A source is one response of step 1. With style plain the prompts are few-shot texts that a base model continues, as
    published; with chat they are a user's turn.
    """

    semantics: ClassVar[int] = 2
    grows: ClassVar[bool] = True
    invents_inputs: ClassVar[bool] = True
    adds: ClassVar[frozenset[RowText]] = frozenset(("document",))  # the input of an instance
    measures: ClassVar[tuple[str, ...] | None] = ("pass_rate", "distinct_2")
    default_rows: ClassVar[str | None] = "self-instruct"

    kind: Literal["self_instruct"] = "self_instruct"
    seed_tasks: str = Field(SEED_TASKS, description="a table of instruction and instances, or input and output")
    style: Literal["plain", "chat"] = "plain"
    tasks: prompts.Tasks = Field("any", description="classification: prompts for classification tasks, from seeds of that kind")
    in_context: int = Field(8, ge=1, description="tasks in the prompt of step 1")
    from_pool: int = Field(2, ge=0, description="of these, at most this many accepted in earlier waves; the rest are seeds")
    instructions: InstructionsStep = InstructionsStep()
    max_rouge_l: float | None = Field(
        0.7, ge=0, lt=1, description="reject an instruction nearer than this to a seed or an accepted one; null: none"
    )
    classification: ClassificationStep = ClassificationStep()
    instances: InstancesStep = InstancesStep()
    max_instances: int = Field(5, ge=1, le=MOST_SAMPLES, description="instances per task")
    answers: AnswersStep = AnswersStep()

    @property
    def needs(self) -> Needs:
        """At most `max_instances` of each task; the prompts of steps 2 and 3 are the longest."""
        most = max(self.instructions.max_new_tokens, self.instances.max_new_tokens)
        return Needs(TASKS_PER_RESPONSE * self.max_instances, COMPLETIONS, most, PROMPT_TOKENS, chat=self.style == "chat")

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers to the instructions that were drawn for it."""
        return self.answers.sampling

    def build(self) -> "SelfInstruct":
        """Return the generator; raises LimbeckError if the seed tasks are missing, malformed or too few."""
        return SelfInstruct(self)

    def problems(self, vary: Mapping[str, Any]) -> list[str]:
        """Reports seed tasks that cannot be used, and a pool share above the number of tasks in context."""
        found = super().problems(vary)
        if self.from_pool > self.in_context:
            found.append(f"from_pool {self.from_pool} exceeds in_context {self.in_context}; lower it")
        return found


class SelfInstruct:
    """Steps 1 to 3 for one source."""

    def __init__(self, config: SelfInstructConfig) -> None:
        """Read the seed tasks."""
        self._config = config
        tasks = seed_tasks(config.seed_tasks)
        if config.tasks == "classification":
            tasks = tuple(task for task in tasks if task.facts.get("classification"))
        if len(tasks) < config.in_context:
            kind = "classification tasks" if config.tasks == "classification" else "tasks"
            raise LimbeckError(
                f"{config.seed_tasks} has {len(tasks)} {kind}, but in_context is {config.in_context}; add tasks or lower it"
            )
        self.seeds = tasks
        self._known = _Known()

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError("self_instruct invents its inputs")

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Step 1, and steps 2 and 3 for each instruction that no rule rejects, in the order of the response."""
        config = self._config
        shots = prompts.next_tasks(self._shots(draw, pool), config.tasks)
        asked = {"first": config.in_context + 1, "last": config.in_context + TASKS_PER_RESPONSE}
        response = yield draw("instructions", self._prompt("instructions", shots, **asked), self._series_sampling())
        if response.completion.finish_reason == "length":  # the whole response, as published
            return [rejected(response, "cut_off")]
        found = parsing.instructions(response, numbered=config.style == "chat")
        if not found:
            return [rejected(response, "unparsed")]
        drafts: list[Draft] = []
        accepted: list[str] = []
        for instruction in found:
            refusal = self._refusal(instruction, pool, accepted)
            if refusal is not None:
                drafts.append(refusal)
            else:
                accepted.append(instruction)
                drafts += yield from self._task(instruction, draw)
        return drafts

    def _series_sampling(self) -> Sampling:
        """How step 1 samples; a chat model writes blank lines inside its answer, so these do not end it."""
        sampling = self._config.instructions.sampling
        return sampling if self._config.style == "plain" else replace(sampling, stop=tuple(filter(str.strip, sampling.stop)))

    def _shots(self, draw: Draw, pool: Sequence[Task]) -> list[str]:
        """The tasks in context: some accepted in earlier waves, the rest seeds, in random order."""
        random, config = draw.random("shots"), self._config
        accepted = list(dict.fromkeys(task.prompt for task in pool if not task.seed))  # instances share an instruction
        shots = random.sample(accepted, min(config.from_pool, len(accepted)))
        shots += random.sample([task.prompt for task in self.seeds], config.in_context - len(shots))
        random.shuffle(shots)
        return shots

    def _refusal(self, instruction: str, pool: Sequence[Task], accepted: Sequence[str]) -> Draft | None:
        """The rejected draft of an instruction that breaks a rule, or is too near to a task known or accepted before."""
        if (rule := broken_rule(instruction, "self-instruct")) is not None:
            return rejected(instruction, rule)
        if len(accepted) >= MOST_TASKS:
            return rejected(instruction, "too_many_tasks")
        limit = self._config.max_rouge_l
        if limit is None:
            return None
        near = self._known.nearest(instruction, pool, limit)
        if near is None:
            scored = ((rouge_l(instruction, other), other) for other in accepted)
            near = next(((score, other) for score, other in scored if score > limit), None)
        if near is None:
            return None
        score, other = near
        return rejected(instruction, "rouge_l", detail=f"ROUGE-L {score!r} with {other!r}", rouge_l=score, nearest=other)

    def _task(self, instruction: str, draw: Draw) -> Part:
        """Steps 2 and 3 for one instruction; an engine error costs this instruction only."""
        try:
            classification, facts = yield from self._classified(instruction, draw)
            step = "output_first" if classification else "input_first"
            prompt = self._prompt(step, prompts.examples_of(instruction, classification))
            sampling = self._config.instances.sampling_of(classification)
            response = yield draw("instances", prompt, sampling)
        except StepFailed as failure:
            return [Draft.rejected(instruction, str(failure), instruction)]
        return self._instances(instruction, response, draw, {"classification": classification, **facts})

    def _classified(self, instruction: str, draw: Draw) -> Generator[Asked, Any, tuple[bool, dict[str, float]]]:
        """Step 2: whether a task is classification, and by how much."""
        step = self._config.classification
        if step.by == "text":
            prompt = self._prompt("classification", prompts.is_classification(instruction))
            answer = yield draw("classification", prompt, step.sampling)
            return parsing.says_yes(answer), {}
        task = (f" {instruction.strip()}",)
        (labels,) = yield draw.logprobs(prompts.task_list(True), task, step="classification")
        (others,) = yield draw.logprobs(prompts.task_list(False), task, step="classification")
        margin = labels - others
        if margin != margin:
            raise StepFailed("the engine could not score the task; use classification: {by: text}, or a longer context")
        return margin > step.threshold, {"classification_nats": round(margin, 6)}

    def _instances(self, instruction: str, response: Answer, draw: Draw, facts: dict[str, Any]) -> list[Draft]:
        """The instances of a response of step 3 as drafts, kept or rejected."""
        found = parsing.instances(response, facts["classification"])
        cut_off = response.completion.finish_reason == "length"
        rng = draw.random(f"instances of {instruction}")
        sifted = parsing.sift(found, cut_off=cut_off, at_most=self._config.max_instances, rng=rng)
        if not sifted:
            return [rejected(response, "no_instance", prompt=instruction, **facts)]
        return [
            Draft(instruction, instance.output, instance.input or None, facts=facts, answer=whole(response))
            if rule is None
            else rejected(instance.output, rule, prompt=instruction, input=instance.input, **facts)
            for instance, rule in sifted
        ]

    def _prompt(self, step: str, text: str, **asked: int) -> Prompt:
        """A few-shot text, or with style chat the turn of a user that contains it."""
        if self._config.style == "plain":
            return text
        return (Message("user", f"{text.rstrip()}\n\n{prompts.CHAT[step].format(**asked)}"),)


class _Known:
    """The ROUGE-L index of the task pool that a generator saw last: the scripts of a part share one pool. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: Sequence[Task] | None = None
        self._texts: list[str] = []
        self._index = RougeIndex()

    def nearest(self, instruction: str, pool: Sequence[Task], limit: float) -> tuple[float, str] | None:
        """The score and text of the nearest task of the pool, if it is above the limit."""
        with self._lock:
            if self._pool is not pool:
                self._texts = list(dict.fromkeys(task.prompt for task in pool))
                self._pool, self._index = pool, RougeIndex(self._texts, floor=limit)
            found = self._index.maximum(instruction)
            return None if found is None else (found.rouge_l, self._texts[found.place])
