"""Grades and comparisons by the real teacher, which is small and judges poorly: only that its answers are answers is promised."""

import numpy as np
import pyarrow as pa
import pytest

from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.filters.models.grade import GradeConfig
from limbeck.filters.models.judge import JudgeConfig

pytestmark = pytest.mark.model
MODEL = "embedded:smollm2-135m-instruct"

DOCUMENTS = [
    (
        "Rapidfuzz compares strings quickly. It is written in C++ and counts the edits between two texts.",
        "A fast string matcher.",
    ),
    ("The library reads weather files and draws maps. It needs no network and is free.", "It draws maps from weather files."),
    ("Duckdb is a database that runs inside your program and answers SQL over Parquet files.", "An in-process SQL database."),
    ("The tool formats Python code in one style, so that nobody has to argue about commas.", "It formats Python code."),
    ("This package sends e-mail over SMTP with attachments and retries when the server is busy.", "It sends e-mail over SMTP."),
    ("A small server that shows the log files of a machine in the browser, newest lines first.", "It shows logs in the browser."),
]


def inputs(shift: int) -> pa.Table:
    """Each document with its own output, or with that of another."""
    return pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(len(DOCUMENTS))],
            "seed": pa.array(range(len(DOCUMENTS)), pa.int64()),
            "document": [document for document, _ in DOCUMENTS],
            "prompt": ["Summarise the text in one sentence."] * len(DOCUMENTS),
            "reference": pa.nulls(len(DOCUMENTS), pa.string()),
            "output": [DOCUMENTS[(i + shift) % len(DOCUMENTS)][1] for i in range(len(DOCUMENTS))],
        }
    )


def test_grades_are_exact_and_on_the_scale() -> None:
    engines = Engines()
    filter_ = GradeConfig(engine=TransformersConfig(model=MODEL)).build(engines)
    true, mismatched = (filter_.score(inputs(shift)) for shift in (0, 1))
    for scores in (true, mismatched):
        values = scores["score"].to_numpy()
        assert ((values >= 1) & (values <= 5)).all()
        assert ((scores["answered"].to_numpy() > 0.1) & (scores["answered"].to_numpy() <= 1)).all()
    print(
        "true", true["score"].to_pylist(), "mismatched", mismatched["score"].to_pylist(), "answered", true["answered"].to_pylist()
    )
    again = filter_.score(inputs(0))
    np.testing.assert_allclose(again["score"].to_numpy(), true["score"].to_numpy(), atol=1e-9)


def test_sampled_grades_and_comparisons_can_be_read() -> None:
    engines = Engines()
    engine = TransformersConfig(model=MODEL)
    exact = GradeConfig(engine=engine).build(engines).score(inputs(0))
    config = {"engine": engine, "sampling": {"samples": 16, "style": "plain", "max_new_tokens": 4}}
    sampled = GradeConfig.model_validate(config).build(engines).score(inputs(0))
    print("sampled", sampled["score"].to_pylist(), sampled["answered"].to_pylist())
    # what is sampled must be read to the end ("4 out of", "3.5" are no grades), so it is answered less often
    assert 0.05 < sampled["answered"].to_numpy().mean() < exact["answered"].to_numpy().mean() + 0.15
    assert np.nanmin(sampled["score"].to_numpy()) >= 1 and np.nanmax(sampled["score"].to_numpy()) <= 5
    compared = JudgeConfig(engine=engine, compare="lead").build(engines).score(inputs(1))
    print("compared", compared.to_pydict())
    assert ((compared["preference"].to_numpy() > 0) & (compared["preference"].to_numpy() < 1)).all()
