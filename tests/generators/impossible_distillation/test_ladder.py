"""The ways of the yield ladder on engines without weights: what each is asked, what its drafts are, and how a run is counted."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from benchmarks import yield_ladder as benchmark
from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.constraint import inflections
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling, constraint_problem
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import write_json, write_parts
from limbeck.corpus.schemas import CANDIDATES, DECISIONS, STEPS
from limbeck.generators.contract import TEACHER
from limbeck.generators.impossible_distillation.ladder import YieldLadderConfig, few_shot, phrases, salient_words
from limbeck.generators.impossible_distillation.rewrite import AUTHOR, RewriteConfig
from limbeck.generators.impossible_distillation.texts import REASONS
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.folder import RunFolder

TEXT = " The ferry left at noon. It carried mail. Nobody was late! Was it full? The crew slept. It came back. And then"
SENTENCES = ("It carried mail.", "Nobody was late!", "Was it full?", "The crew slept.", "It came back.")
FEW = YieldLadderConfig(samples=2)
Say = Callable[[Request], Completion | str]
Rows = list[dict[str, Any]]


def say(request: Request) -> str:
    """The text; answers and next sentences that differ by step and number."""
    step, index = request.request_id.split("/")[1:]
    return TEXT if step == "text" else f" The {step} was number {index}."


def run(config: Any, say: Say = say, sources: int = 1, round_: int = 0) -> tuple[Rows, ScriptedEngine]:
    def answer(request: Request) -> Completion:
        found = say(request)
        return found if isinstance(found, Completion) else Completion(request.request_id, found, (1, 2), "stop", 3)

    engine = ScriptedEngine(answer)
    table = pa.table({"source_id": [f"s{number}" for number in range(sources)], "document": [""] * sources})
    return Runner(config.build(), 1, round_).run(table, {TEACHER: engine, AUTHOR: engine}).to_pylist(), engine


def facts(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["facts"])
    return found


def of_step(engine: ScriptedEngine, step: str) -> list[Request]:
    return [request for request in engine.requests if request.request_id.split("/")[1] == step]


@pytest.mark.parametrize("style", ["few_shot", "chat"])
def test_every_way_has_the_same_budget_and_the_same_sentence(style: Any) -> None:
    config = YieldLadderConfig(style=style)
    rows, engine = run(config, sources=20)
    assert config.needs.chat == (style == "chat")
    assert len(of_step(engine, "text")) == 20
    assert {len(of_step(engine, step)) for step in ("plain", "search", "sentence")} == {8 * 20}
    for number in range(20):
        mine = [row for row in rows if row["source_id"] == f"s{number}"]
        ways = [facts(row)["way"] for row in mine]
        assert ways == ["plain"] * 8 + ["constraints"] * 8 + ["pairs"] * 56
        (sentence,) = {row["input"] for row in mine[:16]}
        assert sentence in SENTENCES
        context = facts(mine[-1])["context"]
        assert TEXT.strip().index(sentence) == len(context) - context.index("The ferry") + 1, "the context ends before it"
        plain, search, following = (
            [request for request in of_step(engine, step) if request.request_id.startswith(f"s{number}/")]
            for step in ("plain", "search", "sentence")
        )
        chat = (Message("user", f"{mine[0]['prompt']}\n\n{sentence}"),)
        assert {request.prompt for request in (*plain, *search)} == {few_shot(sentence) if style == "few_shot" else chat}
        assert few_shot(sentence).endswith(f"\n\nSentence: {sentence}\nIn other words:")
        assert {request.prompt for request in following} == {context}
        assert len({row["prompt"] for row in mine}) == 1, "one task"
    assert len({row["input"] for row in rows if facts(row)["way"] == "plain"}) > 2


def test_how_each_way_is_decoded() -> None:
    rows, engine = run(YieldLadderConfig())
    assert {request.sampling for request in of_step(engine, "plain")} == {Sampling(100, temperature=0.7, top_p=0.9, stop=("\n",))}
    assert {request.sampling for request in of_step(engine, "sentence")} == {Sampling(100, temperature=0.7, top_p=0.9)}
    searches = [request.sampling for request in sorted(of_step(engine, "search"), key=lambda request: request.request_id)]
    assert [search.constraint.place for search in searches if search.constraint] == list(range(8))
    assert all(constraint_problem(search) is None for search in searches)
    assert YieldLadderConfig().constrained == ("search",)
    kept = next(row for row in rows if facts(row)["way"] == "constraints")
    assert facts(kept)["words"] == salient_words(kept["input"], 3) and facts(kept)["unmet"] == 0
    assert facts(rows[0]) == {"way": "plain", "temperature": 0.7}


def test_a_search_requires_salient_words_and_forbids_long_copies() -> None:
    sentence = "The crew of 12 sailors repaired the broken ferry in Oslo."
    search = FEW.model_copy(update={"samples": 2}).search
    assert search is not None
    constraint = search.sampling(sentence, FEW.answer).constraint
    assert constraint is not None and constraint.beams == 8
    *required, banned = constraint.clauses
    assert [clause.phrases for clause in required] == [inflections(word) for word in ("12", "sailors", "repaired")]
    assert not banned.positive and banned.phrases == tuple(phrases(sentence, 5))
    assert banned.phrases[0] == "The crew of 12 sailors" and banned.phrases[-1] == "the broken ferry in Oslo"
    assert constraint.unmet("A sailor repairs all 12.") == () and constraint.unmet(sentence) == (3,)
    free = search.model_copy(update={"words": 0, "longest_copy": None}).sampling(sentence, FEW.answer).constraint
    assert free is not None and free.clauses == ()
    assert salient_words("It was the.", 3) == [] and salient_words("Boats saw boats in Paris", 2) == ["boats", "paris"]
    assert salient_words("McCoy and NASA met in 1998", 2) == ["McCoy", "1998"]
    assert phrases("One two", 3) == [] and phrases("One, two three.", 2) == ["One, two", "two three"]


def test_rejected_drafts_name_their_way_and_a_text_without_a_sentence_has_none() -> None:
    def unfinished(request: Request) -> Completion | str:
        step, index = request.request_id.split("/")[1:]
        if (step, index) == ("search", "1"):
            return Completion(request.request_id, "", (), "error", 3, "no room")
        return TEXT if step == "text" else " No end" if index == "0" else " It ended."

    rows, _ = run(FEW, unfinished)
    assert [(facts(row)["way"], row["error"]) for row in rows] == [
        *(("plain", REASONS["unfinished"]), ("plain", None), ("constraints", REASONS["unfinished"]), ("constraints", "no room")),
        *(("pairs", REASONS["unfinished"]), ("pairs", REASONS["alone"])),
    ]
    ((row,), engine) = run(FEW, lambda request: "Only one sentence.")
    assert row["error"] == REASONS["few_sentences"] and len(engine.requests) == 1 and "way" not in facts(row)


@pytest.mark.parametrize("config", [YieldLadderConfig(), YieldLadderConfig(samples=3, pairs=2, search=None), FEW])
def test_what_a_source_needs_is_what_it_gets(config: YieldLadderConfig) -> None:
    rows, engine = run(config)
    assert (len(rows), len(engine.requests)) == (config.needs.candidates, config.needs.completions)
    assert len({row[side] for row in rows for side in ("input", "output")}) <= (config.needs.texts or 0)
    assert config.for_inputs.search is None and run(config.for_inputs)[0][0]["error"] is None
    assert bool(config.constrained) == ("constraints" in {facts(row)["way"] for row in rows})


def test_the_student_is_asked_about_the_same_sentences() -> None:
    def of_seed(request: Request) -> str:
        text = f"A came. B{request.seed % 997} went. C{request.seed % 991} sat. D ran. E{request.seed % 983} hid. F left."
        return text if "/text/" in request.request_id else "It was said in other words."

    def asked(rows: Rows) -> dict[str, str]:
        return {row["source_id"]: row["input"] for row in rows if facts(row).get("way", "plain") == "plain"}

    first, _ = run(FEW, of_seed, sources=20)
    student, engine = run(RewriteConfig(samples=2, fresh=False), of_seed, sources=20, round_=1)
    other, _ = run(RewriteConfig(samples=2), of_seed, sources=20, round_=1)
    assert asked(student) == asked(first) and len(set(asked(first).values())) > 10
    assert sum(asked(other)[name] == sentence for name, sentence in asked(first).items()) < 15
    again, teachers = run(RewriteConfig(samples=2, fresh=False), of_seed, sources=20, round_=0)
    seeds = [{request.seed for request in of_step(found, "rewrite")} for found in (engine, teachers)]
    assert not seeds[0] & seeds[1], "its answers are those of its own round"


def test_what_the_recipe_and_check_refuse() -> None:
    with pytest.raises(ValidationError, match="search.constraint.beams is 8, but a search has to find 9 texts"):
        YieldLadderConfig(samples=9)
    assert YieldLadderConfig(samples=9, search=None).samples == 9
    with pytest.raises(ValidationError):
        YieldLadderConfig.model_validate({"contexts": 2})
    assert YieldLadderConfig().problems({}) == []
    wrong = YieldLadderConfig.model_validate({"search": {"constraint": {"banned": [""]}}})
    (problem,) = wrong.problems({})
    assert problem.startswith("search: clause 0 of the constraint has no phrase")


def tables(seed: int) -> tuple[Rows, Rows, Rows]:
    """Candidates, steps and decisions of a made-up round: three ways, 9 sources, the last of which has no sentence."""
    rng = random.Random(seed)
    rows: Rows = []
    steps: Rows = []
    for number in range(8):
        source = f"s{number}"
        steps.append({"source_id": source, "step": "text", "output_tokens": rng.randrange(50)})
        for way, step in (("plain", "plain"), ("constraints", "search"), ("pairs", "sentence")):
            for _ in range(rng.randrange(1, 6)):
                error = REASONS["short"] if rng.random() < 0.2 else None
                texts = [rng.choice(("A b.", "a B!", "C d.", "E f.")) for _ in range(2)]
                rows.append({"source_id": source, "input": texts[0], "output": "" if error else texts[1], "error": error})
                rows[-1]["facts"] = json.dumps({"way": way})
                steps.append({"source_id": source, "step": step, "output_tokens": rng.randrange(1, 20)})
    rows.append({"source_id": "s8", "output": "", "error": REASONS["few_sentences"], "facts": json.dumps({"rule": "x"})})
    steps.append({"source_id": "s8", "step": "text", "output_tokens": 7})
    decisions: Rows = []
    for number, row in enumerate(rows):
        row |= {"candidate_id": f"c{number}", "sample": number, "seed": 0, "prompt": "p", "prompt_tokens": 0}
        row |= {"output_tokens": 0, "finish_reason": "error" if row["error"] else "stop"}
        by = "generator" if row["error"] else rng.choice(("equivalence", "best", None))
        ids = {name: row[name] for name in ("candidate_id", "source_id", "sample")}
        decisions.append({**ids, "kept": by is None, "rejected_by": by, "reason": by})
    return rows, steps, decisions


def naive(rows: Rows, steps: Rows, decisions: Rows, way: str, sources: Sequence[str]) -> dict[str, float]:
    """The yields of a way over sources, which may occur several times."""
    step = {"plain": "plain", "constraints": "search", "pairs": "sentence"}[way]
    scored = kept = distinct = tokens = texts = 0
    for source in sources:
        seen = set()
        for row, decision in zip(rows, decisions, strict=True):
            if row["source_id"] == source and json.loads(row["facts"]).get("way") == way and row["error"] is None:
                scored += 1
                if decision["rejected_by"] in (None, "best"):
                    kept += 1
                    seen.add(tuple(sorted(text.lower().strip("!.") for text in (row["input"], row["output"]))))
        distinct += len(seen)
        tokens += sum(one["output_tokens"] for one in steps if one["source_id"] == source and one["step"] == step)
        texts += sum(one["output_tokens"] for one in steps if one["source_id"] == source and one["step"] == "text")
    values = {"share": (kept, scored), "per_1000_tokens": (1000 * distinct, tokens)}
    values["per_1000_tokens_with_texts"] = (1000 * distinct, tokens + texts)
    return {name: above / below if below else np.nan for name, (above, below) in values.items()}


def write_run(home: Path, rows: Rows, steps: Rows, decisions: Rows, select: list[Any]) -> Path:
    folder = RunFolder(home)
    write_parts(folder.candidates(0), pa.Table.from_pylist(rows, schema=CANDIDATES), 10, CANDIDATES)
    write_parts(folder.steps(0), pa.Table.from_pylist(steps, schema=STEPS), 10, STEPS)
    pq.write_table(pa.Table.from_pylist(decisions, schema=DECISIONS), folder.decisions(0))
    recipe = recipes.load("yield-ladder").resolved().model_dump(mode="json") | {"select": select}
    write_json(folder.lock_file, {"recipe": recipe, "stages": {}})
    return home


BEST = [{"kind": "best", "by": "equivalence.rouge_l"}]


@pytest.mark.parametrize("seed", range(3))
def test_yields_and_intervals_equal_a_naive_count(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resamples = 40
    monkeypatch.setattr(benchmark, "RESAMPLES", resamples)
    rows, steps, decisions = tables(seed)
    out = write_run(tmp_path / "run", rows, steps, decisions, BEST)
    monkeypatch.setattr("sys.argv", ["yield_ladder", str(out), "--json"])
    benchmark.main()
    figures = json.loads(capsys.readouterr().out)
    sources = [f"s{number}" for number in range(9)]
    draws = np.random.default_rng(0).integers(0, 9, (resamples, 9))
    resampled = [[sources[place] for place in draw] for draw in draws]
    found = {way["way"]: way for way in figures["ways"]}
    assert list(found) == ["plain", "constraints", "pairs"]
    every = {
        way: [naive(rows, steps, decisions, way, chosen) for chosen in (sources, *resampled)] for way in found
    }  # fmt: skip
    for name, way in found.items():
        assert way["candidates"] + way["unqualified"] == way["completions"], "one row per completion in this round"
        for measure in ("share", "per_1000_tokens", "per_1000_tokens_with_texts"):
            values = np.array([one[measure] for one in every[name]])
            expected = [values[0], *np.nanquantile(values[1:], (0.025, 0.975))]
            assert way[measure] == pytest.approx(expected, abs=1e-4)
    for row in figures["differences"]:
        values = np.array([a["share"] - b["share"] for a, b in zip(every[row["way"]], every["plain"], strict=True)])
        assert row["share"] == pytest.approx([values[0], *np.nanquantile(values[1:], (0.025, 0.975))], abs=1e-4)
    assert [row["way"] for row in figures["differences"]] == ["constraints", "pairs"]


def test_the_table_and_a_run_without_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, steps, decisions = tables(0)
    monkeypatch.setattr("sys.argv", ["yield_ladder", str(write_run(tmp_path / "run", rows, steps, decisions, BEST))])
    benchmark.main()
    out = capsys.readouterr().out
    assert out.count("\n| pairs ") == 2 and "of 9" in out, "in the table of ways and in that of differences"
    for row in rows:
        row["facts"] = None
    monkeypatch.setattr("sys.argv", ["yield_ladder", str(write_run(tmp_path / "other", rows, steps, decisions, []))])
    with pytest.raises(SystemExit, match="no ways to compare in round 0; name a run of the generator yield_ladder"):
        benchmark.main()
    with pytest.raises(LimbeckError, match="is not a run folder"):
        list(benchmark.rounds_of(benchmark.existing(tmp_path / "none")))


def test_a_way_without_candidates_has_no_share() -> None:
    step = {"source_id": "s", "step": "plain", "output_tokens": 5}
    row = {"candidate_id": "c", "source_id": "s", "facts": json.dumps({"way": "plain"}), "input": "A.", "output": ""}
    figures = benchmark.summary([benchmark.counted(0, [row], [step], set(), {"c"})])
    assert figures["ways"][0]["share"] is None and figures["ways"][0]["per_1000_tokens"] == [0, 0, 0]
    assert "| – |" in benchmark.shown(figures)
