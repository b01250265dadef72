"""Build a dataset's rows from kept candidates, and the facts of its card."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from limbeck.corpus.schemas import CANDIDATES
from limbeck.generators.contract import Question
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.card import DatasetFacts
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.records import read_sources, validated
from limbeck.pipelines.runs.report_model import Bounds, Rows
from limbeck.pipelines.runs.rows import Answered, RowsConfig, plain, turns
from limbeck.pipelines.runs.scored import SOURCE_REFERENCE, Scored, text
from limbeck.pipelines.runs.select import all_numbers
from limbeck.pipelines.runs.self_test import stored

COLUMNS = (
    *("candidate_id", "source_id", "prompt", "completion", "document", "output", "reference"),
    *("instruction", "input", "messages", "facts"),  # if any row has them
)
"""The columns of a dataset; the score columns follow."""


def dataset_rows(scored: Scored, recipe: Recipe, decisions: Path) -> Iterator[pa.Table]:
    """Yield the training rows of the kept candidates, with document, reference and scores, by source and sample, in batches.

    `decisions`: a file of decisions on the rows of `scored`, in the same order.
    """
    kept = scored.new_name()
    scored.connection.execute(
        f"create table {kept} as select s.position from scored s join read_parquet({text(str(decisions))}) d "
        "using (candidate_id) where d.kept"
    )
    redacting = next((filter_.name for filter_ in recipe.filters if filter_.redacts), None)
    evidence = [] if redacting is None else [f"{redacting}.redacted"]
    of_sources = {"document": "document", SOURCE_REFERENCE: "reference"}
    for batch in scored.fetch(kept, scored.reader.candidates.names, of_sources, all_numbers(scored), evidence):
        yield training_rows(recipe, batch)
    scored.connection.execute(f"drop table {kept}")


def training_rows(recipe: Recipe, kept: pa.Table) -> pa.Table:
    """The training rows of kept candidates that are joined with their scores, their document and `SOURCE_REFERENCE`.

    The recipe's renderer writes prompt and completion. If a privacy filter redacts, its text replaces the output. If rows are
    text, `instruction` is the generator's prompt, which a template may surround.
    """
    redacting = next((filter_.name for filter_ in recipe.filters if filter_.redacts), None)
    output = kept["output"]
    if redacting is not None:
        output = pc.coalesce(kept[f"{redacting}.redacted"].cast(pa.string()), output)  # null if nothing was redacted
    own = {name: _column(kept, name) for name in ("input", "reference", "messages", "facts")}
    columns = {
        "candidate_id": kept["candidate_id"],
        "source_id": kept["source_id"],
        **_rendered(recipe.renderer, kept, output.to_pylist(), own),
        "document": kept["document"],
        "output": output,
        "reference": pc.coalesce(own["reference"], kept[SOURCE_REFERENCE]),
        **({} if recipe.renderer.chat else {"instruction": kept["prompt"]}),
        **{name: own[name] for name in ("input", "messages", "facts")},
    }
    known = {*CANDIDATES.names, *columns}
    scores = [name for name in kept.column_names if name not in known and pa.types.is_floating(kept.schema.field(name).type)]
    return pa.table({**columns, **{name: kept[name] for name in scores}})


def _rendered(
    renderer: RowsConfig, kept: pa.Table, outputs: Sequence[str], own: Mapping[str, pa.ChunkedArray]
) -> dict[str, pa.Array]:
    """The columns prompt and completion: strings, or lists of {role, content}."""
    scores = kept.select([name for name in kept.column_names if "." in name]).to_pylist() or [{}] * kept.num_rows
    given = (kept["source_id"], kept["prompt"], kept["document"], own["input"], own["messages"])
    rows = []
    for position, (source_id, prompt, document, input_, messages) in enumerate(
        zip(*(column.to_pylist() for column in given), strict=True)
    ):
        said = turns(messages)
        question = Question(source_id, prompt, document, input_, said)
        rows.append(renderer.row(Answered(question, outputs[position], said, scores[position])))
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])) if renderer.chat else pa.string()
    return {
        "prompt": pa.array([plain(row.prompt) for row in rows], kind),
        "completion": pa.array([plain(row.completion) for row in rows], kind),
    }


def _column(kept: pa.Table, name: str) -> pa.ChunkedArray:
    """A nullable column of the candidates, which older versions did not write."""
    kind = CANDIDATES.field(name).type
    return kept[name].cast(kind) if name in kept.column_names else pa.chunked_array([pa.nulls(kept.num_rows, kind)])


def dataset_facts(folder: RunFolder, recipe: Recipe, number: int, rows: Rows, calibration: Mapping[str, Any]) -> DatasetFacts:
    """The facts of a round for its dataset card."""
    student = number > 0 and recipe.next_teacher == "student"
    return DatasetFacts(
        name=recipe.name,
        round=number,
        rows=rows,
        teacher=f"the student of round {number - 1}" if student else recipe.teacher.model,
        seed=recipe.seed,
        bounds=validated(Bounds, calibration, folder.calibration),
        sources=read_sources(folder),
        self_tests=stored(folder.self_test),
    )
