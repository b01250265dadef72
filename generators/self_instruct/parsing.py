"""Reading the responses of steps 1 and 3 of Self-Instruct (Wang et al., 2023), by the rules of its released code.

Pure functions. Words and blank space are handled as there; an instance that is refused keeps the name of its rule.
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from limbeck.corpus.text.instruction_rules import instance_rules, is_contradicted, tidy
from limbeck.corpus.text.words import normal

LABEL = "Class label:"
_NUMBER = re.compile(r"\n\d+\s?\. ")  # between two tasks of a series
_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_OUTPUT = re.compile(r"Output\s*\d*\s*:")
_INPUT = re.compile(r"Input\s*\d*\s*:")
_YES = frozenset(("Yes", "yes", "YES"))


class Instance(NamedTuple):
    """An input ("": none) and an output of a task."""

    input: str
    output: str


class Sifted(NamedTuple):
    """An instance, and the rule that refuses it, if any."""

    instance: Instance
    rule: str | None


def instructions(response: str, *, numbered: bool = False) -> list[str]:
    """The instructions of a response of step 1: whitespace is collapsed, the first letter is a capital, empty ones are left out.

    The response continues a numbered list after its last number; if it is `numbered`, it begins with a number, and what is before
    that (an introduction) is left out.
    """
    parts = _NUMBER.split(f"\n{response.strip()}")[1:] if numbered else _NUMBER.split(response)
    return [instruction for part in parts if (instruction := tidy(part))]


def says_yes(response: str) -> bool:
    """Whether a response of step 2 in text form means that the task is classification."""
    return response.strip() in _YES


def instances(response: str, classification: bool) -> list[Instance]:
    """The instances of a response of step 3: output first for a classification task, else input first; empty if unreadable."""
    return _output_first(response) if classification else _input_first(response)


def sift(found: Sequence[Instance], *, cut_off: bool, at_most: int, rng: random.Random) -> list[Sifted]:
    """Apply the rules for the instances of a task, in the published order.

    The last is dropped if the response was cut off by the token limit; then every instance that is invalid alone; then, if one
    input has two outputs, all others; then duplicates; of the rest, `at_most` are drawn. O(characters).
    """
    rules: list[str | None] = [_invalid(instance) for instance in found]
    if cut_off and rules:
        rules[-1] = "cut_off"
    left = [place for place, rule in enumerate(rules) if rule is None]
    if is_contradicted(found[place] for place in left):
        rules = ["contradicted" if rule is None else rule for rule in rules]
        left = []
    seen: set[Instance] = set()
    for place in left:
        same = Instance(normal(found[place].input), normal(found[place].output))
        rules[place] = "duplicate" if same in seen else None
        seen.add(same)
    left = [place for place in left if rules[place] is None]
    for place in set(left) - set(rng.sample(left, min(at_most, len(left)))):
        rules[place] = "too_many_instances"
    return [Sifted(instance, rule) for instance, rule in zip(found, rules, strict=True)]


def _invalid(instance: Instance) -> str | None:
    rules = instance_rules(*instance)
    return next((rule for rule in ("input_is_output", "empty_output", "ends_with_colon") if rules[rule]), None)


def _input_first(response: str) -> list[Instance]:
    text = response.strip()
    if _EXAMPLE.search(text):
        return [_pair(part.strip()) for part in _EXAMPLE.split(text) if part.strip()]
    return [_pair(text)] if _OUTPUT.search(text) else []


def _pair(text: str) -> Instance:
    """An input and an output; without the word "Output:" all is output. A second input in the output ends it."""
    parts = _OUTPUT.split(text)
    given, output = (parts[0].strip(), parts[1].strip()) if len(parts) > 1 else ("", text)
    output = _INPUT.split(output)[0].strip()
    return Instance(re.sub(rf"^{_INPUT.pattern}", "", given).strip(), output)


def _output_first(response: str) -> list[Instance]:
    parts = [part.strip().partition("\n") for part in response.split(LABEL)[1:]]
    return [Instance(rest.strip(), label.strip()) for label, _, rest in parts]
