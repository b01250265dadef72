"""Build a dataset's rows from kept candidates, and the facts of its card."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.generators.contract import Question
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.card import DatasetFacts
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.funnel import source_counts
from limbeck.pipelines.runs.report_model import Bounds, Rows, Sources
from limbeck.pipelines.runs.rows import Answered, RowsConfig, plain, turns

COLUMNS = (
    *("candidate_id", "source_id", "prompt", "completion", "document", "output", "reference"),
    *("instruction", "input", "messages", "facts"),  # if any row has them
)
"""The columns of a dataset; the score columns follow."""


def dataset_rows(folder: RunFolder, recipe: Recipe, kept: pa.Table) -> pa.Table:
    """Training rows of kept candidates with document, reference and scores, ordered by source and sample.

    `kept` is a joined table with its evidence. The recipe's renderer writes prompt and completion. If a privacy filter redacts,
    its text replaces the output. The columns input, messages and facts are omitted if every row is null. `instruction` is the
    generator's prompt, if the rows are text in which a template surrounds it.
    """
    sources = {row["source_id"]: row for row in read_parts(folder.sources("train"), SOURCES).to_pylist()}
    ids = kept["source_id"].to_pylist()
    redacting = next((filter_.name for filter_ in recipe.filters if filter_.redacts), None)
    outputs = kept["output"].to_pylist()
    if redacting is not None:
        clean = kept[f"{redacting}.redacted"].to_pylist()  # null if nothing was redacted
        outputs = [output if text is None else text for output, text in zip(outputs, clean, strict=True)]
    own = {name: _column(kept, name) for name in ("input", "reference", "messages", "facts")}
    references = [sources[i]["reference"] if mine is None else mine for i, mine in zip(ids, own["reference"], strict=True)]
    rendered = _rendered(recipe.renderer, kept, sources, outputs, own)
    framed = not recipe.renderer.chat and not rendered["prompt"].equals(pa.array(kept["prompt"].to_pylist(), pa.string()))
    columns = {
        "candidate_id": kept["candidate_id"],
        "source_id": kept["source_id"],
        **rendered,
        "document": pa.array([sources[i]["document"] for i in ids], pa.string()),
        "output": pa.array(outputs, pa.string()),
        "reference": pa.array(references, pa.string()),
        **({"instruction": kept["prompt"]} if framed else {}),
        **{
            name: pa.array(own[name], CANDIDATES.field(name).type)
            for name in ("input", "messages", "facts")
            if any(value is not None for value in own[name])
        },
    }
    known = {*CANDIDATES.names, *columns}
    scores = [name for name in kept.column_names if name not in known and pa.types.is_floating(kept.schema.field(name).type)]
    return pa.table({**columns, **{name: kept[name] for name in scores}})


def _rendered(
    renderer: RowsConfig, kept: pa.Table, sources: Mapping[str, Any], outputs: Sequence[str], own: Mapping[str, list[Any]]
) -> dict[str, pa.Array]:
    """The columns prompt and completion: strings, or lists of {role, content}."""
    scores = kept.select([name for name in kept.column_names if "." in name]).to_pylist() or [{}] * kept.num_rows
    rows = []
    for position, (source_id, prompt) in enumerate(zip(kept["source_id"].to_pylist(), kept["prompt"].to_pylist(), strict=True)):
        said = turns(own["messages"][position])
        question = Question(source_id, prompt, sources[source_id]["document"], own["input"][position], said)
        rows.append(renderer.row(Answered(question, outputs[position], said, scores[position])))
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])) if renderer.chat else pa.string()
    return {
        "prompt": pa.array([plain(row.prompt) for row in rows], kind),
        "completion": pa.array([plain(row.completion) for row in rows], kind),
    }


def _column(kept: pa.Table, name: str) -> list[Any]:
    """A nullable column of the candidates, which older versions did not write."""
    return list(kept[name].to_pylist()) if name in kept.column_names else [None] * int(kept.num_rows)


def dataset_facts(folder: RunFolder, recipe: Recipe, number: int, rows: Rows, calibration: Mapping[str, Any]) -> DatasetFacts:
    """The facts of a round for its dataset card."""
    student = number > 0 and recipe.next_teacher == "student"
    return DatasetFacts(
        name=recipe.name,
        round=number,
        rows=rows,
        teacher=f"the student of round {number - 1}" if student else recipe.teacher.model,
        seed=recipe.seed,
        bounds=Bounds.model_validate(calibration),
        sources=Sources.model_validate(source_counts(folder)),
    )
