"""What the generators of Self-Instruct and Alpaca share: seed tasks, and why an instruction or an instance is refused.

Every refused text becomes a rejected draft, with the sentence of its rule as the reason and the rule's name in its facts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.seed_texts import read_seed_tasks
from limbeck.corpus.text.instruction_rules import MAX_WORDS, MIN_WORDS, Rules, instruction_rules
from limbeck.generators.contract import Answer, Draft, Task

SEED_TASKS = "limbeck:generators/self_instruct/seed_tasks.jsonl"

REASONS: Mapping[str, str] = {
    # the response
    "cut_off": "the text was cut off by the token limit",
    "unparsed": "the response does not have the requested form",
    "too_many_tasks": "the response has more tasks than one source may have",
    # the instruction
    "few_words": f"the instruction has fewer than {MIN_WORDS} words",
    "many_words": f"the instruction has more than {MAX_WORDS} words",
    "forbidden_terms": "the instruction asks for what a language model cannot do",
    "write_a_program": "the instruction asks for a program",
    "starts_with_punctuation": "the instruction begins with punctuation",
    "starts_non_ascii": "the instruction begins with a character outside ASCII",
    "rouge_l": "the instruction is too near to one accepted before",
    # the instance
    "no_instance": "the response contains no instance of the task",
    "input_is_output": "the output repeats the input",
    "empty_output": "the output is empty",
    "ends_with_colon": "the input or the output ends with a colon, so it is unfinished",
    "contradicted": "the task has one input with several outputs",
    "duplicate": "the instance is equal to an earlier one of the task",
    "too_many_instances": "the task has more instances than are kept",
}
"""Rule → the reason of the drafts that it rejects."""


def seed_tasks(path: str) -> tuple[Task, ...]:
    """The seed tasks of a file, each with its first instance; raises LimbeckError if there is none, or a row is malformed."""
    tasks = tuple(
        Task(record["instruction"], record["output"], record["input"] or None, _facts(record), seed=True)
        for record in read_seed_tasks(path)
    )
    if not tasks:
        raise LimbeckError(f"the file of seed tasks {path} has no task; add some, or name another file")
    return tasks


def broken_rule(instruction: str, rules: Rules) -> str | None:
    """The first rule that an instruction breaks, in the published order, or None; the instruction is already normalised."""
    found = instruction_rules(instruction, rules)
    broken = {
        "few_words": found["words"] < MIN_WORDS,
        "many_words": found["words"] > MAX_WORDS,
        **{
            name: found[name] > 0
            for name in ("forbidden_terms", "write_a_program", "starts_with_punctuation", "starts_non_ascii")
        },
    }
    return next((name for name, is_broken in broken.items() if is_broken), None)


def rejected(text: str, rule: str, *, prompt: str = "", detail: str = "", **facts: Any) -> Draft:
    """A draft that a rule rejects."""
    reason = f"{REASONS[rule]}: {detail}" if detail else REASONS[rule]
    return Draft.rejected(text, reason, prompt, facts={"rule": rule, **facts})


def whole(answer: Answer) -> Answer:
    """The answer for a draft that is complete although the response, of which it is a part, was cut off."""
    completion = replace(answer.completion, finish_reason="stop")
    return Answer.of(completion, answer.step, answer.number, answer.seed)


def series(instructions: Sequence[str]) -> list[str]:
    """Instructions as they are shown in a prompt: in one line, without a final colon."""
    return [" ".join(instruction.split()).rstrip(":") for instruction in instructions]


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    known = record.get("is_classification")
    return {"classification": known} if isinstance(known, bool) else {}
