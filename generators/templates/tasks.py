"""Tasks and their templates, as a recipe or a YAML file states them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from limbeck.corpus.config import NAME, Config, nearest
from limbeck.corpus.errors import LimbeckError

TASKS = Path(__file__).parent / "tasks"
"""The built-in collections of tasks."""

HELD_OUT = "held_out"
"""The fact of a candidate that says whether its template, or its whole task, is held out from training."""


class TemplateConfig(Config):
    """One way to ask a task: Jinja templates over the columns of a row, and what is known of them."""

    name: str = Field(pattern=f"^{NAME}$")
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    reference: str | None = Field(
        None, description="the answer alone, if `answer` says more, such as a rationale; null: `answer`"
    )
    choices: tuple[str, ...] | None = Field(None, strict=False, description="null: the task's")
    language: str | None = Field(None, description="null: the task's")
    original: bool = Field(True, description="whether it asks the task that the labels were made for, and not a variation of it")
    weight: float = Field(1.0, gt=0, description="how often it is drawn, relative to the task's other templates")
    held_out: bool = Field(False, description="never used for training rows")


class TaskConfig(Config):
    """A task over labelled rows, with its templates."""

    task: str = Field(pattern=f"^{NAME}$")
    where: dict[str, str] = Field(default_factory=dict, description="column: value of the rows that it is about; empty: all rows")
    choices: tuple[str, ...] | None = Field(None, strict=False, description="the answers that there are; null: any text")
    language: str = "en"
    weight: float = Field(1.0, gt=0, description="how often it is drawn, relative to the other tasks of a row")
    held_out: bool = Field(False, description="no template of it is used for training rows")
    templates: tuple[TemplateConfig, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [template.name for template in self.templates]
        if double := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two templates of the task {self.task!r} are named {double[0]!r}; rename one of them")
        return self


Use = Literal["seen", "held-out", "all"]
_TASKS = TypeAdapter(tuple[TaskConfig, ...])


def read_tasks(given: str) -> tuple[TaskConfig, ...]:
    """The tasks of a built-in collection or of a YAML file; raises LimbeckError if it is missing or malformed."""
    path = Path(given) if "/" in given or given.endswith((".yaml", ".yml")) else TASKS / f"{given}.yaml"
    known = sorted(file.stem for file in TASKS.glob("*.yaml"))
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        near = nearest(given, known)
        hint = f"did you mean {near!r}?" if near else f"name one of {', '.join(known)}, or the path of a YAML file"
        raise LimbeckError(f"generator.tasks: no tasks {given} ({path}); {hint}") from error
    except yaml.YAMLError as error:
        raise LimbeckError(f"generator.tasks: {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, list):
        raise LimbeckError(f"generator.tasks: {path} is not a list of tasks; each has `task` and `templates`")
    try:
        return _TASKS.validate_python(tuple(data))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise LimbeckError(f"generator.tasks: {path}: {where}: {str(fault['msg']).removeprefix('Value error, ')}") from error


def facts_of(task: TaskConfig, template: TemplateConfig) -> Mapping[str, Any]:
    """What is known of a candidate of a template."""
    held_out = "task" if task.held_out else "template" if template.held_out else None
    choices = template.choices if template.choices is not None else task.choices
    return {
        "task": task.task,
        "template": template.name,
        "language": template.language or task.language,
        "original_task": template.original,
        **({"choices": list(choices)} if choices else {}),
        **({HELD_OUT: held_out} if held_out else {}),
    }
