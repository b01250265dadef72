"""One round after its candidates are scored: calibrate once, decide, publish the dataset, train the student."""

import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.engines.models import resolve
from corpus.errors import LimbeckError
from corpus.parts import count_rows, part_names, read_json, read_parts, read_table, write_json, write_table
from corpus.schemas import CANDIDATES, DECISIONS, SOURCES
from corpus.seeds import derive_seed
from pipelines.calibrate import calibrate, freeze
from pipelines.card import DatasetFacts, write_dataset
from pipelines.context import Context
from pipelines.report_model import Bounds, Rows
from pipelines.select import connect_parts, decide, joined

if TYPE_CHECKING:
    from cluster.training import Placement


def select(context: Context, number: int) -> None:
    """From scores to `decisions.parquet`, `rows.json` and `dataset/`; in round 0 the bounds are calibrated first.

    Raises LimbeckError where nothing was kept, with what rejected most.
    """
    started, folder = time.monotonic(), context.folder
    parts = part_names(folder.sources("train"))
    scores = {name: folder.scores(number, name) for name in context.filter_names}
    for place, stage in [(folder.candidates(number), "candidates"), *((place, "scores") for place in scores.values())]:
        assert part_names(place) == parts, f"{place} lacks parts"
        context.finish(place, stage, number, rows=count_rows(place))
    with connect_parts(folder.candidates(number), scores) as connection:
        table = joined(connection, context.filter_names)
        bounds = freeze(context.filter_bounds, calibration(context, table))
        if not folder.decisions(number).exists():
            built = [part.build() if hasattr(part, "build") else part for part in context.set_filters]
            write_table(folder.decisions(number), decide(connection, bounds, built), DECISIONS)
    decisions = read_table(folder.decisions(number))
    rows = funnel(context, decisions)
    write_json(folder.round(number) / "rows.json", rows.model_dump())
    kept = table.filter(pa.array(decisions["kept"].to_pylist(), pa.bool_()))
    assert table["candidate_id"].equals(decisions["candidate_id"]), "decisions and candidates are in the same order"
    context.events.emit("selected", round=number, **rows.model_dump())
    if not rows.kept:
        most = max(rows.rejected_by, key=lambda name: rows.rejected_by[name], default="nothing")
        raise LimbeckError(
            f"round {number} kept none of {rows.candidates} candidates ({most} rejected {rows.rejected_by.get(most, 0)}); look "
            f"with `limbeck inspect {folder.path} --round {number} --rejected-by {most}`, and loosen that filter or better the "
            "prompt in a new run"
        )
    write_dataset(folder.dataset(number), dataset_rows(context, kept), _facts(context, number, rows))
    context.finish(folder.dataset(number), "decisions", number, rows_in=rows.candidates, rows_out=rows.kept)
    seconds = round(time.monotonic() - started, 3)
    context.events.emit("stage_done", stage=f"round-{number}/selection", seconds=seconds, model_seconds=0.0)


def calibration(context: Context, round_0: pa.Table) -> dict[str, Any]:
    """The frozen bounds: those on disk, else found now on the train candidates of round 0."""
    path = context.folder.calibration
    if not path.exists():
        found = calibrate(round_0, context.filter_bounds, context.recipe.calibration.pass_rate)
        write_json(path, found)
        context.events.emit("calibrated", pass_rate=found["pass_rate"], candidates=found["candidates"])
        if found["note"]:
            context.events.emit("note", words=found["note"])
    return dict(read_json(path))


def funnel(context: Context, decisions: pa.Table) -> Rows:
    """How many candidates came in, were kept, and were rejected by whom."""
    order = ["generator", *context.filter_names, *(part.name for part in context.set_filters)]
    rejected = decisions["rejected_by"].drop_null().to_pylist()
    counts = {name: rejected.count(name) for name in order}
    return Rows(
        sources=count_rows(context.folder.sources("train")),
        candidates=decisions.num_rows,
        kept=sum(decisions["kept"].to_pylist()),
        rejected_by={name: count for name, count in counts.items() if count or name != "generator"},
    )


def dataset_rows(context: Context, kept: pa.Table) -> pa.Table:
    """Kept candidates as a dataset's rows: conversation, document, reference and scores, in order of source and sample."""
    sources = {row["source_id"]: row for row in read_parts(context.folder.sources("train"), SOURCES).to_pylist()}
    chat = context.recipe.generator.style == "chat"
    turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])) if chat else pa.string()

    def said(role: str, texts: list[str]) -> pa.Array:
        if chat:
            return pa.array([[{"role": role, "content": text}] for text in texts], turn)
        return pa.array([text if role == "user" else f" {text}" for text in texts], turn)

    ids = kept["source_id"].to_pylist()
    columns = {
        "candidate_id": kept["candidate_id"],
        "source_id": kept["source_id"],
        "prompt": said("user", kept["prompt"].to_pylist()),
        "completion": said("assistant", kept["output"].to_pylist()),
        "document": pa.array([sources[i]["document"] for i in ids], pa.string()),
        "output": kept["output"],
        "reference": pa.array([sources[i]["reference"] for i in ids], pa.string()),
    }
    known = {*CANDIDATES.names, *columns}
    return pa.table({**columns, **{name: kept[name] for name in kept.column_names if name not in known}})


def train_student(context: Context, number: int, placement: "Placement") -> None:
    """Train the round's student on its dataset; a student that is published already is left as it is."""
    from students.sft import train

    folder, recipe = context.folder, context.recipe
    if recipe.student is None or folder.student(number).exists():
        return
    started = time.monotonic()
    rows, progress = (
        read_json(folder.round(number) / "rows.json")["kept"],
        folder.student(number).parent / "training" / "progress.json",
    )
    context.events.emit("training_started", round=number, rows=rows, progress=str(progress))
    metrics = train(
        recipe.student,
        dataset=folder.dataset(number),
        teacher=resolve(context.teacher(number).model),
        out=folder.student(number),
        seed=derive_seed(recipe.seed, number, "student") % 2**31,
        documents=folder.sources("train"),
        placement=placement,
    )
    facts = {name: metrics[name] for name in ("steps", "loss_first", "loss_last")}
    context.events.emit("trained", round=number, **facts)
    for warning in metrics["warnings"]:
        context.events.emit("note", words=warning)
    seconds, model_seconds = round(time.monotonic() - started, 3), round(metrics["train_seconds"], 3)
    context.events.emit("stage_done", stage=f"round-{number}/student", seconds=seconds, model_seconds=model_seconds)


def _facts(context: Context, number: int, rows: Rows) -> DatasetFacts:
    frozen = read_json(context.folder.calibration)
    return DatasetFacts(
        name=context.recipe.name,
        round=number,
        rows=rows,
        teacher=context.recipe.teacher.model
        if context.teacher(number) == context.recipe.teacher
        else f"the student of round {number - 1}",
        seed=context.recipe.seed,
        bounds=Bounds.model_validate(frozen),
    )
