"""Families of kinds: sections of a recipe whose key `kind` chooses one of several configs.

A family is a base class that names itself (`family`); a field annotated with it takes any kind that the family knows. Kinds are
added explicitly: Limbeck's own in one list per family, those of installed packages through the entry point group `limbeck.kinds`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from limbeck.corpus.config import Config, nearest
from limbeck.corpus.errors import LimbeckError


class Kind(Config):
    """The base of every config that is chosen by `kind`; a direct subclass that sets `family` is the base of a family."""

    family: ClassVar[str] = ""
    """What one of the family is called: "filter", "engine", ..."""

    kinds: ClassVar[dict[str, type["Kind"]]] = {}
    """The kinds of the family by name."""

    default_kind: ClassVar[str | None] = None
    """The kind of a section without the key `kind`; None: it must be written."""

    semantics: ClassVar[int] = 1
    """Raised when the same section gives other results than before."""

    kind: str

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Give each family a list of its own."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls._is_family():
            cls.kinds = {}

    @classmethod
    def add(cls, *kinds: type["Kind"]) -> None:
        """Add kinds to the family; raises LimbeckError if one of that name is there already."""
        for added in kinds:
            name = added.kind_name()
            known = cls.kinds.setdefault(name, added)
            if known is not added:
                raise LimbeckError(f"the {cls.family} kind {name!r} is defined by {_where(known)} and by {_where(added)}")

    @classmethod
    def kind_name(cls) -> str:
        """The name by which a recipe chooses this kind."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def _is_family(cls) -> bool:
        return bool(vars(cls).get("family"))

    @classmethod
    def _chosen(cls, section: Any) -> Self:
        """The section as the kind that it names."""
        if isinstance(section, cls):
            return section
        if not isinstance(section, Mapping):
            raise ValueError(f"expected a mapping with the settings of one {cls.family}")
        name = section.get("kind", cls.default_kind)
        if name is None:
            raise ValueError(f"kind is missing; set it to one of {', '.join(sorted(cls.kinds))}")
        if not isinstance(name, str) or name not in cls.kinds:
            near = nearest(str(name), cls.kinds)
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(cls.kinds))}"
            raise ValueError(f"unknown {cls.family} kind {name!r}; {hint}")
        chosen: Any = cls.kinds[name].model_validate(section)
        return chosen  # type: ignore[no-any-return]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A family takes whatever its kinds take, at the time of validation; errors carry no name of a kind in their path."""
        if not cls._is_family():
            return handler(source)
        by_its_own_type = core_schema.simple_ser_schema("any")
        return core_schema.no_info_plain_validator_function(cls._chosen, serialization=by_its_own_type)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A family is one of its kinds, selected by `kind`."""
        if not cls._is_family():
            return handler(schema)
        members = {name: kind.__pydantic_core_schema__ for name, kind in sorted(cls.kinds.items())}
        return handler(core_schema.tagged_union_schema(members, "kind"))


def kinds_in(section: Any) -> Iterator[Kind]:
    """Every config with a `kind` in a section of a recipe, itself included."""
    if isinstance(section, Kind):
        yield section
    if isinstance(section, Config):
        for key in type(section).model_fields:
            yield from kinds_in(getattr(section, key))
    elif isinstance(section, tuple):
        for entry in section:
            yield from kinds_in(entry)


def _where(kind: type[Kind]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
