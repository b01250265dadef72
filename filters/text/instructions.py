"""The rules that self-instruct and Alpaca use to clean generated tasks: one column, one bound and one reason per rule.

Self-Instruct (Wang et al., 2023) and Stanford Alpaca (Taori et al., 2023) drop instructions and instances by the same short list
of checks (`limbeck.corpus.text.instruction_rules`); this filter applies them to candidates. The comparison with
every earlier instruction (ROUGE-L above 0.7) is the set-wise filter `novelty`, and equal instances are dropped by `duplicates`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from limbeck.corpus.sentences import ends_like_a_sentence
from limbeck.corpus.text.instruction_rules import (
    MAX_WORDS,
    MIN_WORDS,
    NO_INPUT,
    Rules,
    instance_rules,
    instruction_rules,
    is_contradicted,
)
from limbeck.corpus.text.invisible import stripped
from limbeck.filters.columns import FLAG, Range, ranges_of, score_table
from limbeck.filters.config import FilterConfig, Limit, Name
from limbeck.filters.contract import Bound

if TYPE_CHECKING:
    from limbeck.cluster.engines.model_cache import Engines

UNITS = {
    "words": "words",
    "truncated": FLAG,
    "forbidden_terms": "terms",
    "write_a_program": FLAG,
    "starts_with_punctuation": FLAG,
    "starts_non_ascii": FLAG,
    "input_is_output": FLAG,
    "empty_output": FLAG,
    "ends_with_colon": FLAG,
    "contradicted": FLAG,
    "unfinished": FLAG,
}
COLUMNS = tuple(UNITS)


class InstructionsConfig(FilterConfig):
    """The list of rules, the instruction's column, and a bound per rule (null: measured, but rejects nothing).

    `instruction` is the instruction's column: `prompt`, answered by the output, with the document as its input if `input` says
    so; or `output`, if the candidates themselves are new instructions and there is no instance to check.
    """

    semantics: ClassVar[int] = 3
    reasons: ClassVar[Mapping[str, str]] = {
        "min_words": "the instruction has too few words",
        "max_words": "the instruction has too many words",
        "max_truncated": "the text was cut off by the token limit",
        "max_forbidden_terms": "the instruction asks for what a language model cannot do",
        "max_write_a_program": "the instruction asks for a program",
        "max_starts_with_punctuation": "the instruction begins with punctuation",
        "max_starts_non_ascii": "the instruction begins with a character outside ASCII",
        "max_input_is_output": "the output repeats the input",
        "max_empty_output": "the output is empty",
        "max_ends_with_colon": "the input or the output ends with a colon, so it is unfinished",
        "max_contradicted": "the task has one input with several outputs",
        "max_unfinished": "the instruction does not end like a sentence",
    }

    also: ClassVar[tuple[str, ...]] = COLUMNS

    kind: Literal["instructions"] = "instructions"
    name: Name = "instructions"
    rules: Rules = "self-instruct"
    instruction: Literal["prompt", "output"] = "output"
    input: Literal["document"] | None = None
    min_words: Limit = float(MIN_WORDS)
    max_words: Limit = float(MAX_WORDS)
    max_truncated: Limit = 0.0
    max_forbidden_terms: Limit = 0.0
    max_write_a_program: Limit = 0.0
    max_starts_with_punctuation: Limit = 0.0
    max_starts_non_ascii: Limit = 0.0
    max_input_is_output: Limit = 0.0
    max_empty_output: Limit = 0.0
    max_ends_with_colon: Limit = 0.0
    max_contradicted: Limit = None
    max_unfinished: Limit = None

    @property
    def ranges(self) -> Mapping[str, Range]:
        """By their units."""
        return ranges_of(UNITS)

    def build(self, engines: "Engines") -> "InstructionsFilter":
        """Return the filter; it needs no engine."""
        return InstructionsFilter(self)


class InstructionsFilter:
    """Applies every rule to every candidate, independently."""

    def __init__(self, config: InstructionsConfig) -> None:
        self.name = config.name
        self.bounds: tuple[Bound, ...] = config.bounds
        self._config = config

    def score(self, candidates: pa.Table) -> pa.Table:
        """Return `COLUMNS`, one row per candidate: `words` and `forbidden_terms` are counts, the others 0 or 1.

        The candidates of one source are the instances of one task. If the output is the instruction, the columns on instances are
        0, except `empty_output`. O(characters).
        """
        config = self._config
        rows = candidates.select(["source_id", "prompt", "document", "output", "finish_reason"]).to_pylist()
        columns = {name: np.zeros(len(rows)) for name in COLUMNS}
        inputs = [_input(row, config) for row in rows]
        outputs = [stripped(str(row["output"] or "")) for row in rows]
        for at, row in enumerate(rows):
            instruction = outputs[at] if config.instruction == "output" else str(row["prompt"] or "")
            scores = {"truncated": float(row["finish_reason"] == "length"), **instruction_rules(instruction, config.rules)}
            scores["unfinished"] = float(not ends_like_a_sentence(instruction))
            if config.instruction == "prompt":
                scores |= instance_rules(inputs[at], outputs[at])
            else:
                scores["empty_output"] = float(not outputs[at])
            for name, value in scores.items():
                columns[name][at] = value
        if config.instruction == "prompt":
            columns["contradicted"] = _contradicted([row["source_id"] for row in rows], inputs, outputs)
        return score_table(candidates, columns, UNITS)


def _input(row: Mapping[str, Any], config: InstructionsConfig) -> str:
    if config.instruction == "output" or config.input is None:
        return ""
    text = stripped(str(row["document"] or ""))
    return "" if text.lower() == NO_INPUT else text


def _contradicted(tasks: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    instances: dict[str, list[tuple[str, str]]] = {}
    for task, input, output in zip(tasks, inputs, outputs, strict=True):
        instances.setdefault(task, []).append((input, output))
    found = {task: is_contradicted(pairs) for task, pairs in instances.items()}
    return np.array([found[task] for task in tasks], dtype=np.float64)
