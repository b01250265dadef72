"""Waves of a growing task pool: neither workers, part sizes, the way of driving nor kills change a row."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.five_steps import FiveStepsConfig
from helpers.scripted_engine import ScriptedEngine, completion
from helpers.tiny_students import make_model
from helpers.waves import Killed, draw_round, outcome
from limbeck.cluster.engines.protocol import Completion, Request
from limbeck.corpus import compaction
from limbeck.corpus.parts import write_parts
from limbeck.corpus.schemas import SOURCES
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.context import Context
from limbeck.pipelines.driver.jobs import GenerateJob
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder

COUNT, WAVE, TARGET = 300, 64, 300


def said(request: Request) -> Completion:
    """A text that depends on prompt and seed alone."""
    digest = hashlib.sha256(f"{request.prompt}|{request.seed}".encode()).hexdigest()
    return completion(request, f"text {digest[:9]} {digest[9:18]} {int(digest[18:24], 16) % 10}")


def engine() -> ScriptedEngine:
    return ScriptedEngine(said, lambda pair: [-(hashlib.sha256(str(pair).encode()).digest()[0] / 10)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("waves") / "model"
    make_model(folder)
    return folder


def context_of(folder: Path, model: Path, rows_per_part: int, across_callers: bool) -> Context:
    teacher = {"kind": "transformers", "model": str(model)}
    if across_callers:
        teacher = {"kind": "endpoint", "model": str(model), "base_url": "http://127.0.0.1:9/v1"}
    data = {
        "name": "waves",
        "sources": {"kind": "text", "path": "unused"},
        "teacher": teacher,
        "generator": {"kind": "summaries"},
        "filters": [{"kind": "heuristics", "max_copied": None, "max_repeated": None, "max_cut_off": None}],
        "target": {"rows": TARGET, "wave_sources": WAVE},
        "cluster": {"rows_per_part": rows_per_part},
    }
    recipe = recipes.validate(data, "here").resolved().model_copy(update={"generator": FiveStepsConfig()})
    run = RunFolder(folder)
    rows = [
        {
            "source_id": hashlib.sha256(str(number).encode()).hexdigest()[:16], "document": f"Document {number}.", "origin": "x",
            "split": "train", "group": str(number), "document_tokens": 3, "cut_characters": 0, "salient": [],
        }
        for number in range(COUNT)
    ]  # fmt: skip
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["source_id"])), schema=SOURCES)
    write_parts(run.sources("train"), table, rows_per_part, SOURCES, WAVE)
    return Context(recipe, run, recipe.filters, (), Events(run.events), {}, model, None, {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference") / "run"
    with pytest.MonkeyPatch.context() as patch:
        draw_round(context_of(folder, model, 8, across_callers=False), engine(), patch, workers=1)
    yield outcome(folder)


def test_the_pool_grows_from_wave_to_wave_in_the_order_of_parts_and_rows(reference: dict[str, Any]) -> None:
    pools = [[row["candidate_id"] for row in rows] for rows in reference["pools"].values()]
    assert len(pools) >= 2 and pools[0] == [] and len(reference["candidates"]) < 2 * COUNT
    for before, after in zip(pools, pools[1:], strict=False):
        assert after[: len(before)] == before and len(after) > len(before)
    places = {row["candidate_id"]: place for place, row in enumerate(reference["candidates"])}
    assert [places[id_] for id_ in pools[-1]] == sorted(places[id_] for id_ in pools[-1])
    seen = [step["prompt"] for step in reference["steps"] if step["step"] == "instruction"]
    assert sum("Seed task" not in prompt for prompt in seen) > 10, "later waves are shown accepted tasks"


@pytest.mark.parametrize("across_callers", [False, True])
@pytest.mark.parametrize("rows_per_part", [8, 32])
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_parts_and_ways_of_driving_change_nothing(
    reference: dict[str, Any],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    rows_per_part: int,
    across_callers: bool,
) -> None:
    draw_round(context_of(tmp_path / "run", model, rows_per_part, across_callers), engine(), monkeypatch, workers)
    assert outcome(tmp_path / "run") == reference


def test_twenty_kills_at_random_moments_change_nothing(
    reference: dict[str, Any], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, moments, kills = context_of(tmp_path / "run", model, 8, across_callers=True), random.Random(20), 0
    while kills < 20:
        try:
            draw_round(context, engine(), monkeypatch, 3, kill_at=moments.randint(1, 3))
        except Killed:
            kills += 1
        else:
            break
    draw_round(context, engine(), monkeypatch, 1)
    assert kills == 20 and outcome(tmp_path / "run") == reference


def refused(*_: Any, **__: Any) -> None:
    raise AssertionError("a finished part is computed again")


def test_waves_that_are_compacted_between_kills_change_nothing_and_no_part_is_computed_again(
    reference: dict[str, Any], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "AT_LEAST_PARTS", 2)
    plain, moments, kills = context_of(tmp_path / "run", model, 8, across_callers=True), random.Random(7), 0
    while kills < 8:
        context = replace(plain, commits=plain.folder.commits(f"driver {kills}"))
        context.folder.commits(f"driver {kills}").claim()
        try:
            draw_round(context, engine(), monkeypatch, 3, kill_at=moments.randint(1, 12))
        except Killed:
            kills += 1
        else:
            break
    context = replace(plain, commits=plain.folder.commits("last"))
    context.folder.commits("last").claim()
    draw_round(context, engine(), monkeypatch, 1)
    assert kills > 3 and outcome(tmp_path / "run") == reference
    assert not list(context.folder.candidates(0).glob("part-*")) and not list(context.folder.steps(0).glob("part-*"))
    monkeypatch.setattr(GenerateJob, "compute", refused)
    draw_round(context, engine(), monkeypatch, 1)
    assert outcome(tmp_path / "run") == reference
