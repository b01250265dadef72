"""Two rounds of paraphrases through the stages of a run, on engines without weights: who is asked what, and what selects."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine
from helpers.tiny_students import make_model
from limbeck.cluster.engines.contract import EngineConfig
from limbeck.cluster.engines.protocol import Completion, Request
from limbeck.corpus.parts import mark_done, read_parts, read_table, write_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.generators.contract import Question
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.context import Context, held_out_lane, inputs_lane, train_lane
from limbeck.pipelines.driver.evaluate import freeze_inputs, publish_controls
from limbeck.pipelines.driver.round import select
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder

TRAIN, TEST = 6, 4
ADVERBS = ("slowly", "at dawn", "in the rain", "without a sound", "as planned")


class Alike:
    """A classifier that finds sentences equivalent if they begin with the same word."""

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        same = np.array([x.split()[0] == y.split()[0] for x, y in pairs], np.float32)
        return np.stack([same, 1 - same, 0 * same], axis=1)


class Workers:
    """Stands for the pool and its workers: one engine per model."""

    def __init__(self, home: Path) -> None:
        self.engines = {name: ScriptedEngine(lambda request, name=name: self.say(name, request)) for name in ("model", "student")}
        self._home = home

    def say(self, model: str, request: Request) -> Completion:
        """Texts of six sentences; the sentences after them, of two meanings; rewritten ones."""
        source, step, index = request.request_id.split("/")
        number = int(index)
        text = f"{'Rain' if number % 2 else 'Boats'} came {ADVERBS[number % 5]} that day to {source}."
        if step == "text":
            text = " ".join(
                f"{word} fell the whole day on {source}." for word in ("Snow", "Hail", "Leaves", "Night", "Apples", "Walls")
            )
        elif step == "rewrite" or step == "answer":
            said = str(request.prompt)
            first = next(
                word for word in ("Snow", "Hail", "Leaves", "Night", "Apples", "Walls", "Boats", "Rain") if f"{word} " in said
            )
            text = f"{first} {'kept falling' if number % 2 else 'fell'} {ADVERBS[number % 5]} on {source}."
        return Completion(request.request_id, f" {text}", (1, 2, 3), "stop", 3)

    def get(self, config: EngineConfig) -> ScriptedEngine:
        return self.engines["model" if config.model == str(self._home / "model") else "student"]

    def hold(self, config: Any) -> Alike:
        return Alike()

    def run(self, *lanes: Any) -> None:
        for lane in lanes:
            for part in lane.parts:
                for job in lane.jobs:
                    if not job.finished(part):
                        job.publish(part, job.compute(part, 0, job.rows(part), self))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    make_model(tmp_path / "model")
    data = recipes.recipe_files.read(recipes.recipe_files.find("paraphrase"))
    data |= {
        "teacher": {"kind": "transformers", "model": str(tmp_path / "model"), "dtype": "float32"},
        "cluster": {"rows_per_part": 3},
    }
    data["generator"] |= {"samples": 6}
    data["filters"][0] |= {"max_rouge_l": 0.85, "classifier": {"model": "x"}}
    recipe, run = recipes.validate(data, "here").resolved(), RunFolder(tmp_path / "run")
    rows = [
        {
            **{"source_id": f"s{number:02}", "document": "", "origin": "x", "split": "train", "group": str(number)},
            **{"document_tokens": 0, "cut_characters": 0, "salient": []},
        }
        for number in range(TRAIN + TEST)
    ]
    table = pa.Table.from_pylist(rows, schema=SOURCES)
    write_parts(run.sources("train"), table.slice(0, TRAIN), 3, SOURCES)
    write_parts(run.sources("test"), table.slice(TRAIN), 3, SOURCES)
    mark_done(run.sources("train").parent, "x", used=TRAIN + TEST, train=TRAIN, dev=0, test=TEST, rejected={})
    stages: Any = {stage: {} for stage in ("candidates", "scores", "decisions")}
    return Context(recipe, run, recipe.filters, recipe.select, Events(run.events), stages, tmp_path / "model", None, {})  # type: ignore[arg-type]


def steps_of(engine: ScriptedEngine) -> set[str]:
    return {request.request_id.split("/")[1] for request in engine.requests}


def decisions(context: Context, number: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(context.folder.decisions(number)).to_pylist()
    return rows


def test_each_round_has_its_generator_its_engines_and_its_selection(context: Context, tmp_path: Path) -> None:
    workers, folder = Workers(tmp_path), context.folder
    workers.run(train_lane(context, 0))
    assert steps_of(workers.engines["model"]) == {"text", "sentence"} and not workers.engines["student"].requests
    select(context, 0)
    first = decisions(context, 0)
    kept = [row for row in first if row["kept"]]
    assert {row["rejected_by"] for row in first} == {None, "equivalence", "diversity"}
    candidates = {row["candidate_id"]: row for row in read_parts(folder.candidates(0), CANDIDATES).to_pylist()}
    meanings = [(row["source_id"], candidates[row["candidate_id"]]["output"].split()[0]) for row in kept]
    assert len(meanings) == len(set(meanings)) == 2 * TRAIN, "one pair of each meaning"
    assert set(json.loads((folder.round(0) / "rows.json").read_text())["rejected_by"]) >= {"diversity"}

    asked = len(workers.engines["model"].requests)
    workers.run(train_lane(context, 1))
    assert {request.request_id.split("/")[1] for request in workers.engines["model"].requests[asked:]} == {"text"}
    assert steps_of(workers.engines["student"]) == {"rewrite"} and len(workers.engines["student"].requests) == 10 * TRAIN
    select(context, 1)
    second = decisions(context, 1)
    scores = {row["candidate_id"]: row["rouge_l"] for row in read_parts(folder.scores(1, "equivalence")).to_pylist()}
    assert {row["rejected_by"] for row in second} == {None, "equivalence", "best"}
    for source in {row["source_id"] for row in second}:
        (chosen,) = [row for row in second if row["kept"] and row["source_id"] == source]
        passed = [row for row in second if row["source_id"] == source and row["rejected_by"] in (None, "best")]
        assert scores[chosen["candidate_id"]] == min(scores[row["candidate_id"]] for row in passed)


def test_held_out_inputs_come_from_the_first_teacher_and_their_copies_never_pass(context: Context, tmp_path: Path) -> None:
    workers, folder = Workers(tmp_path), context.folder
    workers.run(train_lane(context, 0))
    select(context, 0)
    workers.run(inputs_lane(context, "test"))
    assert not workers.engines["student"].requests
    drawn = read_parts(folder.evaluation("test", "inputs") / "candidates", CANDIDATES).to_pylist()
    drawn = [row for row in drawn if row["sample"] == 0]
    assert [row["source_id"] for row in drawn] == [f"s{number:02}" for number in range(TRAIN, TRAIN + TEST)]
    freeze_inputs(context, "test")
    held_out = read_parts(context.held_out("test"), SOURCES).to_pylist()
    assert [row["document"] for row in held_out] == [row["input"] for row in drawn]
    student = context.recipe.teacher.for_student("student")
    workers.run(
        held_out_lane(context, "test", "teacher", context.recipe.teacher), held_out_lane(context, "test", "student", student)
    )
    prompts = [
        {request.request_id.split("/")[0]: request.prompt for request in engine.requests if "/answer/" in request.request_id}
        for engine in workers.engines.values()
    ]
    questions = {row["source_id"]: Question(row["source_id"], row["prompt"], input=row["input"]) for row in drawn}
    assert prompts[0] == prompts[1] == {id_: context.recipe.renderer.ask(question) for id_, question in questions.items()}
    assert "document" in publish_controls(context, "test")
    workers.run(held_out_lane(context, "test", "document", None))
    copies = read_parts(folder.evaluation("test", "document") / "scores/equivalence").to_pylist()
    assert len(copies) == TEST and {(row["same_text"], row["rouge_l"], row["skipped"]) for row in copies} == {
        (1.0, 1.0, "same_text")
    }


def test_a_set_filter_selects_in_the_rounds_it_names() -> None:
    recipe = recipes.load("paraphrase")
    assert [filter_.kind for filter_ in recipe.select_of(0)] == ["diversity"]
    assert [filter_.kind for filter_ in recipe.select_of(1)] == [filter_.kind for filter_ in recipe.select_of(7)] == ["best"]
    every = recipes.load("paraphrase", ["select.best.rounds=all"])
    assert [filter_.kind for filter_ in every.select_of(0)] == ["diversity", "best"]
