"""The keys of the filters that read answers (`answer`, `vote`, `pass_rate`): where an answer is found, and how it is compared."""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from limbeck.corpus import extras
from limbeck.corpus.config import Config
from limbeck.corpus.text.answers.numbers import Notation
from limbeck.corpus.text.answers.reading import Answer, Compare, Extract, Reader
from limbeck.corpus.text.words import one_line

_COMPARED: dict[Extract, Compare] = {"pattern": "text", "last_number": "number", "boxed": "number", "choice": "text"}


class AnswerKeys(Config):
    """Where an output states its answer, and what makes two answers equal."""

    extract: Extract = "last_number"
    pattern: str | None = Field(
        None, description="for extract: pattern, a regular expression with one group; its last match counts"
    )
    choices: str = Field("ABCDE", description="for extract: choice, the letters; an answer in the other case counts")
    compare: Compare | None = Field(None, description="null: number for last_number and boxed, text for pattern and choice")
    decimal: Literal["point", "comma"] = Field("point", description="the decimal mark; the other one separates thousands")
    percent: Literal["ignored", "hundredths"] = Field("ignored", description="50% is 50, or one half")

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}; fix it") from error
        if groups != 1:
            raise ValueError(f"expected one group around the answer, as in '#### *(.+)', not {groups}; write (?:...) for others")
        return value

    @field_validator("choices")
    @classmethod
    def _letters(cls, value: str) -> str:
        for letter in value:
            if not letter.isalnum() or len(letter.lower()) != 1 or len(letter.upper()) != 1:
                raise ValueError(f"{letter!r} is not a letter or digit; write one per choice, as in ABCD")
        if len(value) < 2 or len(set(value.lower())) != len(value):
            raise ValueError("expected at least two different letters, one per choice, as in ABCD")
        return value

    @model_validator(mode="after")
    def _refuse_what_is_ignored(self) -> "AnswerKeys":
        if self.extract == "pattern" and self.pattern is None:
            raise ValueError("pattern is missing, and extract: pattern needs it; give a regular expression with one group")
        if self.extract != "pattern" and self.pattern is not None:
            raise ValueError(f"pattern does not apply to extract: {self.extract}, only to pattern; remove it")
        default = AnswerKeys.model_fields["choices"].default
        if self.extract != "choice" and self.choices != default:
            raise ValueError(f"choices does not apply to extract: {self.extract}, only to choice; remove it")
        if self.extract == "choice" and self.comparison != "text":
            raise ValueError(f"compare: {self.comparison} does not apply to extract: choice, only text; remove it")
        if self.percent != "ignored" and self.comparison not in ("number", "set"):
            raise ValueError(f"percent does not apply to compare: {self.comparison}, only to number and set; remove it")
        return self

    @property
    def comparison(self) -> Compare:
        """How answers are compared: `compare`, or what suits `extract`."""
        return self.compare or _COMPARED[self.extract]

    def problems(self) -> list[str]:
        """Reports that math-verify is not installed, if it is needed."""
        missing = extras.problem([("compare: math", "math")]) if self.comparison == "math" else None
        return [missing] if missing else []

    def reader(self) -> Reader:
        """What reads and compares answers."""
        return Reader(
            self.extract,
            self.comparison,
            self.pattern or "",
            self.choices,
            Notation(decimal_comma=self.decimal == "comma", hundredths=self.percent == "hundredths"),
        )


class CheckedAnswerKeys(AnswerKeys):
    """Answers that are compared with a reference, within a tolerance."""

    tolerance: float = Field(0.0, ge=0, description="absolute error allowed of a number; the larger of both tolerances counts")
    relative_tolerance: float = Field(0.0, ge=0, description="error allowed of a number, relative to the reference's")

    @model_validator(mode="after")
    def _tolerances_are_for_numbers(self) -> "CheckedAnswerKeys":
        for key in ("tolerance", "relative_tolerance"):
            if getattr(self, key) and self.comparison != "number":
                raise ValueError(f"{key} does not apply to compare: {self.comparison}, only to number; remove it")
        return self

    def reader(self) -> Reader:
        """What reads and compares answers."""
        tolerances = {"absolute": self.tolerance, "relative": self.relative_tolerance}
        given: dict[str, Any] = {name: Fraction(repr(value)) for name, value in tolerances.items()}  # 0.1 is one tenth
        return replace(super().reader(), **given)


class Grouped(Config):
    """Which candidates are samples of one question."""

    within: Literal["source", "question"] = Field(
        "source", description="the samples of one question: all of a source, or those of a source with the same prompt and input"
    )

    @property
    def grouping(self) -> tuple[str, ...]:
        """The columns that the samples of one question share."""
        return ("source_id", "prompt", "input") if self.within == "question" else ("source_id",)

    def groups(self, rows: pa.Table) -> list[list[int]]:
        """The positions of the samples of each question, in order of sample and candidate_id; O(rows log rows)."""
        keys = [rows[name].to_pylist() for name in self.grouping if name in rows.column_names]  # older runs have no `input`
        names, order = list(zip(*keys, strict=True)), _in_order(rows)
        found: dict[tuple[str | None, ...], list[int]] = {}
        for place in order:
            found.setdefault(names[place], []).append(place)
        return list(found.values())


def _in_order(rows: pa.Table) -> Sequence[int]:
    keys = rows.select(["source_id", "sample", "candidate_id"])
    order: list[int] = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]).to_pylist()
    return order


_SHOWN = 60


def shown(answer: Answer) -> str:
    """An answer as reasons quote it: on one line, and cut if it is long."""
    line = one_line(answer.text)
    return f"'{line}'" if len(line) <= _SHOWN else f"'{line[: _SHOWN - 1]}…'"
