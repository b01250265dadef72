"""Measure teachers, students and controls on held-out documents, with the bounds frozen at round 0."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from limbeck.corpus.other_documents import groups_of
from limbeck.corpus.parts import (
    count_rows,
    done,
    mark_done,
    part_names,
    read_object,
    read_part,
    read_parts,
    write_json,
    write_part,
)
from limbeck.corpus.salience import own_salient_spans
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.corpus.text.invisible import is_blank
from limbeck.generators.asking import frozen
from limbeck.generators.contract import Question
from limbeck.pipelines.driver.context import Context
from limbeck.pipelines.runs.calibrate import FrozenBounds, freeze
from limbeck.pipelines.runs.records import read_calibration, read_on_test
from limbeck.pipelines.runs.rows import ASKED, ControlCodeRows, asked_turns
from limbeck.pipelines.runs.scored import connect_parts
from limbeck.pipelines.runs.select import all_numbers, passing
from limbeck.students.evaluation.controls import controls
from limbeck.students.evaluation.measures import CONTROLS, EvaluationRow, Model, Split
from limbeck.students.evaluation.statistics import SCORES, Measured, evaluate, measure_batches

TEACHER = "teacher"


def student_subject(round_number: int) -> str:
    """The name of a student's held-out outputs on disk."""
    return f"student-{round_number:03d}"


def publish_controls(context: Context, split: str) -> list[str]:
    """Write the candidates of the controls in the same parts as the sources, and return the names of the controls."""
    from limbeck.corpus.tokenizer import Tokenizer

    folder = context.folder
    sources = read_parts(context.held_out(split), SOURCES)
    outputs = read_parts(folder.evaluation(split, TEACHER) / "candidates", CANDIDATES)
    found = controls(sources, outputs, Tokenizer.load(context.teacher_folder).count)
    found = {name: table for name, table in found.items() if name in context.recipe.asked.controls and table.num_rows}
    for name, table in found.items():
        for part in part_names(context.held_out(split)):
            members = set(read_part(context.held_out(split), part)["source_id"].to_pylist())
            mask = pa.array([source_id in members for source_id in table["source_id"].to_pylist()], pa.bool_())
            write_part(folder.evaluation(split, name) / "candidates", part, table.filter(mask), CANDIDATES)
    return list(found)


def outputs_of(context: Context, split: str, subject: str) -> Iterator[pa.Table]:
    """Yield, in batches, one row per held-out candidate: its source, its scores, whether it passes all filters, and each one."""
    place = context.folder.evaluation(split, subject)
    frozen = freeze(context.filter_bounds, read_calibration(context.folder))
    scores = {name: place / "scores" / name for name in context.filter_names}
    of_sources = {name: name for name in ("document", "reference", "salient")}
    with connect_parts(place / "candidates", scores, context.held_out(split)) as scored:
        scored.connection.execute("create table every as select position from scored")
        codes = context.recipe.renderer if isinstance(context.recipe.renderer, ControlCodeRows) else None
        texts = ["output", "finish_reason", *(["facts"] if codes else [])]
        for batch in scored.fetch("every", texts, of_sources, all_numbers(scored)):
            measured = _measured_columns(batch, frozen)
            yield measured if codes is None else measured.append_column("code_accuracy", _accuracies(batch, codes))


def _accuracies(table: pa.Table, codes: ControlCodeRows) -> pa.Array:
    """Per row, the share of its control code that was followed: 0 for an empty output, null for a control, which has no code."""
    found: list[float | None] = []
    for row in table.select(["output", "facts", *codes.columns]).to_pylist():
        asked = (json.loads(row["facts"]) if row["facts"] else {}).get(ASKED)
        followed = None if asked is None else codes.accuracy(asked, row)
        found.append(0.0 if asked is not None and is_blank(row["output"]) else followed)
    return pa.array(found, pa.float64())


def _measured_columns(table: pa.Table, frozen: FrozenBounds) -> pa.Table:
    columns = {name: table[name] for name in ("source_id", "sample", "output", "document", "reference", "salient")}
    for score in SCORES:
        owner = next((name for name in table.column_names if name.endswith(f".{score}")), None)
        if owner:
            columns[score] = table[owner]
    columns["kept"] = pa.array(passing(table, frozen))
    columns |= {f"pass_{name}": pa.array(passing(table, [(name, bounds)])) for name, bounds in frozen}
    return pa.table(columns)


def freeze_inputs(context: Context, split: str) -> None:
    """Write the held-out sources that every model is asked about: each with the first usable draft of the round-0 teacher.

    A source whose drafts were all rejected is skipped; an event reports how many remain.
    """
    folder, out = context.folder, context.held_out(split)
    drawn = folder.evaluation(split, "inputs") / "candidates"
    if done(out) is not None:
        return
    parts: dict[str, list[dict[str, Any]]] = {}
    for part in part_names(folder.sources(split)):
        drafts: dict[str, dict[str, Any]] = {}
        for draft in read_part(drawn, part).to_pylist():
            if draft["error"] is None:
                drafts.setdefault(draft["source_id"], draft)
        sources = read_part(folder.sources(split), part)
        rows = [(row, drafts[row["source_id"]]) for row in sources.to_pylist() if row["source_id"] in drafts]
        parts[part] = [{**_with_question(row, draft), "input": draft["input"]} for row, draft in rows]
    asked = [row for rows in parts.values() for row in rows]
    for row, group in zip(asked, groups_of(_groups_and_inputs(asked)) or (), strict=True):
        row["group"] = group
    for part in (part for part in parts if parts[part]):
        write_part(out, part, pa.Table.from_pylist(parts[part], schema=SOURCES), SOURCES)
    total = count_rows(folder.sources(split))
    mark_done(out, context.fingerprint("candidates", split), rows_in=total, rows_out=len(asked))
    context.events.emit("note", words=f"{split}: {len(asked)} of {total} held-out inputs are usable; every model is asked those")


