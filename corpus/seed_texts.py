"""Seed texts from files: texts that count as accepted from the start."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.markup.cleaning import clean_text
from limbeck.corpus.readers import read_jsonl

_JSONL = (".jsonl", ".ndjson")


def pool_problems(paths: Sequence[str]) -> list[str]:
    """Problems of the paths, one sentence each; the files are not opened."""
    problems = []
    for path in paths:
        file = Path(path).expanduser()
        if not file.is_file():
            problems.append(f"no such pool file: {path}; correct the path (it is relative to the folder you run in)")
        elif file.suffix.lower() not in (*_JSONL, ".txt"):
            problems.append(f"the pool file {path} is neither .txt (one text per line) nor .jsonl; convert or rename it")
    return problems


def read_pool(paths: Sequence[str], column: str) -> list[tuple[str, str]]:
    """The (`file:line`, text) of every line of .txt files and of every `column` of .jsonl files; blank lines are skipped.

    Raises LimbeckError if a file is missing or of another kind, or a line holds no text.
    """
    for problem in pool_problems(paths):
        raise LimbeckError(problem)
    return [row for path in paths for row in _read(Path(path).expanduser(), column)]


def _read(file: Path, column: str) -> Iterator[tuple[str, str]]:
    if file.suffix.lower() in _JSONL:
        for row in list(read_jsonl(str(file), column, None)):  # read to the end first, so that the error lists the columns
            if row.reason is not None:
                raise LimbeckError(f"{row.origin} of the pool file {file}: {row.reason}; fix or delete the line")
            yield row.origin, row.text
        return
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise LimbeckError(f"the pool file {file} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    for number, line in enumerate(lines, 1):
        if text := clean_text(line):
            yield f"{file.name}:{number}", text
