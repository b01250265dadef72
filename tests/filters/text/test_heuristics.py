"""Heuristics: each check on texts that a person would judge the same, and two oracles for the shares."""

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from helpers.labelled import HALVES, measure_phrases, read_phrases, table_rows
from helpers.paths import ROOT
from limbeck.filters.text.assistant_phrases import has_preamble, is_refusal
from limbeck.filters.text.fragments import Runs
from limbeck.filters.text.heuristics import REASONS, HeuristicsConfig, copied_share, repeated_share
from limbeck.pipelines.runs.scored import connect
from limbeck.pipelines.runs.select import decide

DOCUMENT = (
    "Quern is a small library for reading weather station files. It parses METAR and SYNOP reports, checks their units, and "
    "returns plain tables. Install it with pip. There are no dependencies beyond the standard library."
)
PROMPT = f"{DOCUMENT}\n\nSummarize the text above in one complete sentence."


def score(output: str, finish_reason: str = "stop") -> dict[str, float]:
    candidates = pa.table(
        {"candidate_id": ["a"], "prompt": [PROMPT], "document": [DOCUMENT], "output": [output], "finish_reason": [finish_reason]}
    )
    return {name: column[0] for name, column in HeuristicsConfig().build(engines=None).score(candidates).to_pydict().items()}


def rejected(output: str, finish_reason: str = "stop") -> str | None:
    """Which check rejects, in the words of the decision's reason."""
    candidates = pa.table(
        {
            "candidate_id": ["a"],
            "source_id": ["s"],
            "sample": pa.array([0], pa.int32()),
            "prompt": [PROMPT],
            "document": [DOCUMENT],
            "output": [output],
            "finish_reason": [finish_reason],
            "error": pa.array([None], pa.string()),
        }
    )
    filter_ = HeuristicsConfig().build(engines=None)
    reason = decide(connect(candidates, {"heuristics": filter_.score(candidates)}), [("heuristics", filter_.bounds)])["reason"][
        0
    ].as_py()
    return None if reason is None else str(reason).split()[0]


GOOD = [
    "Quern reads METAR and SYNOP weather reports into plain tables.",
    "A dependency-free Python library that parses weather station files and checks their units.",
    'Quern, a "small library", turns weather reports into tables (with checked units).',
    "It reports errors it can't parse in weather files.",
    "I cannot recommend this book enough.",
    "Sure enough, the parser checks every unit.",
    "A large language model reads weather reports.",
]


@pytest.mark.parametrize("output", GOOD)
def test_a_summary_passes(output: str) -> None:
    assert rejected(output) is None


@pytest.mark.parametrize(
    ("output", "finish_reason", "check"),
    [
        ("", "stop", "empty"),
        ("  \n", "stop", "empty"),
        ("Quern reads weather reports and", "length", "cut_off"),
        ("Quern reads weather reports.", "length", "cut_off"),
        ("Here is a summary:", "stop", "cut_off"),
        ("I'm sorry, but there is nothing here to tell.", "stop", "refusal"),
        ("Of course. As an AI language model, I have no opinion on weather.", "stop", "refusal"),
        ("I cannot read the text.", "stop", "refusal"),
        ("Sure! Here is the summary: it reads weather files.", "stop", "preamble"),
        ("\u200bSure! It reads weather files.", "stop", "preamble"),
        *((invisible * 3, "stop", "empty") for invisible in "\u200b\u2060\ufeff\u00ad\u202e\u3164\u2800\U000e0020\0"),
        ("Summarize the text above in one complete sentence.", "stop", "echo_of_prompt"),
        ("Quern reads and checks files. Quern reads and checks files. Quern reads and checks files.", "stop", "repeated"),
        ("Quern is a small library for reading weather station files.", "stop", "copied"),
        ("quern is a small library, for reading WEATHER station files.", "stop", "copied"),
        (DOCUMENT, "stop", "copied"),
    ],
)
def test_what_is_no_summary_is_rejected_for_the_right_reason(output: str, finish_reason: str, check: str) -> None:
    assert rejected(output, finish_reason) == check


