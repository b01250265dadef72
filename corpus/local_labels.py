"""Labelled tables that a machine has without a hub: arithmetic that is generated, labels of installed packages, and WordNet.

Arithmetic is made by a rule, so its answers and worked solutions are right. Trove classifiers are labels that the authors of
packages chose from a fixed list. WordNet's definitions and parts of speech were written by lexicographers (Fellbaum, 1998).
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.markup.cleaning import clean_text
from limbeck.corpus.readers import RawRow
from limbeck.corpus.seeds import derive_seed

Table = Literal["arithmetic", "packages", "wordnet"]
TABLE = "table"
"""The column that says which table a row is from."""

WORDNET = "/usr/share/wordnet"
"""Where Debian's package wordnet-base has its files."""

_SIGNS = {"sum": "+", "difference": "-", "product": "×"}
_THINGS = "apples books coins stamps marbles pencils shells tickets cups stickers".split()
_PEOPLE = "Ada Ben Chidi Dana Emil Farah Goran Hana Ivo Jun".split()
_PARTS = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
_SYNSET = re.compile(r"\d{8} \d\d [nvasr] ([0-9a-f]{2}) (.*?) \| (.*)")
_WORD = re.compile(r"[a-z]{3,}")


def read_local_labels(tables: Mapping[Table, int], wordnet: str, seed: int = 0) -> Iterator[RawRow]:
    """Yield up to so many rows of each table, without a document; the record has the columns, and the table's name as `table`.

    Raises LimbeckError if WordNet is wanted and not there.
    """
    readers: dict[Table, Callable[[], Iterator[tuple[str, dict[str, Any]]]]] = {
        "arithmetic": lambda: _arithmetic(seed),
        "packages": _packages,
        "wordnet": lambda: _wordnet(Path(wordnet).expanduser(), tables["wordnet"], seed),
    }
    for table, most in tables.items():
        for origin, columns in islice(readers[table](), most):
            yield RawRow(f"{table}: {origin}", "", record={TABLE: table, **columns})


def _arithmetic(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Problems of one operation, in symbols and in words, each with a worked solution; no two ask the same.

    Numbers have two digits at most in the first rows, and then grow slowly. Numbers and result determine the operation.
    """
    seen = set[tuple[str, frozenset[int]]]()
    for number in count():
        rng, top = random.Random(derive_seed("arithmetic", seed, number)), 99 + number // 10
        operation = rng.choice(list(_SIGNS))
        a, b = (rng.randint(12, top), rng.randint(3, 9)) if operation == "product" else rng.sample(range(2, top + 1), 2)
        if operation == "difference":
            a, b = max(a, b), min(a, b)
        if (operation, frozenset((a, b))) in seen:
            continue
        seen.add((operation, frozenset((a, b))))
        columns = {
            "operation": operation,
            **{"a": a, "b": b, "expression": f"{a} {_SIGNS[operation]} {b}"},
            "answer": {"sum": a + b, "difference": a - b, "product": a * b}[operation],
            "problem": _problem(operation, a, b, rng),
            "rationale": _worked(operation, a, b),
        }
        yield str(number), columns


def _problem(operation: str, a: int, b: int, rng: random.Random) -> str:
    who, thing = rng.choice(_PEOPLE), rng.choice(_THINGS)
    if operation == "sum":
        return f"{who} has {a} {thing} and gets {b} more. How many {thing} does {who} have then?"
    if operation == "difference":
        return f"{who} has {a} {thing} and gives {b} of them away. How many {thing} does {who} keep?"
    return f"{who} has {a} boxes with {b} {thing} in each. How many {thing} does {who} have?"


def _worked(operation: str, a: int, b: int) -> str:
    """A solution by tens and ones."""
    if operation == "product":
        tens, ones = divmod(max(a, b), 10)
        small = min(a, b)
        if not tens or not ones:
            return f"{small} times {max(a, b)} is {a * b}."
        parts = f"{small} times {tens * 10} is {small * tens * 10}, and {small} times {ones} is {small * ones}"
        return f"{parts}. Together that is {a * b}."
    step, sign, total = (1, "plus", a + b) if operation == "sum" else (-1, "minus", a - b)
    tens, ones = b // 10 * 10, b % 10
    if not tens or not ones:
        return f"{a} {sign} {b} is {total}."
    return f"{a} {sign} {tens} is {a + step * tens}, and {a + step * tens} {sign} {ones} is {total}."


def _packages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Installed distributions with a summary and classifiers: their topics, and the topic if they have exactly one."""
    found: dict[str, Any] = {}
    for distribution in metadata.distributions():
        header = distribution.metadata
        name = header["Name"] if header is not None else None
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), header)
    for key in sorted(found):
        header = found[key]
        summary = clean_text(str(header["Summary"] or ""))
        classifiers = [str(value).split(" :: ") for value in header.get_all("Classifier") or ()]
        topics = sorted({parts[1] for parts in classifiers if parts[0] == "Topic" and len(parts) > 1})
        if len(summary.split()) < 3 or not topics:
            continue
        statuses = [parts[1].partition(" - ")[2] for parts in classifiers if parts[0] == "Development Status"]
        only = {"topic": topics[0]} if len(topics) == 1 else {}
        status = {"status": statuses[0]} if len(statuses) == 1 else {}
        yield header["Name"], {"name": header["Name"], "summary": summary, "topics": topics, **only, **status}


def _wordnet(folder: Path, most: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Words with the part of speech, definition and synonyms of one sense each: of every part of speech as many as there are."""
    every = list[tuple[str, dict[str, Any]]]()
    for suffix, part in _PARTS.items():
        file = folder / f"data.{suffix}"
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise LimbeckError(
                f"there is no WordNet at {folder} ({file.name}: {error.strerror}); install Debian's package wordnet-base, set "
                "wordnet to the folder that has data.noun, or remove wordnet from tables"
            ) from error
        own = [row for line in text.splitlines() if (row := _sense(line, part)) is not None]
        own.sort(key=lambda row: derive_seed("wordnet", seed, row[0]))
        every += own[: -(-most // len(_PARTS))]
    every.sort(key=lambda row: derive_seed("wordnet order", seed, row[0]))
    yield from every


def _sense(line: str, part: str) -> tuple[str, dict[str, Any]] | None:
    """A line of a data file; None for headers, names, phrases and definitions of a single word."""
    found = _SYNSET.fullmatch(line.strip())
    if found is None:
        return None
    count, rest = int(found[1], 16), found[2].split()
    words = [word for word in rest[: 2 * count : 2] if _WORD.fullmatch(word)]
    definition = re.sub(r"\s*\([^)]*\)\s*", " ", found[3].split('; "')[0].partition(";")[0]).strip()
    if not words or len(definition.split()) < 3:
        return None
    return f"{line.split()[0]}-{part}", {"word": words[0], "part": part, "definition": definition, "synonyms": words[1:]}
