"""Input rows that are more than a document: seed tasks, labelled rows and conversations, from tables of any format.

A row that does not have the form of its kind carries a reason; a column that no row of a file has is an error.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.markup.cleaning import clean_text
from limbeck.corpus.readers import RawRow, text_row
from limbeck.corpus.tables import Table, plain

VARY = "vary"
"""The key of a record that holds what `vary` drew."""

CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
_ROLES = {
    "system": "system",
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
}


class _Unfit(Exception):
    """Why a row does not have the form of its kind."""


def read_seeds(tables: Iterable[Table]) -> Iterator[RawRow]:
    """Yield one row per seed task: `instruction`, and optionally `input` and `output` (or Self-Instruct's `instances`).

    The text is the instruction and, after a blank line, the input; the reference is the output. In the record, `input` and
    `output` are always there ("" if the task has none); of several instances they are the first.
    """
    return _rows(tables, ["instruction"], _seed)


def read_labelled(tables: Iterable[Table], document_column: str | None, reference_column: str | None) -> Iterator[RawRow]:
    """Yield one row per table row, with all its columns; without `document_column` it has no text."""

    def labelled(origin: str, record: Mapping[str, Any]) -> RawRow:
        reference = record.get(reference_column) if reference_column else None
        if isinstance(reference, bool | int | float):
            reference = json.dumps(reference)  # a class number
        if document_column is None:
            row = text_row(origin, "", reference)
            reason = None if row.reason == "empty" else row.reason
            return RawRow(origin, "", row.reference, reason, record)
        if document_column not in record:
            raise _Unfit(f"no {document_column!r}")
        row = text_row(origin, record[document_column], reference)
        return RawRow(origin, row.text, row.reference, row.reason, record)

    return _rows(tables, [column for column in (document_column, reference_column) if column], labelled)


def read_conversations(tables: Iterable[Table], column: str | None) -> Iterator[RawRow]:
    """Yield one row per conversation; the text is its first user turn.

    `column` None: the first of `CONVERSATION_COLUMNS` that a row has. In the record the turns are under `messages`, as a list of
    {role, content} with the roles system, user and assistant, in place of the column that they came from. A conversation has at
    most one system turn, in front; then user and assistant turns alternate, beginning with the user's.
    """
    columns = (column,) if column else CONVERSATION_COLUMNS

    def conversation(origin: str, record: Mapping[str, Any]) -> RawRow:
        found = next((name for name in columns if record.get(name) is not None), None)
        if found is None:
            raise _Unfit(f"no {next((name for name in columns if name in record), columns[0])!r}")
        messages = _messages(record[found])
        text = next(message["content"] for message in messages if message["role"] == "user")
        others = {name: value for name, value in record.items() if name != found}
        return RawRow(origin, clean_text(text), record={**others, "messages": messages})

    return _rows(tables, columns[:1], conversation, columns)


def _rows(
    tables: Iterable[Table],
    needed: Sequence[str],
    make: Callable[[str, Mapping[str, Any]], RawRow],
    alternatives: Sequence[str] = (),
) -> Iterator[RawRow]:
    """Make an input row of each table row; raises LimbeckError if all rows of a table lack a needed column and `alternatives`."""
    for table in tables:
        for row in map(plain, table.rows_with(needed, alternatives)):
            if row.reason is not None:
                yield RawRow(row.origin, "", reason=row.reason)
                continue
            if VARY in row.record:
                raise LimbeckError(f"{table.where} has a column {VARY!r}, a name reserved for drawn values; rename the column")
            try:
                yield make(row.origin, row.record)
            except _Unfit as unfit:
                yield RawRow(row.origin, "", reason=str(unfit), record=row.record)


def _seed(origin: str, record: Mapping[str, Any]) -> RawRow:
    if "instruction" not in record:
        raise _Unfit("no 'instruction'")
    given = dict(record)
    if record.get("instances") is not None and record.get("input") is None and record.get("output") is None:
        given |= _first_instance(record["instances"])
    task = {}
    for column in ("instruction", "input", "output"):
        value = given.get(column)
        if value is not None and not isinstance(value, str):
            raise _Unfit(f"{column} is not a text but a {type(value).__name__}")
        task[column] = value or ""
    if not (instruction := clean_text(task["instruction"])):
        raise _Unfit("empty instruction")
    text = "\n\n".join(part for part in (instruction, clean_text(task["input"])) if part)
    return RawRow(origin, text, clean_text(task["output"]) or None, record={**given, **task})


def _first_instance(instances: Any) -> dict[str, Any]:
    if not isinstance(instances, list) or not instances or not all(isinstance(instance, dict) for instance in instances):
        raise _Unfit("instances is not a list of {input, output}")
    return {column: instances[0].get(column) for column in ("input", "output")}


def _messages(turns: Any) -> list[dict[str, str]]:
    """The turns of a conversation as {role, content}."""
    if not isinstance(turns, list) or not turns:
        raise _Unfit("malformed conversation: it is not a list of turns" if turns else "malformed conversation: it has no turns")
    messages = [_message(number, turn) for number, turn in enumerate(turns, 1)]
    roles = [message["role"] for message in messages]
    first = 1 if roles[0] == "system" else 0
    for place, role in enumerate(roles[first:]):
        if role != ("user", "assistant")[place % 2]:
            raise _Unfit(f"malformed conversation: turn {first + place + 1} is the {role}'s, out of turn")
    if len(roles) == first:
        raise _Unfit("malformed conversation: it has no user turn")
    return messages


def _message(number: int, turn: Any) -> dict[str, str]:
    where = f"malformed conversation: turn {number}"
    if not isinstance(turn, dict):
        raise _Unfit(f"{where} is not an object")
    role = turn.get("role") if turn.get("role") is not None else turn.get("from")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise _Unfit(f"{where} has no role" if role is None else f"{where} has an unknown role {role!r}")
    if not isinstance(content, str) or not clean_text(content):
        raise _Unfit(f"{where} has no text")
    return {"role": _ROLES[role.lower()], "content": content}
