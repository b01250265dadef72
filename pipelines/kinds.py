"""Kinds of Limbeck and of installed packages, which add them through the entry point group `limbeck.kinds`."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from limbeck import __version__
from limbeck.cluster.engines.config import EngineConfig
from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.kinds import Kind, kinds_in
from limbeck.filters.config import FilterConfig, SetFilterConfig
from limbeck.generators.contract import GeneratorConfig
from limbeck.students.contract import StudentConfig

GROUP = "limbeck.kinds"
FAMILIES: tuple[type[Kind], ...] = (GeneratorConfig, FilterConfig, SetFilterConfig, EngineConfig, StudentConfig)
_PACKAGES: dict[type[Kind], "Package"] = {}


@dataclass(frozen=True)
class Package:
    """An installed distribution."""

    name: str
    version: str

    def __str__(self) -> str:
        """Name and version, as printed by pip."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class KnownKind:
    """A kind as `limbeck schema --kinds` lists it."""

    family: str
    kind: str
    origin: str
    description: str


def add_installed_kinds() -> None:
    """Add the kinds of installed packages to their families.

    An entry point's value is `module:class`, the config class of a generator, filter, set filter, engine or student. Raises
    LimbeckError, naming the package, if one cannot be imported, is not such a class, or has a name that is taken.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: (str(point.dist and point.dist.name), point.name)):
        package = Package(point.dist.name, point.dist.version) if point.dist else Package(point.module, "(no version)")
        kind = _loaded(point, package)
        taken = kind.kinds.get(kind.kind_name(), kind)
        if taken is not kind:
            raise LimbeckError(
                f"package {package}: its {kind.family} kind {kind.kind_name()!r} is already defined by {origin_of(taken)}; "
                "uninstall the package, or ask its author to rename the kind"
            )
        kind.add(kind)
        _PACKAGES[kind] = package


def _loaded(point: EntryPoint, package: Package) -> type[Kind]:
    where = f"package {package}: its entry point {point.name!r} of {GROUP} ({point.value})"
    try:
        found = point.load()
    except Exception as error:  # importing a third-party module may raise anything
        words = " ".join(str(error).split())[:300]
        raise LimbeckError(
            f"{where} cannot be imported ({type(error).__name__}: {words}); upgrade or uninstall the package"
        ) from error
    if not (inspect.isclass(found) and issubclass(found, FAMILIES) and found not in FAMILIES):
        bases = ", ".join(f"{family.__module__}.{family.__name__}" for family in FAMILIES)
        raise LimbeckError(f"{where} is not a class derived from one of {bases}; upgrade or uninstall the package")
    if not isinstance(found.model_fields["kind"].default, str):
        raise LimbeckError(f"{where} does not name its kind: it needs a field like `kind: Literal['mine'] = 'mine'`")
    return found


def origin_of(kind: type[Kind]) -> str:
    """The package that a kind comes from, with its version."""
    return str(_PACKAGES.get(kind, Package("limbeck", __version__)))


def packages_of(sections: Iterable[Config]) -> dict[str, str]:
    """Name → version of each installed package whose kinds these sections of a recipe use, without Limbeck."""
    found = {_PACKAGES[type(kind)] for section in sections for kind in kinds_in(section) if type(kind) in _PACKAGES}
    return {package.name: package.version for package in sorted(found, key=str)}


def known_kinds() -> list[KnownKind]:
    """Every kind, by family and name."""
    return [
        KnownKind(family.family, name, origin_of(kind), (kind.__doc__ or "").strip().partition("\n")[0])
        for family in FAMILIES
        for name, kind in sorted(family.kinds.items())
    ]
