"""User-defined filters: adapters that give an object with the `Filter` or `SetFilter` interface a config."""

from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import ConfigDict, Field, SkipValidation

from limbeck.cluster.engines.model_cache import Engines
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
    """Wrap a user-defined filter in a config; configs are returned unchanged."""
    return filter_ if isinstance(filter_, FilterConfig) else OwnFilter(name=filter_.name, filter=filter_)


def own_set_filter(filter_: SetFilterConfig | SetFilter) -> SetFilterConfig:
    """Wrap a user-defined set-wise filter in a config; configs are returned unchanged."""
    return filter_ if isinstance(filter_, SetFilterConfig) else OwnSetFilter(name=filter_.name, filter=filter_)


def class_name(object_: object) -> str:
    """The fully qualified class name of an object."""
    return f"{type(object_).__module__}.{type(object_).__qualname__}"
