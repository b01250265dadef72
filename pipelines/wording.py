"""Sentences for values that a recipe cannot have: one per key, with the values that it can have."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from limbeck.corpus.config import nearest

EXPECTED = {
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
"""Error types of pydantic that say what kind of value was expected; several about one key are alternatives."""

LIMITS = {
    "greater_than": ("gt", "must be greater than {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than": ("lt", "must be less than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "too_short": ("min_length", "needs at least {} entry"),
    "string_too_short": ("min_length", "needs at least {} character"),
    "string_pattern_mismatch": ("pattern", "must match {}"),
}
"""Error types of pydantic about a limit: the key of its context with the limit, and our words."""

Path = tuple[str | int, ...]


def sentences(error: ValidationError, data: Any) -> list[str]:
    """One sentence per wrong key of `data`, as `path: what is expected (it is VALUE)`."""
    details: dict[Path, list[Any]] = {}
    for detail in error.errors():
        details.setdefault(_path(data, detail), []).append(detail)
    # a value that fits one alternative except for a key below it, and a list whose entries are wrong, is described by those
    above = {path[:length] for path in details for length in range(len(path))}
    worth = {path: found for path, found in details.items() if path not in above or not all(map(_about_shape, found))}
    return [f"{_shown(data, path)}{_said(found)}" for path, found in worth.items()]


def _path(data: Any, detail: Any) -> Path:
    """The keys and positions in `data` that lead to an error: pydantic also names alternatives, which recipes do not."""
    steps, node = [], data
    for step in detail["loc"]:
        if isinstance(node, Mapping) and step in node or isinstance(node, Sequence) and isinstance(step, int):
            steps.append(step)
            node = node[step]
    if detail["type"] == "missing":
        steps.append(detail["loc"][-1])
    return tuple(steps)


def _about_shape(detail: Any) -> bool:
    return detail["type"] in EXPECTED or detail["type"] in ("literal_error", "too_short")


def _shown(data: Any, path: Path) -> str:
    """The path as `--set` takes it, before a colon; a filter is called by its name if no other has it."""
    steps, node = [], data
    for step in path:
        steps.append(str(step))
        if isinstance(step, int) and path[0] in ("filters", "select"):
            names = [_name(entry) for entry in node]
            steps[-1] = (names.count(names[step]) == 1 and names[step]) or str(step)
        node = node[step] if isinstance(step, int) or step in node else None
    return ".".join(steps) + ": " if steps else ""


def _name(entry: Any) -> str | None:
    """The name of a filter's section."""
    name = entry.get("name", entry.get("kind")) if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else None


def _said(details: Sequence[Any]) -> str:
    """What is wrong with the value of one key; the alternatives of a union are joined."""
    details = [detail for detail in details if not _about_shape(detail)] or details
    given = details[0].get("input")
    value = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
    choices = list(dict.fromkeys(choice for detail in details for choice in _choices(detail)))
    if "a number" in choices and "an integer" in choices:
        choices.remove("an integer")
    if choices:
        near = nearest(given, [choice.strip("'") for choice in choices]) if isinstance(given, str) else None
        return f"expected {_either(choices)}{value}{f'; did you mean {near!r}?' if near else ''}"
    detail = details[0]
    if detail["type"] in LIMITS:
        key, words = LIMITS[detail["type"]]
        return words.format(detail["ctx"][key]) + value
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "union_tag_invalid":
        return _unknown_kind(str(detail["ctx"]["tag"]), str(detail["ctx"]["expected_tags"]).replace("'", "").split(", "))
    if detail["type"] == "union_tag_not_found":
        return "kind is missing; `limbeck schema` lists the kinds of every section"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return message if "unknown key" in message else f"{message}{value}"


def _unknown_kind(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f"unknown kind {name!r}; {f'did you mean {near!r}? ' if near else ''}known are {', '.join(known)}"


def _choices(detail: Any) -> list[str]:
    """The values, or kinds of value, that one alternative takes; empty if the error says something else."""
    if detail["type"] == "literal_error":
        return str(detail["ctx"]["expected"]).replace(" or ", ", ").split(", ")
    return [EXPECTED[detail["type"]]] if detail["type"] in EXPECTED else []


def _either(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
