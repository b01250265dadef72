"""How the two steps of `documents_qa` are prompted and sampled, and how their completions are read."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, JsonValue, model_validator

from limbeck.cluster.engines.protocol import Sampling
from limbeck.corpus.config import MOST_NEW_TOKENS
from limbeck.corpus.prompts import load_template, render_prompt
from limbeck.generators.contract import Answer
from limbeck.generators.decoding import Decoding

PROMPTS = Path(__file__).parent / "prompts"
QUESTION_MARKS = ("?", "\uff1f", "\u061f", "\u037e", "\u055e", "\u1367", "\u2047")  # of all scripts that have one
_LABEL = re.compile(r"(?:(?:question|answer|q|a)\s*\d*\s*[:.)]|\d+[.)])\s*", re.IGNORECASE)

REASONS: Mapping[str, str] = {
    "empty": "the question is empty",
    "cut_off": "the question was cut off by the token limit",
    "not_json": "the completion is not JSON with the field of its step",
    "not_a_question": "the text does not end with a question mark",
    "repeated": "the question is equal to an earlier one of its document",
    "cut_off_answer": "the answer was cut off by the token limit before its JSON ended",
}
"""Rule → the reason of the drafts that it rejects."""


class Step(Decoding):
    """A step whose completion is a line of text, or, with `json_schema`, a JSON object.

    The schema must require a string field with the name of the step; its other fields go to the candidate's facts. `prompt` is
    the name of a built-in Jinja template or the path of one.
    """

    text_field: ClassVar[str]

    prompt: str | None = Field(None, description="null: the built-in template of the style")
    stop: tuple[str, ...] = Field(("\n",), strict=False, description="not used with json_schema")
    json_schema: dict[str, JsonValue] | None = Field(None, description="engines of kind vllm and endpoint hold to it")

    @model_validator(mode="after")
    def _has_its_field(self) -> Self:
        if self.json_schema is None:
            return self
        fields, required = self.json_schema.get("properties"), self.json_schema.get("required")
        own = fields.get(self.text_field) if isinstance(fields, dict) else None
        is_text = isinstance(own, dict) and own.get("type") == "string"
        if not is_text or not isinstance(required, list) or self.text_field not in required:
            raise ValueError(f"json_schema must have a required property {self.text_field!r} of type string")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the schema, in its order; none without one."""
        found = (self.json_schema or {}).get("properties")
        return tuple(found) if isinstance(found, dict) else ()

    @property
    def further(self) -> frozenset[str]:
        """The fields that go to the facts."""
        return frozenset(self.fields) - {self.text_field}

    @property
    def sampling(self) -> Sampling:
        """The settings for an engine; JSON may contain line breaks, so its end is found by the engine."""
        if self.json_schema is None:
            return super().sampling
        plain = self.model_copy(update={"json_schema": None, "stop": ()}).sampling
        return Sampling(**{**vars(plain), "json_schema": json.dumps(self.json_schema, sort_keys=True)})


class QuestionStep(Step):
    """A question about the document."""

    text_field: ClassVar[str] = "question"

    max_new_tokens: int = Field(48, ge=1, le=MOST_NEW_TOKENS)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)


class AnswerStep(Step):
    """The answer to a question, from the document."""

    text_field: ClassVar[str] = "answer"

    max_new_tokens: int = Field(96, ge=1, le=MOST_NEW_TOKENS)


@dataclass(frozen=True)
class Read:
    """What a completion says: its text, or the rule that it breaks; `facts` are the further fields of a JSON object."""

    text: str
    rule: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def read(answer: Answer, step: Step) -> Read:
    """Read the completion of a step, which may repeat the label that the prompt ends with."""
    if step.json_schema is None:
        return Read(_LABEL.sub("", answer.strip(), count=1) if _LABEL.match(answer.strip()) else answer.strip())
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    text = found.get(step.text_field) if isinstance(found, dict) else None
    if not isinstance(text, str):
        return Read(answer.strip(), "not_json")
    return Read(text.strip(), facts={name: value for name, value in found.items() if name in step.further})


class Prompt:
    """The template of a step."""

    def __init__(self, step: Step, style: str) -> None:
        """Read it; raises LimbeckError if it is missing or malformed."""
        self._name = step.prompt or f"{step.text_field}_{style}"
        self._step, self._template = step, load_template(self._name, PROMPTS, f"{step.text_field}_*")

    def render(self, **values: Any) -> str:
        """The prompt without whitespace around it; raises LimbeckError if the template fails."""
        return render_prompt(self._template, self._name, {"fields": self._step.fields}, values)
