"""Pairs of sentences on an engine without weights: what is asked, which sentences qualify, which pairs are made."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.contract import TEACHER, Answer, Question
from limbeck.generators.impossible_distillation.pairs import ParaphraseConfig, SentenceSummarizationConfig, drawn, pairs_of
from limbeck.generators.impossible_distillation.texts import REASONS, broken_rule, complete_sentences, first_sentence
from limbeck.generators.prefixes import MEDIA
from limbeck.generators.runner import STEP_LIMIT, Runner
from limbeck.pipelines.runs.rows import ChatRows

TEXT = " The ferry left at noon. It carried mail. Nobody was late! Was it full? The crew slept. It came back. And then"
Say = Callable[[Request], Completion | str]
Config = ParaphraseConfig | SentenceSummarizationConfig


def run(config: Config, say: Say, document: str = "", sources: int = 1) -> tuple[list[dict[str, Any]], ScriptedEngine]:
    def answer(request: Request) -> Completion:
        said = say(request)
        return said if isinstance(said, Completion) else Completion(request.request_id, said, (1, 2), "stop", 3)

    engine = ScriptedEngine(answer)
    table = pa.table({"source_id": [f"s{number}" for number in range(sources)], "document": [document] * sources})
    return Runner(config.build(), 1, 0).run(table, {TEACHER: engine}).to_pylist(), engine


def writes(*sentences: str) -> Say:
    """The text, and then these next sentences, by their index."""

    def say(request: Request) -> str:
        step, index = request.request_id.split("/")[1:]
        return TEXT if step == "text" else f" {sentences[int(index)]}"

    return say


def facts(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row["facts"])
    return found


def test_every_constant_of_the_paper_is_the_default() -> None:
    rows, engine = run(ParaphraseConfig(), lambda request: TEXT if "text" in request.request_id else f"Line {request.seed}.")
    text, *sentences = engine.requests
    assert text.sampling == Sampling(150, temperature=1.0, top_p=0.9)
    assert {request.sampling for request in sentences} == {Sampling(100, temperature=0.7, top_p=0.9)}
    assert ParaphraseConfig().sampling == Sampling(100, temperature=0.7, top_p=0.9, stop=("\n",))
    assert len(sentences) == 100 and len({request.seed for request in sentences}) == 100
    assert len(rows) == 100 * 99 == ParaphraseConfig().needs.candidates
    assert ParaphraseConfig().needs.completions == 101 and ParaphraseConfig().needs.texts == 100


def test_a_text_follows_a_dateline_and_sentences_follow_one_to_five_of_its_own() -> None:
    _, engine = run(ParaphraseConfig(samples=2), writes("One.", "Two."), sources=40)
    texts = {r.request_id.split("/")[0]: str(r.prompt) for r in engine.requests if "/text/" in r.request_id}
    contexts = {r.request_id.split("/")[0]: str(r.prompt) for r in engine.requests if "/sentence/" in r.request_id}
    assert len(set(texts.values())) > 20 and all(any(f"({medium}) --" in text for medium in MEDIA) for text in texts.values())
    told = complete_sentences(TEXT)
    assert {context.removeprefix(f"{texts[id_]} ") for id_, context in contexts.items()} == {
        " ".join(told[:count]) for count in range(1, 6)
    }


def test_biomedical_texts_and_documents() -> None:
    _, engine = run(ParaphraseConfig(samples=2, prefix="biomedical"), writes("One.", "Two."))
    assert engine.requests[0].prompt in ("Abstract:", "Introduction:", "Method:", "Conclusion:")
    config = ParaphraseConfig(samples=2, texts="documents", min_sentences=2, max_sentences=2)
    rows, engine = run(config, writes("One.", "Two."), document="A first. A second. A third.")
    assert {request.prompt for request in engine.requests} == {"A first. A second."} and len(rows) == 2
    assert config.reads == {"document"} and ParaphraseConfig().reads == frozenset()
    (row,), engine = run(config, writes("One.", "Two."), document="A first.")
    assert row["error"] == REASONS["few_sentences"] and not engine.requests
    assert complete_sentences("One.\n\nA heading\n\nTwo\nlines! And") == ("One.", "Two lines!")


def test_a_candidate_is_a_pair_of_one_context_with_the_task_s_prompt() -> None:
    rows, _ = run(ParaphraseConfig(samples=3, min_sentences=2, max_sentences=2), writes("A b. And c.", "D e.", "F g!"))
    assert [(row["input"], row["output"]) for row in rows] == [
        *(("A b.", "D e."), ("A b.", "F g!"), ("D e.", "A b."), ("D e.", "F g!"), ("F g!", "A b."), ("F g!", "D e."))
    ]
    for row in rows:
        found = facts(row)
        assert found.pop("context").endswith(" The ferry left at noon. It carried mail.")
        assert found == {"sentences": 2, "temperature": 0.7, "qualifying": 3, "possible_pairs": 6}
        assert row["finish_reason"] == "stop" and row["error"] is None
        (asked,) = ChatRows().ask(Question("s0", row["prompt"], input=row["input"]))
        assert isinstance(asked, Message) and asked.content == f"{row['prompt']}\n\n{row['input']}"
    steps = [step for row in rows for step in row["steps"]]
    assert [(step["step"], step["samples"]) for step in steps] == [
        *(("text", []), ("sentence", [2, 4]), ("sentence", [0, 5]), ("sentence", [1, 3]))
    ]


def test_sentences_that_do_not_qualify_are_rows_with_a_reason() -> None:
    said = ("A b.", "No end", "A  B!", "x.", "", "C d?", "\n\nE f. And", "Two\nlines.")
    rows, _ = run(ParaphraseConfig(samples=8, direction="once"), writes(*said))
    assert [(row["input"], row["output"]) for row in rows if not row["error"]] == [
        *(("A b.", "C d?"), ("A b.", "E f."), ("C d?", "E f."))
    ]
    assert [(facts(row)["rejected_text"], facts(row)["rule"], row["error"]) for row in rows if row["error"]] == [
        (text, rule, REASONS[rule])
        for text, rule in (
            *(("No end", "unfinished"), ("A  B!", "repeated"), ("x.", "short"), ("", "short")),
            ("Two\nlines.", "line_break"),
        )
    ]
    rows, _ = run(ParaphraseConfig(samples=2), writes("A b.", "A b."))
    assert [facts(row)["rule"] for row in rows] == ["repeated", "alone"]


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        *(("A.", "short"), ("Ab.", None), ("Abc", "unfinished"), ("Is it?", None), ("So!", None), ('He said: "Go."', None)),
        *(("It left at 3 p.m", "unfinished"), ("One\nline.", "line_break"), ("它走了。", None), ("वह गया।", None)),
    ],
)
def test_the_rules_for_sentences(sentence: str, rule: str | None) -> None:
    assert broken_rule(sentence) == rule


def test_only_the_first_sentence_counts_even_if_the_completion_was_cut_off() -> None:
    def cut(text: str) -> Answer:
        return first_sentence(Answer.of(Completion("x", text, (1,), "length", 3), "sentence", 4, 5))

    assert (cut(" Mr. Ho left. Then he"), cut(" Mr. Ho left. Then he").completion.finish_reason) == ("Mr. Ho left.", "stop")
    assert cut(" Then he").completion.finish_reason == "length" and cut(" Then he").number == 4
    assert cut("  ") == "  "


def test_a_failed_sentence_costs_itself_and_a_failed_text_its_source() -> None:
    def say(request: Request) -> Completion | str:
        if request.request_id.endswith(("s0/sentence/1", "s1/text/0")):
            return Completion(request.request_id, "", (), "error", 3, "no room")
        return writes("A b.", "", "C d.")(request)

    rows, _ = run(ParaphraseConfig(samples=3), say, sources=2)
    assert [(row["source_id"], row["output"], row["error"]) for row in rows] == [
        *(("s0", "C d.", None), ("s0", "A b.", None), ("s0", "", "no room"), ("s1", "", "no room"))
    ]


def test_pairs_are_all_of_the_order_and_bounded_by_seed() -> None:
    sentences = ["aaa.", "b.", "cc.", "dd."]
    assert pairs_of(sentences, "once") == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert sorted(pairs_of(sentences, "both")) == sorted(
        [*pairs_of(sentences, "once"), *((y, x) for x, y in pairs_of(sentences, "once"))]
    )
    assert pairs_of(sentences, "shorter") == [(0, 1), (0, 2), (0, 3), (2, 1), (3, 1)], "equal lengths are no summaries"
    every = pairs_of([f"{number}." for number in range(30)], "both")
    assert drawn(every, 10, random.Random(3)) == drawn(every, 10, random.Random(3)) != drawn(every, 10, random.Random(4))
    chosen = drawn(every, 10, random.Random(3))
    assert len(set(chosen)) == 10 and set(chosen) <= set(every) and chosen == sorted(chosen, key=every.index)
    assert drawn(every, None, random.Random(3)) == drawn(every, 1000, random.Random(3)) == every
    for config in (ParaphraseConfig(samples=5, pairs=3), SentenceSummarizationConfig(samples=5, pairs=3)):
        rows, _ = run(config, writes("One a.", "Two bb.", "Three c.", "Four dddd.", "Five eeeee."))
        assert len(rows) == 3 == config.needs.candidates and facts(rows[0])["possible_pairs"] > 3


def test_summaries_are_the_shorter_sentences() -> None:
    rows, _ = run(SentenceSummarizationConfig(samples=3), writes("It left at noon.", "It left.", "Gone."))
    assert [(row["input"], row["output"]) for row in rows] == [
        *(("It left at noon.", "It left."), ("It left at noon.", "Gone."), ("It left.", "Gone."))
    ]
    assert rows[0]["prompt"] != run(ParaphraseConfig(samples=2), writes("It left at noon.", "It left."))[0][0]["prompt"]


def test_several_contexts_of_a_draw_are_beginnings_of_its_text_and_stay_apart() -> None:
    config = ParaphraseConfig(samples=2, contexts=5, pairs=1)

    def say(request: Request) -> str:
        return TEXT if "/text/" in request.request_id else f"{request.request_id} ended."

    rows, engine = run(config, say)
    assert [facts(row)["sentences"] for row in rows] == [1, 2, 3, 4, 5]
    assert len(engine.requests) == config.needs.completions == 11 <= STEP_LIMIT
    for row in rows:
        assert row["input"].split("/")[1] == row["output"].split("/")[1], "never of two contexts"
    assert ParaphraseConfig(contexts=5, min_sentences=4).needs.completions == 1 + 2 * 100
    again, _ = run(config, say)
    assert again == rows


def test_a_held_out_input_costs_one_pair() -> None:
    config = ParaphraseConfig(contexts=3).for_inputs
    assert (config.contexts, config.samples, config.pairs) == (1, 4, 1) and config.needs.completions == 5
    assert ParaphraseConfig(samples=2).for_inputs.samples == 2


def test_what_check_and_the_recipe_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="min_sentences 3 exceeds max_sentences 2"):
        ParaphraseConfig(min_sentences=3, max_sentences=2)
    (problem,) = ParaphraseConfig(prompt="paraphrased").problems({})
    assert problem.startswith("no prompt paraphrased") and "name one of paraphrase, sentence_summarization" in problem
    own = tmp_path / "own.jinja"
    own.write_text("Write it for {{ reader }}.")
    assert ParaphraseConfig(prompt=str(own)).problems({"reader": "a cook"}) == []
    (problem,) = ParaphraseConfig(prompt=str(own)).problems({})
    assert "sources.vary draws no names" in problem
    with pytest.raises(LimbeckError, match="it may use who"):
        ParaphraseConfig(prompt=str(own)).build()._instruction.render({"who": "x"})
