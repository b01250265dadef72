"""The job that draws a cached teacher: the rows that a student will train on, with the teacher's own distributions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer

from helpers.tiny_students import make_dataset, make_model
from limbeck.cluster.engines.config import EndpointConfig, TransformersConfig, VllmConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.corpus.parts import mark_done, read_parts
from limbeck.pipelines.driver.logprobs_job import LogprobsJob
from limbeck.students.base.compatibility import end_tokens
from limbeck.students.contract import CachedTeacher
from limbeck.students.training import teacher_cache
from limbeck.students.training.driver import dataset_files
from limbeck.students.training.rows import Row, read_rows, rendered
from limbeck.students.training.teacher_cache import TeacherCache

ROWS = 24
WANTED = CachedTeacher(top_k=8, dtype="float32", max_sequence_tokens=512)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teacher")
    make_model(root / "model")
    make_dataset(root / "dataset", ROWS)
    (file,) = dataset_files(root / "dataset")
    table = pq.read_table(file)
    file.unlink()
    for number, (start, rows) in enumerate([(0, 7), (7, 17)]):  # two files, of several row groups
        pq.write_table(table.slice(start, rows), file.parent / f"train-{number}.parquet", row_group_size=3)
    return root


def job_of(home: Path, out: Path, **changes: Any) -> LogprobsJob:
    job = LogprobsJob(
        stage="round-0/teacher_logprobs",
        files=tuple(dataset_files(home / "dataset")),
        total=ROWS,
        rows_per_part=10,
        text=home / "model",
        out=out,
        engine=TransformersConfig(model=str(home / "model"), dtype="float32"),
        teacher="me",
        wanted=WANTED,
        columns=teacher_cache.schema(WANTED, 400),
    )
    return replace(job, **changes)


def rows_of(home: Path) -> list[Row]:
    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    return rendered(read_rows(dataset_files(home / "dataset")), tokenizer, end_tokens(home / "model"))


def draw(job: LogprobsJob) -> TeacherCache:
    engines = Engines()
    for part in job.parts:
        job.publish(part, job.compute(part, 0, job.rows(part), engines))
    mark_done(job.out, "x", teacher=job.teacher, top_k=job.wanted.top_k)
    return TeacherCache(job.out)


def test_every_row_of_the_dataset_has_the_teachers_distributions(home: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    job = job_of(home, tmp_path)
    assert [job.rows(part) for part in job.parts] == [10, 10, 4]
    cache, model = draw(job), AutoModelForCausalLM.from_pretrained(home / "model")
    for row in rows_of(home):
        found = cache.of(row.ids, row.prompt_length)
        with torch.no_grad():
            logits = model(torch.tensor(row.ids[None]).long()).logits[0, row.prompt_length - 1 : -1]
        expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(found.ids.astype(np.int64))).numpy()
        np.testing.assert_allclose(found.logprobs, expected, atol=1e-4)
        np.testing.assert_allclose(found.logprobs, torch.log_softmax(logits, -1).topk(8)[0].numpy(), atol=1e-4)


def test_a_part_in_halves_is_the_same_part(home: Path, tmp_path: Path) -> None:
    job, engines = job_of(home, tmp_path), Engines()
    whole = job.compute("part-00001", 0, 10, engines)
    halves = [job.compute("part-00001", start, stop, engines) for start, stop in ((0, 3), (3, 10))]
    assert whole["key"].to_pylist() == [key for half in halves for key in half["key"].to_pylist()]
    assert whole["ids"].to_pylist() == [ids for half in halves for ids in half["ids"].to_pylist()]


def test_a_row_that_cannot_be_drawn_keeps_its_place_with_the_reason(home: Path, tmp_path: Path) -> None:
    lengths = sorted(len(row.ids) for row in rows_of(home))
    most = lengths[ROWS // 2]
    job = job_of(home, tmp_path, wanted=replace(WANTED, max_sequence_tokens=most))
    draw(job)
    errors = read_parts(tmp_path)["error"].to_pylist()
    assert sum(error is not None for error in errors) == sum(length > most for length in lengths)
    assert f"more than max_sequence_tokens ({most})" in next(error for error in errors if error)
    short = job_of(
        home, tmp_path / "short", engine=TransformersConfig(model=str(home / "model"), dtype="float32", context_tokens=most)
    )
    draw(short)
    errors = read_parts(short.out)["error"].to_pylist()
    assert "more than the teacher's context holds" in next(error for error in errors if error)
    assert job.failure("part-00000", 3, "its worker died").to_pylist() == [
        {"key": None, "error": "its worker died", "ids": None, "logprobs": None, "tail": None}
    ]


def test_an_engine_says_what_it_cannot_give(home: Path) -> None:
    model = str(home / "model")
    server = EndpointConfig(model=model, base_url="http://127.0.0.1:9/v1")
    assert server.top_logprobs_problem(8) == (
        "an engine of kind endpoint does not give the teacher's log-probabilities; use transformers or vllm"
    )
    few = VllmConfig(model=model, max_logprobs=8)
    assert few.top_logprobs_problem(8) is None
    assert few.top_logprobs_problem(9) == "top_k is 9, but max_logprobs of the teacher's engine is 8; raise it, or lower top_k"
    every = TransformersConfig(model=model)
    assert every.top_logprobs_problem(400) is None
    assert f"top_k is 401, but the vocabulary of {model} has 400 tokens" in str(every.top_logprobs_problem(401))
