"""Seed texts and seed tasks from files: what counts as accepted from the start.

A path that begins with `limbeck:` is a file that is installed with Limbeck: `limbeck:generators/self_instruct/seed_tasks.jsonl`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import limbeck
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import InputFile, format_by_name, format_of, text_of
from limbeck.corpus.markup.cleaning import clean_text
from limbeck.corpus.readers import read_documents
from limbeck.corpus.records import read_seeds
from limbeck.corpus.tables import open_table, open_tables

INSTALLED = "limbeck:"


def installed_path(path: str) -> Path:
    """The file that a path of a recipe names: below the installed package if it begins with `limbeck:`."""
    if path.startswith(INSTALLED):
        return Path(limbeck.__file__).parent / path.removeprefix(INSTALLED)
    return Path(path).expanduser()


def read_seed_tasks(path: str) -> list[dict[str, Any]]:
    """The records of a file of seed tasks: `instruction`, `input`, `output` (of the first instance), and all other columns.

    Raises LimbeckError if the file is missing, or a row is not a task.
    """
    file = installed_path(path)
    if not file.is_file():
        raise LimbeckError(f"no such file of seed tasks: {path}; correct the path (it is relative to the folder you run in)")
    records = []
    for row in list(read_seeds(open_tables(str(file)))):
        if row.reason is not None or row.record is None:
            raise LimbeckError(f"{row.origin} of the seed tasks {path}: {row.reason}; fix or delete the line")
        records.append(dict(row.record))
    return records


def pool_problems(paths: Sequence[str]) -> list[str]:
    """Problems of the paths, one sentence each; the files are not opened."""
    problems = []
    for path in paths:
        file = installed_path(path)
        if not file.is_file():
            problems.append(f"no such pool file: {path}; correct the path (it is relative to the folder you run in)")
        elif format_by_name(file) not in ("text", "JSON"):
            problems.append(f"the pool file {path} is neither .txt (one text per line) nor .jsonl; convert or rename it")
    return problems


def read_pool(paths: Sequence[str], column: str) -> list[tuple[str, str]]:
    """The (`file:line`, text) of every line of text files and of every `column` of JSON; blank lines are skipped.

    Raises LimbeckError if a file is missing or of another kind, or a line holds no text.
    """
    for problem in pool_problems(paths):
        raise LimbeckError(problem)
    return [row for path in paths for row in _read(installed_path(path), column)]


def _read(file: Path, column: str) -> Iterator[tuple[str, str]]:
    form = format_of(file, "text")
    if form != "text":
        table = open_table(InputFile(file, file.name), form, columns=[column])
        for row in list(read_documents([table], column, None)):  # read to the end first, so that the error lists the columns
            if row.reason is not None:
                raise LimbeckError(f"{row.origin} of the pool file {file}: {row.reason}; fix or delete the line")
            yield row.origin, row.text
        return
    content, reason = text_of(file)
    if reason is not None:
        raise LimbeckError(f"the pool file {file} is {reason}; convert it")
    for number, line in enumerate(content.split("\n"), 1):
        if text := clean_text(line):
            yield f"{file.name}:{number}", text
