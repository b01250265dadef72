"""Magpie and documents_qa through the stages of a run, on an engine without weights: steps, decisions, held-out inputs."""

import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine
from helpers.tiny_students import make_model
from helpers.waves import Killed, in_process
from limbeck.cluster.engines.protocol import Completion, Message, Pair, Request, UserTurn
from limbeck.corpus.parts import mark_done, part_names, read_parts, read_table, write_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.generators.contract import Question
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.context import Context, held_out_lane, inputs_lane, train_lane
from limbeck.pipelines.driver.evaluate import freeze_inputs
from limbeck.pipelines.driver.round import select
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.rows import turns

TRAIN, TEST = 12, 6
NAMES = """
    Quern Barley Harbour Lamp Meadow Violin Castle Engine Island Letter River Winter Bridge Garden Teacher Market Copper Glass
    """.split()
WORDS = "weather bread ferry light flower music tower steam bird postal water snow road plant school price metal window".split()
DOCUMENTS = [f"{name} has {' '.join(random.Random(name).sample(WORDS, 9))}." for name in NAMES]
GENERATORS: dict[str, dict[str, Any]] = {
    "magpie": {"kind": "magpie", "turns": 2, "system": "You talk to {{ who }}.", "system_for": "conversation"},
    "documents-qa": {"kind": "documents_qa", "style": "chat", "questions": 3},
}


def said(request: Request) -> str:
    """By the request alone: user's turns and questions, of which some break a rule, and answers of one sentence."""
    prompt: Any = request.prompt
    number = int(hashlib.sha256(f"{request.prompt}{request.seed}".encode()).hexdigest(), 16)
    if isinstance(prompt, UserTurn):
        return ["", "Why is that so?", "Tell me more about the other one.", "Name three of them."][number % 4]
    text = prompt[-1].content
    if text.startswith("Write one question"):
        name = text.partition("Text: ")[2].split()[0]
        return [f"What does {name} read?", f"Who wrote {name}?", f"{name} reads.", f"When was {name} written?"][number % 4]
    return f"It is answer number {number % 1000} to that."


def engine() -> ScriptedEngine:
    def answer(request: Request) -> Completion:
        text = said(request)
        return Completion(request.request_id, text, tuple(range(len(text.split()))), "stop", 3)

    def measure(pair: Pair) -> list[float]:
        """A question is likelier after a document with its name."""
        words = pair.target.rstrip("?").split()
        return [-1.0 if word in pair.context.split() else -3.0 for word in words]

    return ScriptedEngine(answer, measure)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("invented")
    make_model(folder / "model")
    return folder


