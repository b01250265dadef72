"""Magpie on an engine without weights: what is asked, every rule, several turns, system texts, and where each completion goes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.protocol import Completion, Message, Request, Sampling, UserTurn
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.contract import TEACHER, Question
from limbeck.generators.magpie import REASONS, MagpieConfig
from limbeck.generators.runner import Runner
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs.rows import Answered, ConversationRows, asked_turns, turns

Say = Callable[[Request], Completion | str]


def run(
    config: MagpieConfig, say: Say, records: tuple[dict[str, Any], ...] = ({},)
) -> tuple[list[dict[str, Any]], ScriptedEngine]:
    def answer(request: Request) -> Completion:
        said = say(request)
        return said if isinstance(said, Completion) else Completion(request.request_id, said, (1, 2), "stop", 3)

    engine = ScriptedEngine(answer)
    table = pa.table(
        {
            "source_id": [f"s{number}" for number in range(len(records))],
            "document": [""] * len(records),
            "record": [json.dumps(record) for record in records],
        }
    )
    return Runner(config.build(), 1, 0).run(table, {TEACHER: engine}).to_pylist(), engine


def user_turn(request: Request) -> bool:
    return isinstance(request.prompt, UserTurn)


def talk(request: Request) -> str:
    """The user's k-th turn is "Question k?", and its answer " Answer k. "."""
    before = request.prompt.before if isinstance(request.prompt, UserTurn) else request.prompt
    number = sum(turn.role == "user" for turn in before)  # type: ignore[union-attr]
    return f" Question {number + 1}?" if user_turn(request) else f" Answer {number}. "


def failed(request: Request, reason: Any = "error", text: str = "") -> Completion:
    return Completion(request.request_id, text, (1, 2), reason, 3, "no room" if reason == "error" else None)


def test_every_constant_of_the_released_code_is_the_default() -> None:
    _, engine = run(MagpieConfig(), talk)
    instruction, response = engine.requests
    assert instruction.prompt == UserTurn()
    assert instruction.sampling == Sampling(512, temperature=1.0, top_p=1.0, stop=("\n",))
    assert response.prompt == (Message("user", "Question 1?"),)
    assert response.sampling == Sampling(2048, temperature=0.0, top_p=1.0)
    assert MagpieConfig.invents_inputs and not MagpieConfig.grows and MagpieConfig().needs.chat


def test_a_turn_and_its_answer_become_a_candidate() -> None:
    rows, engine = run(MagpieConfig(), talk, ({}, {}))
    for row in rows:
        assert (row["prompt"], row["output"], row["error"], row["messages"]) == ("Question 1?", "Answer 1.", None, None)
        assert [(step["step"], step["samples"]) for step in row["steps"]] == [("instruction", []), ("response", [0])]
        assert json.loads(row["steps"][0]["prompt"]) == [{"role": "user", "content": ""}], "the turn that the model writes"
    assert len({request.seed for request in engine.requests}) == 4


RULES = [
    ("empty", "  ", "stop", ""),
    ("cut_off", " Tell me about", "length", "Tell me about"),
]


@pytest.mark.parametrize(("rule", "text", "reason", "stored"), RULES)
def test_a_rejected_turn_is_a_row_with_its_rule_and_gets_no_answer(rule: str, text: str, reason: str, stored: str) -> None:
    rows, engine = run(MagpieConfig(), lambda request: failed(request, reason, text))
    (row,) = rows
    assert (row["error"], row["output"], len(engine.requests)) == (REASONS[rule], "", 1)
    assert json.loads(row["facts"]) == {"rule": rule, "rejected_text": stored}


def test_an_engine_error_costs_the_draw_with_its_reason() -> None:
    rows, _ = run(MagpieConfig(), lambda request: failed(request) if user_turn(request) else "x")
    assert [row["error"] for row in rows] == ["no room"]
    rows, _ = run(MagpieConfig(), lambda request: " A question?" if user_turn(request) else failed(request))
    assert [(row["prompt"], row["error"], row["finish_reason"]) for row in rows] == [("A question?", "no room", "error")]


def test_the_next_turn_is_drawn_after_the_answer() -> None:
    rows, engine = run(MagpieConfig(turns=3), talk)
    (row,) = rows
    said = [f"{kind} {number}{end}" for number in (1, 2, 3) for kind, end in (("Question", "?"), ("Answer", "."))]
    assert [turn["content"] for turn in row["messages"]] == said
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * 3
    assert (row["prompt"], row["output"], json.loads(row["facts"])["turns"]) == ("Question 3?", "Answer 3.", 3)
    drawn = [request.prompt for request in engine.requests if isinstance(request.prompt, UserTurn)]
    assert [[turn.content for turn in prompt.before] for prompt in drawn] == [said[:0], said[:2], said[:4]]
    assert [step["step"] for step in row["steps"]] == [
        *("instruction", "response", "instruction.2", "response.2", "instruction.3", "response.3")
    ]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("", "the user's turn is empty"),
        ("Question 1?", "the user's turn repeats an earlier one of the conversation"),
        (None, "no room"),
    ],
)
def test_a_rejected_later_turn_ends_the_conversation_and_keeps_what_was_said(second: str | None, reason: str) -> None:
    def say(request: Request) -> Completion | str:
        if user_turn(request) and request.prompt != UserTurn():
            return failed(request) if second is None else second
        return talk(request)

    rows, engine = run(MagpieConfig(turns=3), say)
    kept, lost = rows
    assert (kept["prompt"], kept["output"], kept["error"], json.loads(kept["facts"])) == (
        *("Question 1?", "Answer 1.", None),
        {"turns": 1},
    )
    assert lost["error"] == reason and len(engine.requests) == 3
    assert len(kept["steps"]) == 3, "every completion is stored"


