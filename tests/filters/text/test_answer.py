"""Answers of outputs against known ones: columns, bounds, and the keys of a recipe."""

import math
from typing import Any

import pyarrow as pa
import pytest

from limbeck.corpus import extras
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.filters.contract import Filter
from limbeck.filters.text.answer import AnswerConfig
from limbeck.pipelines import recipe
from limbeck.pipelines.runs.scored import connect
from limbeck.pipelines.runs.select import decide


def candidates(*rows: tuple[str | None, str | None]) -> pa.Table:
    """One candidate per (output, reference)."""
    made = [
        {"candidate_id": f"c{place}", "source_id": "s", "sample": place, "output": output, "reference": reference}
        for place, (output, reference) in enumerate(rows)
    ]
    schema = pa.schema([SCORED_INPUT.field(name) for name in ("candidate_id", "source_id", "sample", "output", "reference")])
    return pa.Table.from_pylist(made, schema=schema)


def scores(config: AnswerConfig, *rows: tuple[str | None, str | None]) -> list[dict[str, Any]]:
    return config.build(engines=None).score(candidates(*rows)).to_pylist()


def correct(config: AnswerConfig, *rows: tuple[str | None, str | None]) -> list[float]:
    return [row["correct"] for row in scores(config, *rows)]


def test_columns_of_an_answer() -> None:
    assert isinstance(AnswerConfig().build(engines=None), Filter)
    right, wrong, silent, unasked, unread = scores(
        AnswerConfig(),
        ("So 6 × 7 = 42.", "The answer is 42.0"),
        ("It is 41.5", "42"),
        ("I do not know.", "42"),
        ("It is 42.", None),
        ("It is 42.", "forty-two"),
    )
    assert right == {"candidate_id": "c0", "extracted": 1.0, "correct": 1.0, "number": 42.0, "answer": "42", "expected": "42.0"}
    assert (wrong["extracted"], wrong["correct"], wrong["number"]) == (1.0, 0.0, 41.5)
    assert (silent["extracted"], silent["correct"], silent["answer"], silent["expected"]) == (0.0, 0.0, None, "42")
    assert math.isnan(silent["number"])
    for row in (unasked, unread):
        assert row["extracted"] == 1.0 and math.isnan(row["correct"]) and row["expected"] is None


def test_a_number_too_large_for_a_float_is_compared_but_not_shown_as_one() -> None:
    (row,) = scores(AnswerConfig(), ("1e999", "10^999"))
    assert row["correct"] == 1.0 and math.isnan(row["number"])


@pytest.mark.parametrize(
    ("keys", "right", "wrong"),
    [
        ({"extract": "pattern", "pattern": r"####\s*(.+)"}, ("Well.\n#### paris.", "Because.\n#### Paris"), ("Paris", "Paris")),
        (
            {"extract": "pattern", "pattern": r"(?s)<answer>(.*?)</answer>", "compare": "number"},
            ("<answer>\n1,000</answer>", "1000"),
            ("1000", "1000"),
        ),
        ({"extract": "boxed"}, (r"\boxed{\frac{1}{2}}", "0.5"), (r"\boxed{\frac{1}{3}}", "0.3333")),
        ({"extract": "boxed", "compare": "set"}, (r"\boxed{2, 1}", r"\{1, 2\}"), (r"\boxed{1}", "1, 2")),
        ({"extract": "choice"}, ("The answer is (b).", "B"), ("The answer is (b).", "C")),
        ({"extract": "choice", "choices": "АБВ"}, ("(б)", "Б"), ("(в)", "Б")),
        ({"tolerance": 0.01}, ("3.14", "3.15"), ("3.14", "3.1501")),
        ({"relative_tolerance": 0.01}, ("101", "100"), ("102", "100")),
        ({"decimal": "comma"}, ("Es sind 1.000,50 Euro.", "1000,5"), ("Es sind 1,5 Euro.", "15")),
        ({"percent": "hundredths"}, ("It is 50%.", "0.5"), ("It is 50%.", "50")),
        ({}, ("It is 50%.", "50"), ("It is 50%.", "0.5")),
    ],
)
def test_each_way_to_extract_and_to_compare(keys: dict[str, Any], right: tuple[str, str], wrong: tuple[str, str]) -> None:
    assert correct(AnswerConfig(**keys), right, wrong) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("keys", "output", "references"),
    [
        ({"extract": "choice"}, "The answer is (B).", ("Paris", "F", "1", "A or B", "not B", "?")),
        ({"extract": "choice", "choices": "1234"}, "The answer is 3.", ("C", "7", "3 or 4")),
        ({}, "It is 42.", ("forty-two", "2024-01-05", "12:30", "1.2.3")),
        ({"compare": "text"}, "It is 42.", ("forty-two",)),
        ({"compare": "set"}, "It is 42.", ("Paris",)),
        ({"extract": "boxed"}, r"\boxed{42}", ("forty-two", "x + 1", "5 100 dollar bills")),
        ({"extract": "boxed", "compare": "set"}, r"\boxed{1, 2}", (",,", " ; ", "{,}")),
        ({"extract": "pattern", "pattern": "A: (.*)", "compare": "set"}, "A: 1, 2", (",,",)),
    ],
)
def test_a_reference_of_another_kind_makes_no_answer_wrong(
    keys: dict[str, Any], output: str, references: tuple[str, ...]
) -> None:
    for row in scores(AnswerConfig(**keys), *[(output, reference) for reference in references]):
        assert row["extracted"] == 1.0 and math.isnan(row["correct"]) and row["expected"] is None


