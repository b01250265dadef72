"""The base of every recipe section: frozen, strict about types, and strict about keys."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import to_jsonable_python

NAME = r"[a-z0-9][a-z0-9_-]*"
"""A name that becomes a path: of a filter, a selection, a kind."""

LARGEST_INTEGER = 2**63 - 1
"""What a column of integers can hold."""

MOST_SAMPLES = 10_000
"""Samples per source: all of them are held in memory."""

MOST_NEW_TOKENS = 1_000_000
"""Tokens of one completion: more than the context of any model."""

MOST_PROCESSES = 10_000

MOST_ROWS = 1_000_000_000
"""Sources or rows of a run."""


class Config(BaseModel):
    """A frozen section of a recipe that refuses unknown keys and suggests the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    operational: ClassVar[frozenset[str]] = frozenset()
    """Keys that change no row: where work is done, how fast, and within which limits. A subclass adds to those of its bases.

    They may change while a run is interrupted; every other key belongs to the record that a resumed run is compared with.
    """

    @classmethod
    def operational_keys(cls) -> frozenset[str]:
        """The operational keys of this class and its bases."""
        declared = [vars(base).get("operational", frozenset()) for base in cls.__mro__]
        return frozenset[str]().union(*declared)

    def determining(self, exclude: Iterable[str] = ()) -> dict[str, Any]:
        """The section as plain data, without `exclude` and, at any depth, without operational keys."""
        data = self.model_dump(mode="json", exclude=set(exclude))
        _drop_operational(data, self)
        return data

    @field_validator("*", mode="after")
    @classmethod
    def _fits_in_storage(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"must be at most {LARGEST_INTEGER}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    near = nearest(str(key), cls.model_fields)
                    hint = f"did you mean {near!r}?" if near else f"known are {', '.join(cls.model_fields)}"
                    raise ValueError(f"unknown key {key!r}; {hint}")
        return data


def _drop_operational(data: Any, value: Any) -> None:
    """Remove the operational keys from the plain `data` of a value."""
    if isinstance(value, Config) and isinstance(data, dict):
        for key in type(value).operational_keys():
            data.pop(key, None)
        for key in data.keys() & type(value).model_fields.keys():
            _drop_operational(data[key], getattr(value, key))
    elif isinstance(value, Mapping) and isinstance(data, dict):
        for key in data.keys() & value.keys():
            _drop_operational(data[key], value[key])
    elif isinstance(value, tuple | list) and isinstance(data, list):
        for inner, entry in zip(data, value, strict=False):
            _drop_operational(inner, entry)


def fill_defaults(there: dict[str, Any], here: Mapping[str, Any], section: Config) -> None:
    """Make a section's recorded data `there` comparable with its data `here`, as this version writes them.

    Operational keys are dropped, which older versions recorded; newer keys get their defaults.
    """
    for key in type(section).operational_keys():
        there.pop(key, None)
    for key, field in type(section).model_fields.items():
        if key not in here:
            continue
        if key not in there:
            if not field.is_required():
                there[key] = to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))
            continue
        _fill_inside(there[key], here[key], getattr(section, key))


def _fill_inside(there: Any, here: Any, value: Any) -> None:
    """Apply `fill_defaults` to the sections in a value: itself, or those in a list or a mapping."""
    if isinstance(value, Config) and isinstance(there, dict):
        fill_defaults(there, here, value)
    elif isinstance(value, Mapping) and isinstance(there, dict):
        for key in there.keys() & here.keys() & value.keys():
            _fill_inside(there[key], here[key], value[key])
    elif isinstance(value, tuple | list) and isinstance(there, list) and len(value) == len(there):
        for old, new, inner in zip(there, here, value, strict=True):
            _fill_inside(old, new, inner)


def nearest(word: str, known: Any) -> str | None:
    """The member of `known` most similar to `word`, or None if none is similar."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
