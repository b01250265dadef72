"""What stands before a worker: takes parts through its jobs, and finds the row that a worker dies of.

A gate has one worker and takes several parts at once. Of a death with several parts in flight nobody knows whose row it was: each
of those parts is taken again, alone on the worker, and only a death alone counts against a part. After two it is bisected.
"""

import atexit
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from limbeck.cluster.workers.lease import SharedSeconds, Turns
from limbeck.cluster.workers.supervisor import JobRaised, OwnedWorker, WorkerDied
from limbeck.cluster.workers.worker import PartJob, PartReport, PoolName
from limbeck.corpus.errors import LimbeckError

DEATHS_BEFORE_BISECTION = 2
RAISING_ROWS = 8  # alone, and none computed yet: the job itself is at fault


class Gate:
    """The Ray Data actor: takes parts through the jobs of its pool, on the worker it owns; called from several threads."""

    def __init__(self, workers: list[Any], chains: list[list[PartJob]], pool: PoolName, stall_seconds: float) -> None:
        """Own the first worker that is free; `chains` are each lane's jobs that this gate is to do."""
        # a gate holds nothing that needs an orderly end, and Ray's (2.60) can lock itself up and leave the process behind
        atexit.register(os._exit, 0)
        self._chains, self._pool = chains, pool
        self._worker = OwnedWorker(workers, stall_seconds)
        self._turns, self._seconds = Turns(), SharedSeconds()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row, its `reports` (JSON) longer by what each job did to its part; `error` is what ends the run, or "".

        Raises WorkerLost where the worker does not come back: the stream begins again with those that are left.
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
        """Run a job on a part, beside others; where the worker dies, alone; after two deaths alone, or an error, by bisection."""
        report, deaths = PartReport(job.stage, part, self._pool), 0
        with self._turn(self._turns.beside_others(job.concurrent), report):
            try:
                return self._run(job, part, report)
            except WorkerDied as death:
                deaths += death.alone
                self._note(death, report)
            except JobRaised:
                deaths = DEATHS_BEFORE_BISECTION  # as sure to happen again
        with self._turn(self._turns.alone(), report):
            while deaths < DEATHS_BEFORE_BISECTION:
                try:
                    return self._run(job, part, report)
                except WorkerDied as death:
                    deaths += 1
                    self._note(death, report)
                except JobRaised:
                    break
            rows = job.rows(part)
            report.rows = job.publish(part, self._by_halves(Search(job, part, report, rows), 0, rows))
            return report

    @contextlib.contextmanager
    def _turn(self, turn: contextlib.AbstractContextManager[None], report: PartReport) -> Iterator[None]:
        with turn:
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
        if death.first:  # one death, one note, however many parts were in flight
            report.deaths.append(str(death))

    def _compute(self, search: "Search", start: int, stop: int) -> pa.Table:
        """Compute rows together, or by halves where that fails: only a row that fails alone is given up."""
        job, part, report = search.job, search.part, search.report
        try:
            table, done = self._worker.call("compute", job, part, start, stop)
        except (WorkerDied, JobRaised) as failure:
            if isinstance(failure, WorkerDied):
                self._note(failure, report)
            if stop - start > 1:
                return self._by_halves(search, start, stop)
            reason = search.give_up(failure)
            report.failed_rows.append(f"{part} row {start}: {reason}")
            return job.failure(part, start, reason)
        search.computed = True
        report.take(done)
        return table

    def _by_halves(self, search: "Search", start: int, stop: int) -> pa.Table:
        middle = (start + stop + 1) // 2
        halves = [(low, high) for low, high in ((start, middle), (middle, stop)) if low < high]
        return pa.concat_tables([self._compute(search, low, high) for low, high in halves], promote_options="default")


@dataclass
class Search:
    """The bisection of a part: what is known of its rows so far."""

    job: PartJob
    part: str
    report: PartReport
    rows: int
    computed: bool = False  # whether any could be
    raised: int = 0

    def give_up(self, failure: "WorkerDied | JobRaised") -> str:
        """The reason of a row that failed alone.

        Raises JobRaised where all raise, or the first few and none can be computed: that is no fault of theirs.
        """
        if isinstance(failure, WorkerDied):
            return f"the worker died each time it worked on this row ({failure})"
        self.raised += 1
        if self.raised >= min(RAISING_ROWS, self.rows) and not self.computed:
            raise failure
        return f"it raised an error on this row ({failure.words})"
