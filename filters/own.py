"""User-defined filters: any object that satisfies `Filter` or `SetFilter`, wrapped once so that it answers like a config."""

from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import ConfigDict, Field, SkipValidation

from limbeck.cluster.engines.model_cache import Engines
from limbeck.filters.config import Cost, FilterConfig, SetFilterConfig
from limbeck.filters.contract import Bound, Filter, SetFilter


@runtime_checkable
class LoadingFilter(Protocol):
    """A user's filter that loads something before it scores."""

    def build(self, engines: Engines) -> Filter:
        """Return the filter, ready to score."""
        ...


class OwnFilter(FilterConfig):
    """A user's filter object. It travels to the workers as it is, so it must be picklable."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    cost: ClassVar[Cost] = Cost.MODEL  # unknown, so it is computed after the cheap ones

    kind: Literal["own"] = "own"
    name: str
    filter: SkipValidation[Any] = Field(exclude=True)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """As the object states them."""
        return tuple(self.filter.bounds)

    @property
    def columns(self) -> None:
        """Not known before it scored."""
        return None

    def scoring(self) -> dict[str, Any]:
        """Nothing but the class is known of what its scores depend on."""
        return {"class": class_name(self.filter)}

    def build(self, engines: Engines) -> Filter:
        """Return the object, or what its own `build(engines)` returns if it has one: models are loaded there, on the worker."""
        built: Filter = self.filter.build(engines) if isinstance(self.filter, LoadingFilter) else self.filter
        return built


class OwnSetFilter(SetFilterConfig):
    """A user's set-wise filter object."""

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
    """A config as it is, or a user's object as a config."""
    return filter_ if isinstance(filter_, FilterConfig) else OwnFilter(name=filter_.name, filter=filter_)


def own_set_filter(filter_: SetFilterConfig | SetFilter) -> SetFilterConfig:
    """A config as it is, or a user's object as a config."""
    return filter_ if isinstance(filter_, SetFilterConfig) else OwnSetFilter(name=filter_.name, filter=filter_)


def class_name(object_: object) -> str:
    """The full name of an object's class."""
    return f"{type(object_).__module__}.{type(object_).__qualname__}"
