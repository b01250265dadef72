"""Training rows as token ids: what a student sees of a dataset, and which tokens it learns. Imports no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_table

ROWS_PER_CALL = 1000  # the tokenizer works on several rows in parallel


@dataclass(frozen=True, eq=False)
class Row:
    """The tokens of a row; those from `prompt_length` on are learned."""

    ids: NDArray[np.int32]  # [tokens]
    prompt_length: int

    @property
    def labels(self) -> list[int]:
        """The token to learn at every position, -100 in the prompt. [tokens]"""
        return [-100] * self.prompt_length + [int(token) for token in self.ids[self.prompt_length :]]


def read_rows(files: Sequence[Path]) -> pa.Table:
    """The rows of Parquet files in order, with the columns that rendering and a held-out split need."""
    tables = [read_table(file) for file in files]
    shared = set.intersection(*(set(table.column_names) for table in tables))
    wanted = [name for name in ("input_ids", "prompt", "completion", "source_id") if name in shared]
    return pa.concat_tables([table.select(wanted) for table in tables]).replace_schema_metadata(None)


def conversational(rows: pa.Table) -> bool:
    """Whether the prompts are lists of messages."""
    return "prompt" in rows.column_names and pa.types.is_nested(rows["prompt"].type)


def rendered(rows: pa.Table, tokenizer: Any, ends: frozenset[int]) -> list[Row]:
    """Tokenise rows of `prompt` and `completion` (both lists of messages, or both strings); rows of `input_ids` are kept.

    The ids are those that TRL's SFTTrainer prepares: a conversation by the tokenizer's chat template, a string with the end token
    appended if it lacks it. A completion begins where the tokens of the prompt alone and of the whole row diverge, and ends with
    its first token of `ends`, at which generation stops: chat templates write more after it, such as a newline, which a model
    never generates. Rows of `input_ids` are learned as a whole. Raises LimbeckError if a completion has no end token.
    """
    if "completion" not in rows.column_names:
        return [Row(np.asarray(ids, dtype=np.int32), 0) for ids in rows["input_ids"].to_pylist()]
    slices = (rows.slice(start, ROWS_PER_CALL) for start in range(0, len(rows), ROWS_PER_CALL))
    return [row for some in slices for row in _some(some, tokenizer, ends)]


def _some(rows: pa.Table, tokenizer: Any, ends: frozenset[int]) -> Iterator[Row]:
    prompts, completions = rows["prompt"].to_pylist(), rows["completion"].to_pylist()
    if conversational(rows):
        wholes = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        alone = tokenizer.apply_chat_template(prompts, tokenize=True, return_dict=True, add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template(wholes, tokenize=True, return_dict=True)["input_ids"]
    else:
        end = tokenizer.eos_token
        completions = [text if text.endswith(end) else text + end for text in completions]
        alone = tokenizer(text=prompts)["input_ids"]
        whole = tokenizer(text=[prompt + text for prompt, text in zip(prompts, completions, strict=True)])["input_ids"]
    for prompt_ids, ids in zip(alone, whole, strict=True):
        start = common_prefix(prompt_ids, ids)
        yield Row(np.asarray(ids[: completion_end(ids, start, ends)], dtype=np.int32), start)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of leading tokens that both have in common."""
    shorter = min(len(first), len(second))
    return next((place for place in range(shorter) if first[place] != second[place]), shorter)


def completion_end(ids: Sequence[int], start: int, ends: frozenset[int]) -> int:
    """The position after the first end token from `start` on; raises LimbeckError if there is none."""
    for place in range(start, len(ids)):
        if ids[place] in ends:
            return place + 1
    raise LimbeckError(
        "a completion of the dataset has no end token, so the student could not learn to stop; end the assistant's turn "
        "with it in the base's chat template"
    )
