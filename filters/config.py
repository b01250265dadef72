"""Filter configs: bounds, rejection reasons, cost, and what the scores depend on."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from limbeck.cluster.engines.contract import EngineConfig, ScoringModelConfig
from limbeck.cluster.engines.protocol import Engine
from limbeck.corpus.config import NAME, Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.kinds import Kind
from limbeck.corpus.source_kinds import RowText
from limbeck.filters.columns import Range
from limbeck.filters.contract import Bound, Filter, SetFilter

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines


class FalseAcceptance(Config):
    """A bound given as the share of mismatched pairs that may pass it, fitted once to the scores of such pairs."""

    false_acceptance: float = Field(gt=0, lt=1)


Limit = float | Literal["calibrated"] | FalseAcceptance | None
"""A number; `calibrated`: fitted once, on the train candidates of round 0; `{false_acceptance: 0.01}`: fitted once, on each
candidate's score against another document (the column `<column>_null`); null: the score is measured but rejects nothing."""


Nulls = Literal["none", "some", "all"]
"""Which candidates are also scored as mismatched pairs, their output with another document (`corpus.other_documents`)."""

Name = Annotated[str, Field(pattern=f"^{NAME}$")]
"""A filter's name; it is part of folder, view and column names."""


class Cost(IntEnum):
    """Order of magnitude of the cost per row; cheap filters run first."""

    TEXT = 0  # reads the text only
    INDEX = 1  # n-gram index lookups
    ENCODER = 2  # a sentence encoder's forward pass
    MODEL = 3  # forward passes of a language model or classifier
    GENERATION = 4  # a language model generates text


@dataclass(frozen=True)
class Probing:
    """The self-test of a filter whose judgement is a model's: whether it tells outputs from corrupted ones.

    `pairs`: how many are drawn per corruption; 0: none, and `off` says why. `by`: whether its answers or its scores decide.
    `texts`: how many prompts it is asked per pair, for the estimate.
    """

    pairs: int
    by: Literal["answers", "scores"]
    texts: int
    off: str | None = None


@dataclass(frozen=True)
class PerSource:
    """The candidates of one source at most, for the estimate: how many, and of how many distinct texts, inputs included.

    `input_tokens` and `output_tokens` are those of one input and of one output.
    """

    candidates: int
    texts: int
    input_tokens: int
    output_tokens: int


class NamedKind(Kind):
    """A kind that a recipe may have several named sections of."""

    name: Name


