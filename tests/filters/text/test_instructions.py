"""Every rule of self-instruct and Alpaca, one by one, and how they meet candidates."""

import re
import string

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.corpus.text.instruction_rules import FORBIDDEN_TERMS, instance_rules, instruction_rules, is_contradicted, tidy
from limbeck.filters.contract import Filter
from limbeck.filters.text.instructions import COLUMNS, InstructionsConfig
from limbeck.pipelines.runs.scored import connect
from limbeck.pipelines.runs.select import decide

GOOD = "List three ways to save water at home."


def rejected(config: InstructionsConfig, **row: str) -> str | None:
    """The column of the first bound that rejects one candidate."""
    return decided(config, [row])[0]


def decided(config: InstructionsConfig, rows: list[dict[str, str]]) -> list[str | None]:
    given_ = {"source_id": "s", "prompt": GOOD, "document": "Water is scarce.", "output": GOOD, "finish_reason": "stop"}
    full = [{"candidate_id": str(at), **given_, **row} for at, row in enumerate(rows)]
    candidates = pa.Table.from_pylist(full)
    candidates = candidates.append_column("sample", pa.array(range(len(rows)), pa.int32()))
    candidates = candidates.append_column("error", pa.nulls(len(rows), pa.string()))
    filter_ = config.build(engines=None)
    reasons = decide(connect(candidates, {"instructions": filter_.score(candidates)}), [("instructions", filter_.bounds)])
    return [None if reason is None else reason.split()[0] for reason in reasons["reason"].to_pylist()]


SELF_INSTRUCT = InstructionsConfig()
ALPACA = InstructionsConfig(rules="alpaca")


@pytest.mark.parametrize("config", [SELF_INSTRUCT, ALPACA])
@pytest.mark.parametrize(
    ("instruction", "column"),
    [
        (GOOD, None),
        ("Explain entropy clearly please", None),  # four words
        ("Explain entropy clearly", "words"),
        ("", "words"),
        ("  \n ", "words"),
        (" ".join(["word"] * 150), None),
        (" ".join(["word"] * 151), "words"),
        ("Describe the picture of a cat.", "forbidden_terms"),
        ("Describe what you see, then go to sleep.", "forbidden_terms"),
        ("DRAW a circle around it.", "forbidden_terms"),
        ("Plot, then describe the data.", "forbidden_terms"),
        ("Describe a photographer's daily work.", None),  # not the word graph
        ("Write a program that sorts numbers.", "write_a_program"),
        ("Please write a program that sorts.", None),
        ("- List three ways to save water.", "starts_with_punctuation"),
        ("“List” three ways to save water.", "starts_non_ascii"),
        ("Élaborez une liste de trois idées.", "starts_non_ascii"),
        ("3 ways to save water: list them.", None),
    ],
)
def test_an_instruction_is_rejected_by_the_rule_it_breaks(
    config: InstructionsConfig, instruction: str, column: str | None
) -> None:
    assert rejected(config, output=instruction) == column


@pytest.mark.parametrize("rules", ["self-instruct", "alpaca"])
def test_every_forbidden_term_is_found_as_a_whole_word(rules: str) -> None:
    for term in FORBIDDEN_TERMS[rules]:
        for written in (term, term.upper()):
            assert instruction_rules(f"Please tell ({written}) all about it.", rules)["forbidden_terms"] == 1
        assert instruction_rules(f"Please tell x{term}x all about it.", rules)["forbidden_terms"] == 0


def test_the_lists_are_the_published_ones() -> None:
    added = set(FORBIDDEN_TERMS["alpaca"]) - set(FORBIDDEN_TERMS["self-instruct"])
    assert added == {"video", "audio", "music", "flowchart", "diagram"}
    assert len(FORBIDDEN_TERMS["self-instruct"]) == len(set(FORBIDDEN_TERMS["self-instruct"])) == 13
    assert rejected(SELF_INSTRUCT, output="Describe the music of Bach please.") is None
    assert rejected(ALPACA, output="Describe the music of Bach please.") == "forbidden_terms"


def test_tidying_differs_so_a_program_in_small_letters_does_too() -> None:
    """Self-instruct capitalises before it compares, Alpaca does not."""
    assert tidy("  write a\n PROGRAM  that sorts. ") == "Write a program that sorts."
    assert tidy("  write a\n PROGRAM that sorts. ", "alpaca") == "write a\n PROGRAM that sorts."
    assert rejected(SELF_INSTRUCT, output="write a program that sorts.") == "write_a_program"
    assert rejected(ALPACA, output="write a program that sorts.") is None


def test_what_the_token_limit_cut_off_is_dropped() -> None:
    assert rejected(SELF_INSTRUCT, finish_reason="length") == "truncated"


PROMPTED = InstructionsConfig(instruction="prompt", input="document", max_contradicted=0.0)


