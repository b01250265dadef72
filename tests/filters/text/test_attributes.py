"""Control attributes against naive definitions, rouge_score and Grusky's fragments; the control codes' exact strings."""

import math

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from rouge_score import rouge_scorer

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.salience import document_frequencies, salient_spans
from limbeck.corpus.text.control_codes import (
    Attributes,
    attribute_code,
    attribute_prompt,
    compression_bucket,
    parsed_attributes,
    referee_prompt,
    referee_summary,
    referee_text,
)
from limbeck.corpus.text.words import words_with_apostrophes
from limbeck.filters.contract import Filter
from limbeck.filters.text.attributes import COLUMNS, AttributesConfig, extractiveness, keywords, quantile_edges, specificity
from limbeck.filters.text.fragments import Runs, fragments

DOCUMENT = "Quern reads METAR reports. It was written by Ada Lovelace in Bath in 2021, and it needs no library."


def scored(outputs: list[str | None], document: str | None = DOCUMENT, salient: list[int] | None = None, **config: object):
    rows = len(outputs)
    candidates = pa.table(
        {
            "candidate_id": [str(at) for at in range(rows)],
            "document": pa.array([document] * rows, pa.string()),
            "output": pa.array(outputs, pa.string()),
            "salient": pa.array([salient] * rows, pa.list_(pa.int32())),
        }
    )
    return AttributesConfig(**config).build(engines=None).score(candidates).to_pylist()


words = st.lists(st.sampled_from("abcd"), max_size=14)


def runs_by_trying(output: list[str], text: list[str]) -> list[int]:
    pieces = {tuple(text[i:j]) for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    return [
        max((j - at for j in range(at + 1, len(output) + 1) if tuple(output[at:j]) in pieces), default=0)
        for at in range(len(output))
    ]


@settings(deadline=None, max_examples=300)
@given(words, words)
def test_matches_equal_trying_every_run(output: list[str], text: list[str]) -> None:
    assert Runs(text).matches(output) == runs_by_trying(output, text)


def test_matches_take_linear_time_on_the_worst_text() -> None:
    text = ["a"] * 30_000
    assert Runs(text).matches(text)[0] == 30_000
    assert Runs(text).matches(["b", *text[:100]])[:2] == [0, 100]


@settings(deadline=None)
@given(words, words)
def test_coverage_and_density_are_those_of_the_greedy_fragments(output: list[str], text: list[str]) -> None:
    found = []
    at = 0
    while at < len(output):  # Grusky et al. (2018), figure 3, with the longest match
        longest = runs_by_trying(output[at:], text)[0]
        found += [longest] if longest else []
        at += max(1, longest)
    assert fragments(Runs(text).matches(output)) == found
    scores = extractiveness(" ".join(output), " ".join(text))
    number = max(1, len(output))
    assert scores["coverage"] == pytest.approx(sum(found) / number)
    assert scores["density"] == pytest.approx(sum(length**2 for length in found) / number)
    assert scores["longest_fragment"] == pytest.approx(max(found, default=0) / number)
    grams = list(zip(output, output[1:], output[2:], strict=False))
    copied = sum(gram in set(zip(text, text[1:], text[2:], strict=False)) for gram in grams)
    assert scores["copied_3_grams"] == pytest.approx(copied / len(grams) if grams else 0.0)


@settings(deadline=None)
@given(words, words)
def test_rouge2_precision_equals_rouge_score(output: list[str], text: list[str]) -> None:
    scorer = rouge_scorer.RougeScorer(["rouge2"], use_stemmer=False)
    wanted = scorer.score(" ".join(text), " ".join(output))["rouge2"].precision
    assert extractiveness(" ".join(output), " ".join(text))["rouge2_precision"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "found", "number"),
    [
        ("", 0, 1),
        ("the library reads reports.", 0, 4),
        ("The library reads reports.", 0, 4),  # a sentence's first word is a capital anyway
        ("In Bath it rained.", 1, 4),
        ("Ada Lovelace wrote it.", 1, 4),  # one entity, of two words
        ("It was written by Ada Lovelace and Mary Shelley.", 2, 9),
        ("METAR reports are read.", 1, 4),
        ("It needs Python 3.11 and 25% of 1,000 files.", 4, 9),
        ("On macOS I think it works. I do.", 1, 8),
        ("One ends here. The next begins.", 0, 6),
    ],
)
def test_specificity_counts_entities_and_numbers(text: str, found: int, number: int) -> None:
    assert specificity(text) == pytest.approx(found / number)


def test_keywords_are_the_salient_words_that_the_output_holds() -> None:
    frequencies, number = document_frequencies([DOCUMENT, "It reads a library."])
    document = DOCUMENT + " METAR is METAR."
    spans = salient_spans(document, frequencies, number, 0.5)
    assert keywords(document, spans, 2) == ["metar", "quern"]
    (row,) = scored(["A METAR reader."], document, spans, keywords=2)
    assert row["keywords"] == ["metar"] and row["keyword_recall"] == 0.5