class FilterConfig(NamedKind):
    """Base class of filter configs. Its fields `min_<column>` and `max_<column>` of type `Limit` are its bounds.

    Subclasses must implement `build`; everything else has a default.
    """

    family: ClassVar[str] = "filter"

    cost: ClassVar[Cost] = Cost.TEXT
    reasons: ClassVar[Mapping[str, str]] = {}
    """Bound field → the reason recorded for a rejected row."""

    also: ClassVar[tuple[str, ...]] = ()
    """Score and evidence columns that cannot have a bound."""

    nullable: ClassVar[bool] = False
    """Whether it can score mismatched pairs, which a bound by false acceptance needs."""

    unrelated: ClassVar[tuple[str, ...]] = ()
    """The bound fields that are meant to reject mismatched pairs: a run checks that they do."""

    lazy: bool = Field(False, description="skip rows that a cheaper filter already rejects (null scores; see `skipped_by`)")

    @model_validator(mode="after")
    def _some_score_passes(self) -> Self:
        limits = {key: getattr(self, key) for key in type(self).limit_fields()}
        for key, limit in limits.items():
            if not isinstance(limit, float):
                continue
            side, column = key[: len("min_")], key[len("min_") :]
            lowest, highest = self.ranges.get(column, (-math.inf, math.inf))
            if side == "min_" and limit > highest:
                raise ValueError(f"{key} is {limit:g}, but {column} is {highest:g} at most, so it rejects every row; lower it")
            if side == "max_" and limit < lowest:
                raise ValueError(f"{key} is {limit:g}, but {column} is {lowest:g} at least, so it rejects every row; raise it")
            most = limits.get(f"max_{column}")
            if side == "min_" and isinstance(most, float) and limit > most:
                raise ValueError(f"{key} {limit:g} is above max_{column} {most:g}, so they reject every row; change one of them")
        return self

    @classmethod
    def limit_fields(cls) -> list[str]:
        """The bound fields, in the order in which they are applied."""
        return [key for key, field in cls.model_fields.items() if key.startswith(("min_", "max_")) and field.annotation == Limit]

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The bounds as selection applies them; null fields are left out."""
        found = (_bound(key, getattr(self, key), self.reasons.get(key, "")) for key in self.limit_fields())
        return tuple(bound for bound in found if bound is not None)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Every score and evidence column, without repeats; None if not known before scoring."""
        return tuple(dict.fromkeys((*(key[len("min_") :] for key in self.limit_fields()), *self.also)))

    @property
    def ranges(self) -> Mapping[str, Range]:
        """The lowest and highest possible score of the columns that have one: a bound beyond it is refused."""
        return {}

    @property
    def texts(self) -> Mapping[str, RowText]:
        """The columns whose score is NaN, or the lowest there is, for outputs of rows without that text: column → text."""
        return {}

    @property
    def requires(self) -> Mapping[str, RowText]:
        """The texts without which a bound rejects every row: bound field → text."""
        fields = {key: key[len("min_") :] for key in self.limit_fields() if getattr(self, key) is not None}
        return {key: self.texts[column] for key, column in fields.items() if column in self.texts}

    @property
    def null_columns(self) -> tuple[str, ...]:
        """The columns with a bound by false acceptance; these need scores of mismatched pairs."""
        return tuple(bound.column for bound in self.bounds if bound.false_acceptance is not None)

    @property
    def nulls(self) -> Nulls:
        """All for a bound by false acceptance; some, enough to check it, for a calibrated bound that should reject them."""
        if not self.nullable:
            return "none"
        calibrated = any(bound.calibrate is not None for bound in self.rejecting_mismatched)
        return "all" if self.null_columns else "some" if calibrated else "none"

    @property
    def others(self) -> int:
        """How many other documents of the split every candidate is compared with, as the column `other_documents`; 0: none."""
        return 0

    @property
    def rejecting_mismatched(self) -> tuple[Bound, ...]:
        """The bounds that are meant to reject mismatched pairs: those of `unrelated`, and those by false acceptance."""
        chosen = {key: getattr(self, key) for key in self.limit_fields()}
        found = (_bound(k, v, "") for k, v in chosen.items() if k in self.unrelated or isinstance(v, FalseAcceptance))
        return tuple(bound for bound in found if bound is not None)

    @property
    def probing(self) -> Probing | None:
        """How a run tests it on true and corrupted outputs; None: it has no such test. Otherwise it builds a `ProbedFilter`."""
        return None

    @property
    def asks(self) -> EngineConfig | None:
        """The engine that it calls; None if it needs none or none is set yet."""
        return None

    def with_engine(self, engine: EngineConfig) -> Self:
        """A copy that uses this engine; returned unchanged if the filter needs none."""
        return self

    @property
    def held(self) -> Mapping[str, EngineConfig | ScoringModelConfig]:
        """What its workers load: field → config of an engine or scoring model."""
        fields = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: value for key, value in fields.items() if isinstance(value, EngineConfig | ScoringModelConfig)}

    @property
    def models(self) -> Mapping[str, str]:
        """The models that it loads: key under the filter → Hugging Face id, folder or embedded name."""
        return {f"{key}.model": config.model for key, config in self.held.items()}

    @property
    def redacts(self) -> bool:
        """Whether its column `redacted`, when not null, replaces the output in the dataset."""
        return False

    @property
    def reads_earlier(self) -> bool:
        """Whether it reads an n-gram index of the candidates kept in earlier rounds; `against` sets that index."""
        return False

    def against(self, index: str | None) -> Self:
        """The config for one round: `index` is the index of the earlier rounds, None in the first round."""
        return self

    def nli_pairs(self, source: PerSource) -> int:
        """How many pairs of texts its natural-language-inference model reads of one source at most; 0: it has no such model."""
        return 0

    def problems(self) -> list[str]:
        """Reasons why it cannot run here (such as a missing file or library), one sentence each."""
        return []

    def scoring(self) -> dict[str, Any]:
        """What its scores depend on, as plain data: every field except the bounds, `name`, `lazy` and operational keys."""
        return self.determining(exclude=("name", "lazy", *self.limit_fields()))

    def serves(self, other: Self) -> bool:
        """Whether its scores can be reused for `other`, of the same name: same measure, rows and mismatched pairs."""
        if self.lazy and not other.lazy or type(self) is not type(other):
            return False
        if self.scoring() == other.scoring():
            return True
        # a bound affects the scores only if it is by false acceptance, which adds mismatched pairs; these may exist already
        as_here = other.model_copy(update={key: getattr(self, key) for key in other.limit_fields()})
        return self.scoring() == as_here.scoring() and set(other.null_columns) <= set(self.null_columns)

    @abstractmethod
    def build(self, engines: "Engines") -> Filter:
        """Return the filter, with engines and models from `engines`; raises LimbeckError if it cannot be built."""


