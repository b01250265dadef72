"""Summaries: one row a source and sample whatever the engine does, and seeds that depend on the row alone."""

import json
from dataclasses import replace

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from helpers.scripted_engine import ScriptedEngine, completion
from limbeck.cluster.engines.protocol import Completion, Contrast, Message, Request
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import CANDIDATES
from limbeck.corpus.seeds import derive_id, derive_seed
from limbeck.generators.contract import TEACHER
from limbeck.generators.runner import Runner, sources_of
from limbeck.generators.summaries import SummariesConfig


def sources(count: int) -> pa.Table:
    return pa.table(
        {"source_id": [f"s{i}" for i in range(count)], "document": [f"Document {i} {{{{ 7 }}}}." for i in range(count)]}
    )


def generate(config: SummariesConfig, table: pa.Table, engine: ScriptedEngine, run_seed: int = 1, round: int = 0) -> pa.Table:
    return Runner(config.build(), run_seed, round).run(table, {TEACHER: engine}).select(CANDIDATES.names)


def test_each_source_and_sample_has_one_row_in_order() -> None:
    engine = ScriptedEngine()
    table = generate(SummariesConfig(samples=3), sources(4), engine)
    assert table.schema == CANDIDATES
    assert list(zip(table["source_id"].to_pylist(), table["sample"].to_pylist(), strict=True)) == [
        (f"s{i}", sample) for i in range(4) for sample in range(3)
    ]
    assert len(set(table["candidate_id"].to_pylist())) == 12
    assert len(set(table["seed"].to_pylist())) == 12
    assert "Document 2 {{ 7 }}." in table["prompt"].to_pylist()[6]  # the document is a value, never a template


@given(st.lists(st.sampled_from(["text", "error", "silence", "empty"]), min_size=6, max_size=6))
@settings(deadline=None)
def test_nothing_vanishes_whatever_the_engine_answers(kinds: list[str]) -> None:
    config = SummariesConfig(samples=2)
    kind_of = dict(zip([derive_seed(1, 0, f"s{i}", sample) for i in range(3) for sample in range(2)], kinds, strict=True))

    def answer(request: Request) -> Completion | None:
        kind = kind_of[request.seed]
        if kind == "error":
            return Completion(request.request_id, "", (), "error", 9, "the prompt is too long")
        if kind == "empty":
            return Completion(request.request_id, "", (), "stop", 9)
        return completion(request, "  Two words\n") if kind == "text" else None

    rows = generate(config, sources(3), ScriptedEngine(answer)).to_pylist()
    assert len(rows) == 6
    for row, kind in zip(rows, kinds, strict=True):
        expected = {
            "text": ("Two words", 2, "stop", None, 7),
            "error": ("", 0, "error", "the prompt is too long", 9),
            "silence": ("", 0, "error", "the engine gave no answer", 0),
            "empty": ("", 0, "stop", None, 9),
        }[kind]
        facts = ("output", "output_tokens", "finish_reason", "error", "prompt_tokens")
        assert tuple(row[name] for name in facts) == expected


def test_no_sources_make_an_empty_table() -> None:
    table = generate(SummariesConfig(), sources(0), ScriptedEngine())
    assert (table.num_rows, table.schema) == (0, CANDIDATES)


def test_a_row_does_not_depend_on_its_part() -> None:
    whole = generate(SummariesConfig(samples=2), sources(4), ScriptedEngine(), 5, 1)
    tail = generate(SummariesConfig(samples=2), sources(4).slice(2), ScriptedEngine(), 5, 1)
    assert whole.slice(4).to_pylist() == tail.to_pylist()


def test_seeds_differ_by_run_and_round_and_ids_by_round_only() -> None:
    config = SummariesConfig(samples=2)
    tables = {
        key: generate(config, sources(2), ScriptedEngine(), *key).select(["candidate_id", "seed"]).to_pydict()
        for key in [(1, 0), (2, 0), (1, 1)]
    }
    assert len({seed for table in tables.values() for seed in table["seed"]}) == 12
    assert tables[1, 0]["candidate_id"] == tables[2, 0]["candidate_id"]
    assert not set(tables[1, 0]["candidate_id"]) & set(tables[1, 1]["candidate_id"])


