"""Jobs of a few rows for tests of dispatchers: they record when they compute, and crash their worker on one row."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from helpers.gates import wait_for
from limbeck.cluster.engines.protocol import EngineDied, Usage
from limbeck.cluster.session import ClusterConfig
from limbeck.cluster.workers.pool import Lane, WorkerPool
from limbeck.cluster.workers.worker import PartReport, PoolName
from limbeck.corpus.parts import part_path, read_parts, write_part

ROWS = 4


@dataclass(frozen=True)
class Model:
    """A config like those of scoring models: one object per process, which counts."""

    def load(self) -> "Counted":
        return Counted()

    def model_dump_json(self) -> str:
        return "{}"


class Counted:
    def __init__(self) -> None:
        self.usage = Usage()
        self._lock = threading.Lock()

    def answer(self, rows: int) -> None:
        with self._lock:
            self.usage.output_tokens += rows
            self.usage.model_seconds += rows / 1000


@dataclass(frozen=True)
class NotingJob:
    """Writes ROWS rows per part, and a line of `calls.jsonl` at the beginning and the end of each call."""

    folder: Path
    stage: str = "stage"
    concurrent: bool = True
    subject: str = ""
    pool: PoolName = "teachers"
    seconds: float = 0.3
    victim: tuple[str, int | None] | None = None  # part and row (None: each) that crash the worker
    fault: str = "kill"
    strikes: int = 1000  # number of crashes
    loads: bool = True
    together: int = 1  # the first calls wait until this many have begun, and those besides the victim until it has crashed
    waits: tuple[str, Path] | None = None  # a part, and the file that its call waits for

    @property
    def out(self) -> Path:
        return self.folder / self.stage

    def finished(self, part: str) -> bool:
        return part_path(self.out, part).exists()

    def rows(self, part: str) -> int:
        return ROWS

    def warm(self, engines: Any) -> None:
        self._note("warm", "", 0)
        if not self.loads:
            raise EngineDied("no memory is left")

    def compute(self, part: str, start: int, stop: int, engines: Any) -> pa.Table:
        call = f"{part}:{start}:{stop}"
        self._note("begin", call, stop - start)
        engines.hold(Model()).answer(stop - start)
        if self.waits is not None and self.waits[0] == part:
            wait_for(self.waits[1].exists)
        if self.together > 1:
            wait_for(lambda: len(self.calls()) >= self.together)
        time.sleep(self.seconds)
        if self.victim is not None and self.victim[0] == part and (self.victim[1] is None or start <= self.victim[1] < stop):
            self._strike()
        elif self.victim is not None and self.together > 1:
            wait_for((self.folder / "strike-0").exists)
        self._note("end", call, stop - start)
        return pa.table({"row": list(range(start, stop)), "error": pa.nulls(stop - start, pa.string())})

    def failure(self, part: str, row: int, reason: str) -> pa.Table:
        return pa.table({"row": [row], "error": [reason]})

    def publish(self, part: str, table: pa.Table) -> int:
        write_part(self.out, part, table.append_column("part", [[part] * table.num_rows]))
        return int(table.num_rows)

    def published(self) -> list[dict[str, Any]]:
        return list(read_parts(self.out).to_pylist())

    def calls(self, what: str = "begin") -> list[dict[str, Any]]:
        lines = (self.folder / f"{self.stage}.calls.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if line["what"] == what]

    def _note(self, what: str, call: str, rows: int) -> None:
        line = {
            "what": what,
            "call": call,
            "rows": rows,
            "time": time.time(),
            "process": os.getpid(),
            "thread": threading.get_ident(),
        }
        with (self.folder / f"{self.stage}.calls.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _strike(self) -> None:
        for strike in range(self.strikes):
            try:
                (self.folder / f"strike-{strike}").touch(exist_ok=False)
                break
            except FileExistsError:
                continue
        else:
            return
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "engine":
            raise EngineDied("an illegal memory access")
        if self.fault == "raise":
            raise KeyError("a token that no vocabulary has")
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Streamed:
    """The results of a stream."""

    reports: list[PartReport] = field(default_factory=list)
    seconds: float = 0.0


@contextmanager
def pool_of(folder: Path, **settings: Any) -> Iterator[WorkerPool]:
    """Workers of a run in `folder`; Ray is connected already."""
    (folder / "run.lock").write_text(json.dumps({"driver": "me"}))
    pool = WorkerPool(ClusterConfig(cpus_per_worker=0.1, **settings), folder / "workers", "me")
    try:
        yield pool
    finally:
        pool.close()


def streamed(pool: WorkerPool, jobs: Sequence[NotingJob], parts: int) -> Streamed:
    """Take parts through jobs."""
    found, began = Streamed(), time.monotonic()
    lane = Lane(list(jobs), [f"part-{number:05d}" for number in range(parts)])
    with closing(pool.stream([lane])) as reports:
        found.reports.extend(reports)
    found.seconds = time.monotonic() - began
    return found
