"""Instruction likeness: its formula on scripted engines and on a tiny model, its rules, and the embedded model's figures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from helpers import tiny_engines
from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.local.engine import build
from limbeck.cluster.engines.protocol import Engine, Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.config import Cost
from limbeck.filters.contract import Filter
from limbeck.filters.models import instruction_likeness
from limbeck.filters.models.instruction_likeness import (
    LISTS,
    InstructionLikenessConfig,
    InstructionLikenessFilter,
    broken_rules,
    context,
)


def inputs(texts: Sequence[str | None], column: str = "prompt") -> pa.Table:
    others = {"prompt": "output", "output": "prompt"}
    return pa.table(
        {
            "candidate_id": [f"id{place}" for place in range(len(texts))],
            column: pa.array(texts, pa.string()),
            others[column]: pa.array(["Another text."] * len(texts), pa.string()),
        }
    )


def score(engine: Engine, table: pa.Table, **config: Any) -> list[dict[str, Any]]:
    made = InstructionLikenessConfig.model_validate(config)
    rows: list[dict[str, Any]] = InstructionLikenessFilter(made, engine).score(table).to_pylist()
    return rows


def list_of(pair: Pair) -> str:
    return next(name for name in LISTS if pair.context == context(name))


@given(st.lists(st.floats(-50, -0.1), min_size=4, max_size=4))
def test_the_log_odds_compare_with_the_mean_of_the_other_lists(logprobs: list[float]) -> None:
    engine = ScriptedEngine(measure=lambda pair: [logprobs[LISTS.index(list_of(pair))] / 2] * 2)
    (row,) = score(engine, inputs(["Name three rivers."]))
    others = sum(math.exp(value) for value in logprobs[1:]) / 3
    assert row["log_odds"] == pytest.approx(logprobs[0] - math.log(others), abs=1e-4)
    assert logprobs[LISTS.index(row["nearest"])] == pytest.approx(max(logprobs), abs=1e-4)
    assert [pair.target for pair in engine.pairs] == [" Name three rivers.\n"] * 4, "the end of the line belongs to the text"


def test_the_lists_are_what_they_say() -> None:
    lists = {name: context(name).splitlines() for name in LISTS}
    entries = {name: [line.removeprefix("- ") for line in lines[1:-1]] for name, lines in lists.items()}
    assert {len(some) for some in entries.values()} == {12} and all(lines[-1] == "-" for lines in lists.values())
    whole = entries["instructions"]
    assert all(text.startswith(cut) and text != cut for text, cut in zip(whole, entries["cut_off"], strict=True))
    assert all(sorted(text.split()) == sorted(mixed.split()) for text, mixed in zip(whole, entries["shuffled"], strict=True))
    assert all(text != mixed for text, mixed in zip(whole, entries["shuffled"], strict=True))
    assert not set(whole) & set(entries["sentences"])


def test_log_odds_of_a_real_engine_are_those_of_the_plain_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With short lists, since the tiny model has 256 positions of one byte."""
    short = {
        "instructions": "Do:\n- go\n-",
        "sentences": "Is:\n- I am\n-",
        "shuffled": "So:\n- go we\n-",
        "cut_off": "Cut:\n- g\n-",
    }
    monkeypatch.setattr(instruction_likeness, "context", short.__getitem__)
    engine = build(TransformersConfig(model=str(tiny_engines.save(tmp_path / "m", "llama")), dtype="float32", device="cpu"))
    texts = ["Name it", "Is it an old mill?", "x" * 300]
    rows = score(engine, inputs([*texts, "Name  it\n"]))
    for row, text in zip(rows, texts[:2], strict=False):
        sums = [tiny_engines.naive_logprobs(engine, Pair(short[name], f" {text}\n")).sum() for name in LISTS]
        assert row["log_odds"] == pytest.approx(sums[0] - np.log(np.mean(np.exp(np.float64(sums[1:])))), rel=1e-3)
        assert row["nearest"] == LISTS[int(np.argmax(sums))]
    assert math.isnan(rows[2]["log_odds"]) and rows[2]["nearest"] is None, "it does not fit"
    assert rows[3] == rows[0] | {"candidate_id": "id3"}, "whitespace counts as one space"


