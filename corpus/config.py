"""The base of every recipe section: frozen, strict about types, and strict about keys."""

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

NAME = r"[a-z0-9][a-z0-9_-]*"
"""A name that becomes a path: of a filter, a selection, a kind."""


class Config(BaseModel):
    """A frozen section of a recipe that refuses unknown keys and suggests the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

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


def nearest(word: str, known: Any) -> str | None:
    """The member of `known` most similar to `word`, or None if none is similar."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