def _groups_and_inputs(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """What decides which questions are near-duplicates: the groups of their sources, and the inputs that the teacher invented."""
    return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in ("group", "input")})


def _with_question(source: dict[str, Any], draft: dict[str, Any]) -> dict[str, Any]:
    """A held-out source with the draft's question frozen in its record, its input as the document and its answer as reference.

    An input of a source without a document is given salient words, as on train sources.
    """
    question = Question(source["source_id"], draft["prompt"], source["document"], draft["input"], asked_turns(draft["messages"]))
    record = {**(json.loads(source["record"]) if source.get("record") else {}), **frozen(question)}
    document = source["document"] if draft["input"] is None else draft["input"]
    reference = source["reference"] if draft["reference"] is None else draft["reference"]
    if document and not source["document"]:
        source = {**source, "salient": own_salient_spans(document), "document_tokens": len(document.split())}
    return {**source, "document": document, "reference": reference, "record": json.dumps(record, ensure_ascii=False)}


class HeldOut:
    """Measures every model and control of a run once per split; a student is also the next round's teacher."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._first: dict[str, Measured] = {}  # split → the round-0 teacher
        self._rows: dict[tuple[str, str], EvaluationRow] = {}  # (split, subject)

    def row(self, split: Split, subject: str, model: Model) -> EvaluationRow:
        """All measures of one subject, labelled with its role in this round; emits one event per subject."""
        if (split, subject) not in self._rows:
            row = self._rows[split, subject] = self._measure(split, subject, model)
            rate = row.pass_rate.mean if row.pass_rate else 0.0
            self._context.events.emit("evaluated", model=subject, split=split, pass_rate=rate)
        return self._rows[split, subject].model_copy(update={"model": model})

    def round_rows(self, split: Split, number: int) -> list[EvaluationRow]:
        """The round's teacher and student."""
        follows = number > 0 and self._context.recipe.next_teacher == "student"
        rows = [self.row(split, student_subject(number - 1) if follows else TEACHER, "teacher")]
        if self._context.folder.student(number).exists():
            rows.append(self.row(split, student_subject(number), "student"))
        return rows

    def _measure(self, split: Split, subject: str, model: Model) -> EvaluationRow:
        place = self._context.folder.evaluation(split, subject)
        self._context.compact(split, place / "candidates", place / "scores")
        if split not in self._first:
            self._first[split] = measure_batches(outputs_of(self._context, split, TEACHER))
        only = self._context.recipe.measures
        if subject == TEACHER:
            return evaluate(model, split, self._first[split], only=only)
        return evaluate(model, split, measure_batches(outputs_of(self._context, split, subject)), self._first[split], only)


def evaluate_dev(context: Context, held_out: HeldOut, rounds: Sequence[int]) -> None:
    """Write `rounds/NNN/evaluation.json` for rounds whose student has dev outputs."""
    for number in rounds:
        path = context.folder.round(number) / "evaluation.json"
        if path.exists():
            continue
        has_dev = bool(part_names(context.held_out("dev")))
        write_json(path, round_report(context, number, held_out.round_rows("dev", number) if has_dev else []))


def evaluate_test(context: Context, held_out: HeldOut, rounds: int) -> None:
    """Write `evaluation/test.json`: every round's teacher and student, and the controls, on the test documents.

    The figures of fewer rounds, measured before the run went on, are kept beside it.
    """
    path = context.folder.on_test
    if not part_names(context.held_out("test")):
        return
    before = len(read_on_test(context.folder))
    if before >= rounds:
        return
    if path.exists():
        path.rename(context.folder.seen_on_test(before))
    shared = [held_out.row("test", name, name) for name in CONTROLS if _has_rows(context, name)]
    found = {number: [*held_out.round_rows("test", number), *shared] for number in range(rounds)}
    write_json(path, {"rounds": {str(number): [row.model_dump() for row in rows] for number, rows in found.items()}})


def round_report(context: Context, number: int, rows: Sequence[EvaluationRow]) -> dict[str, Any]:
    """One round in the format of `report_model.RoundReport`."""
    from limbeck.cluster.engines.models import fingerprint, resolve

    folder = context.folder
    teacher = context.teacher(number)
    asked = context.recipe.asked
    report = {
        "generator": context.recipe.generator_of(number).kind,
        "task": {
            "generator": asked.kind,
            "measures": context.recipe.measures,
            "controls": asked.controls,
            "inputs": "inputs" if asked.invents_inputs else context.recipe.sources.rows_are,
        },
        "rows": read_object(folder.rows(number)),
        "evaluation": [row.model_dump() for row in rows],
        "teacher": {"name": _shown(context, teacher.model), "fingerprint": fingerprint(teacher.folder())},
    }
    if folder.student(number).exists():
        report["training"] = read_object(folder.training(number))
        student = str(folder.student(number))
        report["student"] = {"name": _shown(context, student), "fingerprint": fingerprint(resolve(student))}
    return report


def _has_rows(context: Context, control: str) -> bool:
    place = context.folder.evaluation("test", control) / "candidates"
    return any(read_part(place, part).num_rows for part in part_names(place))


def _shown(context: Context, model: str) -> str:
    """A model's name without the path of the run: students are named by their folder in it."""
    root = str(context.folder.path.resolve())
    return model[len(root) + 1 :] if model.startswith(root) else str(model)
