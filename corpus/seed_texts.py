"""Seed texts from files: texts that count as accepted from the start."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import InputFile, format_by_name, format_of, text_of
from limbeck.corpus.markup.cleaning import clean_text
from limbeck.corpus.readers import read_documents
from limbeck.corpus.tables import open_table


def pool_problems(paths: Sequence[str]) -> list[str]:
    """Problems of the paths, one sentence each; the files are not opened."""
    problems = []
    for path in paths:
        file = Path(path).expanduser()
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
    return [row for path in paths for row in _read(Path(path).expanduser(), column)]


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
