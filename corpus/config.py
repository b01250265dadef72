"""The base of every recipe section: frozen, and strict about keys."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen section of a recipe that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
