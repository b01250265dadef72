"""Measures, intervals, paired differences and controls against plain oracles."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.students.evaluation.controls import controls, first_sentence
from limbeck.students.evaluation.measures import SCALARS, EvaluationRow, Measure, Model, Split
from limbeck.students.evaluation.statistics import RESAMPLES, SEED, beaten_by, evaluate, interval, measure

DOCUMENT = "The parser reads YAML files. It never fails."


def rows(*given_rows: dict[str, Any]) -> pa.Table:
    """Rows with the columns `evaluate` needs, the given values replacing the ordinary ones."""
    ordinary = {
        "source_id": "a",
        "sample": 0,
        "document": DOCUMENT,
        "reference": "A parser of YAML files.",
        "salient": [4, 10, 17, 21],  # "parser", "YAML"
        "output": "A parser for YAML files.",
        "kept": True,
        "pass_pmi": True,
        "faithfulness": 0.5,
        "compression": 0.2,
    }
    schema = pa.schema(
        {
            "source_id": pa.string(),
            "sample": pa.int32(),
            "document": pa.string(),
            "reference": pa.string(),
            "salient": pa.list_(pa.int32()),
            "output": pa.string(),
            "kept": pa.bool_(),
            "pass_pmi": pa.bool_(),
            "faithfulness": pa.float64(),
            "compression": pa.float64(),
        }
    )
    return pa.Table.from_pylist([ordinary | row for row in given_rows], schema=schema)


def naive_interval(values: list[float]) -> tuple[float, float, float]:
    """The bootstrap as one would write it first: draw documents one resample at a time."""
    draws = np.random.default_rng(SEED).multinomial(len(values), [1 / len(values)] * len(values), size=RESAMPLES)
    means = []
    for counts in draws:
        drawn = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
        assert len(drawn) == len(values)
        means.append(sum(drawn) / len(drawn))
    return sum(values) / len(values), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0, 0.25], [3.5], [0.1, -0.2, 0.4, 0.0, 0.9, 0.3, 0.3]])
def test_interval_is_the_naive_bootstrap(values: list[float]) -> None:
    found = interval(np.array(values))
    assert found is not None
    assert [found.mean, found.low, found.high] == pytest.approx(naive_interval(values), abs=1e-12)


def test_interval_leaves_out_what_is_not_measured_and_is_none_where_nothing_is() -> None:
    assert interval(np.array([math.nan, 1.0, math.nan, 3.0])) == interval(np.array([1.0, 3.0]))
    assert interval(np.array([math.nan])) is None
    assert interval(np.array([])) is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_an_interval_lies_within_the_values_and_holds_the_mean_of_a_constant(values: list[float]) -> None:
    found = interval(np.array(values))
    assert found is not None
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert interval(np.full(len(values), 2.0)) == Measure(mean=2.0, low=2.0, high=2.0)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    found = [interval(rng.normal(1.0, 1.0, size=40)) for _ in range(200)]
    covered = sum(measure is not None and measure.low <= 1.0 <= measure.high for measure in found)
    assert 0.88 <= covered / 200 <= 0.99


def test_documents_weigh_the_same_whatever_their_number_of_samples() -> None:
    table = rows({"source_id": "a", "kept": True}, *({"source_id": "b", "kept": False, "sample": i} for i in range(9)))
    found = evaluate("teacher", "dev", measure(table))
    assert found.documents == 2
    assert found.pass_rate is not None and found.pass_rate.mean == 0.5


def test_rouge_is_that_of_rouge_score_and_skips_documents_without_a_reference() -> None:
    table = rows({"source_id": "a"}, {"source_id": "b", "reference": None, "output": "zzz"}, {"source_id": "c", "output": ""})
    found = evaluate("student", "test", measure(table))
    direct = RougeScorer(["rouge1", "rouge2", "rougeL"]).score("A parser of YAML files.", "A parser for YAML files.")
    for name, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        mean = getattr(found, name)
        assert mean.mean == pytest.approx(direct[theirs].fmeasure / 2)  # the empty output is a true zero


def test_salient_recall_counts_distinct_words_that_occur() -> None:
    table = rows(
        {"output": "parser, PARSER!"}, {"source_id": "b", "salient": []}, {"source_id": "c", "output": "parsers of YAML"}
    )
    means = measure(table).means["salient_recall"]
    assert means[0] == 0.5 and math.isnan(means[1]) and means[2] == 0.5


def test_invention_is_the_share_of_outputs_with_something_that_the_document_lacks() -> None:
    table = rows(
        {"output": "It reads JSON and TOML."},
        {"output": "It reads YAML.", "sample": 1},
        {"source_id": "b", "output": ""},
        {"source_id": "c", "document": "", "salient": [], "output": "It reads JSON."},
        {"source_id": "d", "document": None, "salient": [], "output": "It reads JSON."},
    )
    means = measure(table).means["invention"]
    assert means[0] == 0.5 and means[1] == 0.0 and math.isnan(means[2]) and math.isnan(means[3])


def test_copies_of_the_document_invent_nothing_and_outputs_of_other_documents_do() -> None:
    texts = ["Quern 2.1 reads METAR files of NOAA in Oslo.", "Malt brews IPA with 6 % in Kyoto since 1987."]
    found = {}
    for name, outputs in (("document", texts), ("first-sentence", map(first_sentence, texts)), ("mismatched", texts[::-1])):
        table = rows(*({"source_id": d, "document": d, "output": o} for d, o in zip(texts, outputs, strict=True)))
        found[name] = evaluate("teacher", "dev", measure(table), only=("invention",)).invention
    assert {name: value and value.mean for name, value in found.items()} == {
        "document": 0.0,
        "first-sentence": 0.0,
        "mismatched": 1.0,
    }


def test_what_is_missing_is_null_and_never_zero() -> None:
    table = rows({"faithfulness": math.nan, "reference": None}, {"source_id": "b", "faithfulness": None, "reference": " "})
    found = evaluate("student", "test", measure(table), measure(table))
    for name in ("faithfulness", "saliency", "pmi", "rouge_1", "rouge_2", "rouge_l"):
        assert getattr(found, name) is None
        assert found.difference_to_round_0_teacher is not None
        assert found.difference_to_round_0_teacher[name] is None
    assert evaluate("teacher", "dev", measure(table)).difference_to_round_0_teacher is None


def test_a_task_s_measures_are_reported_and_no_others() -> None:
    table = rows({}, {"source_id": "b", "faithfulness": 0.5})
    everything = evaluate("student", "test", measure(table), measure(table))
    found = evaluate("student", "test", measure(table), measure(table), only=("rouge_l", "distinct_2"))
    reported = {name for name in SCALARS if getattr(found, name) is not None}
    assert reported == {"pass_rate", "rouge_l", "distinct_2"} == set(found.difference_to_round_0_teacher or ())
    assert all(getattr(found, name) == getattr(everything, name) for name in reported)
    assert everything.faithfulness is not None and found.pass_rate_by_filter == everything.pass_rate_by_filter


def test_an_empty_table_measures_nothing() -> None:
    found = evaluate("student", "test", measure(rows().slice(0, 0)), measure(rows()))
    assert found.documents == 0 and all(getattr(found, name) is None for name in SCALARS)


def test_a_score_that_is_not_finite_is_left_out_of_its_documents_mean() -> None:
    table = rows({"faithfulness": 0.2}, {"sample": 1, "faithfulness": math.inf}, {"sample": 2, "faithfulness": 0.4})
    assert measure(table).means["faithfulness"].tolist() == pytest.approx([0.3])


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_paired_differences_pair_by_document_whatever_the_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    values = data.draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=count, max_size=count))
    order = data.draw(st.permutations(range(count)))
    teacher = rows(*({"source_id": f"s{i}", "faithfulness": values[i][0]} for i in range(count)), {"source_id": "only theirs"})
    student = rows(*({"source_id": f"s{i}", "faithfulness": values[i][1]} for i in order), {"source_id": "only ours"})
    found = evaluate("student", "test", measure(student), measure(teacher)).difference_to_round_0_teacher
    assert found is not None and found["faithfulness"] is not None
    expected = naive_interval([ours - theirs for theirs, ours in values])
    assert list(found["faithfulness"].model_dump().values()) == pytest.approx(expected, abs=1e-9)


def test_a_model_does_not_differ_from_itself() -> None:
    table = rows(*({"source_id": f"s{i}", "output": f"word{i} and word{i % 3}", "kept": i % 2 == 0} for i in range(9)))
    found = evaluate("student", "test", measure(table), measure(table)).difference_to_round_0_teacher
    assert found is not None
    assert all(found[name] == Measure(mean=0.0, low=0.0, high=0.0) for name in ("pass_rate", "rouge_l", "distinct_2"))


def naive_distinct_2(outputs: list[str]) -> float:
    """Distinct bigrams over bigrams, of outputs already in words."""
    bigrams: Counter[tuple[str, str]] = Counter()
    for words in map(str.split, outputs):
        bigrams.update(zip(words, words[1:], strict=False))
    return len(bigrams) / bigrams.total()


@given(st.lists(st.text("abc ", min_size=0, max_size=14), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_distinct_2_is_the_naive_one_and_lies_in_its_interval(outputs: list[str]) -> None:
    table = rows(*({"source_id": f"s{i // 2}", "sample": i % 2, "output": text} for i, text in enumerate(outputs)))
    found = evaluate("student", "test", measure(table)).distinct_2
    if all(len(text.split()) < 2 for text in outputs):
        assert found is None
        return
    assert found is not None
    assert found.mean == pytest.approx(naive_distinct_2(outputs))
    assert 0 <= found.low <= found.high <= 1


def test_the_interval_of_distinct_2_is_as_wide_as_the_estimate_varies() -> None:
    """Fresh samples of documents vary about as much as the interval of one sample says."""
    rng = np.random.default_rng(3)
    words = [f"w{i}" for i in range(25)]

    def sample() -> pa.Table:
        return rows(*({"source_id": f"s{i}", "output": " ".join(rng.choice(words, 12))} for i in range(40)))

    found = [evaluate("student", "dev", measure(sample())).distinct_2 for _ in range(30)]
    assert all(one is not None for one in found)
    spread = 2 * 1.96 * float(np.std([one.mean for one in found if one]))
    width = float(np.mean([one.high - one.low for one in found if one]))
    assert 0.5 < width / spread < 2.0


def make_sources(*groups: str, document: str = DOCUMENT) -> pa.Table:
    """One source for each group."""
    found = [
        {
            "source_id": f"s{index}",
            "document": f"{document} Number {index}.",
            "reference": None,
            "origin": "here",
            "split": "test",
            "group": group,
            "document_tokens": 9,
            "cut_characters": 0,
            "salient": [],
            "reason": None,
        }
        for index, group in enumerate(groups)
    ]
    return pa.Table.from_pylist(found, schema=SOURCES)


def make_outputs(*texts: str | None) -> pa.Table:
    """One candidate for each source; None: an error."""
    found = [
        {
            "candidate_id": f"c{index}",
            "source_id": f"s{index}",
            "sample": 0,
            "seed": 1,
            "prompt": f"prompt {index}",
            "output": text or "",
            "prompt_tokens": 5,
            "output_tokens": 3,
            "finish_reason": "stop" if text else "error",
            "error": None if text else "engine died",
        }
        for index, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(found, schema=CANDIDATES)


def count(texts: Any) -> list[int]:
    """Words for tokens."""
    return [len(text.split()) for text in texts]


def test_controls_are_candidates_with_ids_of_their_own() -> None:
    found = controls(make_sources("x", "y", "z"), make_outputs("zero", "one", "two"), count)
    assert list(found) == ["first-sentence", "mismatched", "document"]
    assert found["first-sentence"]["output"].to_pylist() == ["The parser reads YAML files."] * 3
    assert found["mismatched"]["output"].to_pylist() == ["one", "two", "zero"]
    assert found["document"]["output"].to_pylist()[1] == f"{DOCUMENT} Number 1."
    for table in found.values():
        assert table.schema == CANDIDATES and set(table["finish_reason"].to_pylist()) == {"stop"}
        assert table["prompt"].to_pylist() == ["prompt 0", "prompt 1", "prompt 2"]
        assert table["output_tokens"].to_pylist() == count(table["output"].to_pylist())
    identifiers = [identifier for table in found.values() for identifier in table["candidate_id"].to_pylist()]
    assert len(set(identifiers)) == 9


def test_mismatched_uses_no_failed_output_and_is_empty_without_a_stranger() -> None:
    found = controls(make_sources("x", "y", "z"), make_outputs("zero", None, "two"), count)["mismatched"]
    assert dict(zip(found["source_id"].to_pylist(), found["output"].to_pylist(), strict=True)) == {"s0": "two", "s2": "zero"}
    assert controls(make_sources("x"), make_outputs("zero"), count)["mismatched"].num_rows == 0
    assert controls(make_sources("x", "x"), make_outputs("zero", "one"), count)["mismatched"].num_rows == 0


def test_a_source_without_a_document_has_no_control_made_of_one() -> None:
    rows_of = make_sources("x", "y").to_pylist()
    rows_of[0]["document"] = ""
    made = controls(pa.Table.from_pylist(rows_of, schema=SOURCES), make_outputs("zero", "one"), lambda texts: [1] * len(texts))
    assert [made[name].num_rows for name in ("first-sentence", "document", "mismatched")] == [1, 1, 2]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("Requests\n\nRequests is a library, e.g. for HTTP. More.", "Requests is a library, e.g. for HTTP."),
        ("no end at all", "no end at all"),
        ("Two\nlines here! Next.", "Two lines here!"),
        ("", ""),
    ],
)
def test_first_sentence(document: str, expected: str) -> None:
    assert first_sentence(document) == expected


def test_beaten_by_names_the_control_and_both_figures() -> None:
    nothing = evaluate("student", "test", measure(rows().slice(0, 0)))

    def row(model: Model, pass_rate: float | None, rouge_l: float | None, split: Split = "test") -> EvaluationRow:
        written = {
            name: None if value is None else Measure(mean=value, low=value, high=value)
            for name, value in (("pass_rate", pass_rate), ("rouge_l", rouge_l))
        }
        return nothing.model_copy(update={"model": model, "split": split, **written})

    student = row("student", 0.4, 0.25)
    assert beaten_by([student, row("first-sentence", 0.4, 0.31), row("document", 0.0, None)]) == [
        "The control first-sentence beats the student on ROUGE-L (0.310 against 0.250 on the test documents)."
    ]
    assert len(beaten_by([student, row("mismatched", 0.5, 0.3)])) == 2
    assert beaten_by([student, row("teacher", 0.9, 0.9), row("document", 0.9, 0.9, split="dev")]) == []
    assert beaten_by([row("student", None, None), row("document", 0.9, 0.9)]) == []
    assert beaten_by([row("document", 0.9, 0.9)]) == []


def test_the_form_of_outputs_is_counted() -> None:
    texts = ["Beta gamma delta.", " Beta gamma delta.\n", "Epsilon.", "\u200b", None]
    form = measure(rows(*({"output": text, "sample": index} for index, text in enumerate(texts)))).form
    assert form is not None
    assert (form.words, form.distinct, form.commonest, form.empty) == (7 / 5, 4 / 5, 2 / 5, 2 / 5)
    row = evaluate("student", "dev", measure(rows({"source_id": "a"}, {"source_id": "b"})))
    assert row.form is not None and row.form.commonest == 1.0 and row.form.distinct == 0.5
