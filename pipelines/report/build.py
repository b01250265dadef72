"""report.json and report.html of a run, made from the files of its folder alone; works while the run is in progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from limbeck.corpus.parts import write_json, write_text
from limbeck.pipelines import recipe_files
from limbeck.pipelines.runs.events import read_events, seconds_by_stage
from limbeck.pipelines.runs.folder import RunFolder, read_lock
from limbeck.pipelines.runs.funnel import funnel
from limbeck.pipelines.runs.lost import is_finished, lost_parts, lost_records, refuse_lost, round_numbers
from limbeck.pipelines.runs.mixture.facts import mixture_file
from limbeck.pipelines.runs.mixture.reading import read_mixture
from limbeck.pipelines.runs.opening import existing
from limbeck.pipelines.runs.origins import origins
from limbeck.pipelines.runs.preference_pairs import summary
from limbeck.pipelines.runs.preference_pairs import warning as length_leak
from limbeck.pipelines.runs.records import (
    ended_early,
    planned_rounds,
    read_bounds,
    read_decision,
    read_evaluation,
    read_on_test,
    read_preferences,
    read_rules,
    read_sources,
    seen_test_after,
    validated,
)
from limbeck.pipelines.runs.report_model import Best, Report, RoundReport, Seconds
from limbeck.pipelines.runs.self_test import stored
from limbeck.pipelines.runs.self_test import warning as warned
from limbeck.pipelines.runs.separation import warning
from limbeck.pipelines.runs.stopping import as_sentence, best
from limbeck.students.evaluation.measures import EvaluationRow
from limbeck.students.evaluation.statistics import beaten_by


@dataclass(frozen=True)
class ReportPaths:
    """Paths of the two reports."""

    html: Path
    json: Path


def write_report(run: Path) -> ReportPaths:
    """Write report.json and report.html into the run folder, replacing earlier ones.

    Raises LimbeckError if a file is corrupted or lost.
    """
    from limbeck.pipelines.report.page import render  # jinja2 is needed only here

    folder = existing(run)
    report = collect(folder)
    paths = ReportPaths(html=folder.path / "report.html", json=folder.path / "report.json")
    write_json(paths.json, report.model_dump(mode="json"), replace=True)
    write_text(paths.html, render(folder, report), replace=True)
    return paths


def collect(folder: RunFolder) -> Report:
    """Collect the report from the run folder."""
    lock, events = read_lock(folder), read_events(folder.events)
    finished = is_finished(folder)
    rounds = _rounds(folder)
    last = events[-1]["time"] if events else folder.lock_file.stat().st_mtime
    bounds = read_bounds(folder)
    tests = stored(folder.self_test)
    recipe = lock.get("recipe") or {"student": True}
    rules = read_rules(folder)
    chosen = best(rounds, rules)
    ended = ended_early(folder, [round.decision for round in rounds]) if finished else None
    alarms = rounds[-1].decision.warnings if rounds and rounds[-1].decision else []
    verdict = first_line(
        rounds,
        finished,
        bool(recipe.get("student")),
        chosen if rules is not None else None,
        rejects_inventions=bounds is not None and bounds.restricts("invented"),
    )
    pairs = rounds[-1].preferences if rounds else None
    warnings = [warned(tests), warning(bounds.separation) if bounds else None, *map(as_sentence, alarms)]
    warnings += [length_leak(pairs) if pairs is not None else None]
    return Report(
        name=_name(folder),
        created=datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds"),
        finished=finished,
        first_line=" ".join(filter(None, (*warnings, verdict, as_sentence(ended) if ended else None))),
        rounds=rounds,
        sources=read_sources(folder),
        seconds=validated(Seconds, seconds_by_stage(events), folder.events, "delete it and rerun the command"),
        bounds=bounds,
        best=chosen,
        planned_rounds=planned_rounds(folder),
        ended=ended,
        seen_test_after=seen_test_after(folder),
        origins=origins(folder),
        self_tests=tests,
        versions={str(name): str(version) for name, version in lock.get("versions", {}).items()},
    )


def first_line(
    rounds: Sequence[RoundReport],
    finished: bool,
    trains: bool = True,
    best: Best | None = None,
    rejects_inventions: bool = False,
) -> str:
    """The verdict: a control that beats the student first, then the paired difference to the round-0 teacher.

    The student is the final one, or that of the `best` round if rules chose it. `trains`: whether the recipe has a student;
    without one it says how many candidates were kept. `rejects_inventions`: whether a filter has a bound on what `invention`
    measures.
    """
    opening = "" if finished else "Unfinished run. "
    earlier = best is not None and best.round < len(rounds) - 1
    row = final_student(rounds[: best.round + 1] if earlier and best is not None else rounds)
    if row is None and not trains and rounds:
        pairs = rounds[-1].preferences
        made = f" {summary(pairs)}" if pairs is not None else ""
        kept, drawn = sum(round.rows.kept for round in rounds), sum(round.rows.candidates for round in rounds)
        return f"{opening}Kept {kept} of {drawn} candidates; the recipe trains no student.{made}"
    if row is None:
        return f"{opening}No student has been evaluated yet."
    judged = next(round for round in reversed(rounds) if any(r is row for r in round.evaluation))
    inputs = judged.task.inputs if judged.task else "documents"
    sentences = beaten_by(judged.evaluation, row.split, inputs)
    first = next((r for r in rounds[0].evaluation if r.model == "teacher" and r.split == row.split), None)
    name = f"best student on dev (round {best.round})" if earlier and best is not None else "final student"
    codes = _codes(rounds, row, first, inputs)
    worse = _worsened(row, rejects_inventions)
    return opening + " ".join([*sentences, *_differences(row, first, inputs, name), *worse, *codes])


def final_student(rounds: Sequence[RoundReport]) -> EvaluationRow | None:
    """The last student's row on test, or on dev while there is none on test."""
    for split in ("test", "dev"):
        for round in reversed(rounds):
            for row in round.evaluation:
                if row.model == "student" and row.split == split:
                    return row
    return None