@pytest.fixture(params=GENERATORS)
def context(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Context:
    name = request.param
    data = recipes.recipe_files.read(recipes.recipe_files.find(name))
    data |= {
        "teacher": {"kind": "transformers", "model": str(home / "model"), "dtype": "float32"},
        "generator": GENERATORS[name],
        "filters": [section for section in data["filters"] if section["kind"] in ("instructions", "heuristics", "question_pmi")],
        "cluster": {"rows_per_part": 4},
    }
    recipe, run = recipes.validate(data, "here").resolved(), RunFolder(tmp_path / "run")
    rows = [
        {
            **{"source_id": f"s{number:02}", "document": DOCUMENTS[number] if name == "documents-qa" else "", "origin": "x"},
            **{"split": "train", "group": str(number), "document_tokens": 9, "cut_characters": 0, "salient": [0, 4]},
            **{"record": json.dumps({"vary": {"who": f"person {number % 3}"}}) if name == "magpie" else None},
        }
        for number in range(TRAIN + TEST)
    ]
    table = pa.Table.from_pylist(rows, schema=SOURCES)
    write_parts(run.sources("train"), table.slice(0, TRAIN), 4, SOURCES)
    write_parts(run.sources("test"), table.slice(TRAIN), 4, SOURCES)
    mark_done(run.sources("train").parent, "x", used=TRAIN + TEST, train=TRAIN, dev=0, test=TEST, rejected={})
    stages: Any = {stage: {} for stage in ("candidates", "scores", "decisions")}
    return Context(recipe, run, recipe.filters, recipe.select, Events(run.events), stages, home / "model", None, {})  # type: ignore[arg-type]


def draw(context: Context, workers: int = 1, kill_at: int | None = None) -> ScriptedEngine:
    """Draw and score the train candidates; raises Killed after `kill_at` parts."""
    scripted = engine()
    lane = train_lane(context, 0, part_names(context.folder.sources("train")))
    in_process(scripted, workers, kill_at)(context, None, "train", [lane])
    return scripted


def test_every_completion_is_a_step_and_every_row_is_kept_or_has_a_reason(context: Context) -> None:
    scripted = draw(context)
    rows = read_parts(context.folder.candidates(0), CANDIDATES).to_pylist()
    steps = read_parts(context.folder.steps(0)).to_pylist()
    assert len(steps) == len(scripted.requests) and {step["source_id"] for step in steps} == {f"s{n:02}" for n in range(TRAIN)}
    names = Counter(step["step"].partition(".")[0] for step in steps)
    rejected = [row for row in rows if row["error"]]
    drawn, answered = ("instruction", "response") if context.recipe.generator.kind == "magpie" else ("question", "answer")
    assert names[drawn] == names[answered] + len(rejected) and names[answered] > len(rejected) > 0
    used = sum(len(step["samples"]) for step in steps if step["step"].startswith(answered))
    assert used == len(rows) - len(rejected)
    select(context, 0)
    report = json.loads((context.folder.round(0) / "rows.json").read_text())
    assert report["kept"] + sum(report["rejected_by"].values()) == report["candidates"] == len(rows)
    assert report["rejected_by"]["generator"] == len(rejected) and report["kept"] > 0
    data = read_table(context.folder.dataset(0) / DATA).to_pylist()
    decided = {row["candidate_id"]: row["kept"] for row in read_table(context.folder.decisions(0)).to_pylist()}
    assert {row["candidate_id"] for row in data} == {id_ for id_, kept in decided.items() if kept} and len(data) == report["kept"]
    for row in data:
        said_before, (answer,) = row["prompt"], row["completion"]
        assert said_before[-1]["role"] == "user" and answer == {"role": "assistant", "content": row["output"]}
        if context.recipe.generator.kind == "magpie":
            roles = [turn["role"] for turn in said_before]
            assert roles in (["system", "user"], ["system", "user", "assistant", "user"])
        else:
            assert said_before[-1]["content"].endswith(f"?\n\n{row['document']}") and len(said_before) == 1


def beside(context: Context, name: str) -> Context:
    """The same run in another folder, with nothing drawn yet."""
    other = Context(**{**vars(context), "folder": RunFolder(context.folder.path.parent / name)})
    write_parts(other.folder.sources("train"), read_parts(context.folder.sources("train"), SOURCES), 4, SOURCES)
    return other


def drawn_by(context: Context) -> list[Any]:
    """Everything that the train stages wrote."""
    folder = context.folder
    scores = [read_parts(folder.scores(0, name)).to_pylist() for name in context.filter_names]
    return [read_parts(folder.candidates(0), CANDIDATES).to_pylist(), read_parts(folder.steps(0)).to_pylist(), *scores]


def test_neither_the_order_of_workers_nor_kills_change_a_row(context: Context) -> None:
    draw(context)
    expected = drawn_by(context)
    several = beside(context, "several")
    draw(several, workers=3)
    assert repr(drawn_by(several)) == repr(expected)
    parts = len(part_names(context.folder.sources("train"))) * (1 + len(context.filters))
    for kill_at in (1, 2, parts // 2, parts):
        killed = beside(context, f"killed-{kill_at}")
        with pytest.raises(Killed):
            draw(killed, kill_at=kill_at)
        draw(killed)
        assert repr(drawn_by(killed)) == repr(expected), kill_at


def test_held_out_inputs_are_drawn_once_and_asked_in_the_format_of_training_rows(context: Context) -> None:
    scripted = engine()
    lanes = in_process(scripted, 1, None)
    lanes(context, None, "test", [inputs_lane(context, "test")])
    freeze_inputs(context, "test")
    drafts = read_parts(context.folder.evaluation("test", "inputs") / "candidates", CANDIDATES).to_pylist()
    first = {row["source_id"]: row for row in reversed(drafts) if not row["error"]}
    held_out = read_parts(context.held_out("test"), SOURCES).to_pylist()
    assert {row["source_id"] for row in held_out} == first.keys() and len(first) > 2
    drawn = len(scripted.requests)
    lanes(context, None, "test", [held_out_lane(context, "test", "teacher", context.recipe.teacher)])
    asked = {request.request_id.partition("/")[0]: request.prompt for request in scripted.requests[drawn:]}
    for source_id, draft in first.items():
        conversation = turns(draft["messages"])
        if context.recipe.generator.kind == "magpie":
            assert conversation is not None and conversation[-1] == Message("assistant", draft["output"])
            assert conversation[0].role == "system" and asked[source_id] == conversation[:-1], "without the teacher's own answer"
        else:
            question = Question(source_id, draft["prompt"], input=draft["input"])
            assert asked[source_id] == context.recipe.renderer.ask(question)
            assert draft["input"] == DOCUMENTS[int(source_id[1:])]
    answers = read_parts(context.folder.evaluation("test", "teacher") / "candidates", CANDIDATES).to_pylist()
    assert {(row["source_id"], row["prompt"]) for row in answers} == {(id_, row["prompt"]) for id_, row in first.items()}
    if context.recipe.generator.kind == "documents_qa":
        scores = read_parts(context.folder.evaluation("test", "teacher") / "scores/question_pmi").to_pylist()
        assert [row["beaten"] for row in scores] == [1.0] * len(scores), "each question has the name of its document"
