"""The task pool of Self-Instruct over several waves: what it contains, and that kills do not change it."""

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rouge_score.rouge_scorer import RougeScorer

from helpers.instructing_engine import InstructingEngine
from helpers.tiny_students import make_model
from helpers.waves import Killed, draw_round, in_process, outcome
from limbeck.corpus.parts import part_names, read_parts, write_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.generators.contract import Question
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.context import Context, held_out_lane, inputs_lane
from limbeck.pipelines.driver.evaluate import freeze_inputs
from limbeck.pipelines.driver.round import judged
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder

COUNT, TEST, WAVE, TARGET = 40, 12, 8, 100


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instruct")
    make_model(folder / "model")
    rows = [
        {"instruction": f"{verb} the {thing} of the {other}", "output": "x", "is_classification": False}
        for verb, thing, other in zip("ask bring count do eat find give help".split(), "abcdefgh", "stuvwxyz", strict=True)
    ]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def context_of(home: Path, name: str) -> Context:
    data = recipes.recipe_files.read(recipes.recipe_files.find("self-instruct"))
    data |= {
        "teacher": {"kind": "transformers", "model": str(home / "model")},
        "generator": {"kind": "self_instruct", "seed_tasks": str(home / "seeds.jsonl")},
        "target": {"rows": TARGET, "wave_sources": WAVE},
        "cluster": {"rows_per_part": 8},
    }
    data["select"] = [{**data["select"][0], "pool": [str(home / "seeds.jsonl")]}]
    recipe, run = recipes.validate(data, "here").resolved(), RunFolder(home / name)
    rows = [
        {
            "source_id": hashlib.sha256(str(number).encode()).hexdigest()[:16], "document": "", "origin": "x",
            "split": "train", "group": str(number), "document_tokens": 0, "cut_characters": 0, "salient": [],
        }
        for number in range(COUNT + TEST)
    ]  # fmt: skip
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["source_id"])), schema=SOURCES)
    write_parts(run.sources("train"), table.slice(0, COUNT), 8, SOURCES, WAVE)
    write_parts(run.sources("test"), table.slice(COUNT), 8, SOURCES, WAVE)
    return Context(recipe, run, recipe.filters, recipe.select, Events(run.events), {"candidates": {}}, home / "model", None, {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference(home: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        context = context_of(home, "reference")
        draw_round(context, InstructingEngine(), patch, workers=1)
    kept = set(judged(context, 0, part_names(context.folder.candidates(0))).ids.to_pylist())
    return {**outcome(home / "reference"), "kept": kept}


def test_no_two_tasks_of_the_pool_are_near_seeds_included(home: Path, reference: dict[str, Any]) -> None:
    rows = [row for row in reference["candidates"] if row["candidate_id"] in reference["kept"]]
    assert len(rows) >= TARGET and len(reference["pools"]) >= 3
    tasks = {(row["source_id"], row["prompt"]) for row in rows}
    seeds = [json.loads(line)["instruction"] for line in (home / "seeds.jsonl").read_text().splitlines()]
    texts = [*seeds, *(prompt for _, prompt in tasks)]
    assert len(texts) == len(set(texts)) > 40 and len(tasks) < len(rows), "instances share their instruction"
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    assert max(scorer.score(a, b)["rougeL"].fmeasure for a, b in combinations(texts, 2)) <= 0.7


def test_later_waves_are_shown_accepted_tasks_and_reject_what_is_near_to_them(reference: dict[str, Any]) -> None:
    pools = [[row["prompt"] for row in rows] for rows in reference["pools"].values()]
    assert pools[0] == [] and all(before == after[: len(before)] for before, after in zip(pools, pools[1:], strict=False))
    prompts = [step["prompt"] for step in reference["steps"] if step["step"] == "instructions"]
    accepted = set(pools[-1])
    shown = [sum(line.partition(". ")[2] in accepted for line in prompt.split("\n")) for prompt in prompts]
    assert shown[:WAVE] == [0] * WAVE and set(shown[WAVE:]) == {2}
    near = [json.loads(row["facts"]) for row in reference["candidates"] if "ROUGE-L" in (row["error"] or "")]
    assert any(fact["nearest"] in accepted for fact in near)


def test_kills_before_one_part_and_after_another_give_the_same_pool(
    home: Path, reference: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, kills = context_of(home, "killed"), 0
    while True:
        try:
            draw_round(context, InstructingEngine(), monkeypatch, 3, kill_at=1 + kills % 2 if kills < 6 else None)
        except Killed:
            kills += 1
        else:
            break
    assert kills == 6 and outcome(home / "killed") == {key: reference[key] for key in ("candidates", "steps", "pools")}


def test_the_held_out_inputs_are_the_first_kept_instances_and_every_model_is_asked_them(home: Path) -> None:
    context = context_of(home, "held-out")
    run_lanes = in_process(InstructingEngine(), 1, None)
    run_lanes(context, None, "test", [inputs_lane(context, "test")])
    freeze_inputs(context, "test")
    drafts = read_parts(context.folder.evaluation("test", "inputs") / "candidates", CANDIDATES).to_pylist()
    first = {row["source_id"]: row for row in reversed(drafts) if not row["error"]}
    sources = read_parts(context.held_out("test"), SOURCES).to_pylist()
    assert {row["source_id"] for row in sources} == first.keys() and 6 < len(first) <= TEST
    run_lanes(context, None, "test", [held_out_lane(context, "test", "teacher", context.recipe.teacher)])
    answers = read_parts(context.folder.evaluation("test", "teacher") / "candidates", CANDIDATES).to_pylist()
    steps = read_parts(context.folder.evaluation("test", "teacher") / "steps").to_pylist()
    asked = {step["source_id"]: step["prompt"] for step in steps}
    renderer = context.recipe.renderer
    for row in answers:
        source = first[row["source_id"]]
        assert (row["prompt"], row["input"], row["sample"]) == (source["prompt"], source["input"], 0)
        question = Question(row["source_id"], source["prompt"], input=source["input"])
        assert asked[row["source_id"]] == renderer.ask(question), "in the format of the training rows"
    scores = read_parts(context.folder.evaluation("test", "teacher") / "scores" / "instructions").to_pylist()
    assert len(scores) == len(answers) == len(first)
