"""Draw what a student needs of its teacher before it trains: the teacher's most likely tokens at every label of the dataset."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cluster.engines.models import resolve
from limbeck.cluster.engines.shape import shape_of
from limbeck.corpus.parts import check_whole, done, mark_done
from limbeck.pipelines.driver.context import Context, stream
from limbeck.pipelines.driver.logprobs_job import LogprobsJob
from limbeck.pipelines.runs.folder import fingerprint
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.contract import CachedTeacher, StudentConfig
from limbeck.students.training import teacher_cache
from limbeck.students.training.driver import dataset_files

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import WorkerPool

_TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")  # they determine the token ids of a row


def draw_teacher_logprobs(
    context: Context, pool: "WorkerPool", number: int, student: StudentConfig, dataset: Path
) -> Path | None:
    """Draw what the student of a round needs of its teacher to train on `dataset`, if anything; returns its folder.

    The folder is named after everything that determines its rows: students with the same teacher, rows and k share it, and
    another k or teacher gets another one. Parts that are there are not drawn again.
    """
    wanted = student.cached_teacher
    if wanted is None or context.folder.student(number).exists():
        return None
    job = _job(context, number, student, wanted, dataset)
    if done(job.out) is None:
        from limbeck.cluster.workers.pool import Lane

        began = time.monotonic()
        stream(context, pool, job.stage, [Lane([job], job.parts)])
        summary = teacher_cache.summarised(job.out)
        counts = {**vars(summary), "top_k": wanted.top_k, "dtype": wanted.dtype, "teacher": job.teacher}
        mark_done(job.out, job.out.name, **counts)
        context.events.emit("note", words=f"round {number}: {_words(summary, wanted, time.monotonic() - began)}")
    return job.out


def _job(context: Context, number: int, student: StudentConfig, wanted: CachedTeacher, dataset: Path) -> LogprobsJob:
    engine = context.teacher(number)
    files = tuple(dataset_files(dataset))
    text = resolve(student.base_model(engine.model))
    settings = {key: value for key, value in engine.determining().items() if key != "model"}  # its content counts, not its path
    teacher = fingerprint({"engine": settings, **engine.fingerprint()})
    facts: Mapping[str, Any] = {
        "teacher": teacher,
        "dataset": [_digest(file) for file in files],
        "text": [_digest(text / name) for name in _TEXT_FILES if (text / name).exists()],
        "ends": sorted(end_tokens(text)),
        "wanted": vars(wanted),
        "rows_per_part": context.recipe.cluster.rows_per_part,
    }
    return LogprobsJob(
        stage=f"round-{number}/teacher_logprobs",
        files=files,
        total=sum(check_whole(file) for file in files),
        rows_per_part=context.recipe.cluster.rows_per_part,
        text=text,
        out=context.folder.teacher_logprobs(number) / fingerprint(facts),
        engine=engine,
        teacher=teacher,
        wanted=wanted,
        columns=teacher_cache.schema(wanted, shape_of(engine.model).vocabulary),
    )


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _words(summary: teacher_cache.Summary, wanted: CachedTeacher, seconds: float) -> str:
    failed = f", {summary.failed} rows without (they are not trained on)" if summary.failed else ""
    return (
        f"the teacher's {wanted.top_k} most likely tokens at {summary.positions} labels of {summary.rows} rows{failed}: "
        f"{summary.mass:.3f} of the mass, {summary.bytes_per_position:.0f} bytes per label, "
        f"{summary.positions / max(seconds, 1e-9):.0f} labels per second"
    )
