"""report.html and the page of a sweep: each is one file without scripts or external requests."""

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from limbeck.filters.corruptions import CORRUPTIONS
from limbeck.pipelines.report import figures
from limbeck.pipelines.report.bases import base_rows, healing_curves
from limbeck.pipelines.runs import preference_pairs, self_test
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.inspect import candidates, score_owners, scored_round
from limbeck.pipelines.runs.report_model import Limits, Report
from limbeck.pipelines.runs.select import Numbers
from limbeck.pipelines.runs.separation import unclear
from limbeck.pipelines.runs.stopping import UNUSED_BY_FILTERS, as_sentence, student
from limbeck.pipelines.runs.training import step_lines
from limbeck.students.evaluation.measures import HEADINGS, SHARES, EvaluationRow, Measure

TEMPLATES = Path(__file__).with_name("templates")
MEASURES = {name: (heading, "percent" if name in SHARES else "number") for name, heading in HEADINGS.items()}
"""Heading and format of each measure."""
KEPT_EXAMPLES, REJECTED_EXAMPLES = 6, 3  # per round; per filter
DOCUMENT_SHOWN = 400
"""Characters of an example's document that are shown before the whole document is unfolded."""


def render(folder: RunFolder, report: Report) -> str:
    """The whole page; every text of a model or a document is escaped."""
    histograms, binary = _histograms(folder, report)
    return _template("report.html.jinja").render(
        report=report,
        split=headline_split(report),
        headline=headline(report),
        inputs=held_out_inputs(report),
        unmeasured=unmeasured(report),
        unclear=unclear(report.bounds.separation) if report.bounds else None,
        measures=_measures(report),
        independent=_independent(report),
        histograms=histograms,
        binary=binary,
        figures=_figures(report),
        curves=_curves(folder, report),
        followed=followed(report),
        pair_summary=preference_pairs.summary,
        pair_warning=preference_pairs.warning,
        bases=base_rows(report),
        healing=healing_curves(report),
        headings=HEADINGS,
        tests={one.filter: one for one in report.self_tests},
        beside={one.filter: self_test.beside(one) for one in report.self_tests},
        untested=self_test.note(report.self_tests),
        kinds_of_pairs={name: one.words for name, one in CORRUPTIONS.items()},
        examples=_examples(folder, report),
        shown=DOCUMENT_SHOWN,
        recipe=folder.recipe_file.read_text(encoding="utf-8") if folder.recipe_file.exists() else "",
    )


def render_sweep(key: str, points: Sequence[Mapping[str, Any]]) -> str:
    """The page of `limbeck filter --sweep --plot`: the yield curve and its values."""
    return _template("sweep.html.jinja").render(key=key, points=points, figure=figures.yield_curve(key, points))


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = {"percent": _percent, "number": _number, "cell": _cell, "seconds": _seconds, "sentence": as_sentence}
    environment.filters |= written
    return environment.get_template(name)


def headline_split(report: Report) -> str:
    """`test` if it has been evaluated, else `dev`."""
    return "test" if any(row.split == "test" for round in report.rounds for row in round.evaluation) else "dev"


def headline(report: Report) -> list[tuple[str, EvaluationRow]]:
    """The first teacher, each student, and the controls of the last round that has them, each with its label."""
    split = headline_split(report)
    found: dict[str, EvaluationRow] = {}
    controls: dict[str, EvaluationRow] = {}
    for index, round in enumerate(report.rounds):
        for row in (row for row in round.evaluation if row.split == split):
            if row.model == "student" or (row.model == "teacher" and index == 0):
                found[f"{row.model}, round {index}"] = row
            elif row.model != "teacher":
                controls[f"control: {row.model}"] = row
    return [*found.items(), *controls.items()]


def held_out_inputs(report: Report) -> str:
    """What the held-out inputs are called."""
    return next((round.task.inputs for round in reversed(report.rounds) if round.task), "documents")


def unmeasured(report: Report) -> list[str]:
    """What a finished run could not measure, one sentence each: splits without sources, controls without rows."""
    if not report.finished or report.sources is None:
        return []
    inputs = held_out_inputs(report)
    asked = {row.split for round in report.rounds for row in round.evaluation}
    counts = {split: dict(report.sources)[split] for split in ("dev", "test")}
    found = [f"There are no {split} {inputs}." for split, count in counts.items() if not count]
    found += [
        f"None of the {count} {split} inputs that the teacher drew is usable."
        for split, count in counts.items()
        if count and split not in asked
    ]
    task = next((round.task for round in reversed(report.rounds) if round.task), None)
    measured = {row.model for round in report.rounds for row in round.evaluation if row.split == "test"}
    missing = [control for control in task.controls if control not in measured] if task and measured else []
    why = {"mismatched": f"it needs outputs for at least two {inputs} that are not near-duplicates"}
    needs = "they have no document"
    return found + [f"The control {control} was not measured: {why.get(control, needs)}." for control in missing]


def _measures(report: Report) -> dict[str, tuple[str, str]]:
    """The measures that the task declares, or else those with a value, each with heading and form; old runs recorded no task."""
    task = next((round.task for round in reversed(report.rounds) if round.task), None)
    rows = [row for _, row in headline(report)]
    if task is None:
        return {name: MEASURES[name] for name in MEASURES if name != "invention" or any(row.invention for row in rows)}
    declared = [name for name in MEASURES if any(dict(row)[name] for row in rows)] if task.measures is None else task.measures
    return {name: MEASURES[name] for name in dict.fromkeys(("pass_rate", *declared)) if name in MEASURES}


