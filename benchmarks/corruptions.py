"""Ways to corrupt a summary of an unchanged document. Deterministic; rows that a corruption does not apply to are left out.

Names, numbers and negations are changed as in the self-test of judges (`limbeck.filters.corruptions`).
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from limbeck.filters.corruptions import another_name, another_number, another_polarity


def mismatched(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """The output of the next other source."""
    for step in range(1, len(outputs)):
        other = (place + step) % len(outputs)
        if sources[other] != sources[place]:
            return outputs[other]
    return None


def swapped(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """One name or number exchanged for another."""
    draw = random.Random(f"swap {place}")
    others = [output for output, source in zip(outputs, sources, strict=True) if source != sources[place]]
    ways = draw.sample((another_name, another_number), 2)
    return next((text for way in ways if (text := way(outputs[place], others, draw)) is not None), None)


def renamed(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """One name exchanged for another."""
    others = [output for output, source in zip(outputs, sources, strict=True) if source != sources[place]]
    return another_name(outputs[place], others, random.Random(f"rename {place}"))


def added(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """With the output of another source after it."""
    other = mismatched(outputs, sources, place)
    return None if other is None else f"{outputs[place].rstrip()} {other}"


def negated(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """One sentence negated, or its negation removed."""
    return another_polarity(outputs[place], (), random.Random(f"negate {place}"))


def truncated(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """The first half of the words."""
    words = outputs[place].split()
    return " ".join(words[: len(words) // 2]) if len(words) >= 4 else None


def shuffled(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """The words in random order."""
    words = outputs[place].split()
    random.Random(f"shuffle {place}").shuffle(words)
    return " ".join(words) if len(set(words)) >= 4 else None


CORRUPTIONS: dict[str, Callable[[Sequence[str], Sequence[str], int], str | None]] = {
    "mismatched": mismatched,
    "swapped": swapped,
    "negated": negated,
    "truncated": truncated,
    "shuffled": shuffled,
    "renamed": renamed,
    "added": added,
}
USUAL = ("mismatched", "swapped", "negated", "truncated", "shuffled")
"""The corruptions of the table of all filters."""


def spoil(kept: pa.Table, name: str, count_tokens: Callable[[list[str]], list[int]]) -> pa.Table:
    """The rows of `kept` (as passed to filters) with corrupted outputs."""
    outputs, sources = kept["output"].to_pylist(), kept["source_id"].to_pylist()
    rows: list[dict[str, Any]] = []
    for place, row in enumerate(kept.to_pylist()):
        output = CORRUPTIONS[name](outputs, sources, place)
        if output is None or output == row["output"]:
            continue
        cut = {"finish_reason": "length"} if name == "truncated" else {}
        rows.append(
            {
                **row,
                "candidate_id": f"{row['candidate_id']}-{name}",
                "output": output,
                "output_tokens": count_tokens([output])[0],
                **cut,
            }
        )
    return pa.Table.from_pylist(rows, schema=kept.schema)
