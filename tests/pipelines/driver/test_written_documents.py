"""infosumm through the stages of a run, on an engine without weights: kills, held-out documents, and control codes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine
from helpers.tiny_students import make_model
from helpers.waves import Killed, in_process
from limbeck.cluster.engines.protocol import Completion, Request
from limbeck.corpus.parts import mark_done, read_parts, read_table, write_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.context import Context, held_out_lane, inputs_lane, train_lane
from limbeck.pipelines.driver.evaluate import freeze_inputs, outputs_of
from limbeck.pipelines.driver.round import select
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.rows import ASKED

TRAIN, TEST = 8, 6
OUTPUTS = {
    "short": "It met.",
    "medium": "The council met in the harbour",
    "long": "The council met in the harbour and spoke of ferries.",
}


def said(request: Request) -> str:
    """Documents, of which some are too short, and summaries: as long as the code asks for, or by their seed."""
    text, number = str(request.prompt), int(hashlib.sha256(f"{request.prompt}{request.seed}".encode()).hexdigest(), 16)
    if not text.endswith("TL;DR:"):
        return (
            "" if number % 4 == 0 else f" The council met in harbour {number % 89}. It spoke of ferries and of tolls for hours."
        )
    code = next((level for level in OUTPUTS if f"Length: {level}" in text), None)
    return f" {OUTPUTS[code or list(OUTPUTS)[number % 3]]}"


def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda request: Completion(request.request_id, said(request), tuple(range(9)), "stop", 3))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A run whose round 0 is drawn and decided."""
    home = tmp_path_factory.mktemp("written")
    make_model(home / "model")
    data = recipes.recipe_files.read(recipes.recipe_files.find("infosumm"))
    data |= {
        "rounds": 1,
        "teacher": {"kind": "transformers", "model": str(home / "model"), "dtype": "float32"},
        "generator": {
            "kind": "infosumm",
            "documents": "prefixes",
            "samples": 3,
            "document": {"min_sentences": 2, "min_words": 9},
        },
        "filters": [{"kind": "attributes", "length_edges": [0.15, 0.4]}],
        "select": [],
        "cluster": {"rows_per_part": 4},
    }
    made = opened(home / "run", recipes.validate(data, "here").resolved(), home / "model")
    in_process(engine(), 1, None)(made, None, "train", [train_lane(made, 0)])
    select(made, 0)
    return made


def opened(folder: Path, recipe: Any, model: Path) -> Context:
    """A run whose sources are draws."""
    run = RunFolder(folder)
    rows = [
        {
            **{"source_id": f"s{number:02}", "document": "", "origin": "x", "split": "train", "group": str(number)},
            **{"document_tokens": 0, "cut_characters": 0, "salient": []},
        }
        for number in range(TRAIN + TEST)
    ]
    table = pa.Table.from_pylist(rows, schema=SOURCES)
    write_parts(run.sources("train"), table.slice(0, TRAIN), 4, SOURCES)
    write_parts(run.sources("test"), table.slice(TRAIN), 4, SOURCES)
    mark_done(run.sources("train").parent, "x", used=TRAIN + TEST, train=TRAIN, dev=0, test=TEST, rejected={})
    stages: Any = {stage: {} for stage in ("candidates", "scores", "decisions")}
    return Context(recipe, run, recipe.filters, recipe.select, Events(run.events), stages, model, None, {})  # type: ignore[arg-type]


def drawn_by(context: Context) -> str:
    folder = context.folder
    stages = (folder.candidates(0), folder.steps(0), folder.scores(0, "attributes"))
    return repr([read_parts(stage).to_pylist() for stage in stages])


def test_kills_change_no_row_and_every_row_is_kept_or_has_a_reason(context: Context, tmp_path: Path) -> None:
    for kill_at in (1, 3):
        killed = opened(tmp_path / str(kill_at), context.recipe, context.teacher_folder)
        with pytest.raises(Killed):
            in_process(engine(), 1, kill_at)(killed, None, "train", [train_lane(killed, 0)])
        in_process(engine(), 2, None)(killed, None, "train", [train_lane(killed, 0)])
        assert drawn_by(killed) == drawn_by(context)
    report = json.loads((context.folder.round(0) / "rows.json").read_text())
    rows = read_parts(context.folder.candidates(0), CANDIDATES).to_pylist()
    rejected = [row for row in rows if row["error"]]
    assert 0 < report["rejected_by"]["generator"] == len(rejected) < TRAIN
    assert report["kept"] == len(rows) - len(rejected) == 3 * (TRAIN - len(rejected))
    for row in read_table(context.folder.dataset(0) / DATA).to_pylist():
        level = next(level for level, text in OUTPUTS.items() if text == row["output"])
        assert row["prompt"] == f"{row['input']}\nLength: {level}\nTL;DR:" and row["completion"] == f" {row['output']}"


def test_held_out_documents_are_frozen_with_salient_words_and_asked_for_every_length(context: Context) -> None:
    lanes = in_process(engine(), 1, None)
    lanes(context, None, "test", [inputs_lane(context, "test")])
    freeze_inputs(context, "test")
    held_out = read_parts(context.held_out("test"), SOURCES).to_pylist()
    assert 1 < len(held_out) < TEST and all(row["document"] and row["salient"] and row["document_tokens"] for row in held_out)
    asked = engine()
    in_process(asked, 1, None)(context, None, "test", [held_out_lane(context, "test", "teacher", context.recipe.teacher)])
    prompts = {f"{row['document']}\nLength: {level}\nTL;DR:" for row in held_out for level in OUTPUTS}
    assert {request.prompt for request in asked.requests} == prompts
    rows = read_parts(context.folder.evaluation("test", "teacher") / "candidates", CANDIDATES).to_pylist()
    assert len(rows) == len(held_out) * 3 * context.recipe.evaluation.samples == len({row["candidate_id"] for row in rows})
    found = pa.concat_tables(outputs_of(context, "test", "teacher"))
    buckets = {row["candidate_id"]: row["length_bucket"] for row in read_parts(
        context.folder.evaluation("test", "teacher") / "scores/attributes").to_pylist()}  # fmt: skip
    expected = [float(buckets[row["candidate_id"]] == json.loads(row["facts"])[ASKED]["length"]) for row in rows]
    assert sorted(found["code_accuracy"].to_pylist()) == sorted(expected)
    assert sum(expected) > len(expected) / 2
