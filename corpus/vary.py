"""Values that each source draws for its prompts (persona, audience, style): from a list, a file, a range, or by weights.

A draw depends on the run's seed, the name and the source alone: neither on other names nor on the order of the sources.
"""

import json
import keyword
from bisect import bisect_right
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, field_validator

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import inner_suffix, text_of
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.text.invisible import is_blank

_RESERVED = ("document", "true", "false", "none")  # what a template sees already, and Jinja's own words
_JSONL = (".jsonl", ".ndjson")
_FORMS = "a list of values, {file: PATH}, {range: [low, high]}, {range: [low, high, step]} or {weights: {VALUE: WEIGHT}}"


class FileValues(Config):
    """The values that a file lists, one per line; blank lines are skipped."""

    file: str = Field(description="a text file with one value per line, or JSON Lines with any JSON value per line")


class RangeValues(Config):
    """Evenly spaced numbers, both ends included."""

    range: list[int | float] = Field(description="[low, high] for whole numbers, or [low, high, step]")

    @field_validator("range")
    @classmethod
    def _check(cls, value: list[int | float]) -> list[int | float]:
        if len(value) not in (2, 3):
            raise ValueError("a range is [low, high] or [low, high, step]")
        if len(value) == 2 and not all(isinstance(end, int) for end in value):
            raise ValueError("a range whose ends are not whole numbers needs a step: [low, high, step]")
        if value[0] > value[1] or (len(value) == 3 and value[2] <= 0):
            raise ValueError("a range needs low <= high and a step above 0")
        return value


class WeightedValues(Config):
    """Values drawn in proportion to their weights."""

    weights: dict[str, int | float] = Field(description="value: weight; weights need not sum to 1")

    @field_validator("weights")
    @classmethod
    def _check(cls, value: dict[str, int | float]) -> dict[str, int | float]:
        if not value or min(value.values()) < 0 or not sum(value.values()):
            raise ValueError("weights need at least one value; none may be negative, and at least one must be positive")
        return value


def _listed(values: list[JsonValue]) -> list[JsonValue]:
    if not values or any(value is None for value in values):
        raise ValueError("a list of values needs at least one, and none of them null")
    return values


def _form(value: Any) -> str | None:
    """Which of the forms it is: the unions' tag."""
    if isinstance(value, list | tuple):
        return "list"
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Config) else ()
    return next((form for form in ("file", "range", "weights") if form in keys), None)


def _named(vary: dict[str, Any]) -> dict[str, Any]:
    for name in vary:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{name!r} cannot be a name in a prompt; use letters, digits and underscores")
        if name in _RESERVED:
            raise ValueError(f"{name!r} is reserved; choose another name")
    return vary


Values = Annotated[
    Annotated[list[JsonValue], AfterValidator(_listed), Tag("list")]
    | Annotated[FileValues, Tag("file")]
    | Annotated[RangeValues, Tag("range")]
    | Annotated[WeightedValues, Tag("weights")],
    Discriminator(_form, custom_error_type="vary", custom_error_message=f"expected {_FORMS}"),
]
Vary = Annotated[dict[str, Values], AfterValidator(_named)]

Draws = Callable[[str], dict[str, Any]]
"""Maps a source_id to the value of every name."""


def drawing(vary: Mapping[str, Any], seed: int) -> Draws:
    """Return what draws a source's values; files are read once. Raises LimbeckError if a file is missing, broken or empty."""
    choices = {name: _choice(name, values) for name, values in vary.items()}
    return lambda source_id: {name: choose(derive_seed(seed, "vary", name, source_id)) for name, choose in choices.items()}


def example(vary: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values that some source may draw; raises LimbeckError as `drawing` does."""
    return drawing(vary or {}, 0)("")


def _choice(name: str, values: Any) -> Callable[[int], Any]:
    """A function from a seed in [0, 2**63) to a value."""
    match values:
        case FileValues():
            return _from_list(_read(name, values.file))
        case RangeValues():
            return _from_range(*values.range)
        case WeightedValues():
            return _from_weights(values.weights)
        case _:
            return _from_list(list(values))


def _from_list(values: list[Any]) -> Callable[[int], Any]:
    return lambda seed: values[seed % len(values)]


def _from_range(low: int | float, high: int | float, step: int | float = 1) -> Callable[[int], int | float]:
    first, width = Decimal(str(low)), Decimal(str(step))  # 0.1 + 2 * 0.1 is 0.3
    count = int((Decimal(str(high)) - first) / width) + 1
    number = int if isinstance(low, int) and isinstance(step, int) else float
    return lambda seed: number(first + width * (seed % count))


def _from_weights(weights: Mapping[str, int | float]) -> Callable[[int], str]:
    values = sorted(value for value in weights if weights[value])  # in the order of a file's keys, a rewrite would draw anew
    ends = list(accumulate(weights[value] for value in values))
    return lambda seed: values[min(bisect_right(ends, seed / 2**63 * ends[-1]), len(values) - 1)]


def _read(name: str, path: str) -> list[Any]:
    """The values of a file."""
    file = Path(path).expanduser()
    try:
        content, reason = text_of(file)
    except LimbeckError as error:
        raise LimbeckError(f"vary.{name}: {error}") from error
    if reason is not None:
        raise LimbeckError(f"vary.{name}: {path} is {reason}; convert it")
    values: list[Any] = []
    for number, line in enumerate(content.split("\n"), 1):
        if is_blank(line):
            continue
        try:
            values.append(json.loads(line, parse_constant=_refused) if inner_suffix(file) in _JSONL else line.strip())
            json.dumps(values[-1], ensure_ascii=False).encode()  # JSON can contain an unpaired surrogate
        except (ValueError, RecursionError) as error:
            raise LimbeckError(f"vary.{name}: line {number} of {path} is not JSON ({error}); fix or delete it") from error
        if values[-1] is None:
            raise LimbeckError(f"vary.{name}: line {number} of {path} is null; delete it")
    if not values:
        raise LimbeckError(f"vary.{name}: {path} lists no values; add one per line")
    return values


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")
