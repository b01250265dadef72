"""Whether a run goes on after a round: the decision is published once, from the figures that `evaluation.json` holds."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.cluster.engines.contract import EngineConfig
from limbeck.corpus.earlier_runs import BEST, student_link
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import DONE, part_names, write_json
from limbeck.pipelines.driver import evaluate as measuring
from limbeck.pipelines.driver.context import Context, held_out_lane, stream
from limbeck.pipelines.runs.folder import refuse_other_versions
from limbeck.pipelines.runs.lost import finished_rounds
from limbeck.pipelines.runs.records import read_decision, read_evaluation
from limbeck.pipelines.runs.report_model import RoundDecision, RoundReport
from limbeck.pipelines.runs.stages import stages_of
from limbeck.pipelines.runs.stopping import decide, ended_words

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import WorkerPool


def ends(
    context: Context, pool: "WorkerPool", held_out: measuring.HeldOut, number: int, pending: list[tuple[str, EngineConfig]]
) -> bool:
    """Measure the models that wait for it on dev, and decide whether the run ends after this round.

    A round that has begun is finished: rules that were changed since do not take it back.
    """
    stream(context, pool, f"round-{number}/dev", [held_out_lane(context, "dev", *subject) for subject in pending])
    pending.clear()
    measuring.evaluate_dev(context, held_out, [number])
    decision = publish(context, number)
    if not decision.stops or _begun(context, number + 1):
        return False
    context.events.emit("rounds_ended", round=number, words=ended_words(number, context.recipe.rounds, decision))
    return True


def publish(context: Context, number: int) -> RoundDecision:
    """The decision after a round, and the link to the best student; written if they are not there yet.

    The last round is decided again if the recipe's rules have changed.
    """
    folder, rules = context.folder, context.recipe.stop
    recorded = read_decision(folder, number)
    now = None if rules is None else rules.model_dump(mode="json")
    if recorded is not None and (recorded.rules == now or _begun(context, number + 1)):
        decision = recorded
    else:
        decision = decide(_reports(context, number + 1), rules)
        write_json(folder.stop(number), decision.model_dump(), replace=True)
        for words in decision.warnings:
            context.events.emit("warning", words=words)
    if decision.best is not None:
        _link_best(context, decision.best)
    return decision


def refuse_blind_rules(context: Context) -> None:
    """Raise LimbeckError if the recipe has rules, and all held-out inputs that they would look at were unusable."""
    if context.recipe.stop is not None and not part_names(context.held_out("dev")):
        raise LimbeckError(
            "stop looks at dev figures, but there are no usable dev inputs; raise sources.split.dev in a new run, or remove stop"
        )


def wants_more_rounds(context: Context) -> bool:
    """Whether a finished run goes on: its recipe has more rounds than were made, and no rule holds after the last of them.

    If so, the mark that the run is finished is removed. Raises LimbeckError if its kinds have other versions now.
    """
    folder, recipe, made = context.folder, context.recipe, finished_rounds(context.folder)
    if not made or made >= recipe.rounds:
        return False
    if all(folder.evaluated(number).exists() for number in range(made)):
        decision = decide(_reports(context, made), recipe.stop)
        if decision.stops:
            context.events.emit("rounds_ended", round=made - 1, words=ended_words(made - 1, recipe.rounds, decision))
            return False
    refuse_other_versions(folder, stages_of(recipe, context.filters, context.set_filters, context.teacher_folder))
    counts = "1 round was" if made == 1 else f"{made} rounds were"
    seen = "; its test figures are measured again with the new rounds" if folder.on_test.exists() else ""
    context.events.emit("extended", words=f"{counts} made; the run goes on to at most {recipe.rounds}{seen}")
    (folder.path / "evaluation" / DONE).unlink()
    return True


def _reports(context: Context, count: int) -> list[RoundReport]:
    found = [read_evaluation(context.folder, number) for number in range(count)]
    reports = [report for report in found if report is not None]
    assert len(reports) == count, "a round is decided after all rounds up to it are measured"
    return reports


def _begun(context: Context, number: int) -> bool:
    return bool(part_names(context.folder.candidates(number)))


def _link_best(context: Context, number: int) -> None:
    """Link `best` to a round's student, in one step; a file system without links is noted, since the report names the round."""
    link, there = context.folder.path / BEST, student_link(number)
    if link.is_symlink() and os.readlink(link) == there:
        return
    temporary = Path(f"{link}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(there)
        os.replace(temporary, link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        context.events.emit("note", words=f"cannot link {link} to {there}, the best student: {error.strerror}")
