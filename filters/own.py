"""User-defined filters: adapters that give an object with the `Filter` or `SetFilter` interface a config."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import ConfigDict, Field, SkipValidation

from limbeck.cluster.engines.model_cache import Engines
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.config import Cost, FilterConfig, SetFilterConfig
from limbeck.filters.contract import Bound, Filter, SetFilter


@runtime_checkable
class LoadingFilter(Protocol):
    """A user-defined filter that loads something before it scores."""

    def build(self, engines: Engines) -> Filter:
        """Return the loaded filter."""
        ...


class OwnFilter(FilterConfig):
    """A user-defined filter object. It is sent to the workers, so it must be picklable."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    cost: ClassVar[Cost] = Cost.MODEL  # unknown, so run it after the cheap ones

    kind: Literal["own"] = "own"
    name: str
    filter: SkipValidation[Any] = Field(exclude=True)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The object's own bounds."""
        return tuple(self.filter.bounds)

    @property
    def rejecting_mismatched(self) -> tuple[Bound, ...]:
        """All: those with a column `<column>_null` among the scores are checked."""
        return self.bounds

    @property
    def columns(self) -> None:
        """Not known before scoring."""
        return None

    def scoring(self) -> dict[str, Any]:
        """Only the object's class is known."""
        return {"class": class_name(self.filter)}

    def build(self, engines: Engines) -> Filter:
        """Return the object, or the result of its `build(engines)` if it has one, which loads models on the worker."""
        built: Filter = self.filter.build(engines) if isinstance(self.filter, LoadingFilter) else self.filter
        return built


class RecordedFilter(FilterConfig):
    """A filter object of a finished stage: its scores are stored and its bounds known, but it cannot score anything else."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: Literal["recorded"] = "recorded"
    name: str
    recorded: SkipValidation[tuple[Bound, ...]]
    data: Mapping[str, Any]

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The recorded bounds."""
        return self.recorded

    @property
    def columns(self) -> None:
        """Not recorded."""
        return None

    def scoring(self) -> dict[str, Any]:
        """What was recorded about the object."""
        return dict(self.data)

    def build(self, engines: Engines) -> Filter:
        """Raise LimbeckError, since the object itself is not stored."""
        raise LimbeckError(f"filter {self.name} was passed to the run as an object, which is not stored; run it again in Python")


class OwnSetFilter(SetFilterConfig):
    """A user-defined set-wise filter object."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    kind: Literal["own"] = "own"
    name: str
    filter: SkipValidation[Any] = Field(exclude=True)

    def deciding(self) -> dict[str, Any]:
        """Its class and attributes."""
        state = {key: repr(value) for key, value in sorted(vars(self.filter).items())}
        return {"class": class_name(self.filter), **state}

    def build(self) -> SetFilter:
        """Return the object."""
        built: SetFilter = self.filter
        return built


def own_filter(filter_: FilterConfig | Filter) -> FilterConfig:
    """Wrap a user-defined filter in a config; configs are returned unchanged. Raises LimbeckError if it is not a filter."""
    if isinstance(filter_, FilterConfig):
        return filter_
    _check(filter_, {"name": str, "bounds": Sequence})
    if strange := [bound for bound in filter_.bounds if not isinstance(bound, Bound)]:
        raise LimbeckError(f"bounds of the filter {filter_.name!r} holds {strange[0]!r}, which is not a Bound")
    return OwnFilter(name=filter_.name, filter=filter_)


def own_set_filter(filter_: SetFilterConfig | SetFilter) -> SetFilterConfig:
    """Wrap a user-defined set filter in a config; configs are returned unchanged. Raises LimbeckError if it is not one."""
    if isinstance(filter_, SetFilterConfig):
        return filter_
    _check(filter_, {"name": str})
    return OwnSetFilter(name=filter_.name, filter=filter_)


def _check(filter_: object, attributes: Mapping[str, type]) -> None:
    """Raise LimbeckError if an attribute is missing or of another type, or the name is not usable as a folder."""
    known = dict(inspect.getmembers(filter_))
    for name, kind in attributes.items():
        if name not in known:
            raise LimbeckError(f"the filter {class_name(filter_)} has no attribute {name!r}; see limbeck.filters.contract")
        if not isinstance(known[name], kind):
            raise LimbeckError(f"{name} of the filter {class_name(filter_)} is {known[name]!r}; it must be a {kind.__name__}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", known["name"]):
        raise LimbeckError(f"the filter name {known['name']!r} is not usable as a folder; use letters, digits, '.', '_' and '-'")


def class_name(object_: object) -> str:
    """The fully qualified class name of an object."""
    return f"{type(object_).__module__}.{type(object_).__qualname__}"