def test_rows_are_rejected_for_a_reason_of_their_own() -> None:
    config = AnswerConfig(extract="boxed")
    table = candidates((r"\boxed{42}", "42"), (r"\boxed{41}", "42"), ("42", "42"), (r"\boxed{42}", None))
    given = {"prompt": "?", "seed": 0, "prompt_tokens": 1, "output_tokens": 1, "finish_reason": "stop", "error": None}
    for name, value in given.items():
        table = table.append_column(SCORED_INPUT.field(name), pa.array([value] * 4, SCORED_INPUT.field(name).type))
    decisions = decide(connect(table, {"answer": config.build(engines=None).score(table)}), [("answer", config.bounds)])
    assert decisions["kept"].to_pylist() == [True, False, False, False]
    assert decisions["reason"].to_pylist() == [
        None,
        "correct 0 is below 1: the answer is not that of the reference",
        "extracted 0 is below 1: no answer was found in the output",
        "correct could not be scored",
    ]


def test_bounds_may_be_taken_away() -> None:
    assert [bound.column for bound in AnswerConfig().bounds] == ["extracted", "correct"]
    assert AnswerConfig(min_correct=None, min_extracted=None).bounds == ()
    assert AnswerConfig().columns == ("extracted", "correct", "number", "answer", "expected")


def test_a_package_for_mathematics_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "math_verify")
    assert AnswerConfig(compare="math").problems() == [
        "compare: math needs math_verify, which is not installed: pip install 'limbeck[math]'"
    ]
    assert AnswerConfig().problems() == AnswerConfig(extract="choice").problems() == []


def test_mathematics() -> None:
    pytest.importorskip("math_verify", reason="the extra `math` is not installed")
    config = AnswerConfig(extract="boxed", compare="math")
    rows = [
        (r"\boxed{x+1}", "$1 + x$"),
        (r"\boxed{\sqrt{18}}", r"3\sqrt{2}"),
        (r"\boxed{0.5}", r"\frac{1}{2}"),
        (r"\boxed{x}", "y"),
    ]
    assert correct(config, *rows) == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"extract": "pattern"}, "filters.answer: pattern is missing"),
        ({"extract": "pattern", "pattern": "("}, r"filters.answer.pattern: not a regular expression: .*; fix it"),
        ({"extract": "pattern", "pattern": "a"}, r"filters.answer.pattern: expected one group .*, not 0; .*it is 'a'"),
        ({"extract": "pattern", "pattern": "(a)(b)"}, r"filters.answer.pattern: expected one group .*, not 2"),
        ({"pattern": "(a)"}, "filters.answer: pattern does not apply to extract: last_number"),
        ({"choices": "XYZ"}, "filters.answer: choices does not apply to extract: last_number"),
        ({"extract": "choice", "choices": "AAB"}, "filters.answer.choices: expected at least two different letters"),
        ({"extract": "choice", "choices": "Aa"}, "filters.answer.choices: expected at least two different letters"),
        ({"extract": "choice", "choices": "A B"}, "filters.answer.choices: ' ' is not a letter or digit"),
        ({"extract": "choice", "compare": "number"}, "filters.answer: compare: number does not apply to extract: choice"),
        ({"extract": "boxed", "compare": "text", "tolerance": 0.1}, "filters.answer: tolerance does not apply to compare: text"),
        ({"compare": "math", "percent": "hundredths"}, "filters.answer: percent does not apply to compare: math"),
        ({"tolerance": -1.0}, "filters.answer.tolerance"),
        ({"extract": "box"}, "filters.answer.extract"),
    ],
)
def test_a_wrong_key_is_named(keys: dict[str, Any], message: str) -> None:
    section = {"name": "x", "sources": {"kind": "text", "path": "x"}, "teacher": {"kind": "transformers", "model": "x"}}
    data = {**section, "generator": {"kind": "summaries"}, "filters": [{"kind": "answer", **keys}]}
    with pytest.raises(LimbeckError, match=message):
        recipe.validate(data, "here")