def test_nobody_replies_to_an_answer_that_is_empty_or_cut_off() -> None:
    for answer in (lambda r: failed(r, "length", "An unfinished"), lambda r: failed(r, "stop", " ")):
        rows, engine = run(
            MagpieConfig(turns=2), lambda request, answer=answer: talk(request) if user_turn(request) else answer(request)
        )
        assert len(rows) == 1 and len(engine.requests) == 2 and rows[0]["error"] is None
        assert rows[0]["finish_reason"] in ("length", "stop"), "the filters judge it"


def test_several_answers_are_drawn_to_the_last_turn() -> None:
    config = MagpieConfig.model_validate({"turns": 2, "responses": 5, "response": {"temperature": 0.8}})
    rows, engine = run(config, talk)
    assert [row["sample"] for row in rows] == [0, 1, 2, 3, 4] and len(engine.requests) == 2 + 1 + 5
    assert {tuple(turn["content"] for turn in row["messages"]) for row in rows} == {
        ("Question 1?", "Answer 1.", "Question 2?", "Answer 2.")
    }
    assert config.needs.candidates == 5 and config.needs.completions == 8


def test_a_system_text_steers_the_user_s_turns_or_the_whole_conversation() -> None:
    records = ({"vary": {"persona": "a cook"}}, {"vary": {"persona": "a sailor"}})
    text = "You talk to {{ persona }}."
    for system_for in ("instructions", "conversation"):
        config = MagpieConfig(system=text, system_for=system_for, turns=2)
        rows, engine = run(config, talk, records)
        for request in engine.requests:
            person = "a cook" if request.request_id.startswith("s0") else "a sailor"
            before = request.prompt.before if isinstance(request.prompt, UserTurn) else request.prompt
            has = before[:1] == (Message("system", f"You talk to {person}."),)
            assert has == (user_turn(request) or system_for == "conversation")
        for row in rows:
            assert json.loads(row["facts"])["system"].startswith("You talk to a")
            assert (row["messages"][0]["role"] == "system") == (system_for == "conversation")
    single, _ = run(MagpieConfig(system=text, system_for="conversation"), talk, records)
    assert [turn["role"] for turn in single[0]["messages"]] == ["system", "user", "assistant"]
    blank, engine = run(MagpieConfig(system="{{ persona if false }}"), talk, records)
    assert engine.requests[0].prompt == UserTurn() and "system" not in json.loads(blank[0]["facts"])


@pytest.mark.parametrize("settings", [["generator.turns=3"], ["generator.system=Be brief.", "generator.system_for=conversation"]])
def test_rows_that_would_lose_turns_are_refused(settings: list[str]) -> None:
    assert recipes.load("magpie", settings).renderer.kind == "conversation"
    for rows in ("chat", "alpaca"):
        assert recipes.load("magpie", [f"rows.kind={rows}"]).renderer.kind == rows
        with pytest.raises(
            LimbeckError, match=f"rows.kind {rows} would keep the last question .* set rows: {{kind: conversation}}"
        ):
            recipes.load("magpie", [*settings, f"rows.kind={rows}"])


def test_check_sees_a_system_text_that_does_not_render() -> None:
    assert MagpieConfig(system="{{ persona }}").problems({"persona": "x"}) == []
    (problem,) = MagpieConfig(system="{{ persona }}").problems({"audience": "x"})
    assert problem == "generator.system does not render: 'persona' is undefined; it may use audience"
    (problem,) = MagpieConfig(system="{{ persona").problems({})
    assert problem.startswith("generator.system is not a Jinja template: ")
    with pytest.raises(LimbeckError, match=r"sources\.vary draws no names"):
        MagpieConfig(system="{{ persona }}").build().system()


def test_check_is_shown_the_turns_that_are_drawn() -> None:
    (first,) = MagpieConfig(system="Hello").user_turns({})
    assert first == UserTurn((Message("system", "Hello"),))
    assert [len(turn.before) for turn in MagpieConfig(turns=2).user_turns({})] == [0, 2]


def test_a_conversation_is_trained_on_and_asked_up_to_its_last_answer() -> None:
    rows, _ = run(MagpieConfig(turns=2), talk)
    (row,) = rows
    asked = asked_turns(row["messages"])
    assert asked is not None and [turn.content for turn in asked] == ["Question 1?", "Answer 1.", "Question 2?"]
    renderer = ConversationRows()
    trained = renderer.row(Answered(Question("s0", row["prompt"]), row["output"], turns(row["messages"])))
    assert trained.prompt == renderer.ask(Question("s0", row["prompt"], messages=asked)) == asked
    assert trained.completion == (Message("assistant", "Answer 2."),)
    assert asked_turns(None) is None and MagpieConfig.default_rows == "conversation"


def test_the_recipe_of_the_name_uses_it(tmp_path: Path) -> None:
    recipe = recipes.load("magpie", overrides=["toy"])
    assert isinstance(recipe.generator, MagpieConfig) and isinstance(recipe.renderer, ConversationRows)
    assert recipe.student is not None and recipe.rounds == 1
