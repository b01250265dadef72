"""How a candidate was made: every request of its source's script, in order; reads only the run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import COMPUTED_AGAIN, part_groups, part_names, part_path, read_part, read_some
from limbeck.pipelines.runs.lost import lost_parts, refuse_lost, round_numbers, was_decided
from limbeck.pipelines.runs.opening import existing

if TYPE_CHECKING:
    from rich.console import Console


def steps(run: Path, candidate_id: str, round: int | None = None) -> dict[str, Any]:
    """Return {candidate, steps}: a candidate's row and its source's steps; `used` marks the completion it was made from.

    `candidate_id` may be a prefix. `round` None: the last round with candidates. Raises LimbeckError unless exactly
    one candidate has that prefix, or if the run was made before steps were stored.
    """
    folder = existing(run)
    drawn = [number for number in round_numbers(folder) if folder.candidates(number).exists() or was_decided(folder, number)]
    number = max(drawn, default=0) if round is None else round
    refuse_lost(folder, lost_parts(folder, number))
    if not part_names(folder.candidates(number)):
        raise LimbeckError(f"{run} has no candidates{'' if round is None else f' in round {round}'} yet")
    found = list(_candidates(folder.candidates(number), candidate_id))
    if len(found) != 1:
        some = "several candidates have" if found else "no candidate has"
        raise LimbeckError(f"round {number} of {run}: {some} an id that begins with {candidate_id!r}; see `limbeck inspect`")
    part, candidate = found[0]
    stored = part_names(folder.steps(number))
    if stored and part not in stored:
        lost, made = part_path(folder.steps(number), part), part_path(folder.candidates(number), part)
        raise LimbeckError(f"{lost} is missing; delete {made}, too, and {COMPUTED_AGAIN}")
    if not stored:
        raise LimbeckError(
            f"round {number} of {run} has no steps: an older version drew it and did not store them; use a new run"
        )
    rows = [row for row in read_part(folder.steps(number), part).to_pylist() if row["source_id"] == candidate["source_id"]]
    return {"candidate": candidate, "steps": [{**row, "used": candidate["sample"] in (row["samples"] or [])} for row in rows]}


def _candidates(folder: Path, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (part, row) of each candidate whose id begins with `prefix`; of the others, only the ids are read."""
    ids = pa.schema([("candidate_id", pa.string())])
    for parts in part_groups(folder, part_names(folder)):
        for part, table in zip(parts, read_some(folder, parts, ids), strict=True):
            matches = pc.starts_with(table["candidate_id"], prefix)
            if pc.any(matches).as_py():
                yield from ((part, row) for row in read_part(folder, part).filter(matches).to_pylist())


def show(found: dict[str, Any], console: Console | None = None) -> None:
    """Print the steps of a candidate, one panel per request; model text is never parsed as markup."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console, candidate = console or Console(), found["candidate"]
    previous = None
    for row in found["steps"]:
        body = Text()
        if row["prompt"] != previous:  # a prompt with several completions is shown once
            body.append(_conversation(row["prompt"]) + "\n", "dim")
        previous = row["prompt"]
        if row["error"]:
            body.append(row["error"], "red")
        else:
            body.append(row["text"] or "(empty)", "bold" if row["used"] else "")
        score = "" if row["logprob"] is None else f" · log-probability {row['logprob']:z.3f}"
        mark = " · this candidate" if row["used"] else ""
        title = f"{row['step']} {row['index']} · {row['engine']}{score}{mark}"
        console.print(Panel(body, title=Text(title), title_align="left"))
    verdict = f"rejected by its generator: {candidate['error']}" if candidate["error"] else candidate["output"]
    console.print(Panel(Text(verdict), title=Text(f"candidate {candidate['candidate_id']}"), title_align="left"))


def _conversation(prompt: str) -> str:
    """A stored prompt as text: a conversation as `role: text` lines."""
    try:
        turns = json.loads(prompt)
    except ValueError:
        return prompt
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns):
        return prompt
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
