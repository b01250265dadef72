"""The questions of `grade` and `judge`: what is looked at, by which criteria, and in which words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.prompts import load_template, prompt_path
from limbeck.corpus.text.invisible import stripped

PROMPTS = Path(__file__).parent / "prompts"

Of = Literal["output", "response", "instruction"]
"""What a question is about: the output beside its document; the output as the response to the candidate's prompt; the prompt."""

RUBRICS: Mapping[str, tuple[Of, str]] = {
    "summary": ("output", "the answer says what the text says and nothing else, gives its main point, and is fluent."),
    "faithfulness": (
        "output",
        "all that the answer says is stated in the text or follows from it; no name, number or claim differs.",
    ),
    "quality": (
        "response",
        "the response does what the task asks, completely and in its form, is correct, and is clear.",
    ),
    "complexity": (
        "instruction",
        "the task needs several steps of reasoning, has several conditions that must hold together, and needs special knowledge.",
    ),
    "clarity": (
        "instruction",
        "the task says what is wanted and contains all that one needs to do it.",
    ),
}
"""Built-in criteria: name → (what they are about, the criteria)."""

READ = ("candidate_id", "seed", "prompt", "document", "reference", "output")
"""The columns of a candidate that questions use."""


def read_rows(candidates: pa.Table, instruction: Literal["prompt", "output"] = "prompt") -> list[dict[str, Any]]:
    """The rows of candidates (`corpus.schemas.SCORED_INPUT`) with what templates may use.

    `instruction` is the text of that column; `input` the document, or "" if the instruction already contains it.
    """
    rows: list[dict[str, Any]] = candidates.select(READ).to_pylist()
    for row in rows:
        row |= {name: stripped(row[name] or "") for name in ("prompt", "document", "reference", "output")}
        row["instruction"] = row[instruction]
        row["input"] = "" if row["document"] in row["instruction"] else row["document"]
    return rows


class Question:
    """A template of a question about one candidate, with its criteria."""

    def __init__(self, template: str, rubric: str, known: str, texts: Sequence[str], **fixed: Any) -> None:
        """Read the template and render it once to validate it; raises LimbeckError.

        `known` is the pattern of the built-in templates for such questions, `texts` the names of the texts that `render` is
        given, `fixed` has further variables.
        """
        self._name, self._fixed = template, {**fixed, "rubric": rubric}
        self._template = load_template(template, PROMPTS, known)
        self.render(dict.fromkeys(("document", "instruction", "input"), "a text"), **dict.fromkeys(texts, "a text"))

    def render(self, row: Mapping[str, Any], **texts: str) -> str:
        """Return the prompt about a row of `read_rows`, without leading or trailing whitespace."""
        names = {name: row[name] for name in ("document", "instruction", "input")} | self._fixed | texts
        try:
            return self._template.render(names).strip()
        except jinja2.TemplateError as error:
            variables = ", ".join(f"`{name}`" for name in names)
            raise LimbeckError(f"the prompt {self._name} does not render: {error}; it may use {variables}") from error


def prompt_text(template: str) -> str | None:
    """The text of a template, on which scores depend; None if it is missing."""
    path = prompt_path(template, PROMPTS)
    return path.read_text(encoding="utf-8") if path.is_file() else None
