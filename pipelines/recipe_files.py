"""Recipe files: shipped recipes by name, override files, and the recipe text stored in a run folder."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from limbeck.corpus.config import nearest
from limbeck.corpus.errors import LimbeckError

SHIPPED = Path(__file__).parent / "recipes"
"""Every shipped recipe is `NAME.yaml` here; its override called `toy` is `toy/NAME.yaml`."""


_MOST_VALUES = 100_000  # a recipe has hundreds; aliases of aliases multiply


class _Loader(yaml.SafeLoader):
    """YAML with three differences: 1e-3 is a number, as in YAML 1.2; a key that occurs twice is an error; aliases are bounded."""

    def construct_document(self, node: yaml.Node) -> Any:
        """The value of a document; raises ConstructorError if its aliases form a circle or stand for too many values."""
        if _values(node, {}) > _MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, f"its aliases stand for more than {_MOST_VALUES:,} values")
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; raises ConstructorError at the second occurrence of a key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _values(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node and all below it have, with every alias written out."""
    if node not in known:
        known[node] = 0  # until it is counted: who meets it now is below it
        below = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for entry in below for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[node] = 1 + sum(_values(part, known) for part in parts)
    elif not known[node]:
        raise yaml.constructor.ConstructorError(None, None, "an alias stands for what it is part of", node.start_mark)
    return known[node]


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Shipped:
    """A recipe that is installed with Limbeck; `description` is the comment in its first line."""

    name: str
    description: str
    path: Path
    overrides: tuple[str, ...]


def shipped() -> list[Shipped]:
    """All shipped recipes, sorted by name."""
    return [
        Shipped(path.stem, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# "), path, tuple(_overrides(path)))
        for path in sorted(SHIPPED.glob("*.yaml"))
    ]


def find(recipe: Path | str) -> Path:
    """Path of a recipe, given as a file or as the name of a shipped recipe; an existing file wins.

    Raises LimbeckError if it is neither.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    names = {found.name: found.path for found in shipped()}
    if str(recipe) in names:
        return names[str(recipe)]
    near = nearest(path.stem, names)
    hint = f"did you mean {near!r}? " if near else ""
    problem = "it is a folder" if path.is_dir() else "there is no such file"
    raise LimbeckError(
        f"cannot read the recipe {recipe}: {problem}; {hint}name a YAML file or a shipped recipe: {', '.join(names)} "
        "(`limbeck recipes` describes them)"
    )


def find_override(recipe: Path, override: Path | str) -> Path:
    """Path of an override, given as a file or as a name: `toy` is `toy/quickstart.yaml` beside `quickstart.yaml`.

    An existing file wins. Raises LimbeckError if it is neither.
    """
    path = Path(override)
    if path.is_file():
        return path
    beside = recipe.parent / path / recipe.name
    if len(path.parts) == 1 and not path.suffix and beside.is_file():
        return beside
    names = list(_overrides(recipe))
    near = nearest(str(override), names)
    hint = f"did you mean {near!r}? " if near else ""
    known = (
        f" or one of the overrides of {recipe.name}: {', '.join(names)}" if names else f"; {recipe.name} has no named overrides"
    )
    raise LimbeckError(f"--with {override}: there is no such file; {hint}name a YAML file{known}")


def read(recipe: Path, overrides: Sequence[Path] = ()) -> dict[str, Any]:
    """The plain data of a recipe file with override files merged into it, in order.

    A file may contain several YAML documents, which are merged in order too. Raises LimbeckError if a file cannot be read, is not
    YAML, or contains anything but mappings.
    """
    data: dict[str, Any] | None = None
    for document in (document for path in (recipe, *overrides) for document in _documents(path)):
        data = document if data is None else merge(data, document)
    if data is None:
        raise LimbeckError(f"{recipe} is empty; `limbeck schema` prints the keys of a recipe")
    return data


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Merge `override` into `base`: mappings key by key; everything else, including lists, is replaced.

    A mapping with a different `kind` replaces the other one completely, since their keys are unrelated.
    """
    merged = dict(base)
    for key, value in override.items():
        below = base.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and not _differ(below.get("kind"), value.get("kind")):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _differ(kind: Any, other: Any) -> bool:
    return kind is not None and other is not None and kind != other


def parse(text: str, where: str) -> Any:
    """The value of a YAML text; raises LimbeckError, which begins with `where`, if it is not YAML."""
    with _readable(where):
        return yaml.load(text, _Loader)


def as_given(recipe: Path, overrides: Sequence[Path] = (), settings: Sequence[str] = ()) -> str:
    """The text stored in a run folder: the recipe file, then each override file as another YAML document.

    It is a valid recipe; `--set` options are appended as comments.
    """
    text = _text(recipe)
    for path in overrides:
        text = f"{text.rstrip()}\n---\n# --with {path}\n{_text(path)}"
    for setting in settings:
        text = f"{text.rstrip()}\n# --set {setting}\n"
    return text


def copy(name: str, folder: Path) -> list[Path]:
    """Copy a shipped recipe and its overrides into a folder; returns the files written.

    Raises LimbeckError if there is no such recipe, or if one of the files already exists.
    """
    known = {recipe.name: recipe for recipe in shipped()}
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}? " if near else ""
        raise LimbeckError(f"there is no shipped recipe {name!r}; {hint}known recipes: {', '.join(known)}")
    recipe = known[name]
    sources = [recipe.path, *(SHIPPED / override / recipe.path.name for override in recipe.overrides)]
    targets = [folder / source.relative_to(SHIPPED) for source in sources]
    for target in targets:
        if target.exists():
            raise LimbeckError(f"{target} already exists; copy into another folder, or remove it")
    for source, target in zip(sources, targets, strict=True):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:  # fails if another process has copied it meanwhile
                file.write(source.read_bytes())
        except OSError as error:
            raise LimbeckError(f"cannot write {target}: {error.strerror}; copy into another folder") from error
    return targets


def _overrides(recipe: Path) -> Iterator[str]:
    """Names of the overrides stored beside a recipe."""
    return (path.parent.name for path in sorted(recipe.parent.glob(f"*/{recipe.name}")) if path.is_file())


def _documents(path: Path) -> list[dict[str, Any]]:
    text = _text(path)
    with _readable(str(path)):
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    for document in documents:
        if not isinstance(document, dict):
            raise LimbeckError(f"{path} is not a recipe: expected a mapping; `limbeck schema` prints its keys")
    return documents


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        raise LimbeckError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise LimbeckError(f"{where} is nested too deeply for a recipe; write fewer levels") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8; convert it"
        raise LimbeckError(f"cannot read the recipe {path}: {reason}") from error
