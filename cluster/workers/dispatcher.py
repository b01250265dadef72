"""Dispatcher of a worker: takes parts through their jobs, and bisects a part to find the row that crashes the worker.

A dispatcher has one worker and takes several parts at once. If the worker dies with several parts in flight, the row that caused
it is unknown: each of those parts is tried again alone on the worker, and only a death with one part in flight counts against
that part. After two such deaths the part is bisected.
"""

import atexit
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from limbeck.cluster.workers.lease import ExclusiveLease, SharedSeconds
from limbeck.cluster.workers.supervisor import JobRaised, WorkerDied, WorkerSupervisor
from limbeck.cluster.workers.worker import PartJob, PartReport, PoolName
from limbeck.corpus.errors import LimbeckError

DEATHS_BEFORE_BISECTION = 2
RAISING_ROWS = 8  # if this many rows raise before any succeeds, the job itself is at fault


class Dispatcher:
    """The Ray Data actor: takes parts through the jobs of its pool, on its own worker; called from several threads."""

    def __init__(self, workers: list[Any], chains: list[list[PartJob]], pool: PoolName, stall_seconds: float) -> None:
        """Claim the first free worker; `chains` holds, per lane, the jobs that this dispatcher runs."""
        # a dispatcher needs no orderly shutdown, and Ray 2.60's can deadlock and leave the process running
        atexit.register(os._exit, 0)
        self._chains, self._pool = chains, pool
        self._worker = WorkerSupervisor(workers, stall_seconds)
        self._lease, self._seconds = ExclusiveLease(), SharedSeconds()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with one more entry per job in `reports` (JSON); `error` is the reason to stop the run, or "".

        Raises WorkerLost if the worker does not come back: the stream is then restarted with the remaining workers.
        """
        if row["error"]:
            return row
        reports, error = json.loads(row["reports"]), ""
        try:
            for job in self._chains[row["lane"]]:
                if not job.finished(row["part"]):
                    reports.append(asdict(self._take(job, row["part"])))
        except LimbeckError as failure:
            error = str(failure)
        return {**row, "reports": json.dumps(reports), "error": error}

    def _take(self, job: PartJob, part: str) -> PartReport:
        """Run a job on a part, concurrently at first; alone after a death; by bisection after two deaths alone, or an error."""
        report, deaths = PartReport(job.stage, part, self._pool, job.subject), 0
        with self._timed(self._lease.shared(job.concurrent), report):
            try:
                return self._run(job, part, report)
            except WorkerDied as death:
                deaths += death.alone
                self._note(death, report)
            except JobRaised:
                deaths = DEATHS_BEFORE_BISECTION  # an error would happen again
        with self._timed(self._lease.exclusive(), report):
            while deaths < DEATHS_BEFORE_BISECTION:
                try:
                    return self._run(job, part, report)
                except WorkerDied as death:
                    deaths += 1
                    self._note(death, report)
                except JobRaised:
                    break
            rows = job.rows(part)
            if not rows:  # nothing to divide: the job is at fault
                return self._run(job, part, report)
            report.rows = job.publish(part, self._by_halves(Bisection(job, part, report, rows), 0, rows))
            return report

    @contextlib.contextmanager
    def _timed(self, lease: contextlib.AbstractContextManager[None], report: PartReport) -> Iterator[None]:
        with lease:
            entered = self._seconds.enter()
            try:
                yield
            finally:
                report.seconds += self._seconds.leave(entered)

    def _run(self, job: PartJob, part: str, report: PartReport) -> PartReport:
        done = self._worker.call("run", job, part)
        report.rows = done["rows"]
        report.take(done)
        return report

    def _note(self, death: WorkerDied, report: PartReport) -> None:
        if death.first:  # one note per death, however many parts were in flight
            report.deaths.append(str(death))

    def _compute(self, bisection: "Bisection", start: int, stop: int) -> pa.Table:
        """Compute rows together, or by halves if that fails: only a row that fails alone is given up."""
        job, part, report = bisection.job, bisection.part, bisection.report
        try:
            table, done = self._worker.call("compute", job, part, start, stop)
        except (WorkerDied, JobRaised) as failure:
            if isinstance(failure, WorkerDied):
                self._note(failure, report)
            if stop - start > 1:
                return self._by_halves(bisection, start, stop)
            reason = bisection.give_up(failure)
            report.failed_rows.append(f"{part} row {start}: {reason}")
            return job.failure(part, start, reason)
        bisection.computed = True
        report.take(done)
        return table

    def _by_halves(self, bisection: "Bisection", start: int, stop: int) -> pa.Table:
        middle = (start + stop + 1) // 2
        halves = [(low, high) for low, high in ((start, middle), (middle, stop)) if low < high]
        return pa.concat_tables([self._compute(bisection, low, high) for low, high in halves], promote_options="default")


@dataclass
class Bisection:
    """The bisection of a part, and what is known about its rows so far."""

    job: PartJob
    part: str
    report: PartReport
    rows: int
    computed: bool = False  # whether any row succeeded
    raised: int = 0

    def give_up(self, failure: "WorkerDied | JobRaised") -> str:
        """Return the reason to record for a row that failed alone.

        Raises JobRaised if all rows raise, or the first RAISING_ROWS do: then the job is at fault, not the rows.
        """
        if isinstance(failure, WorkerDied):
            return f"the worker died each time it worked on this row ({failure})"
        self.raised += 1
        if self.raised >= min(RAISING_ROWS, self.rows) and not self.computed:
            raise failure
        return f"it raised an error on this row ({failure.words})"