def test_equal_texts_are_measured_once_and_an_empty_one_is_not() -> None:
    engine = ScriptedEngine()
    rows = score(engine, inputs(["Name it now.", "", "Name it now.", None, " \u200b"]))
    assert len(engine.pairs) == 4
    assert [math.isnan(row["log_odds"]) for row in rows] == [False, True, False, True, True]
    assert [row["broken_rules"] for row in rows] == [0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("Name three rivers.", 0),
        ("What is it made of", 0),
        ("Tell me who they are", 0),
        ("Rewrite the sentence: ", 0),
        ('Translate the word "house"', 0),
        ("Summarise (in two sentences) the text.", 0),
        ("写一首关于秋天的诗", 0),
        ("Rivers", 1),
        ("Explain to a child why the", 1),
        ("Compare cats and", 1),
        ("First, second,", 2),
        ('Translate the word "house', 1),
        ("List the rivers (of Asia", 1),
        ("(", 3),
        ("", 1),
    ],
)
def test_rules(text: str, rules: int) -> None:
    assert broken_rules(text.strip()) == rules


def test_the_column_can_be_chosen() -> None:
    engine = ScriptedEngine()
    score(engine, inputs(["Name it now."], "output"), instruction="output")
    assert {pair.target for pair in engine.pairs} == {" Name it now.\n"}


def test_config_and_limits() -> None:
    config = InstructionLikenessConfig(engine=TransformersConfig(model="some/model"))
    assert [(bound.column, bound.minimum, bound.maximum) for bound in config.bounds] == [
        ("broken_rules", None, 0.0),
        ("log_odds", -2.0, None),
    ]
    assert set(config.reasons) == set(config.limit_fields()) and config.cost is Cost.MODEL and config.probing is None
    assert config.columns == ("broken_rules", "log_odds", "nearest") and config.models == {"engine.model": "some/model"}
    filter_ = InstructionLikenessFilter(config, ScriptedEngine())
    assert isinstance(filter_, Filter) and filter_.score(inputs([])).schema == filter_.score(inputs(["A b c."])).schema
    with pytest.raises(LimbeckError, match="filter instruction_likeness has no engine"):
        InstructionLikenessConfig().build(None)  # type: ignore[arg-type]


TEXTS = st.text(max_size=40) | st.sampled_from(["\u202eאבג", "word " * 2000, "\x00", "{{ x }}", "-", "'"])


@given(st.lists(TEXTS, max_size=4))
def test_any_row_has_its_place_and_its_own_scores(texts: list[str]) -> None:
    table = inputs(["Name it.", *texts])

    def measure(pair: Pair) -> list[float]:
        return [-float(len(pair.context + pair.target) % 11) - 1]

    whole = score(ScriptedEngine(measure=measure), table)
    alone = [score(ScriptedEngine(measure=measure), table.slice(i, 1))[0] for i in range(table.num_rows)]
    for row, single in zip(whole, alone, strict=True):
        assert row["nearest"] == single["nearest"] and row["broken_rules"] == single["broken_rules"]
        assert row["log_odds"] == pytest.approx(single["log_odds"], nan_ok=True)


@pytest.mark.model
@pytest.mark.slow
def test_the_embedded_teacher_tells_instructions_from_other_texts() -> None:
    """On a part of the half of the seed tasks that was not used to choose the filter (docs/filters/instruction_likeness.md)."""
    from benchmarks.critics import auroc
    from benchmarks.instruction_likeness import labelled, measured

    sets = {name: texts[:20] for name, texts in labelled("held-out").items()}
    engine = TransformersConfig(model="embedded:smollm2-135m-instruct")
    found = measured(InstructionLikenessConfig(engine=engine), sets)
    for name, least in {"shuffled": 0.95, "cut off": 0.9, "plain sentences": 0.9}.items():
        assert auroc(found["instructions"]["log_odds"], found[name]["log_odds"]) >= least, name