class EngineFilterConfig(FilterConfig):
    """Base class of filters that call an engine (null: the round-0 teacher)."""

    cost: ClassVar[Cost] = Cost.MODEL

    engine: EngineConfig | None = None

    @property
    def asks(self) -> EngineConfig | None:
        """The engine, if set."""
        return self.engine

    def with_engine(self, engine: EngineConfig) -> Self:
        """A copy that uses this engine."""
        return self.model_copy(update={"engine": engine})

    def loaded(self, engines: "Engines") -> Engine:
        """The loaded engine; raises LimbeckError if none is set."""
        engine = self.named_engine()
        return engines.get(engine)

    def named_engine(self) -> EngineConfig:
        """The engine; raises LimbeckError if none is set."""
        if self.engine is None:
            raise LimbeckError(f"filter {self.name} has no engine; name one under `engine:`, or use a recipe that has a teacher")
        return self.engine


class SetFilterConfig(NamedKind):
    """Base class of set-wise filter configs; these compare survivors with each other. Subclasses must implement `build`."""

    family: ClassVar[str] = "set filter"

    also_rejected: ClassVar[bool] = False
    """Whether `select` is also given candidates that are rejected already, as `SetFilter.select` describes."""

    rounds: Literal["all", "first", "later"] = Field(
        "all", description="first: in round 0 alone; later: from round 1 on, for a recipe whose `later` generator differs"
    )

    def applies_to(self, number: int) -> bool:
        """Whether it selects in a round."""
        return self.rounds == "all" or (self.rounds == "first") == (number == 0)

    @property
    def reads(self) -> Mapping[str, str]:
        """The score and evidence columns that it reads: field → `filter.column`."""
        return {}

    @property
    def requires(self) -> Mapping[str, RowText]:
        """The texts without which it drops every row: what needs it (a field, or the kind) → text."""
        return {}

    @property
    def least_samples(self) -> int:
        """How many candidates a source must have so that it can keep any of them."""
        return 1

    @property
    def needs(self) -> frozenset[str] | None:
        """All columns that `select` reads of the survivors, beside candidate_id, source_id and sample; None: every column.

        Columns that are not needed are not read into memory.
        """
        return None

    def problems(self) -> list[str]:
        """Reasons why it cannot run here (such as a missing file), one sentence each."""
        return []

    def deciding(self) -> dict[str, Any]:
        """What its decisions depend on, as plain data."""
        return self.determining()

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