@pytest.mark.parametrize(
    ("input", "output", "column"),
    [
        ("Water is scarce.", "Save it.", None),
        ("Water is scarce.", "Water is scarce.", "input_is_output"),
        ("Water is scarce.", "", "empty_output"),
        ("Water is scarce.", " \n", "empty_output"),
        ("Water is scarce.", "\u200b\ufeff", "empty_output"),
        ("", "", "input_is_output"),
        ("Water is scarce:", "Save it.", "ends_with_colon"),
        ("Water is scarce.", "Save it: ", "ends_with_colon"),
        ("<noinput>", "<noinput>", None),  # no input, so the output does not repeat one
    ],
)
def test_an_instance_is_rejected_by_the_rule_it_breaks(input: str, output: str, column: str | None) -> None:
    assert rejected(PROMPTED, document=input, output=output) == column


def test_one_input_with_two_outputs_costs_the_task_all_its_instances() -> None:
    rows = [
        {"source_id": "a", "document": "2 + 2", "output": "4"},
        {"source_id": "a", "document": "2 + 2", "output": "5"},
        {"source_id": "a", "document": "1 + 1", "output": "2"},
        {"source_id": "b", "document": "2 + 2", "output": "4"},
        {"source_id": "b", "document": "2 + 2", "output": "4"},
    ]
    assert decided(PROMPTED, rows) == ["contradicted"] * 3 + [None] * 2
    assert decided(InstructionsConfig(instruction="prompt", input="document"), rows) == [None] * 5
    assert not is_contradicted([("", "a"), ("", "b")])
    assert not is_contradicted([])


def test_without_an_input_only_the_output_is_judged() -> None:
    config = InstructionsConfig(instruction="prompt")
    assert rejected(config, document="Water.", output="Water.") is None
    assert rejected(config, output="") == "input_is_output"  # both are empty, as in the original
    assert rejected(config, prompt="Too short", output="Yes.") == "words"


@pytest.mark.parametrize(
    ("instruction", "unfinished"),
    [
        ("Name three rivers of Asia.", False),
        ("What is the capital of France?", False),
        ("Summarise the chapter called “The sea.”", False),
        ("  Name three rivers of Asia.  ", False),
        ("用一句话解释这个词。", False),
        ("Name three rivers of", True),
        ("Translate the following text:", True),
        ("List three machines, e.g.", True),
        ("", True),
    ],
)
def test_an_instruction_is_unfinished_unless_it_ends_like_a_sentence(instruction: str, unfinished: bool) -> None:
    config = InstructionsConfig(min_words=None, max_starts_non_ascii=None, max_unfinished=0.0, max_empty_output=None)
    assert rejected(config, output=instruction) == ("unfinished" if unfinished else None)
    assert rejected(SELF_INSTRUCT, output="Name three rivers of") is None, "measured, but no rule of the papers"


def test_every_column_has_a_limit_and_every_limit_a_reason() -> None:
    assert {bound.column for bound in InstructionsConfig(max_contradicted=0.0, max_unfinished=0.0).bounds} == set(COLUMNS)
    assert set(InstructionsConfig.reasons) == set(InstructionsConfig.limit_fields())
    assert isinstance(SELF_INSTRUCT.build(engines=None), Filter)


def test_null_and_hostile_rows_are_scored() -> None:
    texts = [None, "", "x" * 100_000, "a " * 50_000, "\u202eمرحبا", "\0"]
    candidates = pa.table(
        {
            "candidate_id": [str(at) for at in range(len(texts))],
            "source_id": ["s"] * len(texts),
            **{name: pa.array(texts, pa.string()) for name in ("prompt", "document", "output")},
            "finish_reason": ["stop"] * len(texts),
        }
    )
    for config in (SELF_INSTRUCT, PROMPTED):
        scores = config.build(engines=None).score(candidates)
        assert scores.num_rows == len(texts)
        assert scores.column_names == ["candidate_id", *COLUMNS]
        assert config.build(engines=None).score(candidates.slice(0, 0)).num_rows == 0


def keeps_as_published(text: str, terms: tuple[str, ...], capitalise: bool) -> bool:
    """The published loop, in its order, for one instruction."""
    text = re.sub(r"\s+", " ", text).strip().capitalize() if capitalise else text.strip()
    if text == "" or len(text.split()) <= 3 or len(text.split()) > 150:
        return False
    if any(re.search(rf"\b({term})\b", text, re.IGNORECASE) for term in terms):
        return False
    return not (text.startswith("Write a program") or text[0] in string.punctuation or not text[0].isascii())


phrases = st.lists(
    st.one_of(st.sampled_from([*FORBIDDEN_TERMS["alpaca"], "Write a program", "é", "-", "\n", "word"]), st.text(max_size=6)),
    max_size=9,
).map(" ".join)


@settings(deadline=None)
@given(phrases)
def test_decisions_equal_the_published_loop(text: str) -> None:
    for config, capitalise in ((SELF_INSTRUCT, True), (ALPACA, False)):
        scores = instruction_rules(text, config.rules)
        kept = 4 <= scores.pop("words") <= 150 and not any(scores.values())
        assert kept == keeps_as_published(text, FORBIDDEN_TERMS[config.rules], capitalise)


@settings(deadline=None)
@given(st.text(max_size=8), st.text(max_size=8))
def test_instances_equal_the_published_loop(input: str, output: str) -> None:
    dropped = input == output or output == "" or input.strip().endswith(":") or output.strip().endswith(":")
    assert any(instance_rules(input, output).values()) == dropped
