"""Joined candidates against a join in plain Python, and their printed form."""

import io
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from helpers.run_folder import make_run
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts
from limbeck.pipelines.runs.inspect import candidates, matching, score_columns, show


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with markup in one output."""
    return make_run(tmp_path_factory.mktemp("it's a run") / "made-up", output="[bold]not markup[/bold] [/red]")


def plain_join(run: Path, number: int) -> list[dict[str, Any]]:
    """Every candidate of a round with its faithfulness and decision, in order."""
    home = run / "rounds" / f"{number:03d}"
    scores = {row["candidate_id"]: row for row in read_parts(home / "scores" / "pmi").to_pylist()}
    texts = {row["candidate_id"]: row["output"] for row in read_parts(home / "candidates").to_pylist()}
    joined = [
        row | {"faithfulness": scores[row["candidate_id"]]["faithfulness"], "output": texts[row["candidate_id"]]}
        for row in pq.read_table(home / "decisions.parquet").to_pylist()
    ]
    return sorted(joined, key=lambda row: (row["source_id"], row["sample"]))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("asked", [{}, {"kept": True}, {"kept": False}, {"rejected_by": "pmi"}, {"source": "train0003"}])
def test_candidates_are_those_of_a_join_in_plain_python(run: Path, number: int, asked: dict[str, Any]) -> None:
    found = candidates(run, number, limit=None, **asked).to_pylist()
    expected = [
        row
        for row in plain_join(run, number)
        if all(row[key] == value for key, value in asked.items() if key != "source")
        and row["source_id"].startswith(asked.get("source", ""))
    ]
    keys = ("candidate_id", "source_id", "sample", "kept", "rejected_by", "reason", "faithfulness", "output")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in expected]
    assert expected


def test_the_last_round_is_the_default_and_the_limit_holds(run: Path) -> None:
    assert candidates(run)["candidate_id"].to_pylist() == candidates(run, 1, limit=20)["candidate_id"].to_pylist()
    assert candidates(run, 0, limit=3).num_rows == 3


@pytest.mark.parametrize("descending", [True, False])
def test_sorting_puts_what_has_no_value_last(tmp_path: Path, descending: bool) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    part = run / "rounds" / "000" / "scores" / "pmi" / "part-00000.parquet"
    scores = pq.read_table(part)
    values = [math.nan, None, *scores["faithfulness"].to_pylist()[2:]]
    column = scores.column_names.index("faithfulness")
    pq.write_table(scores.set_column(column, "faithfulness", pa.array(values, pa.float64())), part)
    found = candidates(run, 0, sort="faithfulness", descending=descending, limit=None)["faithfulness"].to_pylist()
    assert found[:-2] == sorted(found[:-2], reverse=descending) and len(found) == 240
    assert all(value is None or math.isnan(value) for value in found[-2:])


def test_every_score_has_a_name_of_its_own(run: Path) -> None:
    table = candidates(run, 0, limit=1)
    expected = ["copied", "cut_off", "compression", "length.output_tokens", "faithfulness", "saliency", "pmi"]
    assert score_columns(table) == expected
    assert candidates(run, 0, sort="length.output_tokens").num_rows == 20


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"rejected_by": "pmy"}, "did you mean 'pmi'"),
        ({"rejected_by": "zzz"}, "known are generator, heuristics, length, pmi"),
        ({"sort": "salency"}, "did you mean 'saliency'"),
        ({"source": "nowhere"}, "no candidate of source 'nowhere'"),
        ({"round": 9}, "the last round with decisions is 1"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_one_that_is(run: Path, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(LimbeckError, match=words):
        candidates(run, **asked)


def test_a_run_without_decisions_says_so(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{}")
    with pytest.raises(LimbeckError, match="no decisions yet"):
        candidates(tmp_path)


def test_the_last_line_says_how_many_there_are(run: Path) -> None:
    for asked, words in [
        ({"limit": 3}, "3 of 240 candidates"),
        ({"limit": 3, "rejected_by": "heuristics"}, "3 of "),
        ({"limit": None}, "240 candidates"),
        ({"limit": 20, "source": "train0003"}, "4 candidates"),
    ]:
        table = candidates(run, 0, **asked)
        console = Console(width=200, record=True, file=io.StringIO())
        show(table, console)
        last = console.export_text().rstrip().splitlines()[-1]
        assert last.startswith(words) and matching(table) == candidates(run, 0, **{**asked, "limit": None}).num_rows
        assert (" of " in last) == (table.num_rows < matching(table))


def test_output_and_document_are_told_apart(run: Path) -> None:
    """By labels, and on a terminal by colours."""
    table = candidates(run, 0, limit=1)
    console = Console(width=300, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    show(table, console)
    lines = [line.strip("│ ") for line in console.export_text(clear=False).splitlines()]
    (row,) = table.to_pylist()
    assert f"output    {row['output']}" in lines and any(line.startswith("scores    ") for line in lines)
    assert any(line.startswith(f"document  {row['document'][:60]}") for line in lines)
    styled = console.export_text(styles=True)
    assert "\x1b[1;36moutput" in styled and "\x1b[1;35mdocument" in styled


def test_no_score_is_a_negative_zero(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    part = run / "rounds" / "000" / "scores" / "pmi" / "part-00000.parquet"
    scores = pq.read_table(part)
    column = scores.column_names.index("faithfulness")
    pq.write_table(scores.set_column(column, "faithfulness", pa.array([-0.0] * scores.num_rows)), part)
    console = Console(width=200, record=True, file=io.StringIO())
    show(candidates(run, 0, limit=2), console)
    assert "faithfulness 0" in (printed := console.export_text()) and "-0 " not in printed


def test_text_of_models_is_printed_as_it_is(run: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    table = candidates(run, 0, source="train0000")
    show(table, console)
    printed = console.export_text()
    assert "[bold]not markup[/bold] [/red]" in printed and "4 candidates" in printed
    for row in table.to_pylist():
        assert f"sample {row['sample']}" in printed and f"faithfulness {row['faithfulness']:.3g}" in printed
        assert row["kept"] or f"rejected by {row['rejected_by']}: {row['reason']}" in printed
