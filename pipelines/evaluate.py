"""Measure teachers, students and controls on held-out documents, with the bounds frozen at round 0."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from corpus.parts import part_names, read_json, read_part, read_parts, register, write_json, write_part
from corpus.schemas import CANDIDATES, SOURCES
from pipelines.calibrate import freeze
from pipelines.context import Context
from pipelines.select import CANDIDATES_VIEW, joined, passing, scores_view
from students.controls import controls
from students.evaluation import SCORES, evaluate

TEACHER = "teacher"


def student_subject(round_number: int) -> str:
    """What a student's held-out outputs are called on disk."""
    return f"student-{round_number:03d}"


def publish_controls(context: Context, split: str) -> list[str]:
    """Write the controls' candidates, part by part beside the sources', and return the controls' names."""
    from corpus.tokenizer import Tokenizer

    folder = context.folder
    sources = read_parts(folder.sources(split), SOURCES)
    outputs = read_parts(folder.evaluation(split, TEACHER) / "candidates", CANDIDATES)
    found = controls(sources, outputs, Tokenizer.load(context.teacher_folder).count)
    for name, table in found.items():
        for part in part_names(folder.sources(split)):
            members = set(read_part(folder.sources(split), part)["source_id"].to_pylist())
            mask = pa.array([source_id in members for source_id in table["source_id"].to_pylist()], pa.bool_())
            write_part(folder.evaluation(split, name) / "candidates", part, table.filter(mask), CANDIDATES)
    return list(found)


def measured(context: Context, split: str, subject: str) -> pa.Table:
    """One row a held-out candidate: its source, its scores, whether it passes, and whether it passes each filter."""
    import duckdb

    place = context.folder.evaluation(split, subject)
    frozen = freeze(context.filter_bounds, read_json(context.folder.calibration))
    with duckdb.connect() as connection:
        register(connection, CANDIDATES_VIEW, place / "candidates")
        for name in context.filter_names:
            register(connection, scores_view(name), place / "scores" / name)
        table = joined(connection, context.filter_names)
    columns = {name: table[name] for name in ("source_id", "sample", "output")}
    sources = {row["source_id"]: row for row in read_parts(context.folder.sources(split), SOURCES).to_pylist()}
    for name in ("document", "reference", "salient"):
        columns[name] = pa.array([sources[i][name] for i in table["source_id"].to_pylist()], SOURCES.field(name).type)
    for score in SCORES:
        owner = next((name for name in table.column_names if name.endswith(f".{score}")), None)
        if owner:
            columns[score] = table[owner]
    columns["kept"] = pa.array(passing(table, frozen))
    columns |= {f"pass_{name}": pa.array(passing(table, [(name, bounds)])) for name, bounds in frozen}
    return pa.table(columns)


def evaluation_row(context: Context, split: str, subject: str, model: str, teacher: pa.Table | None) -> dict[str, Any]:
    """All measures of one subject, told to the listener too; `teacher`: the round-0 teacher's table, for paired differences."""
    row: dict[str, Any] = {**evaluate(model, split, measured(context, split, subject), teacher)}
    rate = row["pass_rate"]
    context.events.emit("evaluated", model=subject, split=split, pass_rate=rate["mean"] if rate else 0.0)
    return row


def evaluate_dev(context: Context, rounds: Sequence[int]) -> None:
    """Write `rounds/NNN/evaluation.json` of rounds whose student's dev outputs are there."""
    for number in rounds:
        path = context.folder.round(number) / "evaluation.json"
        if path.exists():
            continue
        has_dev = bool(part_names(context.folder.sources("dev")))
        write_json(path, round_report(context, number, _rows(context, "dev", number) if has_dev else []))


def evaluate_test(context: Context, rounds: int) -> None:
    """Write `evaluation/test.json`: every round's teacher and student, and the controls, on the test documents."""
    path = context.folder.path / "evaluation" / "test.json"
    if path.exists() or not part_names(context.folder.sources("test")):
        return
    teacher = measured(context, "test", TEACHER)
    names = ("first-sentence", "mismatched", "document")
    shared = [evaluation_row(context, "test", name, name, teacher) for name in names if _has_rows(context, name)]
    found = {str(number): [*_rows(context, "test", number), *shared] for number in range(rounds)}
    write_json(path, {"rounds": found})


def round_report(context: Context, number: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One round in the shape of `report_model.RoundReport`."""
    from cluster.engines.models import fingerprint, resolve

    folder = context.folder
    teacher = context.teacher(number)
    report = {
        "rows": read_json(folder.round(number) / "rows.json"),
        "evaluation": rows,
        "teacher": {"name": _shown(context, teacher.model), "fingerprint": fingerprint(resolve(teacher.model))},
    }
    if folder.student(number).exists():
        report["training"] = read_json(folder.training(number))
        student = str(folder.student(number))
        report["student"] = {"name": _shown(context, student), "fingerprint": fingerprint(resolve(student))}
    return report


def _rows(context: Context, split: str, number: int) -> list[dict[str, Any]]:
    """The round's teacher and student on one split."""
    first = measured(context, split, TEACHER)
    follows = number > 0 and context.recipe.next_teacher == "student"
    subject = student_subject(number - 1) if follows else TEACHER
    rows = [evaluation_row(context, split, subject, "teacher", first if follows else None)]
    if context.folder.student(number).exists():
        rows.append(evaluation_row(context, split, student_subject(number), "student", first))
    return rows


def _has_rows(context: Context, control: str) -> bool:
    place = context.folder.evaluation("test", control) / "candidates"
    return any(read_part(place, part).num_rows for part in part_names(place))


def _shown(context: Context, model: str) -> str:
    """A model's name without the machine's path: students are named by their place in the run."""
    root = str(context.folder.path.resolve())
    return model[len(root) + 1 :] if model.startswith(root) else str(model)