def _differences(row: EvaluationRow, teacher: EvaluationRow | None, inputs: str, name: str) -> list[str]:
    where = f"the {row.documents} {row.split} {inputs}"
    difference = (row.difference_to_round_0_teacher or {}).get("pass_rate")
    if row.pass_rate is None or difference is None:
        return [f"The {name}'s pass rate on {where} could not be compared with the round-0 teacher's."]
    shown = f"{100 * difference.mean:+z.1f} points, 95 % interval {100 * difference.low:+z.1f} to {100 * difference.high:+z.1f}"
    ours = _passing(row, row.pass_rate.mean)
    theirs = _passing(teacher, row.pass_rate.mean - difference.mean)
    figures = f"{ours} of the student pass the frozen filters, against {theirs} of the teacher ({shown}, paired, {where})"
    if difference.low > 0:
        sentences = [f"The {name} passes more often than the round-0 teacher: {figures}."]
    elif difference.high < 0:
        sentences = [f"The {name} passes less often than the round-0 teacher: {figures}."]
    else:
        sentences = [f"No significant difference between the {name} and the round-0 teacher: {figures}."]
    return sentences


def _worsened(row: EvaluationRow, rejects_inventions: bool) -> list[str]:
    """One sentence per independent measure that is significantly worse than the round-0 teacher's."""
    differences = row.difference_to_round_0_teacher or {}
    if differences.get("pass_rate") is None:
        return []
    sentences = []
    if (recall := differences.get("salient_recall")) and recall.high < 0:
        shown = f"{recall.mean:+z.3f}, 95 % interval {recall.low:+z.3f} to {recall.high:+z.3f}"
        sentences.append(f"However, salient recall, which is not used for filtering, decreased ({shown}).")
    if (more := differences.get("invention")) and more.low > 0:
        shown = f"{100 * more.mean:+z.1f} points, 95 % interval {100 * more.low:+z.1f} to {100 * more.high:+z.1f}"
        apart = "" if rejects_inventions else ", which is not used for filtering,"
        sentences.append(
            f"However, invention{apart} increased: more outputs have a name or number that the document lacks ({shown})."
        )
    return sentences


def _codes(rounds: Sequence[RoundReport], row: EvaluationRow, teacher: EvaluationRow | None, inputs: str) -> list[str]:
    """Whether control codes are followed more often from round to round; nothing if none were asked."""
    difference = (row.difference_to_round_0_teacher or {}).get("code_accuracy")
    if row.code_accuracy is None or difference is None or teacher is None or teacher.code_accuracy is None:
        return []
    shares = [("the round-0 teacher", teacher)]
    shares += [
        (f"the student of round {number}", found)
        for number, round in enumerate(rounds)
        for found in round.evaluation
        if found.model == "student" and found.split == row.split
    ]
    named = [(name, found.code_accuracy.mean) for name, found in shares if found.code_accuracy is not None]
    figures = ", ".join(f"{100 * share:.1f} % by {name}" for name, share in named)
    means = [share for _, share in named]
    if row.documents <= 1:
        verdict = "one input cannot show whether this share rises"  # its interval has no width
    elif difference.low > 0:
        rises = all(later > before for before, later in zip(means, means[1:], strict=False))
        verdict = "this share rises in every round" if rises else "this share rises over the rounds, though not in each of them"
    else:
        verdict = "this share falls over the rounds" if difference.high < 0 else "this share does not rise significantly"
    shown = f"{100 * difference.mean:+z.1f} points, 95 % interval {100 * difference.low:+z.1f} to {100 * difference.high:+z.1f}"
    where = f"paired, the {row.documents} {row.split} {inputs}"
    return [f"Of the buckets that control codes ask for, outputs have {figures}: {verdict} ({shown}, {where})."]


def _passing(row: EvaluationRow | None, share: float) -> str:
    """How many candidates of a model pass, if they were counted, and the share."""
    percent = f"{100 * share:z.1f} %"
    if row is None or row.candidates is None or row.passing is None:
        return f"{percent} of the candidates"
    return f"{row.passing} of {row.candidates} candidates ({percent})"


def _rounds(folder: RunFolder) -> list[RoundReport]:
    """One report per round that has decisions: as evaluated, or only the funnel while the round is in progress."""
    for number in round_numbers(folder):
        refuse_lost(folder, lost_parts(folder, number))
        refuse_lost(folder, lost_records(folder, number))
    on_test, rounds = read_on_test(folder), list[RoundReport]()
    while folder.round(len(rounds)).exists():
        number = len(rounds)
        found = read_evaluation(folder, number)
        if found is None and not folder.decisions(number).exists():
            break
        found = found or RoundReport(rows=funnel(folder.decisions(number)), evaluation=[])
        test_rows = on_test.get(str(number), [])
        mixed = read_mixture(folder, number).components if mixture_file(folder.mixture(number)).exists() else None
        added = {
            "evaluation": [*found.evaluation, *test_rows],
            "decision": read_decision(folder, number),
            "mixture": mixed,
            "preferences": read_preferences(folder.dataset(number)),
        }
        rounds.append(found.model_copy(update=added))
    return rounds


def _name(folder: RunFolder) -> str:
    if folder.recipe_file.exists():
        name = recipe_files.read(folder.recipe_file).get("name")  # the file may have several documents (--with)
        if isinstance(name, str):
            return name
    return folder.path.resolve().name
