"""Questions from documents, on an engine without weights: both steps, every rule, both styles, JSON, stored completions."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling
from limbeck.generators.contract import TEACHER, Question
from limbeck.generators.documents_qa.generator import DocumentsQaConfig
from limbeck.generators.documents_qa.steps import REASONS
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.rows import Answered, ChatRows

DOCUMENT = "Quern reads METAR reports.\nIt is written in C."
SCHEMAS: dict[str, Any] = {
    "question": {
        "type": "object",
        "properties": {"kind": {"type": "string"}, "question": {"type": "string"}},
        "required": ["kind", "question"],
    },
    "answer": {
        "type": "object",
        "properties": {"quote": {"type": "string"}, "answer": {"type": "string"}},
        "required": ["quote", "answer"],
    },
}
STRUCTURED = DocumentsQaConfig.model_validate(
    {"questions": 2, "question": {"json_schema": SCHEMAS["question"]}, "answer": {"json_schema": SCHEMAS["answer"]}}
)
Row = dict[str, Any]


def text_of(request: Request) -> str:
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content  # type: ignore[union-attr]


def run(
    config: DocumentsQaConfig, questions: Sequence[Any], answer: Callable[[str], Any] = lambda asked: "It reads METAR."
) -> tuple[list[Row], ScriptedEngine]:
    """One document; a completion is a text, or (text, finish reason). `answer` gets the prompt of its step."""

    def complete(request: Request) -> Completion:
        _, step, index = request.request_id.split("/")
        said = questions[int(index)] if step == "question" else answer(text_of(request))
        text, reason = said if isinstance(said, tuple) else (said, "stop")
        return Completion(request.request_id, text, (1, 2), reason, 3, "no room" if reason == "error" else None)

    engine = ScriptedEngine(complete)
    sources = pa.table({"source_id": ["s0"], "document": [DOCUMENT], "record": ['{"vary": {"audience": "pilots"}}']})
    return Runner(config.build(), 1, 0).run(sources, {TEACHER: engine}).to_pylist(), engine


def test_a_question_and_its_answer_become_a_candidate_with_the_document_as_input() -> None:
    rows, engine = run(DocumentsQaConfig(questions=2), ["What does Quern read?", " Question: Which language is it in?\n"])
    assert [(row["prompt"], row["input"], row["output"], row["error"]) for row in rows] == [
        ("What does Quern read?", DOCUMENT, "It reads METAR.", None),
        ("Which language is it in?", DOCUMENT, "It reads METAR.", None),
    ]
    first, second, *answers = engine.requests
    assert first.prompt == second.prompt and first.seed != second.seed
    assert first.sampling == Sampling(48, temperature=0.7, top_p=0.95, stop=("\n",))
    assert [request.sampling for request in answers] == [Sampling(96, temperature=0.0, stop=("\n",))] * 2
    assert isinstance(first.prompt, tuple) and DOCUMENT in text_of(first)
    assert [text_of(request).count(row["prompt"]) for request, row in zip(answers, rows, strict=True)] == [1, 1]
    assert [(step["step"], step["index"], step["samples"]) for row in rows for step in row["steps"]] == [
        *(("question", 0, []), ("question", 1, []), ("answer", 0, [0]), ("answer.2", 0, [1]))
    ], "every completion is stored"


def test_a_base_model_continues_examples() -> None:
    _, engine = run(DocumentsQaConfig(style="plain", questions=1), [" What does Quern read?"])
    question, answer = (text_of(request) for request in engine.requests)
    assert question.endswith("\n\nText: Quern reads METAR reports. It is written in C.\nQuestion:")
    assert answer.endswith("It is written in C.\nQuestion: What does Quern read?\nAnswer:")
    assert question.count("Question: ") == 3 and answer.count("Answer: ") == 3
    assert not DocumentsQaConfig(style="plain").needs.chat and DocumentsQaConfig().needs.chat


RULES = [
    ("  \n", "empty", ""),
    ("Question:", "empty", ""),
    (("What does Quern", "length"), "cut_off", "What does Quern"),
    ("Quern reads METAR.", "not_a_question", "Quern reads METAR."),
    ("what does  Quern READ?", "repeated", "what does  Quern READ?"),
]


@pytest.mark.parametrize(("said", "rule", "stored"), RULES)
def test_a_rejected_question_is_a_row_with_its_rule_and_gets_no_answer(said: Any, rule: str, stored: str) -> None:
    rows, engine = run(DocumentsQaConfig(questions=2), ["What does Quern read?", said])
    assert [row["error"] for row in rows] == [None, REASONS[rule]] and len(engine.requests) == 3
    facts = json.loads(rows[1]["facts"])
    assert (facts["rule"], facts["rejected_text"], rows[1]["output"]) == (rule, stored, "")


@pytest.mark.parametrize("mark", ["?", "？", "؟"])
def test_question_marks_of_every_script_end_a_question(mark: str) -> None:
    rows, _ = run(DocumentsQaConfig(questions=1), [f"Quern{mark}"])
    assert rows[0]["error"] is None


def test_an_engine_error_costs_one_question() -> None:
    rows, _ = run(DocumentsQaConfig(questions=2), [("", "error"), "What does Quern read?"])
    assert [row["error"] for row in rows] == ["no room", None]
    rows, _ = run(
        DocumentsQaConfig(questions=2),
        ["Who?", "What?"],
        lambda asked: ("", "error") if "Who?" in asked else "It reads.",
    )
    assert [(row["prompt"], row["error"]) for row in rows] == [("Who?", "no room"), ("What?", None)]


def test_answers_are_left_to_the_filters() -> None:
    rows, _ = run(
        DocumentsQaConfig(questions=2), ["Who?", "What?"], lambda asked: ("It reads", "length") if "Who" in asked else " "
    )
    assert [(row["output"], row["finish_reason"], row["error"]) for row in rows] == [
        ("It reads", "length", None),
        ("", "stop", None),
    ]


def test_fields_of_json_go_to_the_facts() -> None:
    questions = [
        json.dumps({"kind": kind, "question": f" {text} ", "more": 1}) for kind, text in (("fact", "Who?"), ("cause", "Why?"))
    ]
    rows, engine = run(STRUCTURED, questions, lambda asked: json.dumps({"quote": "Quern reads", "answer": "It\nreads."}))
    assert [(row["prompt"], row["output"]) for row in rows] == [("Who?", "It\nreads."), ("Why?", "It\nreads.")]
    facts = [json.loads(row["facts"]) for row in rows]
    assert [fact.pop("vary") for fact in facts] == [{"audience": "pilots"}] * 2
    assert facts == [{"kind": "fact", "quote": "Quern reads"}, {"kind": "cause", "quote": "Quern reads"}]
    for request, step in zip(engine.requests, ("question", "question", "answer", "answer"), strict=True):
        assert json.loads(str(request.sampling.json_schema)) == SCHEMAS[step]
        assert request.sampling.stop == (), "a line break inside JSON ends nothing"
        assert f"fields: {', '.join(SCHEMAS[step]['properties'])}" in text_of(request)
    assert STRUCTURED.sampling.json_schema is None and STRUCTURED.sampling.stop == ("\n",), "training rows have no JSON"


@pytest.mark.parametrize(
    ("question", "answer", "rule"),
    [
        ("no JSON", "", "not_json"),
        ('["list"]', "", "not_json"),
        ('{"question": 7}', "", "not_json"),
        ('{"kind": "x"}', "", "not_json"),
        (('{"question": "Wh', "length"), "", "cut_off"),
        ('{"question": "It."}', "", "not_a_question"),
        ('{"question": "Who?", "kind": "x"}', '{"quote": "Q', "not_json"),
        ('{"question": "Who?", "kind": "x"}', ('{"quote": "Q', "length"), "cut_off_answer"),
    ],
)
def test_json_that_cannot_be_read_is_a_row_with_its_rule(question: Any, answer: Any, rule: str) -> None:
    config = STRUCTURED.model_copy(update={"questions": 1})
    rows, _ = run(config, [question], lambda asked: answer)
    (row,) = rows
    assert row["error"] == REASONS[rule] and json.loads(row["facts"])["rule"] == rule


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"question": {"json_schema": SCHEMAS["answer"]}}, "required property 'question' of type string"),
        ({"answer": {"json_schema": {"type": "object"}}}, "required property 'answer' of type string"),
        (
            {"answer": {"json_schema": {**SCHEMAS["answer"], "required": ["quote"]}}},
            "required property 'answer' of type string",
        ),
        (
            {
                "question": {"json_schema": {**SCHEMAS["question"], "properties": {"quote": {}, "question": {"type": "string"}}}},
                "answer": {"json_schema": SCHEMAS["answer"]},
            },
            "both json_schema have the property 'quote'",
        ),
        ({"style": "plain", "answer": {"json_schema": SCHEMAS["answer"]}}, "json_schema needs style: chat"),
    ],
)
def test_a_schema_that_does_not_fit_is_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DocumentsQaConfig.model_validate(section)


def test_check_sees_templates_that_do_not_render(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text("{{ document }} for {{ audience }}: {{ question }}")
    assert DocumentsQaConfig.model_validate({"answer": {"prompt": str(mine)}}).problems({"audience": "pilots"}) == []
    (problem,) = DocumentsQaConfig.model_validate({"question": {"prompt": str(mine)}}).problems({"audience": "x"})
    assert "does not render: 'question' is undefined; it may use fields, document, audience" in problem
    (problem,) = DocumentsQaConfig.model_validate({"answer": {"prompt": "nothing"}}).problems({})
    assert problem.endswith("name one of answer_chat, answer_plain, or the path of a .jinja file")


def test_the_document_is_in_training_rows_and_in_the_questions_of_evaluation() -> None:
    asked = Question("s0", "What does Quern read?", DOCUMENT, DOCUMENT)
    row = ChatRows().row(Answered(asked, "It reads METAR."))
    assert row.prompt == ChatRows().ask(asked) == (Message("user", f"What does Quern read?\n\n{DOCUMENT}"),)
    assert DocumentsQaConfig.invents_inputs and DocumentsQaConfig.default_rows == "chat"


def test_the_recipe_of_the_name_uses_it() -> None:
    recipe = recipes.load("documents-qa", overrides=["toy"])
    assert isinstance(recipe.generator, DocumentsQaConfig) and isinstance(recipe.renderer, ChatRows)
    assert [filter_.kind for filter_ in recipe.filters][-3:] == ["question_pmi", "pmi", "nli"]
    structured = recipes.load("documents-qa", overrides=["structured"])
    assert set(structured.generator.json_schemas) == {"question", "answer"}
