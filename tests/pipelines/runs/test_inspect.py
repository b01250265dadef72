"""Joined candidates against a join in plain Python, and their printed form."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from helpers.run_folder import make_run
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts, write_json, write_part, write_table
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


def printed(table: pa.Table) -> str:
    """What `show` prints, on long lines."""
    console = Console(width=2000, record=True, file=io.StringIO())
    show(table, console)
    return console.export_text()


def lines(table: pa.Table) -> list[str]:
    """The lines of `printed`, without frames."""
    return [line.strip("│ ") for line in printed(table).splitlines()]


def change(run: Path, where: str, **columns: Any) -> None:
    """Replace columns of every part in a folder of round 0: each value may be a function of the row's number."""
    for part in sorted((run / "rounds" / "000" / where).glob("*.parquet")):
        table = pq.read_table(part)
        for name, value in columns.items():
            values = [value(number) if callable(value) else value for number in range(table.num_rows)]
            kind = table.schema.field(name).type
            table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
        pq.write_table(table, part)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("of_set", [True, False])
def test_nan_is_sorted_last_in_a_column_without_nulls(tmp_path: Path, descending: bool, of_set: bool) -> None:
    """Statistics of Parquet files leave NaN out, so a reader may take such a column for one of numbers."""
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    if of_set:
        ids = candidates(run, limit=None)["candidate_id"]
        scores = pa.array([math.nan if row % 7 == 3 else row / 10 for row in range(240)], pa.float64())
        write_table(run / "rounds/000/choices/novelty.parquet", pa.table({"candidate_id": ids, "rouge_l": scores}))
    else:
        change(run, "scores/pmi", faithfulness=lambda row: math.nan if row % 7 == 3 else row / 10)
    column = "rouge_l" if of_set else "faithfulness"
    found = candidates(run, sort=column, descending=descending, limit=None)[column].to_pylist()
    missing = sum(math.isnan(value) for value in found)
    assert missing > 30 and all(map(math.isnan, found[-missing:]))
    assert found[:-missing] == sorted(found[:-missing], reverse=descending)


def test_whatever_can_reject_is_known_if_it_rejected_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    decisions: dict[str, Any] = {"bounds": {"length": [], "quiet": []}, "select": {"novelty": {}, "best": {}}, "target": 9}
    write_json(run / "lock.json", {"stages": {"decisions": decisions}}, replace=True)
    for name in ("quiet", "novelty", "best", "target", "generator", "undecided"):
        assert candidates(run, rejected_by=name).num_rows == 0, name
    assert "0 candidates" in printed(candidates(run, rejected_by="novelty"))
    with pytest.raises(LimbeckError, match="did you mean 'novelty'"):
        candidates(run, rejected_by="novelti")
    decisions["target"] = None
    write_json(run / "lock.json", {"stages": {"decisions": decisions}}, replace=True)
    with pytest.raises(LimbeckError, match="no filter 'target'"):
        candidates(run, rejected_by="target")


def test_evidence_of_set_filters_is_shown_sorted_and_in_the_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    kept = candidates(run, kept=True, limit=None)
    rows = kept["candidate_id"].to_pylist()
    evidence: dict[str, Any] = {
        "candidate_id": rows[::-1],
        "pmi": [float(row) for row in range(len(rows))],  # a name that a filter has, too
        "nearest_id": [f"near{row}" for row in range(len(rows))],
        "neighbour_rouge_l": [[0.123456] for _ in rows],
    }
    write_table(run / "rounds/000/choices/novelty.parquet", pa.table(evidence))
    table = candidates(run, sort="novelty.pmi", limit=None)
    first = table.to_pylist()[0]
    assert (first["candidate_id"], first["nearest_id"]) == (rows[0], f"near{len(rows) - 1}")
    assert table["novelty.pmi"].to_pylist()[: len(rows)] == sorted(evidence["pmi"], reverse=True)
    assert table["nearest_id"].null_count == 240 - len(rows) and score_columns(kept) == score_columns(table)[:-3]
    assert candidates(run, sort="nearest_id", descending=False)["nearest_id"].to_pylist()[:2] == ["near0", "near1"]
    shown = printed(candidates(run, kept=True, limit=1))
    assert f"nearest_id near{len(rows) - 1}  neighbour_rouge_l [0.123]" in shown
    assert "nearest_id" not in printed(candidates(run, kept=False, limit=5)), (
        "nothing is recorded of rows that were rejected before"
    )


def test_prompts_are_shown_if_they_are_the_candidates_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    one: dict[str, Any] = {"source": "train0000", "limit": 1}
    assert not any(line.startswith(("prompt", "input")) for line in lines(candidates(run, **one)))
    change(run, "candidates", prompt=lambda row: f"Question {row}?\nPlease.", input=lambda row: f"input {row}" if row else "")
    shown = lines(candidates(run, source="train0000"))
    assert "prompt    Question 1? Please." in shown and "input     input 1" in shown
    assert candidates(run, **one).to_pylist()[0]["input"] == ""
    change(run, "candidates", prompt="Ask something.", input=None)
    assert not any(line.startswith(("prompt", "input")) for line in lines(candidates(run, source="train0000")))


def test_a_prompt_that_varies_around_its_document_is_shown_without_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    documents = [row["document"] for row in candidates(run, limit=None).to_pylist()]
    (part, *_) = sorted((run / "rounds/000/candidates").glob("*.parquet"))
    rows = pq.read_table(part).num_rows
    prompts = [f"As person {row // 4}, sum up: {document}" for row, document in enumerate(documents[:rows])]
    table = pq.read_table(part)
    pq.write_table(table.set_column(table.column_names.index("prompt"), "prompt", pa.array(prompts)), part)
    assert "prompt    As person 2, sum up: [document]" in lines(candidates(run, source="train0002", limit=1))


