"""Preference pairs of whole runs, by the command line: of a finished run, of a selection, and as the rows of a recipe."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.commands import limbeck
from helpers.tiny_run import recipe, write_recipe
from helpers.tiny_students import make_model
from limbeck.corpus.parts import read_parts, read_table, write_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.driver.check import find_problems
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.rows import ChatRows

ROWS = {"kind": "preferences", "by": "pmi.pmi", "pairs": "all", "chosen": "passed"}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def pairs_by_hand(run: Path, margin: float, rejected: str) -> list[tuple[str, str, float]]:
    """All (chosen, rejected, margin) of a run whose chosen answers are kept, from its parts."""
    folder = RunFolder(run)
    rows = read_parts(folder.candidates(0), CANDIDATES).to_pylist()
    scores = {row["candidate_id"]: row["pmi"] for row in read_parts(folder.scores(0, "pmi")).to_pylist()}
    decisions = {row["candidate_id"]: row for row in read_table(folder.decisions(0)).to_pylist()}
    found = set()
    for better, worse in itertools.permutations(rows, 2):
        one, two = (scores[row["candidate_id"]] for row in (better, worse))
        if better["source_id"] != worse["source_id"] or better["error"] or worse["error"] or None in (one, two):
            continue
        kept, other = (decisions[row["candidate_id"]] for row in (better, worse))
        loses = {"scored": True, "kept": other["kept"], "failed": not other["kept"]}[rejected]
        if (
            kept["kept"]
            and loses
            and math.isfinite(one - two)
            and one > two
            and one - two >= margin
            and better["output"] != worse["output"]
        ):
            found.add((better["output"], worse["output"], one - two))
    return sorted(found)


@pytest.mark.parametrize(("margin", "rejected"), [(0.0, "scored"), (0.0005, "failed"), (0.0, "kept")])
def test_a_finished_run_exports_the_pairs_of_the_oracle(plain_run: Path, tmp_path: Path, margin: float, rejected: str) -> None:
    sets = ["rows.by=pmi.pmi", "rows.pairs=all", f"rows.margin={margin}", f"rows.rejected={rejected}"]
    options = [option for setting in sets for option in ("--set", setting)]
    out = tmp_path / "pairs.jsonl"
    done = limbeck("export", plain_run, "--format", "preferences", *options, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    found, facts = lines(out), json.loads(done.stdout)["preferences"]
    assert facts["pairs"] == facts["rows"] == len(found) > 0 and facts["asked_margin"] == margin
    texts = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in found]
    scores = [row["score_chosen"] - row["score_rejected"] for row in found]
    made = sorted((*both, difference) for both, difference in zip(texts, scores, strict=True))
    expected = pairs_by_hand(plain_run, margin, rejected)
    assert [pair[:2] for pair in made] == [pair[:2] for pair in expected]
    assert [pair[2] for pair in made] == pytest.approx([pair[2] for pair in expected])
    assert facts["margins"]["minimum"] == pytest.approx(min(scores)) and all(row["prompt"][0]["role"] == "user" for row in found)


def test_labels_are_those_of_the_pairs(plain_run: Path, tmp_path: Path) -> None:
    options = ["--set", "rows.by=pmi.pmi", "--set", "rows.pairs=all", "--set", "rows.form=labelled"]
    done = limbeck("export", plain_run, "--format", "preferences", *options, "--out", tmp_path / "labels.jsonl")
    assert done.returncode == 0 and "labelled answers" in done.stdout, done.stderr
    found = {row["completion"][0]["content"]: row["label"] for row in lines(tmp_path / "labels.jsonl")}
    pairs = pairs_by_hand(plain_run, 0.0, "scored")
    chosen, rejected = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    assert found == {**dict.fromkeys(chosen - rejected, True), **dict.fromkeys(rejected - chosen, False)}


def test_what_cannot_be_paired_is_one_sentence(plain_run: Path, tmp_path: Path) -> None:
    def refused(*options: str, format: str = "preferences") -> str:
        done = limbeck("export", plain_run, "--format", format, *options, "--out", tmp_path / "out")
        assert done.returncode == 1 and done.stdout == "" and not (tmp_path / "out").exists()
        return done.stderr

    assert "holds no preference pairs; say by which score" in refused()
    assert "no filter scores 'pmi.pmm'; did you mean pmi.pmi?" in refused("--set", "rows.by=pmi.pmm")
    assert "there is no filter 'judge'; filters: heuristics, length, pmi" in refused("--set", "rows.by=judge.preference")
    assert "below rows.margin 1e+06; lower it" in refused("--set", "rows.by=pmi.pmi", "--set", "rows.margin=1e6")
    assert "an export can only set how answers are paired" in refused("--set", "filters.pmi.min_saliency=0")
    assert "rows can only become pairs" in refused("--set", "rows.kind=chat")
    assert "is for --format preferences" in refused("--set", "rows.by=pmi.pmi", format="messages")


def test_a_recipe_whose_rows_are_pairs(ray_address: str, tmp_path: Path) -> None:
    file, run = write_recipe(tmp_path, rounds=1, student=None, rows=ROWS), tmp_path / "run"
    done = limbeck("run", file, "--out", run, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    dataset = RunFolder(run).dataset(0)
    rows, report = read_table(dataset / DATA).to_pylist(), json.loads((run / "report.json").read_text())
    texts = sorted((row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows)
    assert texts == [pair[:2] for pair in pairs_by_hand(run, 0.0, "scored")], "without set-wise filters, what passed is kept"
    facts = report["rounds"][0]["preferences"]
    assert facts == json.loads((dataset / "preferences.json").read_text()) and facts["pairs"] == len(rows) > 0
    assert f"{len(rows)} pairs by pmi.pmi" in report["first_line"]
    assert (
        "Preference pairs" in (run / "report.html").read_text() and "## Preference pairs" in (dataset / "README.md").read_text()
    )
    assert all(row["chosen_scores"]["pmi.pmi"] == row["score_chosen"] for row in rows)
    exported = limbeck("export", run, "--format", "preferences", "--out", tmp_path / "pairs.jsonl")
    assert exported.returncode == 0, exported.stderr
    assert [row["chosen"] for row in lines(tmp_path / "pairs.jsonl")] == [row["chosen"] for row in rows]
    assert "holds preference pairs" in limbeck("export", run, "--out", tmp_path / "out").stderr
    selected = limbeck("filter", run, "--set", "rows.pairs=best_worst", "--apply", "two", "--json")
    assert selected.returncode == 0, selected.stderr
    assert json.loads(selected.stdout)["preferences"]["pairs"] == facts["prompts_with_pair"]
    again = recipe(tmp_path, sources={"kind": "run", "run": str(run)}, rounds=1, student=None)
    assert any("holds preference pairs, which are no input rows" in problem for problem in checked(again, tmp_path))


def checked(data: dict[str, Any], home: Path) -> list[str]:
    from limbeck.pipelines.driver.check import check

    problems: list[str] = check(recipes.validate(data, "x"), home / "other")["problems"]
    return problems


JUDGE = {"kind": "judge", "compare": "lead"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"student": {"kind": "sft"}},
            "student trains on prompt and completion, but rows.kind preferences writes prompt, chosen",
        ),
        ({"rows": {**ROWS, "form": "labelled"}, "student": {"kind": "sft"}}, "writes prompt, completion, label; remove"),
        ({"rows": {**ROWS, "by": "pmi.pmm"}}, "did you mean pmi.pmi?"),
        ({"rows": {**ROWS, "by": "best.score"}}, "there is no filter 'best'"),
        ({"generator": {"kind": "summaries", "samples": 1}}, "a pair needs two answers to one prompt"),
        ({"rows": {**ROWS, "by": "judge.preference"}, "filters": [{**JUDGE, "self_test": 0}]}, "filters.judge is not tested"),
        ({"rows": {**ROWS, "by": "judge.preference"}, "filters": [JUDGE]}, None),
        ({}, None),
    ],
)
def test_check_knows_what_cannot_be_paired(tmp_path: Path, changes: dict[str, Any], says: str | None) -> None:
    made = recipes.validate(recipe(tmp_path, **{"rounds": 1, "student": None, "rows": ROWS, **changes}), "x")
    found = find_problems(made, tmp_path / "run")
    assert [problem for problem in found if "rows" in problem or "pair" in problem or "trains" in problem] == found
    assert found == [] if says is None else any(says in problem for problem in found)


def test_a_judge_that_fails_its_test_makes_no_pair(ray_address: str, tmp_path: Path) -> None:
    filters = [{**JUDGE, "self_test": 4}]
    file = write_recipe(tmp_path, rounds=1, student=None, filters=filters, rows={**ROWS, "by": "judge.preference"})
    done = limbeck("run", file, "--out", tmp_path / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 1 and "judge did not pass its self-test (not" in done.stderr, done.stderr
    assert "set rows.judge: any" in done.stderr
    any_judge = ["--set", "rows.judge=any"]
    done = limbeck("run", file, *any_judge, "--out", tmp_path / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr


def test_two_engines_answer_under_principles(ray_address: str, tmp_path: Path) -> None:
    make_model(tmp_path / "other", layers=1, max_position_embeddings=1024)
    generator = {
        "kind": "preferences",
        "answers": 4,
        "max_new_tokens": 8,
        "answered_by": {"other": {"kind": "transformers", "model": str(tmp_path / "other"), "dtype": "auto"}},
    }
    filters = [{"kind": "length", "min_output_tokens": None, "max_compression": None}, {"kind": "pmi", "min_faithfulness": None}]
    rows = {**ROWS, "pairs": "best_worst"}
    file = write_recipe(tmp_path, rounds=1, student=None, generator=generator, filters=filters, rows=rows)
    done = limbeck("run", file, "--out", tmp_path / "run", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    folder = RunFolder(tmp_path / "run")
    candidates = read_parts(folder.candidates(0), CANDIDATES).to_pylist()
    facts = {row["candidate_id"]: json.loads(row["facts"]) for row in candidates}
    assert [fact["engine"] for fact in facts.values()].count("other") == len(candidates) / 2 == 24
    steps = read_parts(folder.steps(0)).to_pylist()
    systems = {json.loads(step["prompt"])[0]["content"] for step in steps}
    assert {step["engine"] for step in steps} == {"teacher", "other"} and len(systems) == 10
    pairs = read_table(folder.dataset(0) / DATA).to_pylist()
    assert pairs and all(json.loads(pair["chosen_facts"]) == facts[pair["chosen_id"]] for pair in pairs)
    assert all([turn["role"] for turn in pair["prompt"]] == ["user"] for pair in pairs), "rows do not show the principle"


def test_labelled_answers_do_not_come_into_a_mixture(tmp_path: Path) -> None:
    from limbeck.pipelines.runs.mixture.components import Wanted, _check_columns

    turns = [{"role": "user", "content": "x"}]
    write_table(tmp_path / "data.parquet", pa.table({"prompt": [turns], "completion": [turns], "label": [False]}))
    with pytest.raises(recipes.LimbeckError, match="holds labelled answers, rejected ones too"):
        _check_columns(tmp_path / "data.parquet", Wanted(ChatRows()))


def test_a_target_of_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(recipes.LimbeckError, match="target counts kept candidates"):
        recipes.validate(recipe(tmp_path, rows=ROWS, student=None, rounds=1, target=4), "x")
