"""Ways to corrupt a summary of an unchanged document. Deterministic; rows that a corruption does not apply to are left out."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

_ENTITY = re.compile(r"(?<![.!?] )(?<!^)\b(?:[A-Z][\w+#.-]*[\w+#]|\d[\d.,]*\d|\d)\b")
_NEGATIONS = (
    (re.compile(r"\b(is|are|was|were|can|will|should|must|could)\b(?! not)"), r"\1 not"),
    (
        re.compile(r"\b(allow|provide|support|include|enable|offer|make|use|contain|implement|add|help|work|give)s\b"),
        r"does not \1",
    ),
    (re.compile(r"\b(allow|provide|support|include|enable|offer|make|use|contain|implement|add|help|work|give)\b"), r"do not \1"),
)


def mismatched(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """The output of the next other source."""
    for step in range(1, len(outputs)):
        other = (place + step) % len(outputs)
        if sources[other] != sources[place]:
            return outputs[other]
    return None


def swapped(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """One name or number exchanged for one from another source's output."""
    own = list(_ENTITY.finditer(outputs[place]))
    if not own:
        return None
    rng = random.Random(f"swap {place}")
    chosen = rng.choice(own)
    digits = chosen[0][0].isdigit()
    others = [
        match[0]
        for output, source in zip(outputs, sources, strict=True)
        if source != sources[place]
        for match in _ENTITY.finditer(output)
        if match[0][0].isdigit() == digits and match[0] not in outputs[place]
    ]
    if not others:
        return None
    return outputs[place][: chosen.start()] + rng.choice(others) + outputs[place][chosen.end() :]


def negated(outputs: Sequence[str], sources: Sequence[str], place: int) -> str | None:
    """The first verb that a rule can negate, negated."""
    for pattern, replacement in _NEGATIONS:
        said, count = pattern.subn(replacement, outputs[place], count=1)
        if count:
            return said
    return None


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
}


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