def _independent(report: Report) -> list[str]:
    """The headings of the measures that took no part in filtering."""
    apart = {"salient_recall", "invention"} - ({"invention"} if report.bounds and report.bounds.restricts("invented") else set())
    return [title for name, (title, _) in _measures(report).items() if name in apart]


def followed(report: Report) -> dict[str, tuple[str, str]]:
    """The measures that are followed over the rounds, with heading and form: those that a decision looks at and have values."""
    names = dict.fromkeys(("pass_rate", *([report.best.by] if report.best else []), *UNUSED_BY_FILTERS, "distinct_2"))
    students = [row for one in report.rounds if (row := student(one)) is not None]
    return {name: MEASURES[name] for name in names if any(dict(row)[name] is not None for row in students)}


def _curves(folder: RunFolder, report: Report) -> list[Markup]:
    """The curves of every round's training."""
    found = [figures.training(f"Round {number}", step_lines(folder, number)) for number in range(len(report.rounds))]
    return [curve for curves in found for curve in curves]


def _figures(report: Report) -> dict[str, Markup]:
    made = {}
    if any(row.pass_rate for round in report.rounds for row in round.evaluation):
        made["pass_rates"] = figures.pass_rates(report.rounds)
    if report.rounds:
        made["funnel"] = figures.funnel(report.rounds)
    if shown := {name: heading for name, (heading, _) in followed(report).items()}:
        made["over_rounds"] = figures.over_rounds(report.rounds, shown)
    if report.seconds.by_stage:
        made["seconds"] = figures.seconds(report.seconds)
    return made


def _histograms(folder: RunFolder, report: Report) -> tuple[list[tuple[str, Markup]], list[str]]:
    """One figure per bounded column, with its filter, and the names of columns that hold only 0 and 1, which have none."""
    with ExitStack() as stack:
        opened = (scored_round(folder, number) for number in range(len(report.rounds)))
        rounds = [Numbers(stack.enter_context(scored)) for scored in opened]
        return _drawn(report, rounds)


def _drawn(report: Report, rounds: Sequence[Numbers]) -> tuple[list[tuple[str, Markup]], list[str]]:
    """As `_histograms`, from the scores of each round."""
    made, binary = [], []
    for name, columns in (report.bounds.bounds if report.bounds else {}).items():
        for column, limit in columns.items():
            by_round = [_values(scores, f"{name}.{column}") for scores in rounds if f"{name}.{column}" in scores.column_names]
            every = np.concatenate([np.empty(0), *by_round])
            if not len(every) or limit == Limits():
                continue
            if set(np.unique(every)) <= {0.0, 1.0}:
                binary.append(column)
            else:
                made.append((name, figures.histogram(by_round, limit, name, column)))
    return made, binary


def _values(scores: Numbers, column: str) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = scores[column].to_numpy()
    return values[np.isfinite(values)]


def _examples(folder: RunFolder, report: Report) -> dict[str, Any]:
    """Kept and rejected candidates of the last round, in the order of their ids, which are hashes: a random sample."""
    if not report.rounds:
        return {"round": None, "kept": [], "rejected": []}
    number, rows = len(report.rounds) - 1, report.rounds[-1].rows
    kept = candidates(folder.path, number, kept=True, sort="candidate_id", descending=False, limit=KEPT_EXAMPLES)
    rejected = [
        candidates(folder.path, number, rejected_by=name, sort="candidate_id", descending=False, limit=REJECTED_EXAMPLES)
        for name, count in rows.rejected_by.items()
        if count
    ]
    judges = {one.filter for one in report.self_tests}
    owners = score_owners(folder, number)
    return {"round": number, "kept": _rows([kept], owners, judges), "rejected": _rows(rejected, owners, judges)}


def _rows(tables: Sequence[Any], owners: Mapping[str, str], judges: Set[str]) -> list[dict[str, Any]]:
    """The rows of tables with their scores, and the judges that gave some of them; `owners`: the filter of a score column."""
    found = []
    for table in tables:
        for row in table.to_pylist():
            scores = {name: row[name] for name in owners if row[name] is not None}
            judged_by = dict.fromkeys(owners[name] for name in scores if owners[name] in judges)
            found.append({**row, "scores": scores, "judged_by": list(judged_by)})
    return found


def _percent(value: float, signed: bool = False) -> str:
    """A share, or if `signed`, a difference of shares in points."""
    return f"{100 * value:+z.1f} pts" if signed else f"{100 * value:z.1f} %"


def _number(value: float, signed: bool = False) -> str:
    return f"{value:{'+' if signed else ''}z.3f}"  # z: what rounds to zero has no sign


def _cell(measure: Measure | None, form: str, signed: bool = False) -> Markup:
    """A measure as its mean over its interval; a dash if nothing was measured."""
    if measure is None:
        return Markup('<span class="none">–</span>')
    write = _percent if form == "percent" else _number
    mean, low, high = (write(value, signed) for value in (measure.mean, measure.low, measure.high))
    return Markup("{}<small>{} to {}</small>").format(mean, *(value.partition(" ")[0] for value in (low, high)))


def _seconds(value: float) -> str:
    whole = round(value)
    return f"{value:.1f} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
