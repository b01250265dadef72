"""Scores for a what-if: those of the run where a filter measures the same, else computed here, once, and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpus.errors import LimbeckError
from corpus.parts import done, mark_done, part_names
from pipelines.folder import fingerprint
from pipelines.jobs import ScoreJob
from pipelines.run import scoring

if TYPE_CHECKING:
    from pipelines.whatif import WhatIf

Score = Callable[[ScoreJob, list[str]], None]
"""Computes and publishes a job's parts."""


def scored_before(whatif: "WhatIf", part: Any, score: Score | None) -> Path:
    """The folder with a filter's scores of the round: the run's own, or those of an earlier what-if, or computed now.

    Scores serve as long as the filter measures the same; its limits do not matter. Raises LimbeckError where there are none and
    `score` is None.
    """
    known = {before.name: before for before in whatif.recipe.filters}
    before = known.get(part.name)
    if before is not None and _serve(before, part):
        return whatif.folder.scores(whatif.number, part.name)
    place = whatif.folder.selection(whatif.number, ".scores") / f"{part.name}-{fingerprint(scoring(part))[:12]}"
    parts = part_names(whatif.folder.candidates(whatif.number))
    if done(place) is None:
        if score is None:
            differs = "is not one of the run's" if before is None else "would measure something else, or more rows"
            raise LimbeckError(f"filter {part.name} {differs}, so its scores must be computed first: add --score")
        job = ScoreJob(
            stage=f"scores/{part.name}",
            sources=whatif.folder.sources("train"),
            candidates=whatif.folder.candidates(whatif.number),
            out=place,
            filter=part,
        )
        score(job, parts)
        mark_done(place, fingerprint(scoring(part)))
    return place


def _serve(before: Any, part: Any) -> bool:
    """Whether the scores of one config are what another asks for: the same measure, rows and mismatched pairs."""
    if before.lazy and not part.lazy or type(before) is not type(part):
        return False
    if scoring(before) == scoring(part):
        return True
    # limits matter to scores only in that one by false acceptance asks for mismatched pairs, which may be there already
    as_before = part.model_copy(update={key: getattr(before, key) for key in part.limit_fields()})
    return scoring(before) == scoring(as_before) and set(part.null_columns) <= set(before.null_columns)


def score_here(job: ScoreJob, parts: list[str]) -> None:
    """Compute a job in this process, with a progress bar on a terminal; parts that are there are left as they are."""
    from rich.console import Console
    from rich.progress import track

    from cluster.engines.provider import Engines

    engines = Engines()
    waiting = [part for part in parts if not job.finished(part)]
    for part in track(waiting, description=job.stage, console=Console(stderr=True)):
        job.publish(part, job.compute(part, 0, job.rows(part), engines))
