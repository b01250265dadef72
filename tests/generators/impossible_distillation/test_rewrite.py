"""Rewriting on engines without weights: who writes the sentences, who rewrites them, and in which format."""

import json
from typing import Any

import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.protocol import Completion, Request, Sampling
from limbeck.generators.contract import TEACHER, Question
from limbeck.generators.impossible_distillation.rewrite import AUTHOR, RewriteConfig
from limbeck.generators.impossible_distillation.texts import REASONS
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.rows import ChatRows, PlainRows

TEXT = " The ferry left. It carried mail. Nobody was late! Was it full? The crew slept. It came back. And then"
SENTENCES = ("It carried mail.", "Nobody was late!", "Was it full?", "The crew slept.", "It came back.")


def run(config: RewriteConfig, outputs: tuple[str, ...], text: str = TEXT, document: str = "", sources: int = 1) -> Any:
    def answer(request: Request) -> Completion:
        return Completion(request.request_id, f" {outputs[int(request.request_id.split('/')[-1])]}", (1, 2), "stop", 3)

    author = ScriptedEngine(lambda request: Completion(request.request_id, text, (1, 2), "length", 3))
    student = ScriptedEngine(answer)
    table = pa.table({"source_id": [f"s{number}" for number in range(sources)], "document": [document] * sources})
    engines = {TEACHER: student, AUTHOR: author}
    return Runner(config.build(), 1, 1).run(table, engines).to_pylist(), author, student


def test_the_author_writes_and_the_student_rewrites() -> None:
    outputs = tuple(f"Version {number}." for number in range(10))
    rows, author, student = run(RewriteConfig(), outputs, sources=30)
    assert {request.sampling for request in author.requests} == {Sampling(150, temperature=1.0, top_p=0.9)}
    assert {request.sampling for request in student.requests} == {Sampling(100, temperature=0.7, top_p=0.9, stop=("\n",))}
    assert (len(author.requests), len(student.requests), len(rows)) == (30, 300, 300)
    assert {row["input"] for row in rows} == set(SENTENCES), "a sentence after one to five others"
    assert [row["output"] for row in rows[:10]] == list(outputs)
    assert json.loads(rows[0]["facts"]) == {"temperature": 0.7}
    steps = rows[0]["steps"]
    assert [(step["step"], step["engine"]) for step in steps] == [("text", AUTHOR), *[("rewrite", TEACHER)] * 10]


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_it_asks_as_the_training_rows_do(style: Any) -> None:
    (row,), _, student = run(RewriteConfig(samples=1, style=style), ("Post was aboard.",))
    renderer = ChatRows() if style == "chat" else PlainRows()
    assert student.requests[0].prompt == renderer.ask(Question("s0", row["prompt"], input=row["input"]))
    assert RewriteConfig(style=style).needs.chat == (style == "chat")


def test_sentences_of_documents_need_no_author() -> None:
    config = RewriteConfig(samples=1, texts="documents", author=TransformersConfig(model="x"))
    rows, author, _ = run(config, ("Done.",), document="First one.\n\nHeading without end\n\nA third\none.", sources=20)
    assert {row["input"] for row in rows} == {"First one.", "A third one."} and not author.requests
    assert config.engines == {} and config.reads == {"document"} and config.needs.completions == 1
    ((row,), _, student) = run(config, ("Done.",), document="Heading")
    assert row["error"] == REASONS["few_sentences"] and not student.requests


def test_texts_without_a_second_sentence_and_unfinished_outputs_are_rows_with_a_reason() -> None:
    ((row,), _, student) = run(RewriteConfig(samples=1), ("Done.",), text="Only one sentence. And")
    assert row["error"] == REASONS["few_sentences"] and not student.requests
    rows, _, _ = run(RewriteConfig(samples=3), ("Done. And more.", "No end", ""))
    assert [(row["output"], row["error"]) for row in rows] == [
        *(("Done. And more.", None), ("", REASONS["unfinished"]), ("", REASONS["short"]))
    ]


def test_the_author_is_the_round_0_teacher_or_another() -> None:
    recipe = recipes.load("paraphrase").resolved()
    assert isinstance(recipe.later, RewriteConfig) and recipe.later.engines == {AUTHOR: recipe.teacher}
    other = recipes.load("paraphrase", ["later.author={kind: transformers, model: other}"]).resolved()
    assert isinstance(other.later, RewriteConfig) and other.later.engines[AUTHOR].model == "other"
    documents = recipes.load("paraphrase", ["later.texts=documents"]).resolved()
    assert isinstance(documents.later, RewriteConfig) and documents.later.engines == {}
    assert RewriteConfig().for_inputs.samples == 4 and RewriteConfig(samples=2).for_inputs.samples == 2
