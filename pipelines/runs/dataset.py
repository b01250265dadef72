"""From decisions to a dataset: how many rows each filter rejected, and what a kept candidate becomes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.card import DatasetFacts
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import Bounds, Rows
from limbeck.pipelines.runs.select import BEYOND_TARGET, UNDECIDED


def funnel(decisions: pa.Table, names: Sequence[str]) -> Rows:
    """How many candidates came in, were kept, and were rejected by which of the filters `names`, given in recipe order."""
    rejected = decisions["rejected_by"].drop_null().to_pylist()
    counts = {name: rejected.count(name) for name in ("generator", *names, UNDECIDED, BEYOND_TARGET)}
    return Rows(
        sources=len(decisions["source_id"].unique()),
        candidates=decisions.num_rows,
        kept=sum(decisions["kept"].to_pylist()),
        rejected_by={name: count for name, count in counts.items() if count or name in names},
    )


def dataset_rows(folder: RunFolder, recipe: Recipe, kept: pa.Table) -> pa.Table:
    """Kept candidates as a dataset's rows: conversation, document, reference and scores, in order of source and sample.

    `kept` is a joined table with its evidence. Where a privacy filter redacts, its text is the row's output.
    """
    sources = {row["source_id"]: row for row in read_parts(folder.sources("train"), SOURCES).to_pylist()}
    chat = recipe.generator.needs.chat
    turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])) if chat else pa.string()

    def said(role: str, texts: list[str]) -> pa.Array:
        if chat:
            return pa.array([[{"role": role, "content": text}] for text in texts], turn)
        return pa.array([text if role == "user" else f" {text}" for text in texts], turn)

    ids = kept["source_id"].to_pylist()
    redacting = next((part.name for part in recipe.filters if getattr(part, "redact", False)), None)
    outputs = kept["output"].to_pylist()
    if redacting is not None:
        clean = kept[f"{redacting}.redacted"].to_pylist()  # null where there was nothing to take out
        outputs = [output if text is None else text for output, text in zip(outputs, clean, strict=True)]
    columns = {
        "candidate_id": kept["candidate_id"],
        "source_id": kept["source_id"],
        "prompt": said("user", kept["prompt"].to_pylist()),
        "completion": said("assistant", outputs),
        "document": pa.array([sources[i]["document"] for i in ids], pa.string()),
        "output": pa.array(outputs, pa.string()),
        "reference": pa.array([sources[i]["reference"] for i in ids], pa.string()),
    }
    known = {*CANDIDATES.names, *columns}
    scores = [name for name in kept.column_names if name not in known and pa.types.is_floating(kept.schema.field(name).type)]
    return pa.table({**columns, **{name: kept[name] for name in scores}})


def dataset_facts(recipe: Recipe, number: int, rows: Rows, calibration: Mapping[str, Any]) -> DatasetFacts:
    """What the dataset's card says of a round."""
    student = number > 0 and recipe.next_teacher == "student"
    return DatasetFacts(
        name=recipe.name,
        round=number,
        rows=rows,
        teacher=f"the student of round {number - 1}" if student else recipe.teacher.model,
        seed=recipe.seed,
        bounds=Bounds.model_validate(calibration),
    )
