"""InfoSumm on an engine without weights: what is asked, how documents are cut, every rule, and where each completion goes."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.protocol import Completion, Contrast, Message, Request, Sampling
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.contract import TEACHER, Question, Source
from limbeck.generators.infosumm import REASONS, WRITER, DocumentStep, InfosummConfig, cut_document
from limbeck.generators.prefixes import MEDIA
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.rows import Answered, ChatRows, ControlCodeRows, TldrRows

NEWS = [f"The {name} council met on the quay and spoke about the old {name} bridge for hours." for name in "ABCDEF"]
REPORT = " ".join(NEWS)
SHORT = {"min_sentences": 3, "max_sentences": 4, "min_words": 20}


def config(**changes: Any) -> InfosummConfig:
    return InfosummConfig.model_validate({"documents": "prefixes", "document": SHORT, "samples": 3, **changes})


def engine(document: str = f" {REPORT} And then the", reason: Any = "stop") -> ScriptedEngine:
    """Writes `document` after a prefix, and summaries that name their seed."""

    def answer(request: Request) -> Completion:
        text = str(request.prompt)
        if text.endswith("--") or text.endswith(":") and "TL;DR" not in text:
            error = "no room" if reason == "error" else None
            return Completion(request.request_id, document, (1, 2), reason, 3, error)
        return Completion(request.request_id, f" Summary {request.seed % 97}.\n", (1, 2), "stop", 3)

    return ScriptedEngine(answer)


def run(
    settings: InfosummConfig, engines: Mapping[str, ScriptedEngine], documents: tuple[str, ...] = ("", "")
) -> list[dict[str, Any]]:
    table = pa.table({"source_id": [f"s{number}" for number in range(len(documents))], "document": list(documents)})
    return Runner(settings.build(), 1, 0).run(table, engines).to_pylist()


def test_a_dateline_becomes_a_document_and_its_summaries() -> None:
    teacher = engine()
    rows = run(config(), {TEACHER: teacher})
    assert len(rows) == 6 and not any(row["error"] for row in rows)
    for row in rows:
        prefix = json.loads(row["facts"])["prefix"]
        assert any(f"({medium}) --" in prefix for medium in MEDIA)
        assert row["input"] == f"{prefix} {' '.join(NEWS[:4])}", "at most four sentences, and no unfinished one"
        assert (row["prompt"], row["output"][:8]) == ("TL;DR:", "Summary ")
    first = [request for request in teacher.requests if "s0/" in request.request_id]
    assert [request.request_id for request in first] == ["s0/document/0", *(f"s0/summary/{n}" for n in range(3))]
    assert first[0].prompt == json.loads(rows[0]["facts"])["prefix"]
    assert first[0].sampling == Sampling(400, temperature=1.0, top_p=0.9, stop=("\n\n",))
    assert {request.prompt for request in first[1:]} == {f"{rows[0]['input']}\nTL;DR:"}
    assert {request.sampling for request in first[1:]} == {Sampling(56, 0.7, 0.9, stop=("\n",))}
    steps = [step["step"] for row in rows for step in row["steps"]]
    assert steps == ["document", "summary", "summary", "summary"] * 2
    assert run(config(), {TEACHER: engine()}) == rows


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (" ".join(NEWS[:2]), "few_sentences"),
        ("", "few_sentences"),
        (f"{NEWS[0]} {NEWS[1]} and no end", "few_sentences"),
        ("One did. Two did. Three did.", "short"),
        (f"{NEWS[0]} {NEWS[1]} {NEWS[0]}", "repeated"),
    ],
)
def test_a_document_that_a_rule_rejects_is_one_row_and_has_no_summaries(text: str, rule: str) -> None:
    teacher = engine(text)
    row, _ = run(config(), {TEACHER: teacher})
    assert row["error"] == REASONS[rule]
    facts = json.loads(row["facts"])
    assert facts["rule"] == rule and facts["rejected_text"].startswith(facts["prefix"])
    assert len(teacher.requests) == 2, "no summary is asked for"


def test_a_document_that_cannot_be_drawn_rejects_its_source() -> None:
    assert [row["error"] for row in run(config(), {TEACHER: engine(reason="error")})] == ["no room"] * 2


def test_a_writer_writes_and_the_teacher_summarises() -> None:
    writer, teacher = engine(), engine()
    made = config(writer={"kind": "transformers", "model": "somewhere"})
    assert set(made.engines) == {WRITER} and not config().engines
    rows = run(made, {TEACHER: teacher, WRITER: writer})
    assert [request.request_id for request in writer.requests] == ["s0/document/0", "s1/document/0"]
    assert len(teacher.requests) == 6
    assert [row["output"] for row in rows] == [row["output"] for row in run(config(), {TEACHER: engine()})]


def test_headings_begin_biomedical_documents() -> None:
    rows = run(config(document={**SHORT, "begin": "biomedical"}), {TEACHER: engine()})
    assert {json.loads(row["facts"])["prefix"] for row in rows} <= {
        f"{h}:" for h in ("Abstract", "Introduction", "Method", "Conclusion")
    }


@pytest.mark.parametrize("style", ["plain", "chat"])
def test_a_contrast_has_the_prompt_without_its_document(style: str) -> None:
    teacher = engine()
    made = config(style=style, instruction="Be brief.", contrast={"weight": 0.125})
    rows = run(made, {TEACHER: teacher})
    alone: Any = "TL;DR:" if style == "plain" else (Message("user", "Be brief."),)
    found = [request.sampling.contrast for request in teacher.requests]
    assert found.count(None) == 2, "documents are written without it"
    assert set(found) == {None, Contrast(0.125, 3.5987, alone)}
    assert made.decodes_pmi and made.sampling.contrast is None
    assert [row["output"] for row in rows] == [
        row["output"] for row in run(config(style=style, instruction="Be brief."), {TEACHER: engine()})
    ]


@pytest.mark.parametrize("style", ["plain", "chat"])
@pytest.mark.parametrize("documents", ["sources", "prefixes"])
def test_the_generator_asks_what_training_rows_and_evaluation_have(style: str, documents: str) -> None:
    written = documents == "prefixes"
    changes: dict[str, Any] = {"style": style, "documents": documents}
    made = config(**changes) if written else InfosummConfig.model_validate({**changes, "samples": 3})
    teacher = engine()
    row = run(made, {TEACHER: teacher}, ("" if written else REPORT,))[0]
    asked = teacher.requests[-1].prompt
    renderer = TldrRows() if style == "plain" else ChatRows()
    assert made.default_rows == renderer.kind
    question = Question("s0", row["prompt"], "" if written else REPORT, row["input"])
    assert renderer.ask(question) == asked == renderer.row(Answered(question, row["output"])).prompt
    if written:
        assert made.invents_inputs and made.adds == {"document"} and not made.reads
    else:
        assert not made.invents_inputs and made.reads == {"document"} and not made.adds
        assert renderer.ask(made.build().question(Source("s0", REPORT))) == asked
        assert row["input"] == REPORT and row["facts"] is None


def test_settings_that_contradict_each_other_are_one_sentence() -> None:
    for settings, words in (
        ({"document": {"min_sentences": 9, "max_sentences": 8}, "documents": "prefixes"}, "min_sentences is 9, above"),
        ({"document": {"min_words": 7}}, "document is for documents that a model writes; set documents: prefixes"),
        ({"writer": {"kind": "transformers", "model": "m"}}, "writer is for documents that a model writes"),
        ({"contrast": {"weight": -0.1}}, "contrast.weight"),
        ({"contrast": {"weight": float("nan")}}, "contrast.weight"),
    ):
        with pytest.raises(LimbeckError) as failure:
            recipes.validate({**MINIMAL, "generator": {"kind": "infosumm", **settings}}, "here")
        assert words in str(failure.value)


MINIMAL: dict[str, Any] = {
    "name": "x",
    "sources": {"kind": "draws", "count": 9},
    "teacher": {"kind": "transformers", "model": "m"},
    "filters": [{"kind": "heuristics"}],
}


def test_needs_count_the_document_and_its_summaries() -> None:
    needs = config().needs
    assert (needs.candidates, needs.completions, needs.new_tokens) == (3, 4, 400)
    plain = InfosummConfig(samples=3).needs
    assert (plain.candidates, plain.completions, plain.new_tokens) == (3, 3, 56)
    assert needs.prompt_tokens > 400 and not needs.chat


def test_abbreviations_and_the_dateline_end_no_sentence() -> None:
    step = DocumentStep(min_sentences=2, max_sentences=2, min_words=5)
    found = cut_document("ST. IVES, U.K. (BBC) --", "Mr. Lee came at 9 a.m. on Monday.\nHe left. Nobody saw", step)
    assert found == ("ST. IVES, U.K. (BBC) -- Mr. Lee came at 9 a.m. on Monday. He left.", None)


def test_the_recipe_of_the_name_uses_it() -> None:
    for overrides in ([], ["toy"]):
        recipe = recipes.load("infosumm", overrides=overrides)
        assert isinstance(recipe.generator, InfosummConfig) and isinstance(recipe.renderer, ControlCodeRows)
        assert recipe.rounds > 1 and recipe.next_teacher == "student" and recipe.generator.invents_inputs
        assert "code_accuracy" in (recipe.measures or ())
