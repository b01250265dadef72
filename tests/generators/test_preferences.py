"""Answers under principles on an engine without weights: what is asked, of whom, and what candidates keep of it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from helpers.scripted_engine import ScriptedEngine, completion
from limbeck.cluster.engines.protocol import Completion, Request
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.contract import TEACHER, Question, Source
from limbeck.generators.preferences import PreferencesConfig, principles
from limbeck.generators.runner import Runner
from limbeck.pipelines.runs.rows import Answered, ChatRows

OTHER = {"kind": "transformers", "model": "embedded:smollm2-135m-instruct"}


def config(**changes: Any) -> PreferencesConfig:
    return PreferencesConfig.model_validate({"answers": 4, **changes})


def run(settings: PreferencesConfig, answers: dict[str, ScriptedEngine] | None = None, count: int = 6) -> list[dict[str, Any]]:
    table = pa.table({"source_id": [f"s{n}" for n in range(count)], "document": [f"Name {n} rivers." for n in range(count)]})
    return Runner(settings.build(), 1, 0).run(table, answers or {TEACHER: named("A")}).to_pylist()


def named(name: str) -> ScriptedEngine:
    return ScriptedEngine(lambda request: completion(request, f"{name} {request.seed % 997}"))


def test_every_answer_has_its_principle_and_its_engine() -> None:
    engines = {TEACHER: named("A"), "other": named("B")}
    rows = run(config(answered_by={"other": OTHER}), engines)
    assert len(rows) == 24 and not any(row["error"] for row in rows)
    texts = {one.name: one.text for one in principles("principles")}
    asked = {request.request_id: request for engine in engines.values() for request in engine.requests}
    for row in rows:
        facts, step = json.loads(row["facts"]), row["sample"]
        label = "answer" if step == 0 else f"answer.{step + 1}"
        request = asked[f"{row['source_id']}/{label}/0"]
        system, user = request.prompt  # type: ignore[misc]
        assert (system.role, system.content) == ("system", texts[facts["principle"]])
        assert user.content == row["prompt"] == f"Name {row['source_id'][1:]} rivers."
        assert row["output"].startswith("B" if facts["engine"] == "other" else "A")
    for number in range(6):
        own = [json.loads(row["facts"]) for row in rows if row["source_id"] == f"s{number}"]
        assert sorted(fact["engine"] for fact in own) == ["other", "other", TEACHER, TEACHER], "engines answer in turn"
        assert len({fact["principle"] for fact in own}) == 4, "no principle twice while others are left"
    assert len({json.loads(row["facts"])["principle"] for row in rows}) > 6
    assert run(config(answered_by={"other": OTHER}), {TEACHER: named("A"), "other": named("B")}) == rows


def test_training_rows_and_evaluation_do_not_show_the_principle() -> None:
    question = config().build().question(Source("s0", "Name two rivers."))
    assert question == Question("s0", "Name two rivers.", "Name two rivers.")
    row = ChatRows().row(Answered(question, "Rhine and Elbe."))
    assert [message.role for message in row.prompt] == ["user"]  # type: ignore[union-attr]


def test_one_failed_answer_leaves_the_others() -> None:
    def answer(request: Request) -> Completion:
        if "/answer.2/" in request.request_id:
            return Completion(request.request_id, "", (), "error", 0, "no room")
        return completion(request, "Fine.")

    rows = run(config(principles=None), {TEACHER: ScriptedEngine(answer)}, 2)
    assert [row["error"] for row in rows] == [None, "no room", None, None] * 2
    assert all(json.loads(row["facts"]) == {"engine": TEACHER} for row in rows)


def test_principles_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("# ours\n\nshort: Be short: very.\n")
    rows = run(config(principles=str(file), prompt="summary"), count=1)
    assert {json.loads(row["facts"])["principle"] for row in rows} == {"short"} and "Name 0 rivers." in rows[0]["prompt"]
    assert [(one.name, one.text) for one in principles(str(file))] == [("short", "Be short: very.")]
    for text, says in (("short\n", "line 1 of"), ("a: b\na: c\n", "the name 'a' again"), ("# none\n", "has no principle")):
        file.write_text(text)
        with pytest.raises(LimbeckError, match=says):
            principles(str(file))
        assert says in config(principles=str(file)).problems({})[0]
    assert "cannot be read as text" in config(principles=str(tmp_path / "none.txt")).problems({})[0]
    assert "no prompt missing" in config(prompt="missing").problems({})[0]


def test_settings_whose_answers_cannot_differ_are_refused() -> None:
    with pytest.raises(ValidationError, match="the same answer each time"):
        config(temperature=0.0, principles=None)
    with pytest.raises(ValidationError, match="'teacher' is the recipe's teacher"):
        config(answered_by={"teacher": OTHER})
    assert config(temperature=0.0, answers=2, principles=None, answered_by={"other": OTHER}).needs.candidates == 2
    assert list(config(answered_by={"other": OTHER}).engines) == ["other"]
