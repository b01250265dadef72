"""Answers that can be compared: extracted from a text, and reduced to a key that equal answers share.

Equal keys are the only equality of numbers, texts and sets, so it is transitive, and votes can be counted by key. A tolerance is
for comparing an answer with a reference only. Equality in the sense of mathematics is asked of math-verify, pair by pair.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np

from limbeck.corpus.near_duplicates.groups import Components
from limbeck.corpus.text.answers.extraction import boxed, choice, matched, unwrapped
from limbeck.corpus.text.answers.math_equality import MathEquality
from limbeck.corpus.text.answers.numbers import Notation, last_number, number
from limbeck.corpus.text.invisible import stripped, without_invisible
from limbeck.corpus.text.words import SENTENCE_STOPS, comparable, one_line

Extract = Literal["pattern", "last_number", "boxed", "choice"]
Compare = Literal["number", "text", "set", "math"]

Key = Fraction | str | frozenset[Fraction | str]

_EDGES = "*_`\"'“”‘’«»「」$ "
_FINAL = f".,;:!?{SENTENCE_STOPS}{_EDGES}"
_DELIMITERS = re.compile(r"\\[()\[\]]|\\(?:left|right)(?![A-Za-z])")  # \( ... \), \[ ... \]
_ESCAPED_BRACES = re.compile(r"\\([{}])")
_OPENING, _CLOSING = "{[(", "}])"
_STRONG, _WEAK = ";；؛\n", ",，、،"
_BULLET = re.compile(r"[-*•]\s+")
_CONJUNCTION = re.compile(r"(?:^|\s)(?:and|or)\s", re.IGNORECASE)
_EMPTY_SET = re.compile(r"\{\s*\\?\}|\[\s*\]")
_SPACE_AT_BRACKET = re.compile(r"\s*([(){}\[\],])\s*")


@dataclass(frozen=True)
class Answer:
    """An answer as it was found, its key, and its value if it is a number."""

    text: str
    key: Key
    value: Fraction | None = None


@dataclass(frozen=True)
class Reader:
    """How answers are extracted (`pattern`, `choices`) and compared; `relative` and `absolute` are tolerances of numbers."""

    extract: Extract
    compare: Compare
    pattern: str = ""
    choices: str = ""
    notation: Notation = Notation()
    absolute: Fraction = Fraction(0)
    relative: Fraction = Fraction(0)
    _math: MathEquality = field(default_factory=MathEquality, repr=False, compare=False)

    def read(self, text: str) -> Answer | None:
        """The answer that an output states; None if it states none that can be compared. O(characters)."""
        found = self._found(text)
        return None if found is None else self._answer(found)

    def read_reference(self, text: str) -> Answer | None:
        """The answer of a reference: extracted as from an output if that is possible, else the whole text.

        Without a letter or number, a text is no answer that `choice` or `last_number` could find in an output.
        """
        found = self._found(text) or ("" if self.extract in ("choice", "last_number") else stripped(text))
        return self._answer(found) if found else None

    def equal(self, reference: Answer, answer: Answer) -> bool:
        """Whether an answer is that of the reference, within the tolerances."""
        if reference.key == answer.key:
            return True
        if self.compare == "math":
            return self._math.equal(reference.text, answer.text)
        if self.compare != "number" or reference.value is None or answer.value is None:
            return False
        return abs(reference.value - answer.value) <= max(self.absolute, self.relative * abs(reference.value))

    def classes(self, answers: Sequence[Answer]) -> list[int]:
        """The class of each answer, named by its first member; equal answers are of one class, without tolerances.

        For `math`, two answers are of one class if a chain of equalities, in either direction, joins them: one query of each
        pair of classes that differ so far.
        """
        first: dict[Key, int] = {}
        named = [first.setdefault(answer.key, place) for place, answer in enumerate(answers)]
        if self.compare != "math":
            return named
        distinct = list(first.values())
        components = Components(len(answers))
        for position, one in enumerate(distinct):
            for other in distinct[:position]:
                if components.labels[one] != components.labels[other] and self._same(answers[other].text, answers[one].text):
                    components.join(np.array([other]), np.array([one]))
        return [int(components.labels[place]) for place in named]

    def _same(self, one: str, other: str) -> bool:
        return self._math.equal(one, other) or self._math.equal(other, one)

    def _found(self, text: str) -> str | None:
        if self.extract == "pattern":
            return matched(text, self.pattern)
        if self.extract == "boxed":
            return boxed(text)
        if self.extract == "choice":
            return choice(text, self.choices)
        return self._number(text)

    def _number(self, text: str) -> str | None:
        """The last number; the whole text if that is another number, which only a text without words may be (`1 000`, `- 5`)."""
        last, whole = last_number(text, self.notation), number(text, self.notation)
        return last if whole is None or (last is not None and number(last, self.notation) == whole) else stripped(text)

    def _answer(self, text: str) -> Answer | None:
        value = number(unwrapped(text), self.notation)
        if self.compare == "number":
            return None if value is None else Answer(text, value, value)
        if self.compare == "set":
            found = items(text)
            return Answer(text, frozenset(map(self._item, found)), value) if found or _EMPTY_SET.search(text) else None
        if self.compare == "math":
            return Answer(text, one_line(text) if value is None else value, value)
        return Answer(text, text_key(text), value)

    def _item(self, text: str) -> Fraction | str:
        value = number(text, self.notation)
        return _SPACE_AT_BRACKET.sub(r"\1", text_key(text)) if value is None else value


def text_key(text: str) -> str:
    """The text in lower case and NFC, without LaTeX wrappers, runs of whitespace, quotation marks and final punctuation."""
    line = one_line(comparable(without_invisible(_DELIMITERS.sub("", unwrapped(text)))))
    return line.strip(_EDGES).rstrip(_FINAL) or line


def items(text: str) -> list[str]:
    """The items of an enumeration, in order: separated by semicolons or line ends if there are any, else by commas, "and", "or".

    Brackets around the whole are removed; inside other brackets nothing is separated. O(characters).
    """
    text = _ESCAPED_BRACES.sub(r"\1", _DELIMITERS.sub("", unwrapped(text))).strip(f"{_EDGES}\n\t").rstrip(_FINAL)
    if text[:1] in ("{", "[") and _is_enclosed(text):
        text = text[1:-1].strip()
    found = _separated(text, _STRONG)
    if len(found) > 1:
        found = [_BULLET.sub("", item.strip(), count=1) for item in found]
    else:
        found = [part for item in _separated(text, _WEAK) for part in _conjoined(item)]
    return [item.strip() for item in found if item.strip()]


def _conjoined(item: str) -> list[str]:
    return [item] if any(bracket in item for bracket in _OPENING) else _CONJUNCTION.split(item)


def _is_enclosed(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return place == len(text) - 1
    return False


def _separated(text: str, separators: str) -> list[str]:
    """The parts of a text between separators that are in no brackets."""
    depth, start, parts = 0, 0, []
    for place, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth = max(depth - 1, 0)
        elif depth == 0 and character in separators:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]
