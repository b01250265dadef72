"""Scoring jobs: parts with nothing to score, and filters that break their contract."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.run_folder import candidates, sources
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_part, write_part
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.filters.contract import Bound
from limbeck.filters.own import own_filter
from limbeck.filters.text.length import LengthConfig
from limbeck.pipelines.driver.jobs import Cheaper, ScoreJob, with_sources

PART = "part-00000"


class Words:
    name = "words"
    bounds = (Bound("words", minimum=1),)

    def __init__(self, rows: int | None = None, column: str = "words") -> None:
        self.rows, self.column = rows, column

    def score(self, table: pa.Table) -> pa.Table:
        assert table.num_rows, "a filter is never called without rows"
        counts = [float(len(text.split())) for text in table["output"].to_pylist()]
        return pa.table({self.column: counts[: self.rows]})


def job(folder: Path, filter_: Any, rows: int = 8, cheaper: tuple[Cheaper, ...] = ()) -> ScoreJob:
    documents = sources("train", 8)
    write_part(folder / "sources", PART, documents, SOURCES)
    write_part(folder / "candidates", PART, candidates(documents, 1, 0).slice(0, rows), CANDIDATES)
    return ScoreJob("stage", folder / "sources", folder / "candidates", folder / "out", own_filter(filter_), cheaper)


@pytest.mark.parametrize("filter_", [Words(), LengthConfig(kind="length")], ids=["own", "length"])
@pytest.mark.parametrize("rejected_by", [None, "cheap"])
def test_a_part_with_nothing_to_score_has_null_scores(tmp_path: Path, filter_: Any, rejected_by: str | None) -> None:
    rows, cheaper = 0, ()
    if rejected_by:
        rows = 8
        write_part(tmp_path / "cheap", PART, pa.table({"x": [0.0] * rows}))
        cheaper = (Cheaper(rejected_by, tmp_path / "cheap", (Bound("x", minimum=1),)),)
    scoring = job(tmp_path, filter_, rows, cheaper)
    found = scoring.compute(PART, 0, rows, None)  # type: ignore[arg-type]
    scoring.publish(PART, found)
    stored = read_part(tmp_path / "out", PART)
    assert stored["skipped_by"].to_pylist() == [rejected_by] * rows and stored["error"].to_pylist() == [None] * rows
    for bound in scoring.filter.bounds:
        assert stored[bound.column].to_pylist() == [None] * rows and stored.schema.field(bound.column).type == pa.float64()


@pytest.mark.parametrize(
    ("filter_", "words"),
    [
        (Words(rows=1), "filter 'words' returned 1 rows for 8 candidates"),
        (Words(column="other"), "filter 'words' returned no column 'words'"),
    ],
)
def test_a_filter_that_breaks_its_contract_stops_the_run_and_is_not_bisected(tmp_path: Path, filter_: Words, words: str) -> None:
    with pytest.raises(LimbeckError, match=words):
        job(tmp_path, filter_).compute(PART, 0, 8, None)  # type: ignore[arg-type]


class NoBounds:
    name = "bare"


class Escapes(Words):
    name = "../x"


class Numbers(Words):
    bounds = (3,)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("filter_", "words"),
    [
        (NoBounds(), "has no attribute 'bounds'"),
        (object(), "has no attribute 'name'"),
        (Escapes(), "'../x' is not usable as a folder"),
        (Numbers(), "holds 3, which is not a Bound"),
    ],
    ids=["no bounds", "nothing", "escapes", "no Bound"],
)
def test_what_is_no_filter_is_refused(filter_: Any, words: str) -> None:
    with pytest.raises(LimbeckError, match=words):
        own_filter(filter_)


def test_a_written_document_has_salient_words_of_its_own_and_another_input_of_a_document_has_none() -> None:
    written = "The ferry left the harbour. A second ferry came to the harbour at night."
    rows = sources("train", 3).to_pylist()
    rows[0] |= {"document": "", "salient": []}
    documents = pa.Table.from_pylist(rows, schema=SOURCES)
    drafts = candidates(documents, 1, 0).to_pylist()
    for draft, text in zip(drafts, (written, written, rows[2]["document"]), strict=True):
        draft["input"] = text
    invented, other, same = with_sources(pa.Table.from_pylist(drafts, schema=CANDIDATES), documents).to_pylist()
    spans = invented["salient"]
    words = [written[start:end] for start, end in zip(spans[::2], spans[1::2], strict=True)]
    assert words == ["ferry", "harbour", "ferry", "harbour"], "a quarter of the words: the most frequent ones"
    assert invented["document"] == other["document"] == written
    assert other["salient"] == [] and same["salient"] == rows[2]["salient"]
