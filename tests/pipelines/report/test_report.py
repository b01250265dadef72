"""report.json against its schema, and report.html as one safe file that fetches nothing."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from helpers.run_folder import make_run
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.report import figures as report_figures
from limbeck.pipelines.report.build import ReportPaths, collect, write_report
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import SCHEMA, Report, Rows, schema_text

HOSTILE = '<script>alert("output")</script><img src="https://example.org/x.png"> {{ 7 * 7 }} & </blockquote>'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one round, with a hostile output among its examples."""
    return make_run(tmp_path_factory.mktemp("run") / "made-up", rounds=1, output=HOSTILE)


@pytest.fixture(scope="module")
def paths(finished: Path) -> ReportPaths:
    """Its reports."""
    return write_report(finished)


class Page(HTMLParser):
    """What a browser would fetch or run, and the text it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text.append(data)


def test_the_schema_on_disk_is_that_of_the_models() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run `python -m limbeck.pipelines.runs.report_model`"


def test_report_json_keeps_to_its_schema_and_says_what_the_run_says(paths: ReportPaths) -> None:
    report: dict[str, Any] = json.loads(paths.json.read_text(encoding="utf-8"))
    jsonschema.validate(report, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert report["name"] == "made-up" and report["finished"]
    rows = report["rounds"][0]["rows"]
    assert rows["kept"] + sum(rows["rejected_by"].values()) == rows["candidates"] == 240
    models = [(row["model"], row["split"]) for row in report["rounds"][0]["evaluation"]]
    assert models[:4] == [("teacher", "dev"), ("student", "dev"), ("teacher", "test"), ("student", "test")]
    assert {model for model, split in models if split == "test"} == {
        "teacher",
        "student",
        "first-sentence",
        "mismatched",
        "document",
    }
    assert report["seconds"]["by_stage"]["round-0/student"] == {"total": 60.0, "model": 44.0}
    assert report["seconds"]["model"] == 129.0
    assert report["sources"] == {"used": 104, "train": 60, "dev": 20, "test": 24, "rejected": {"shorter than 200 characters": 9}}
    assert report["bounds"]["bounds"]["pmi"]["faithfulness"] == {"minimum": 0.2, "maximum": None}
    assert report["versions"]["torch"] == "2.13.0"


def test_a_report_written_twice_is_the_same(finished: Path, paths: ReportPaths) -> None:
    before = paths.html.read_bytes(), paths.json.read_bytes()
    write_report(finished)
    assert (paths.html.read_bytes(), paths.json.read_bytes()) == before


def test_the_page_fetches_nothing_and_holds_its_script_once(paths: ReportPaths) -> None:
    page = Page(paths.html.read_text(encoding="utf-8"))
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data", "poster"} & set(attributes)
    assert (
        "link" not in {tag for tag, _ in page.tags}
        and "@import" not in paths.html.read_text(encoding="utf-8").split("</style>")[0]
    )
    policies = [attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    assert policies == ["default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"]
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1


def test_every_figure_is_json_with_data(paths: ReportPaths) -> None:
    page = Page(paths.html.read_text(encoding="utf-8"))
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    figures = [json.loads(text) for text, kind in zip(page.scripts, kinds, strict=True) if kind == "application/json"]
    assert len(figures) == 3 + 4 and all(figure["data"] for figure in figures)  # cut_off is 0 or 1, and not drawn
    assert "Not drawn, being 0 or 1: cut_off." in " ".join("".join(page.text).split())


def test_text_of_models_is_shown_and_never_run(paths: ReportPaths) -> None:
    html = paths.html.read_text(encoding="utf-8")
    page = Page(html)
    assert HOSTILE in page.text, "the hostile output is among the examples, as text"
    assert '<script>alert("output")' not in html and "img" not in {tag for tag, _ in page.tags}


def test_the_headline_is_the_first_thing_on_the_page(paths: ReportPaths) -> None:
    report = Report.model_validate_json(paths.json.read_text(encoding="utf-8"))
    text = " ".join("".join(Page(paths.html.read_text(encoding="utf-8")).text).split())
    assert text.index(report.first_line) < text.index("Did it learn?")
    test_student = next(row for row in report.rounds[0].evaluation if row.model == "student" and row.split == "test")
    assert test_student.pass_rate is not None and f"{100 * test_student.pass_rate.mean:.1f} %" in text


def test_a_control_that_beats_the_student_comes_first(finished: Path) -> None:
    report = collect(RunFolder(finished))
    assert report.first_line.startswith("The control ")
    assert "The final student passes" in report.first_line or "No difference" in report.first_line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": 0.2, "low": 0.1, "high": 0.3}, "more often than the round-0 teacher"),
        ({"mean": -0.2, "low": -0.3, "high": -0.1}, "less often than the round-0 teacher"),
        ({"mean": 0.2, "low": -0.1, "high": 0.3}, "No difference between the final student and the round-0 teacher is shown"),
        (None, "could not be compared"),
    ],
)
def test_the_verdict_goes_by_the_interval(finished: Path, tmp_path: Path, change: dict[str, float] | None, words: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "evaluation" / "test.json"
    rows = [row for row in json.loads(file.read_text())["rounds"]["0"] if row["model"] == "student"]
    rows[0]["difference_to_round_0_teacher"] |= {
        "pass_rate": change,
        "salient_recall": {"mean": -0.1, "low": -0.2, "high": -0.01},
    }
    file.write_text(json.dumps({"rounds": {"0": rows}}))
    first_line = collect(RunFolder(run)).first_line
    assert words in first_line
    assert ("took no part in filtering fell" in first_line) == (change is not None)


def remove(run: Path, *names: str) -> None:
    """Take away what an unfinished run does not have yet."""
    for name in names:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


LATER = ("evaluation", "rounds/000/evaluation.json", "rounds/000/dataset")


@pytest.mark.parametrize(
    ("missing", "rounds", "words"),
    [
        ((), 1, "interval"),
        (("evaluation",), 1, "Unfinished run. "),
        (LATER, 1, "Unfinished run. No student has been evaluated yet."),
        ((*LATER, "rounds/000/decisions.parquet", "calibration.json"), 0, "Unfinished run. No student has been evaluated yet."),
        ((*LATER, "rounds", "calibration.json", "events.jsonl"), 0, "Unfinished run. No student has been evaluated yet."),
    ],
)
def test_an_unfinished_run_has_a_report_too(
    finished: Path, tmp_path: Path, missing: tuple[str, ...], rounds: int, words: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    remove(run, *missing)
    written = write_report(run)
    report = json.loads(written.json.read_text(encoding="utf-8"))
    jsonschema.validate(report, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert words in report["first_line"] and len(report["rounds"]) == rounds and report["finished"] == (not missing)
    assert ("· unfinished" in written.html.read_text(encoding="utf-8").split("</header>")[0]) == bool(missing)
    if rounds:
        rows = report["rounds"][0]["rows"]
        assert rows["kept"] + sum(rows["rejected_by"].values()) == 240


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("rounds/000/evaluation.json", '{"rows": ', "is not whole JSON"),
        ("rounds/000/evaluation.json", '{"evaluation": []}', "is not what this version writes"),
        ("calibration.json", '{"bounds": {"pmi": 3}}', "is not what this version writes"),
        ("rounds/000/scores/pmi/part-00000.parquet", "PAR1", "is not a whole Parquet file"),
    ],
)
def test_a_broken_file_is_named(finished: Path, tmp_path: Path, file: str, content: str, words: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / file).write_text(content)
    with pytest.raises(LimbeckError, match=words) as caught:
        write_report(run)
    assert file in str(caught.value)


def test_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="is not a run folder"):
        write_report(tmp_path)


def test_rows_that_vanish_are_refused() -> None:
    with pytest.raises(ValidationError, match="rows have vanished"):
        Rows(sources=1, candidates=4, kept=1, rejected_by={"pmi": 2})


@pytest.mark.parametrize(("minimum", "maximum"), [(0.2, None), (None, 0.9), (-5.0, 5.0), (0.5, 0.5)])
def test_a_histogram_counts_every_value_and_shows_its_bounds(minimum: float | None, maximum: float | None) -> None:
    import numpy as np

    from limbeck.pipelines.runs.report_model import Limits

    values = np.concatenate([np.linspace(0, 1, 500), [1e6, -1e6]])
    figure = report_figures.histogram([values, values[:100], values], Limits(minimum=minimum, maximum=maximum), "pmi")
    assert [trace.name for trace in figure.data] == ["round 0", "round 2"]
    assert all(abs(sum(trace.y) - 1) < 1e-9 for trace in figure.data)
    low, high = figure.layout.xaxis.range
    assert all(low < bound < high for bound in (minimum, maximum) if bound is not None)
