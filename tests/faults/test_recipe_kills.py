"""The shipped recipes of instructions, questions and pairs on their real teacher: kill -9 at random steps changes no row."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.random_kills import kill_until
from helpers.tiny_classifier import make_classifier
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.recipes, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(3600)]

KILLS = 3
PAIRS = [
    "sources={kind: draws, count: 10, split: {train: 6, dev: 2, test: 2}}",
    "generator.samples=5",
    "generator.sentence.max_new_tokens=48",
    "later.samples=3",
    "later.sentence.max_new_tokens=48",
    "next_teacher=teacher",
    *(f"filters.equivalence.{side}=null" for side in ("min_forward", "max_same_text", "max_rouge_l", "min_numbers_agree")),
    *(f"filters.equivalence.{side}_character_ratio=null" for side in ("min", "max")),
    "cluster.rows_per_part=2",
]
# the toys with fewer sources and shorter texts, and without the rules that would then reject all of them
SMALLER = {
    "magpie": [
        "sources={kind: draws, count: 16, split: {train: 12, dev: 2, test: 2}}",
        "generator.instruction.max_new_tokens=32",
        "generator.response.max_new_tokens=32",
        "filters=[{kind: heuristics, max_cut_off: null, max_preamble: null, max_repeated: null, max_echo_of_prompt: null}]",
        "cluster.rows_per_part=4",
    ],
    "documents-qa": [
        "sources.split={train: 6, dev: 2, test: 2}",
        "generator.answer.max_new_tokens=24",
        "filters.heuristics.max_cut_off=null",
        "filters.pmi.min_faithfulness=null",
        "filters.nli.min_entailment=null",
        "cluster.rows_per_part=2",
    ],
    "self-instruct": [
        "sources={kind: draws, count: 10, split: {train: 6, dev: 2, test: 2}}",
        "target={rows: 2, wave_sources: 2}",
        "generator.instructions.max_new_tokens=96",
        "generator.instances={max_new_tokens: 24, classification_tokens: 24}",
        "cluster.rows_per_part=2",
    ],
    "infosumm": [
        "rounds=1",
        "sources={kind: draws, count: 10, split: {train: 6, dev: 2, test: 2}}",
        "generator.document={max_new_tokens: 48, min_sentences: 1, min_words: 4}",
        "generator.samples=2",
        "generator.max_new_tokens=24",
        "filters.heuristics={kind: heuristics, max_cut_off: null}",
        "filters.pmi.min_faithfulness=null",
        "filters.pmi.min_saliency=null",
        "cluster.rows_per_part=2",
    ],
    "alpaca": [
        "sources={kind: draws, count: 10, split: {train: 6, dev: 2, test: 2}}",
        "generator.max_new_tokens=384",
        "select=[]",
        "cluster.rows_per_part=2",
    ],
    "paraphrase": [*PAIRS, "filters.equivalence.min_backward=null"],
    "sentence-summarization": PAIRS,
    "yield-ladder": [
        *PAIRS,
        "filters.equivalence.min_backward=null",
        "generator.samples=3",
        "generator.answer.max_new_tokens=24",
        "generator.search.constraint.beams=3",
    ],
}  # fmt: skip
NLI = {
    **{"documents-qa": "nli", "paraphrase": "equivalence", "sentence-summarization": "equivalence"},
    "yield-ladder": "equivalence",
}
"""Recipe → its filter with an NLI model: the real one takes minutes to make, and has tests of its own."""


def run(home: Path, recipe: str, name: str, **more: str) -> int:
    sets = [*SMALLER[recipe], "student=null"]
    if recipe in NLI:
        nli = home / "nli"
        sets.append(f"filters.{NLI[recipe]}.classifier.model={nli if nli.exists() else make_classifier(nli)}")
    options = [option for setting in sets for option in ("--set", setting)]
    done = limbeck("run", recipe, "--with", "toy", *options, "--out", home / name, "--no-panel", timeout=1800, **more)
    assert done.returncode in (0, -9), done.stderr[-4000:]
    return done.returncode


def outcome(folder: Path) -> dict[str, Any]:
    """The rows of every round."""
    found = RunFolder(folder)
    rounds = range(len(list((folder / "rounds").iterdir())))
    return {
        "candidates": [read_parts(found.candidates(number), CANDIDATES).to_pylist() for number in rounds],
        "steps": [read_parts(found.steps(number)).to_pylist() for number in rounds],
        "decisions": [read_table(found.decisions(number)).to_pylist() for number in rounds],
    }


@pytest.mark.parametrize("recipe", SMALLER)
def test_kills_at_random_steps_change_no_row(recipe: str, ray_address: str, tmp_path: Path) -> None:
    assert run(tmp_path, recipe, "reference", RAY_ADDRESS=ray_address) == 0
    expected = outcome(tmp_path / "reference")
    assert all(expected["candidates"]) and [*map(len, expected["decisions"])] == [*map(len, expected["candidates"])]
    rounds = [f"rounds/{number:03d}" for number in range(len(expected["candidates"]))]
    stages = ("candidates", "steps", "scores/[^/]+")
    parts = [f"{folder}/{stage}/part-{part:05d}" for folder in rounds for stage in stages for part in range(3)]
    chosen = [*parts, "rounds/000/sources/", "evaluation/test/inputs/", *(f"{folder}/decisions.parquet" for folder in rounds)]
    kill_until(KILLS, tmp_path / "kills.json", chosen, recipe, partial(run, tmp_path, recipe, "killed", RAY_ADDRESS=ray_address))
    assert run(tmp_path, recipe, "killed", RAY_ADDRESS=ray_address) == 0
    assert outcome(tmp_path / "killed") == expected
