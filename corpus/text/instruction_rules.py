"""The rules with which self-instruct and Alpaca clean what their models invent, as pure functions.

Self-Instruct (Wang et al., 2023) and Stanford Alpaca (Taori et al., 2023) drop instructions and instances by the same short list
of checks, except for the words that they forbid and for how they tidy an instruction first. The filter `instructions` applies
them to candidates, generators to what they have just drawn.
"""

import re
import string
from collections.abc import Iterable, Mapping
from typing import Literal

Rules = Literal["self-instruct", "alpaca"]

_SELF_INSTRUCT_TERMS = (
    *("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps"),
    *("draw", "plot", "go to"),
)
FORBIDDEN_TERMS: Mapping[Rules, tuple[str, ...]] = {
    "self-instruct": _SELF_INSTRUCT_TERMS,
    "alpaca": (*_SELF_INSTRUCT_TERMS, "video", "audio", "music", "flowchart", "diagram"),
}
"""What a language model cannot do: whole words, in any case. Plurals count only where they are listed."""

MIN_WORDS = 4
MAX_WORDS = 150
NO_INPUT = "<noinput>"  # how Alpaca's prompt spells an empty input

_FORBIDDEN = {rules: re.compile(rf"\b(?:{'|'.join(terms)})\b", re.IGNORECASE) for rules, terms in FORBIDDEN_TERMS.items()}
_PUNCTUATION = frozenset(string.punctuation)


def tidy(instruction: str, rules: Rules = "self-instruct") -> str:
    """The instruction as its rules see it: self-instruct collapses whitespace and capitalises (the first letter alone stays or
    becomes a capital), Alpaca only strips."""
    return " ".join(instruction.split()).capitalize() if rules == "self-instruct" else instruction.strip()


def instruction_rules(instruction: str, rules: Rules = "self-instruct") -> dict[str, float]:
    """The columns of the rules for an instruction, which is tidied first; one without words breaks the rule of `words` alone."""
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
    """The columns of the rules for one instance of a task; an input of "" is none."""
    return {
        "input_is_output": float(input == output),
        "empty_output": float(output == ""),
        "ends_with_colon": float(input.rstrip().endswith(":") or output.rstrip().endswith(":")),
    }


def is_contradicted(instances: Iterable[tuple[str, str]]) -> bool:
    """Whether a task's instances (input, output) hold one input other than "" with two outputs; self-instruct then drops all."""
    seen: dict[str, str] = {}
    return any(input and seen.setdefault(input, output) != output for input, output in instances)
