"""The prompts of Self-Instruct's steps 1 to 3: few-shot texts that a base model continues.

Their forms are those of the paper, their texts are our own. In chat form the same text is the user's turn, and ends with what to
write.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from limbeck.generators.instruction_tasks import series

Tasks = Literal["any", "classification"]
Shots = Literal["classification", "input_first", "output_first"]

_SERIES = {
    "any": "A series of different tasks for an assistant that reads and writes text:",
    "classification": "A series of different classification tasks for an assistant that reads text, with their labels:",
}
_KIND = {True: "Tasks whose answer is one of a few labels:", False: "Tasks whose answer is a text:"}
CHAT = {
    "instructions": "Continue the list with the numbers {first} to {last}: one new task in each line, unlike those above.",
    "classification": "Answer for the last task with Yes or No only.",
    "input_first": "Write the examples of the last task only, each with the lines that the examples above have.",
    "output_first": "Write the class labels and inputs of the last task only, each with the lines that the examples above have.",
}
"""What a chat model is asked to do with the text."""


def next_tasks(instructions: Sequence[str], tasks: Tasks) -> str:
    """The prompt of step 1: a numbered list, and the next number."""
    lines = [f"{number}. {instruction}" for number, instruction in enumerate(series(instructions), 1)]
    return "\n".join([_SERIES[tasks], *lines, f"{len(lines) + 1}."])


@cache
def task_list(classification: bool) -> str:
    """The contexts of step 2 by log-probability: a numbered list of the text form's tasks of one kind, and the next number."""
    kind = "Yes" if classification else "No"
    tasks = re.findall(rf"^Task: (.*)\nIs it classification\? {kind}$", _shots("classification"), re.MULTILINE)
    lines = [f"{number}. {task}" for number, task in enumerate(tasks, 1)]
    return "\n".join([_KIND[classification], *lines, f"{len(lines) + 1}."])


def is_classification(instruction: str) -> str:
    """The prompt of step 2 in text form: 12 classification tasks and 19 others, and the task."""
    return f"{_shots('classification')}\n\nTask: {instruction.strip()}\nIs it classification?"


def examples_of(instruction: str, classification: bool) -> str:
    """The prompt of step 3, output first or input first."""
    return f"{_shots('output_first' if classification else 'input_first')}\n\nTask: {instruction.strip()}\n"


@cache
def _shots(name: Shots) -> str:
    return (Path(__file__).parent / "prompts" / f"{name}.txt").read_text(encoding="utf-8").strip()