@given(
    st.lists(st.one_of(st.integers(), st.text()), min_size=1, max_size=4),
    st.lists(st.one_of(st.integers(), st.text()), max_size=4),
)
def test_seeds_are_63_bits_and_tell_their_parts_apart(parts: list[int | str], others: list[int | str]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63
    assert (derive_id(*parts) == derive_id(*others)) == (parts == others)
    assert len(derive_id(*parts)) == 16


def test_seeds_never_change() -> None:
    assert derive_seed(0, 0, "abc", 1) == int(derive_id(0, 0, "abc", 1), 16) // 2
    assert derive_id(0, "abc", 1) == "3eb717476c641a81"


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_the_prompt_is_a_turn_or_the_text_itself(style: str) -> None:
    engine = ScriptedEngine()
    config = SummariesConfig(samples=1, style=style, max_new_tokens=9, temperature=0.5, top_p=0.8, top_k=4, stop=("\n", "##"))
    table = generate(config, sources(1), engine)
    (request,) = engine.requests
    text = table["prompt"][0].as_py()
    assert request.prompt == ((Message("user", text),) if style == "chat" else text)
    assert text == text.strip()
    assert request.seed == table["seed"][0].as_py()
    sampling = request.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.top_k, sampling.stop) == (
        9,
        0.5,
        0.8,
        4,
        ("\n", "##"),
    )


def test_a_prompt_may_be_a_file(tmp_path) -> None:
    path = tmp_path / "short.jinja"
    path.write_text("TL;DR of {{ document }}:\n")
    table = generate(SummariesConfig(prompt=str(path)), sources(1), ScriptedEngine())
    assert table["prompt"][0].as_py() == "TL;DR of Document 0 {{ 7 }}.:"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ reference }}", "'reference' is undefined; it may use document, persona"),
        ("{{ persona.age }}", "has no attribute 'age'"),
        ("{% for %}", "is not a Jinja template"),
        ("{{ document.__class__.__mro__ }}", "does not render"),
    ],
)
def test_a_faulty_prompt_is_found_before_any_model_runs(tmp_path, template: str, message: str) -> None:
    path = tmp_path / "faulty.jinja"
    path.write_text(template)
    (problem,) = SummariesConfig(prompt=str(path)).problems({"persona": "a doctor"})
    assert message in problem


def test_a_prompt_uses_what_the_source_drew_and_the_facts_record_it(tmp_path) -> None:
    path = tmp_path / "persona.jinja"
    path.write_text("As {{ persona.job }}, in {{ words }} words: {{ document }}")
    drawn = [{"persona": {"job": job}, "words": words} for job, words in (("a nurse", 5), ("a judge", 9))]
    table = sources(3).append_column("record", pa.array([*(json.dumps({"vary": one, "x": 1}) for one in drawn), None]))
    config = SummariesConfig(prompt=str(path), samples=2)
    assert config.problems(drawn[0]) == []
    rows = generate(config, table.slice(0, 2), ScriptedEngine()).to_pylist()
    assert rows[0]["prompt"] == "As a nurse, in 5 words: Document 0 {{ 7 }}."
    assert rows[3]["prompt"] == "As a judge, in 9 words: Document 1 {{ 7 }}."
    assert [json.loads(row["facts"]) for row in rows] == [{"vary": drawn[0]}] * 2 + [{"vary": drawn[1]}] * 2
    (question,) = (config.build().question(source) for source in sources_of(table.slice(1, 1)))
    assert question.prompt == rows[3]["prompt"]
    with pytest.raises(LimbeckError, match="'persona' is undefined; it may use document"):
        generate(config, table.slice(2), ScriptedEngine())


def test_an_unknown_prompt_names_those_there_are() -> None:
    with pytest.raises(LimbeckError, match="no prompt sumary .* name one of summary"):
        SummariesConfig(prompt="sumary").build()


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_a_contrast_is_the_prompt_without_its_document(style: str) -> None:
    engine, plain = ScriptedEngine(), ScriptedEngine()
    config = SummariesConfig.model_validate({"samples": 2, "style": style, "contrast": {"weight": 0.25, "min_entropy": 3.0}})
    table = generate(config, sources(2), engine)
    assert table == generate(SummariesConfig(samples=2, style=style), sources(2), plain), "only the sampling differs"
    prompts = table["prompt"].to_pylist()
    alone = prompts[0].replace("Document 0 {{ 7 }}.", "")
    for request, other in zip(engine.requests, plain.requests, strict=True):
        contrast = request.sampling.contrast
        assert contrast == Contrast(0.25, 3.0, (Message("user", alone),) if style == "chat" else alone)
        assert replace(request, sampling=replace(request.sampling, contrast=None)) == other
    assert config.sampling.contrast is None, "evaluation samples without it"
    assert config.decodes_pmi and not SummariesConfig().decodes_pmi
