"""Compute and store the scores that a what-if needs and the run does not have, in this process."""

from pathlib import Path

from limbeck.corpus.parts import mark_done, part_names
from limbeck.filters.config import FilterConfig
from limbeck.pipelines.driver.jobs import ScoreJob
from limbeck.pipelines.runs.folder import RunFolder, fingerprint


def score_here(folder: RunFolder, number: int, filter_: FilterConfig, out: Path) -> None:
    """Score a round's candidates with one filter into `out`, with a progress bar on a terminal; finished parts are kept."""
    from rich.console import Console
    from rich.progress import track

    from limbeck.cluster.engines.model_cache import Engines

    job = ScoreJob(
        stage=f"scores/{filter_.name}",
        sources=folder.sources("train"),
        candidates=folder.candidates(number),
        out=out,
        filter=filter_,
        nulls=filter_.nulls,
    )
    engines = Engines()
    waiting = [part for part in part_names(folder.candidates(number)) if not job.finished(part)]
    for part in track(waiting, description=job.stage, console=Console(stderr=True)):
        job.publish(part, job.compute(part, 0, job.rows(part), engines))
    mark_done(out, fingerprint(filter_.scoring()))
