"""The labelled strings of `tests/filters/text/labelled/`: reading them, and the precision and recall of the rules on them.

One half of each set is for development, the other is held out; a hash of the string decides. In `privacy.jsonl`, what must be
found is marked in the text as ⟦kind|characters⟧, and ¦ inside, deleted here, keeps key-like strings from looking like leaks.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from helpers.paths import TESTS
from limbeck.filters.text.assistant_phrases import has_preamble, is_refusal
from limbeck.filters.text.private_data import KINDS, find

FOLDER = TESTS / "filters/text/labelled"
HALVES = ("development", "held out")
_MARKED = re.compile(r"⟦(\w+)\|(.*?)⟧", re.DOTALL)

Found = tuple[str, int, int]
"""A kind, and the characters [begin, end) of the text."""


@dataclass(frozen=True)
class Marked:
    """A text and what must be found in it."""

    text: str
    expected: frozenset[Found]


@dataclass(frozen=True)
class Phrase:
    """A text, whether it refuses, and whether it begins with a preamble."""

    text: str
    refusal: bool
    preamble: bool


@dataclass
class Counts:
    """Outcomes of a rule, with the texts that it got wrong."""

    right: int = 0
    false_positives: list[str] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """The share of the findings that are labelled; 1 without findings."""
        return self.right / max(1, self.right + len(self.false_positives)) if self.right or self.false_positives else 1.0

    @property
    def recall(self) -> float:
        """The share of the labels that are found; 1 without labels."""
        return self.right / max(1, self.right + len(self.misses)) if self.right or self.misses else 1.0


@dataclass(frozen=True)
class Measured:
    """Texts per half, and the outcomes per half and name (a kind, a rule, or `found`: all kinds)."""

    names: tuple[str, ...]
    texts: Counter[str]
    counts: dict[tuple[str, str], Counts]


def measure_privacy() -> Measured:
    """The outcomes of `find` on the marked texts."""
    measured = _nothing((*KINDS, "found"))
    for marked in read_marked():
        where = half(marked.text)
        measured.texts[where] += 1
        found = {(span.kind, span.begin, span.end) for span in find(marked.text)}
        for kind in KINDS:
            ours, theirs = ({one for one in some if one[0] == kind} for some in (found, marked.expected))
            count(marked.text, ours, theirs, measured.counts[where, kind])
        count(marked.text, found, marked.expected, measured.counts[where, "found"])
    return measured


def measure_phrases() -> Measured:
    """The outcomes of the rules for refusals and preambles."""
    rules = {"refusal": is_refusal, "preamble": has_preamble}
    measured = _nothing(tuple(rules))
    for phrase in read_phrases():
        where = half(phrase.text)
        measured.texts[where] += 1
        for name, rule in rules.items():
            expected = [name] if getattr(phrase, name) else []
            count(phrase.text, [name] if rule(phrase.text) else [], expected, measured.counts[where, name])
    return measured


def table_rows(page: str, names: Iterable[str]) -> dict[str, list[str]]:
    """The cells of the last row of a page that begins with each name: labels, precision and recall of each half."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.split("\n") if line.startswith("| `")]
    return {name: row[1:] for name in names for row in rows if row[0] == f"`{name}`" and len(row) == 7}


def half(text: str) -> str:
    """The half that a text belongs to."""
    return HALVES[hashlib.sha256(text.encode()).digest()[0] % 2]


def read_marked(name: str = "privacy") -> list[Marked]:
    """The marked texts of a file, without the marks."""
    return [_unmarked(row["text"].replace("¦", "")) for row in _rows(name)]


def read_phrases(name: str = "phrases") -> list[Phrase]:
    """The phrases of a file."""
    return [Phrase(**row) for row in _rows(name)]


def count(text: str, found: Iterable[object], expected: Iterable[object], counts: Counts) -> None:
    """Add one text's findings to `counts`; a finding with other borders than the label is an error and a miss."""
    found, expected = set(found), set(expected)
    counts.right += len(found & expected)
    counts.false_positives += [text] * len(found - expected)
    counts.misses += [text] * len(expected - found)


def _nothing(names: tuple[str, ...]) -> Measured:
    return Measured(names, Counter(), {(where, name): Counts() for where in HALVES for name in names})


def _rows(name: str) -> list[dict[str, object]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _unmarked(marked: str) -> Marked:
    pieces, expected, end, length = [], set(), 0, 0
    for match in _MARKED.finditer(marked):
        pieces += [marked[end : match.start()], match[2]]
        begin = length + match.start() - end
        length = begin + len(match[2])
        expected.add((match[1], begin, length))
        end = match.end()
    return Marked("".join([*pieces, marked[end:]]), frozenset(expected))