def test_every_column_is_scored_and_bound() -> None:
    assert set(score("A summary.")) == {"candidate_id", *REASONS}
    assert [bound.column for bound in HeuristicsConfig().bounds] == list(REASONS)
    assert HeuristicsConfig(max_copied=None).bounds == HeuristicsConfig().bounds[:-1]


words = st.lists(st.sampled_from("abcd"), max_size=12)


@settings(deadline=None)
@given(words, words)
def test_copied_share_equals_trying_every_run(output: list[str], text: list[str]) -> None:
    runs = {tuple(text[i:j]) for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    longest = max(
        (j - i for i in range(len(output)) for j in range(i + 1, len(output) + 1) if tuple(output[i:j]) in runs), default=0
    )
    assert copied_share(output, Runs(text)) == (longest / len(output) if output else 0.0)


@settings(deadline=None)
@given(words)
def test_repeated_share_counts_what_was_there_before(output: list[str]) -> None:
    grams = list(zip(output, output[1:], output[2:], strict=False))
    repeats = sum(gram in grams[:place] for place, gram in enumerate(grams))
    assert repeated_share(output) == pytest.approx(repeats / len(grams) if grams else 0.0)


def test_null_and_hostile_rows_are_scored() -> None:
    """In time that grows with the text, where every word is the same too."""
    hostile = [None, "", "a " * 50_000, "x" * 100_000, "\u202eمرحبا بالعالم.", ". " * 50_000, "." + '"' * 50_000, "\0"]
    for other in (None, "", "a " * 50_000, PROMPT):
        columns = {name: pa.array([other] * len(hostile), pa.string()) for name in ("prompt", "document")}
        outputs = {"output": pa.array(hostile, pa.string()), "finish_reason": ["stop"] * len(hostile)}
        candidates = pa.table({"candidate_id": [str(at) for at in range(len(hostile))], **columns, **outputs})
        rows = HeuristicsConfig().build(engines=None).score(candidates).to_pylist()
        assert [row["empty"] for row in rows] == [1.0, 1.0, *[0.0] * 5, 1.0]
        assert all(0 <= row[name] <= 1 for row in rows for name in REASONS)
        assert rows[2]["copied"] == pytest.approx(float(other == "a " * 50_000), abs=1e-3)


def test_without_a_document_the_whole_prompt_is_what_can_be_echoed() -> None:
    words = "Summarize the text above in one complete sentence."
    candidates = pa.table(
        {"candidate_id": ["a"], "prompt": [words], "document": [""], "output": [words], "finish_reason": ["stop"]}
    )
    assert HeuristicsConfig().build(engines=None).score(candidates)["echo_of_prompt"].to_pylist() == [1.0]


def test_the_development_half_is_as_good_as_the_page_says() -> None:
    """And the set is as large and as balanced as it says; the held-out half is measured but not asserted."""
    phrases = read_phrases()
    assert len(phrases) >= 200 and sum(not (one.refusal or one.preamble) for one in phrases) >= 0.4 * len(phrases)
    measured = measure_phrases()
    rows = table_rows((ROOT / "docs/filters/heuristics.md").read_text(encoding="utf-8"), measured.names)
    assert set(rows) == set(measured.names)
    for name, cells in rows.items():
        counts = measured.counts[HALVES[0], name]
        assert counts.precision >= float(cells[1]) - 0.005, f"{name}: {counts.false_positives}"
        assert counts.recall >= float(cells[2]) - 0.005, f"{name}: {counts.misses}"


@pytest.mark.parametrize(
    "piece", ["\n", " ", "* ", '"', "i can't see ", "sorry, ", "here is a ", "here is the ", "as an ai ", "a-a "]
)
def test_phrases_are_searched_in_linear_time(piece: str) -> None:
    """A search that is worse than linear does not end within the suite's timeout."""
    text = (piece * 200_000)[:200_000]
    assert not has_preamble(text)
    assert is_refusal(text) in (True, False)
