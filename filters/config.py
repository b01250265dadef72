"""How a recipe states a filter: its bounds, what they reject with, what it costs, and what its scores depend on."""

from abc import abstractmethod
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from limbeck.cluster.engines.contract import EngineConfig, ScoringModelConfig
from limbeck.cluster.engines.protocol import Engine
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.kinds import Kind
from limbeck.filters.contract import Bound, Filter, SetFilter

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines


class FalseAcceptance(Config):
    """A limit stated as the share of mismatched pairs that it may let through, found once from the scores of such pairs."""

    false_acceptance: float = Field(gt=0, lt=1)


Limit = float | Literal["calibrated"] | FalseAcceptance | None
"""A number; `calibrated`: found once, on the train candidates of round 0; `{false_acceptance: 0.01}`: found once, from each
candidate's score against another document (the column `<column>_null`); null: the score is measured but rejects nothing."""


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
"""A filter's name: it names a folder, a view and columns."""


class Cost(IntEnum):
    """What a row costs a filter, as an order of magnitude; the cheap ones are computed first."""

    TEXT = 0  # looks at the text alone
    INDEX = 1  # asks an n-gram index
    ENCODER = 2  # a sentence encoder's forward pass
    MODEL = 3  # forward passes of a language model or classifier
    GENERATION = 4  # lets a language model write


class NamedKind(Kind):
    """A kind of which a recipe may have several sections, each with a name."""

    name: Name


class FilterConfig(NamedKind):
    """The base of every filter's config. Its fields `min_<column>` and `max_<column>` of type `Limit` are its bounds.

    A kind must answer `build`; what else its class does not state has the defaults here.
    """

    family: ClassVar[str] = "filter"

    cost: ClassVar[Cost] = Cost.TEXT
    reasons: ClassVar[Mapping[str, str]] = {}
    """Limit field → the sentence that a rejected row carries."""

    also: ClassVar[tuple[str, ...]] = ()
    """Columns of its scores and evidence that no limit can be on."""

    nullable: ClassVar[bool] = False
    """Whether it can score mismatched pairs, as a limit by false acceptance needs."""

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
    def columns(self) -> tuple[str, ...] | None:
        """Every column that it scores or keeps as evidence, each once; None: not known before it scored."""
        return tuple(dict.fromkeys((*(key[len("min_") :] for key in self.limit_fields()), *self.also)))

    @property
    def null_columns(self) -> tuple[str, ...]:
        """The columns whose limit is stated as a false-acceptance rate: each needs scores of mismatched pairs."""
        return tuple(bound.column for bound in self.bounds if bound.false_acceptance is not None)

    @property
    def asks(self) -> EngineConfig | None:
        """The engine that it asks; None: none, or none is named yet."""
        return None

    def with_engine(self, engine: EngineConfig) -> Self:
        """The config with this engine; a filter that asks none is returned unchanged."""
        return self

    @property
    def held(self) -> Mapping[str, EngineConfig | ScoringModelConfig]:
        """What its workers load: field → config of an engine or of a model that only scores."""
        fields = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: value for key, value in fields.items() if isinstance(value, EngineConfig | ScoringModelConfig)}

    @property
    def models(self) -> Mapping[str, str]:
        """The models that it loads: key under the filter → Hugging Face id, folder or embedded name."""
        return {f"{key}.model": config.model for key, config in self.held.items()}

    @property
    def redacts(self) -> bool:
        """Whether its column `redacted` replaces the output in the dataset, where it is not null."""
        return False

    @property
    def reads_earlier(self) -> bool:
        """Whether it reads an n-gram index of what the run's earlier rounds kept; `against` then names that index."""
        return False

    def against(self, index: str | None) -> Self:
        """The config for one round of a run: `index` is that of the earlier rounds, None if there are none."""
        return self

    def problems(self) -> list[str]:
        """Why it cannot be computed here (a missing file or library), one sentence each."""
        return []

    def scoring(self) -> dict[str, Any]:
        """What its scores depend on, as plain data: everything but limits, name and laziness."""
        return self.model_dump(mode="json", exclude={"name", "lazy", *self.limit_fields()})

    def serves(self, other: Self) -> bool:
        """Whether its scores are what `other`, of the same name, asks for: the same measure, rows and mismatched pairs."""
        if self.lazy and not other.lazy or type(self) is not type(other):
            return False
        if self.scoring() == other.scoring():
            return True
        # limits matter to scores only in that one by false acceptance asks for mismatched pairs, which may be there already
        as_here = other.model_copy(update={key: getattr(self, key) for key in other.limit_fields()})
        return self.scoring() == as_here.scoring() and set(other.null_columns) <= set(self.null_columns)

    @abstractmethod
    def build(self, engines: "Engines") -> Filter:
        """Return the filter, over engines and models that are asked of `engines`; raises LimbeckError if it cannot be built."""


class EngineFilterConfig(FilterConfig):
    """The base of filters that ask an engine (null: the teacher of round 0)."""

    cost: ClassVar[Cost] = Cost.MODEL

    engine: EngineConfig | None = None

    @property
    def asks(self) -> EngineConfig | None:
        """The engine, if one is named or filled in."""
        return self.engine

    def with_engine(self, engine: EngineConfig) -> Self:
        """The config with this engine."""
        return self.model_copy(update={"engine": engine})

    def loaded(self, engines: "Engines") -> Engine:
        """The engine, loaded; raises LimbeckError if none was named or filled in."""
        engine = self.named_engine()
        return engines.get(engine)

    def named_engine(self) -> EngineConfig:
        """The engine; raises LimbeckError if none was named or filled in."""
        if self.engine is None:
            raise LimbeckError(f"filter {self.name} has no engine; name one under `engine:`, or use a recipe that has a teacher")
        return self.engine


class SetFilterConfig(NamedKind):
    """The base of the configs of filters that judge survivors together. A kind must answer `build`."""

    family: ClassVar[str] = "set filter"

    @property
    def reads(self) -> Mapping[str, str]:
        """The score and evidence columns that it reads: field → `filter.column`."""
        return {}

    def problems(self) -> list[str]:
        """Why it cannot be computed here (a missing file), one sentence each."""
        return []

    def deciding(self) -> dict[str, Any]:
        """What its decisions depend on, as plain data."""
        return self.model_dump(mode="json")

    @abstractmethod
    def build(self) -> SetFilter:
        """Return the filter; raises LimbeckError if it cannot be built."""


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
