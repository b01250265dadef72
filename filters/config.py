"""How a recipe states a critic: its limits, what they reject with, what it costs, and what its scores depend on."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from limbeck.corpus.config import Config
from limbeck.filters.contract import Bound


class FalseAcceptance(Config):
    """A limit stated as the share of mismatched pairs that it may let through, found once from the scores of such pairs."""

    false_acceptance: float = Field(gt=0, lt=1)


Limit = float | Literal["calibrated"] | FalseAcceptance | None
"""A number; `calibrated`: found once, on the train candidates of round 0; `{false_acceptance: 0.01}`: found once, from each
candidate's score against another document (the column `<column>_null`); null: the score is measured but rejects nothing."""


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""A filter's name: it names a folder, a view and columns."""


class Cost(IntEnum):
    """What a row costs a critic, as an order of magnitude; the cheap ones are computed first."""

    TEXT = 0  # looks at the text alone
    INDEX = 1  # asks an n-gram index
    ENCODER = 2  # a sentence encoder's forward pass
    MODEL = 3  # forward passes of a language model or classifier
    GENERATION = 4  # lets a language model write


class CriticConfig(Config):
    """The base of every critic's config. Its fields `min_<column>` and `max_<column>` of type `Limit` are its bounds."""

    cost: ClassVar[Cost] = Cost.TEXT
    reasons: ClassVar[Mapping[str, str]] = {}
    """Limit field → the sentence that a rejected row carries."""

    also: ClassVar[tuple[str, ...]] = ()
    """Columns of its scores and evidence that no limit can be on."""

    nullable: ClassVar[bool] = False
    """Whether it can score mismatched pairs, as a limit by false acceptance needs."""

    name: Name
    lazy: bool = Field(False, description="do not score what a cheaper filter rejects already: null, and `skipped_by` says why")

    @classmethod
    def limit_fields(cls) -> list[str]:
        """The fields that are limits, in the order in which they are tried."""
        return [key for key, field in cls.model_fields.items() if key.startswith(("min_", "max_")) and field.annotation == Limit]

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The limits as selection applies them; a null limit is none."""
        found = (_bound(key, getattr(self, key), self.reasons.get(key, "")) for key in self.limit_fields())
        return tuple(bound for bound in found if bound is not None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that it scores, or keeps as evidence; one that has two limits stands once."""
        return tuple(dict.fromkeys((*(key[len("min_") :] for key in self.limit_fields()), *self.also)))

    @property
    def null_columns(self) -> tuple[str, ...]:
        """The columns whose limit is stated as a false-acceptance rate: each needs scores of mismatched pairs."""
        return tuple(bound.column for bound in self.bounds if bound.false_acceptance is not None)

    @property
    def models(self) -> Mapping[str, str]:
        """The models that it loads: key under the filter → Hugging Face id, folder or embedded name."""
        return {}

    def problems(self) -> list[str]:
        """Why it cannot be computed here (a missing file or library), one sentence each."""
        return []

    def scoring(self) -> dict[str, Any]:
        """What its scores depend on, as plain data: everything but limits, name and laziness."""
        return self.model_dump(mode="json", exclude={"name", "lazy", *self.limit_fields()})


def _bound(key: str, limit: Limit, reason: str) -> Bound | None:
    side: Literal["minimum", "maximum"] = "minimum" if key.startswith("min_") else "maximum"
    column = key[len("min_") :]
    if limit is None:
        return None
    if limit == "calibrated":
        return Bound(column, calibrate=side, reason=reason)
    if isinstance(limit, FalseAcceptance):
        return Bound(column, calibrate=side, false_acceptance=limit.false_acceptance, reason=reason)
    return Bound(column, minimum=limit, reason=reason) if side == "minimum" else Bound(column, maximum=limit, reason=reason)