def test_a_row_of_every_column() -> None:
    row, copy, empty = scored(["Ada Lovelace wrote Quern in 2021.", DOCUMENT, ""], salient=[0, 5])
    assert set(row) == {"candidate_id", *COLUMNS, "keywords"}
    assert row["compression"] == pytest.approx(33 / len(DOCUMENT))
    assert row["compression_bucket"] == 3.0 and row["length_bucket"] == 2.0
    assert row["specificity"] == pytest.approx(3 / 6) and row["specificity_bucket"] == 2.0
    assert row["coverage"] == pytest.approx(5 / 6) and row["density"] == pytest.approx((4 + 1 + 4) / 6)
    assert copy["coverage"] == copy["rouge2_precision"] == copy["copied_3_grams"] == copy["longest_fragment"] == 1.0
    assert math.isnan(copy["compression_bucket"]) and copy["extractiveness_bucket"] == 2.0
    assert {name: empty[name] for name in COLUMNS} == dict.fromkeys(COLUMNS, 0.0)


def test_null_and_hostile_rows_are_scored() -> None:
    hostile = [None, "x " * 50_000, "x" * 100_000, "\u202eمرحبا بالعالم", "\0", "I " * 50_000]
    for document in (None, "", "x " * 50_000, DOCUMENT):
        rows = scored(hostile, document)
        assert len(rows) == len(hostile)
        assert all(math.isfinite(row["coverage"]) and math.isfinite(row["specificity"]) for row in rows)
    assert math.isnan(scored(["a"], "")[0]["compression"])
    assert scored([]) == []


def test_limits_reasons_and_edges() -> None:
    config = AttributesConfig(max_density=3.0)
    assert [(bound.column, bound.maximum) for bound in config.bounds] == [("density", 3.0)]
    assert set(config.reasons) == set(config.limit_fields())
    assert {key.split("_", 1)[1] for key in config.limit_fields()} <= set(COLUMNS)
    assert isinstance(config.build(engines=None), Filter)
    with pytest.raises(ValueError, match="length_edges"):
        AttributesConfig(length_edges=[0.5, 0.1])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=3))
def test_quantile_edges_are_the_terciles_of_what_is_a_number(scores: list[float]) -> None:
    finite = [score for score in scores if not math.isnan(score)]
    first, second = quantile_edges(scores)
    if finite:
        assert (first, second) == (float(np.quantile(finite, 1 / 3)), float(np.quantile(finite, 2 / 3)))
    else:
        assert math.isnan(first) and math.isnan(second)


# --- control codes ---


def test_referees_strings_are_those_of_its_code() -> None:
    tens = "3 3 3 3 3 3 3 3 3 3"
    assert referee_prompt("A long sentence.") == "A long sentence.  TL;DR: "
    assert referee_text("A long sentence.", "Short.") == "A long sentence.  TL;DR:  Short.Δ"
    assert referee_text("A.", "S.", next_sentence="B.") == "A. Ξ B.  TL;DR:  S. Δ"
    assert referee_prompt("A.", bucket=3) == f"A. Ξ {tens}  TL;DR: "
    assert referee_text("A.", "S.", bucket=3) == f"A. Ξ {tens}  TL;DR:  S. Δ"


def test_what_a_model_wrote_ends_at_the_mark() -> None:
    assert referee_summary(" Short. Δ and more") == "Short."
    assert referee_summary(" Short. and more") is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: referee_prompt("A.", next_sentence="B.", bucket=1),
        lambda: referee_prompt("A.", bucket=10),
        lambda: referee_prompt("A Ξ."),
        lambda: referee_prompt("A.", next_sentence="B TL;DR: C"),
        lambda: referee_text("A.", "SΔ"),
        lambda: attribute_code(Attributes(length=3)),
        lambda: parsed_attributes("Length: huge"),
        lambda: parsed_attributes("Tone: low"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(call) -> None:
    with pytest.raises(LimbeckError):
        call()


@settings(deadline=None)
@given(st.floats(0, 3))
def test_a_ratio_lies_in_its_bucket(ratio: float) -> None:
    bucket = compression_bucket(ratio)
    assert (bucket is None) == (ratio >= 1)
    assert bucket is None or bucket / 10 <= ratio < (bucket + 1) / 10


def test_the_borders_of_buckets_belong_to_the_upper_one() -> None:
    assert [compression_bucket(i / 10) for i in range(11)] == [*range(10), None]


def test_codes_in_words() -> None:
    attributes = Attributes(length=0, extractiveness=1, specificity=2, keywords=("quern", "metar"))
    code = "Length: short | Extractiveness: medium | Specificity: high | Keywords: quern, metar"
    assert attribute_code(attributes) == code
    assert attribute_prompt("Text.\n", attributes) == f"Text.\n{code}\nTL;DR:"
    assert attribute_prompt("Text.", Attributes()) == "Text.\nTL;DR:"


levels = st.none() | st.integers(0, 2)


@settings(deadline=None)
@given(levels, levels, levels, st.lists(st.text("abcxyz", min_size=1, max_size=5), max_size=3))
def test_codes_are_read_back(length: int | None, extractiveness: int | None, specificity: int | None, held: list[str]) -> None:
    attributes = Attributes(length, extractiveness, specificity, tuple(held))
    assert parsed_attributes(attribute_code(attributes)) == attributes


def test_words_keep_their_apostrophes() -> None:
    assert words_with_apostrophes("It can’t, CAN'T; don't-do") == ["it", "can’t", "can't", "don't", "do"]