def test_empty_documents_and_inputs_that_are_documents_have_no_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    document = candidates(run, source="train0000")["document"][0].as_py()
    change(run, "candidates", prompt=lambda row: f"Question {row}?", input=document)
    assert not any(line.startswith("input") for line in lines(candidates(run, source="train0000")))
    change(run, "sources/train", document="", reference=None)
    assert not any(line.startswith(("document", "reference")) for line in lines(candidates(run, limit=3)))


def test_a_candidate_shows_its_own_reference_else_its_source_s(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    source = candidates(run, limit=1)["reference"][0].as_py()
    assert f"reference {source}" in lines(candidates(run, limit=1))
    change(run, "candidates", reference=lambda row: None if row else "42")
    table = candidates(run, source="train0000")
    assert table["reference"].to_pylist() == ["42", source, source, source] and "reference 42" in lines(table)
    assert "42" in candidates(run, sort="reference", descending=False, limit=3)["reference"].to_pylist()


@pytest.mark.parametrize("old", [False, True])
def test_a_refused_text_is_shown_and_what_is_not_there_has_no_scores(tmp_path: Path, old: bool) -> None:
    """`old`: parts of a version that did not write the column."""
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    facts = json.dumps({"rule": "few_words", "rejected_text": "Do\n[it]."})
    change(
        run, "candidates", facts=lambda row: None if row else facts, output=lambda row: "text" if row > 1 else "",
        finish_reason=lambda row: "stop" if row > 1 else "error", error=lambda row: None if row > 1 else "too few words",
    )  # fmt: skip
    rows = {"kept": lambda row: row > 1, "rejected_by": lambda row: None if row > 1 else "generator"}
    change(run, ".", **rows, reason=lambda row: None if row > 1 else "too few words")
    if old:
        for part in (run / "rounds/000/candidates").glob("*.parquet"):
            pq.write_table(pq.read_table(part).drop_columns(["facts", "input", "reference"]), part)
    table = candidates(run, rejected_by="generator")
    refused, failed = table.to_pylist()[:2]
    assert (refused["rejected_text"], failed["rejected_text"]) == (None if old else "Do\n[it].", None)
    shown = lines(table)
    assert ("refused   Do [it]." in shown) != old and ("output    (no output)" in shown)
    assert "rejected by generator: too few words" in shown and not any(line.startswith("scores") for line in shown)
    assert all(refused[name] is None for name in score_columns(table))
    for name in ("faithfulness", "copied", "cut_off"):
        found = candidates(run, sort=name, descending=False, limit=None)
        assert set(found["finish_reason"].to_pylist()[-2:]) == {"error"} and found[name].null_count >= 2
    assert old or candidates(run, sort="rejected_text", limit=1)["rejected_text"].to_pylist() == ["Do\n[it]."]


def selected(run: Path, name: str, **more: Any) -> Path:
    """A selection of round 0 by the filter `answer`, which the run does not have, with a choice of its own."""
    home = run / "rounds/000/selections"
    ids = candidates(run, limit=None)["candidate_id"]
    scores = pa.table({"candidate_id": ids, "correct": [float(row % 2) for row in range(240)], "answer": ["42"] * 240})
    if not (home / ".scores").exists():
        for part, start in (("part-00000", 0), ("part-00001", 100), ("part-00002", 200)):
            write_part(home / ".scores/answer-0123", part, scores.slice(start, 100))
    decisions = pq.read_table(run / "rounds/000/decisions.parquet")
    write_table(home / name / "decisions.parquet", decisions)
    write_table(home / name / "choices/vote.parquet", pa.table({"candidate_id": ids, "agreement": [0.5] * 240}))
    filters = [{"kind": "answer", "name": "answer"}, {"kind": "length", "name": "length"}]
    write_json(home / name / "selection.json", {"filters": filters, "select": [{"name": "vote"}], **more})
    (home / name / "dataset").mkdir()
    return home / name


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "is missing"),
        ("{", "is not valid JSON"),
        ("[]", "does not have the format of this version"),
        ('{"filters": [{}], "select": []}', r"does not have the format of this version \(filters.0.name: Field required\)"),
        ('{"filters": [], "select": [], "scores": {"answer": 3}}', r"\(scores.answer: Input should be a valid string\)"),
    ],
)
def test_a_damaged_record_of_a_selection_is_one_sentence(content: str | None, fault: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    file = selected(run, "hard") / "selection.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(LimbeckError, match=f"{file} .*{fault}.*; remove the folder .* `limbeck filter --apply hard`$"):
        candidates(run, selection="hard")


def test_a_selection_shows_the_scores_that_it_was_made_with(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rounds=1, finished=False)
    scores = {"answer": "selections/.scores/answer-0123", "length": "scores/length"}
    selected(run, "hard", scores=scores)
    table = candidates(run, selection="hard", sort="correct", limit=None)
    assert score_columns(table) == ["correct", "answer", "compression", "length.output_tokens", "agreement"]
    assert table["correct"].to_pylist() == [1.0] * 120 + [0.0] * 120
    (shown,) = [line for line in lines(candidates(run, selection="hard", limit=1)) if line.startswith("scores")]
    assert "correct 0  answer 42" in shown and "agreement 0.5" in shown and "faithfulness" not in shown
    for name in ("answer", "vote", "generator"):
        candidates(run, selection="hard", rejected_by=name)
    with pytest.raises(LimbeckError, match="no column 'correct'"):
        candidates(run, sort="correct")
    selected(run, "old")  # of a version that did not record the scores
    assert score_columns(candidates(run, selection="old")) == ["compression", "length.output_tokens", "agreement"]
