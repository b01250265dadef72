"""The controls: outputs that need no model, which a student must beat to have learned anything."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from limbeck.corpus.other_documents import NO_OTHER, other_rows
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.sentences import sentence_ends, split_sentences
from limbeck.corpus.text.invisible import is_blank
from limbeck.corpus.text.words import one_line


def controls(
    sources: pa.Table, teacher_outputs: pa.Table, count_tokens: Callable[[Sequence[str]], list[int]]
) -> dict[str, pa.Table]:
    """Return first-sentence, mismatched and document as tables with the schema `CANDIDATES`, for filters to score.

    `sources` has the columns of `SOURCES`, `teacher_outputs` those of `CANDIDATES` for the same sources; `mismatched` gives
    each document the usable outputs of the next one (in order of source_id) that is not its near-duplicate, and is empty
    if there is no such document. The other two have one row per source that has a document.
    """
    rows = sorted(sources.to_pylist(), key=lambda row: str(row["source_id"]))
    usable: dict[str, list[dict[str, Any]]] = {}
    prompts: dict[str, dict[str, Any]] = {}  # the teacher's prompt is included for filters that use it
    for candidate in sorted(teacher_outputs.to_pylist(), key=lambda row: (row["source_id"], row["sample"])):
        prompts.setdefault(candidate["source_id"], candidate)
        if candidate["error"] is None and not is_blank(candidate["output"]):
            usable.setdefault(candidate["source_id"], []).append(candidate)
    outputs: dict[str, list[tuple[str, int, str]]] = {
        "first-sentence": [(row["source_id"], 0, first_sentence(row["document"])) for row in rows if row["document"]],
        "mismatched": [
            (source_id, candidate["sample"], candidate["output"])
            for source_id, other in _others([row for row in rows if row["source_id"] in usable])
            for candidate in usable[other]
        ],
        "document": [(row["source_id"], 0, row["document"]) for row in rows if row["document"]],
    }
    return {name: _candidates(name, found, prompts, count_tokens) for name, found in outputs.items()}


def first_sentence(document: str) -> str:
    """Return the first piece of the document that ends like a sentence (unlike a heading), or else its first piece."""
    pieces = [one_line(piece) for piece in split_sentences(document)]
    return next((piece for piece in pieces if sentence_ends(piece)), pieces[0] if pieces else "")


def _others(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each source_id with the next one of another near-duplicate group; those without one are skipped."""
    ids = [row["source_id"] for row in rows]
    others = other_rows(ids, [row["group"] for row in rows])
    return [(id_, ids[other]) for id_, other in zip(ids, others.tolist(), strict=True) if other != NO_OTHER]


def _candidates(
    control: str,
    outputs: Sequence[tuple[str, int, str]],
    prompts: dict[str, dict[str, Any]],
    count_tokens: Callable[[Sequence[str]], list[int]],
) -> pa.Table:
    counts = count_tokens([output for _, _, output in outputs]) if outputs else []
    rows = []
    for (source_id, sample, output), tokens in zip(outputs, counts, strict=True):
        asked = prompts.get(source_id)
        name = hashlib.blake2b(f"{control}\0{source_id}\0{sample}".encode(), digest_size=8).hexdigest()
        rows.append(
            {
                "candidate_id": name,
                "source_id": source_id,
                "sample": sample,
                "seed": 0,
                "prompt": asked["prompt"] if asked else "",
                "output": output,
                "prompt_tokens": asked["prompt_tokens"] if asked else 0,
                "output_tokens": tokens,
                "finish_reason": "stop",
                "error": None,
            }
        )
    return pa.Table.from_pylist(rows, schema=CANDIDATES)
