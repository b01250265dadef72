"""Renders labelled rows by templates, as FLAN, T0 and xP3 made instructions of labelled data sets.

Wei et al., 2022 (FLAN: several templates per task, some of which reverse it); Sanh et al., 2022 (T0: whole tasks held out);
Muennighoff et al., 2023 (xP3: languages). The templates are our own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import jinja2
from pydantic import Field

from limbeck.cluster.engines.protocol import Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS, MOST_SAMPLES
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import parse_template
from limbeck.corpus.source_kinds import RowText
from limbeck.generators.contract import Draft, Draw, GeneratorConfig, Needs, Question, Script, Source, Task
from limbeck.generators.templates.tasks import TaskConfig, TemplateConfig, Use, facts_of, read_tasks

PROMPT_TOKENS = 256  # upper bound for a rendered prompt; a longer one that does not fit its context costs its row

REASONS: Mapping[str, str] = {
    "no_task": "no task is about this row",
    "missing": "the row lacks a column of the template",
    "empty_prompt": "the template gives no prompt",
    "empty_answer": "the template gives no answer",
    "not_a_choice": "the answer is not one of the choices",
}
"""Rule → the reason of the rows that it rejects."""


class TemplatesConfig(GeneratorConfig):
    """Labelled rows as instructions by templates (FLAN, T0, xP3); a source is a row, and no engine is asked.

    Each row draws from the templates of the tasks that it fits. `use`: which templates; the recipe's `task` can ask the others.
    """

    invents_inputs: ClassVar[bool] = True
    adds: ClassVar[frozenset[RowText]] = frozenset(("reference",))
    measures: ClassVar[tuple[str, ...] | None] = ("pass_rate", "distinct_2")
    default_rows: ClassVar[str | None] = "chat"

    kind: Literal["templates"] = "templates"
    tasks: str | Annotated[tuple[TaskConfig, ...], Field(strict=False, min_length=1)] = Field(
        "local-labels", description="tasks, the name of built-in ones, or the path of a YAML file with a list of tasks"
    )
    use: Use = Field("seen", description="seen: templates that are not held out; held-out: the others")
    samples: int = Field(1, ge=1, le=MOST_SAMPLES, description="different templates per row, at most")
    answer_tokens: int = Field(48, ge=1, le=MOST_NEW_TOKENS, description="in evaluation; answers are greedy")

    @property
    def needs(self) -> Needs:
        """No completion; the tokens are those of evaluation."""
        return Needs(self.samples, 0, self.answer_tokens, PROMPT_TOKENS, chat=False)

    @property
    def for_inputs(self) -> Self:
        """One template per row."""
        return self.model_copy(update={"samples": 1})

    @property
    def sampling(self) -> Sampling:
        """How evaluation samples answers."""
        return Sampling(self.answer_tokens, temperature=0.0)

    def build(self) -> "Templates":
        """Return the generator; raises LimbeckError if the tasks are missing, malformed, or have no template of this `use`."""
        return Templates(self.stated_tasks(), self.use, self.samples)

    def stated_tasks(self) -> tuple[TaskConfig, ...]:
        """The tasks; raises LimbeckError if their file is missing or malformed, or two have one name."""
        found = self.tasks if isinstance(self.tasks, tuple) else read_tasks(self.tasks)
        names = [task.task for task in found]
        if double := [name for name in names if names.count(name) > 1]:
            raise LimbeckError(f"generator.tasks: two tasks are named {double[0]!r}; rename one of them")
        return found

    def determining(self, exclude: Iterable[str] = ()) -> dict[str, Any]:
        """The section with the content of its tasks, so that a run is not resumed with other templates."""
        data = super().determining(exclude)
        return {**data, "tasks": [task.determining() for task in self.stated_tasks()]} if "tasks" in data else data


class Compiled:
    """A template of a task, ready to render."""

    def __init__(self, task: TaskConfig, template: TemplateConfig) -> None:
        """Compile it; raises LimbeckError if it is malformed."""
        self.task, self.template = task, template
        self.facts = facts_of(task, template)
        self.weight = template.weight
        where = f"generator.tasks: the template {task.task}.{template.name}"
        self._prompt, self._answer, self._reference = (
            parse_template(text, where) for text in (template.prompt, template.answer, template.reference or template.answer)
        )

    def draft(self, columns: Mapping[str, Any]) -> Draft:
        """The candidate of a row, or a rejected draft."""
        choices = self.facts.get("choices")
        values = {**columns, "choices": choices or []}
        try:
            prompt, answer, reference = (each.render(values).strip() for each in (self._prompt, self._answer, self._reference))
        except jinja2.UndefinedError as error:
            return rejected("missing", self.facts, detail=str(error))
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            name = f"{self.task.task}.{self.template.name}"
            raise LimbeckError(f"generator.tasks: the template {name} does not render: {error}; correct it") from error
        if not prompt or not answer:
            return rejected("empty_answer" if prompt else "empty_prompt", self.facts, prompt)
        if choices and reference not in choices:
            return rejected("not_a_choice", self.facts, prompt, reference)
        return Draft(prompt, answer, reference=reference, facts=self.facts)


def rejected(rule: str, facts: Mapping[str, Any], prompt: str = "", detail: str = "") -> Draft:
    """A row that no training row is made of, with its rule in the facts."""
    reason = f"{REASONS[rule]}: {detail}" if detail else REASONS[rule]
    return Draft.rejected(detail, reason, prompt, facts={**facts, "rule": rule})


class Templates:
    """One labelled row per source."""

    seeds: tuple[Task, ...] = ()

    def __init__(self, tasks: Sequence[TaskConfig], use: Use, samples: int) -> None:
        """Compile the templates; raises LimbeckError if one is malformed or none has this `use`."""
        self._samples = samples
        self._tasks = [(task, found) for task in tasks if (found := [Compiled(task, each) for each in _used(task, use)])]
        if not self._tasks:
            held = "is held out" if use == "held-out" else "is not held out"
            raise LimbeckError(f"generator.use is {use}, but no template {held}; mark some in the tasks, or set use: all")

    def question(self, source: Source) -> Question:
        """Never asked: the inputs of evaluation are drawn."""
        raise AssertionError("templates invents its inputs")

    def script(self, source: Source, draw: Draw, pool: Sequence[Task]) -> Script:
        """Render up to `samples` different templates, drawn by the weights of tasks and templates; no engine is asked."""
        yield from ()
        columns = {name: value for name, value in source.record.items() if value is not None}
        if source.document:
            columns.setdefault("document", source.document)
        fitting = [
            (each, task.weight * each.weight / sum(other.weight for other in templates))
            for task, templates in self._tasks
            if all(str(columns.get(name)) == value for name, value in task.where.items())
            for each in templates
        ]
        if not fitting:
            return [rejected("no_task", {})]
        random, drafts = draw.random("templates"), list[Draft]()
        while fitting and len(drafts) < self._samples:
            (place,) = random.choices(range(len(fitting)), [weight for _, weight in fitting])
            drafts.append(fitting.pop(place)[0].draft(columns))
        return drafts


def _used(task: TaskConfig, use: Use) -> list[TemplateConfig]:
    """The templates of a task for training rows, for evaluation, or for both."""
    return [
        template for template in task.templates if use == "all" or (use == "held-out") == (task.held_out or template.held_out)
    ]
