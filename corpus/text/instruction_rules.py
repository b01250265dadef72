"""The rules by which Self-Instruct and Alpaca clean generated tasks, as pure functions.

Self-Instruct (Wang et al., 2023) and Stanford Alpaca (Taori et al., 2023) drop instructions and instances by the same short list
of checks; they differ in the forbidden words and in how an instruction is first normalised. The filter `instructions` applies
them to candidates, generators apply them to new completions. Words are those between whitespace in every script, as published;
texts are equal if their Unicode normal forms (NFC) are.
"""

import re
import string
from collections.abc import Iterable, Mapping
from typing import Literal

from limbeck.corpus.text.words import normal

Rules = Literal["self-instruct", "alpaca"]

_SELF_INSTRUCT_TERMS = (
    *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps"),
    *("draw", "plot", "go to"),
)
FORBIDDEN_TERMS: Mapping[Rules, tuple[str, ...]] = {
    "self-instruct": _SELF_INSTRUCT_TERMS,
    "alpaca": (*_SELF_INSTRUCT_TERMS, "video", "audio", "music", "flowchart", "diagram"),
}
"""Words for tasks that a language model cannot do: whole words, in any case. Plurals match only if they are listed."""

MIN_WORDS = 4
MAX_WORDS = 150
NO_INPUT = "<noinput>"  # an empty input in Alpaca's prompt

_FORBIDDEN = {rules: re.compile(rf"\b(?:{'|'.join(terms)})\b", re.IGNORECASE) for rules, terms in FORBIDDEN_TERMS.items()}
_PUNCTUATION = frozenset(string.punctuation)


def tidy(instruction: str, rules: Rules = "self-instruct") -> str:
    """The normalised instruction: self-instruct collapses whitespace and capitalises (the first letter alone stays or
    becomes a capital), Alpaca only strips."""
    return " ".join(instruction.split()).capitalize() if rules == "self-instruct" else instruction.strip()


def instruction_rules(instruction: str, rules: Rules = "self-instruct") -> dict[str, float]:
    """The columns of the rules for an instruction, normalised first; one without words violates only the rule of `words`."""
    text = tidy(instruction, rules)
    first = text[:1]
    return {
        "words": float(len(text.split())),
        "forbidden_terms": float(len(_FORBIDDEN[rules].findall(text))),
        "write_a_program": float(text.startswith("Write a program")),
        "starts_with_punctuation": float(first in _PUNCTUATION),
        "starts_non_ascii": float(not first.isascii()),
    }


def instance_rules(input: str, output: str) -> dict[str, float]:
    """The columns of the rules for one instance of a task; an input of "" means no input."""
    return {
        "input_is_output": float(normal(input) == normal(output)),
        "empty_output": float(output == ""),
        "ends_with_colon": float(input.rstrip().endswith(":") or output.rstrip().endswith(":")),
    }


def is_contradicted(instances: Iterable[tuple[str, str]]) -> bool:
    """Whether a task's instances (input, output) have two outputs for one non-empty input; self-instruct then drops all."""
    seen: dict[str, str] = {}
    return any(input and seen.setdefault(normal(input), normal(output)) != normal(output) for input, output in instances)
