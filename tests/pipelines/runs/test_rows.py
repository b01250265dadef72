"""Training rows: each format as published, and evaluation uses the prompts of the training rows."""

import math

import pytest
from hypothesis import given as drawing
from hypothesis import strategies as st

from limbeck.cluster.engines.protocol import Message
from limbeck.corpus.errors import LimbeckError
from limbeck.generators.contract import Question
from limbeck.pipelines.runs.rows import (
    ASKED,
    WITH_INPUT,
    WITHOUT_INPUT,
    AlpacaRows,
    Answered,
    ChatRows,
    ControlCodeRows,
    ConversationRows,
    PlainRows,
    SelfInstructRows,
    TldrRows,
    TrainingRow,
    default_rows,
)

TEXT = st.text(min_size=1, max_size=30).filter(lambda text: text.strip() != "")


def asked(prompt: str = "Add.", given: str | None = None, source_id: str = "s", document: str = "A document.") -> Question:
    return Question(source_id, prompt, document, given)


@drawing(TEXT, st.none() | TEXT, TEXT, st.text(max_size=8))
def test_a_row_s_prompt_is_what_evaluation_asks(prompt: str, given: str | None, output: str, source_id: str) -> None:
    question = asked(prompt, given, source_id)
    for rows in (ChatRows(), PlainRows(), AlpacaRows(), SelfInstructRows(), ConversationRows()):
        assert rows.row(Answered(question, output)).prompt == rows.ask(question)
        assert isinstance(rows.ask(question), str) != rows.chat


def test_chat_and_plain_are_the_forms_of_a_recipe_without_rows() -> None:
    row = default_rows(chat=True).row(Answered(asked("Q", "in"), "A"))
    assert row.prompt == (Message("user", "Q\n\nin"),) and row.completion == (Message("assistant", "A"),)
    row = default_rows(chat=False).row(Answered(asked("Q"), "A"))
    assert (row.prompt, row.completion) == ("Q", " A")


def test_alpaca_s_two_prompts_are_the_published_ones() -> None:
    without, with_input = (AlpacaRows().row(Answered(asked("Add.", given), "3")) for given in (None, "1 2"))
    assert without.prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Response:"
    )
    assert with_input.prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
        "that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"
    )
    assert without.completion == "3"


def test_all_thirteen_templates_of_self_instruct_are_drawn_and_a_source_keeps_its_own() -> None:
    rows = SelfInstructRows()
    assert len(WITH_INPUT) + len(WITHOUT_INPUT) == 13
    for templates, given in ((WITH_INPUT, "IN"), (WITHOUT_INPUT, None)):
        expected = {template.replace("{instruction}", "DO").replace("{input}", "IN") for template in templates}
        drawn = {rows.ask(asked("DO", given, f"s{number}")) for number in range(300)}
        assert drawn == expected
    assert rows.ask(asked("DO", "IN", "s7")) == rows.ask(asked("DO", "IN", "s7"))


def test_a_space_goes_before_the_output_only_after_output_and_half_of_the_inputs_are_simplified() -> None:
    rows, given = SelfInstructRows(), "Passage: one\n\ntwo"
    found = [rows.row(Answered(asked("DO", given, f"s{number}"), "OUT")) for number in range(400)]
    for row in found:
        assert row.completion == (" OUT" if str(row.prompt).endswith("Output:") else "OUT")
    simplified = sum("Passage:" not in str(row.prompt) for row in found)
    assert 150 < simplified < 250 and all("one\ntwo" in str(r.prompt) for r in found if "Passage:" not in str(r.prompt))
    two_fields = [rows.ask(asked("DO", "A: 1\nB: 2", f"s{number}")) for number in range(50)]
    assert all("A: 1\nB: 2" in str(prompt) for prompt in two_fields), "two fields keep their names"


def test_braces_in_a_task_are_text() -> None:
    assert "{input} {x}" in str(SelfInstructRows().ask(asked("Explain {input} {x}", "IN")))


def test_control_codes_are_the_output_s_own_in_training_and_drawn_by_source_in_evaluation() -> None:
    rows = ControlCodeRows()
    scores = {"attributes.length_bucket": 0.0, "attributes.extractiveness_bucket": 2.0}
    row = rows.row(Answered(asked(document="Doc."), "Out.", scores=scores))
    assert row.prompt == "Doc.\nLength: short | Extractiveness: high\nTL;DR:" and row.completion == " Out."
    unmeasured = {**scores, "attributes.length_bucket": math.nan}
    assert rows.row(Answered(asked(document="Doc."), "Out.", scores=unmeasured)).prompt == "Doc.\nExtractiveness: high\nTL;DR:"
    drawn = {rows.ask(asked(source_id=f"s{number}", document="Doc.")) for number in range(100)}
    assert len(drawn) == 9
    with pytest.raises(LimbeckError, match="no filter scores attributes.length_bucket"):
        rows.row(Answered(asked(), "Out."))


def test_a_conversation_is_learned_up_to_its_last_assistant_turn() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    row = ConversationRows().row(Answered(asked(), "d", turns))
    assert (row.prompt, row.completion) == (turns[:3], turns[3:])
    with pytest.raises(LimbeckError, match="no assistant turn"):
        ConversationRows().row(Answered(asked(), "", turns[:1]))


def test_every_bucket_of_an_attribute_can_be_asked_of_each_source() -> None:
    rows = ControlCodeRows(attributes=("length", "specificity"), ask_each="length")
    asks = rows.asks(asked())
    assert len(asks) == rows.prompts == 3 and rows.ask(asked()) in [prompt for prompt, _ in asks]
    drawn = rows.asked("s").specificity
    assert [facts for _, facts in asks] == [{ASKED: {"length": n, "specificity": drawn}} for n in range(3)]
    for (prompt, _), name in zip(asks, ("short", "medium", "long"), strict=True):
        assert str(prompt).startswith(f"A document.\nLength: {name} | Specificity: ")
    one = ControlCodeRows()
    assert [prompt for prompt, _ in one.asks(asked())] == [one.ask(asked())] and one.prompts == 1
    assert ChatRows().asks(asked()) == [(ChatRows().ask(asked()), {})]
    with pytest.raises(ValueError, match="ask_each is specificity, which is not one of attributes"):
        ControlCodeRows(attributes=("length",), ask_each="specificity")


def test_accuracy_is_the_share_of_the_asked_buckets_that_an_output_has() -> None:
    rows = ControlCodeRows()
    length, extractiveness = rows.columns
    wanted = {"length": 1, "extractiveness": 2}
    assert rows.accuracy(wanted, {length: 1.0, extractiveness: 2.0}) == 1.0
    assert rows.accuracy(wanted, {length: 1.0, extractiveness: 0.0}) == 0.5
    assert rows.accuracy(wanted, {length: math.nan, extractiveness: 0.0}) == 0.0
    assert rows.accuracy(wanted, {length: None}) is None


@pytest.mark.parametrize("rows", [TldrRows(), ControlCodeRows(attributes=("length",))])
def test_a_document_that_the_teacher_wrote_is_the_input(rows: TldrRows | ControlCodeRows) -> None:
    question = Question("s", "TL;DR:", "", "A written report.")
    code = "" if isinstance(rows, TldrRows) else "Length: short\n"
    row = rows.row(Answered(question, "Short.", scores={"attributes.length_bucket": 0.0}))
    assert row == TrainingRow(f"A written report.\n{code}TL;DR:", " Short.")
    assert str(rows.ask(question)).startswith("A written report.\n") and str(rows.ask(question)).endswith("\nTL;DR:")
    assert str(rows.ask(asked(given="not this one"))).startswith("A document.\n")
