"""report.json against its schema, and report.html as one safe file that fetches nothing."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from markupsafe import escape
from pydantic import ValidationError

from helpers.charts import chart, charts, legend, number, widths
from helpers.run_folder import make_run
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts
from limbeck.pipelines.report import figures as report_figures
from limbeck.pipelines.report.build import ReportPaths, collect, first_line, write_report
from limbeck.pipelines.report.page import render_sweep
from limbeck.pipelines.runs.events import Events
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import SCHEMA, Limits, Report, RoundReport, Rows, Seconds, StageSeconds, schema_text
from limbeck.students.evaluation.measures import Measure

SWEEP = [{"value": 0.1, "kept": 9, "sources_kept": 5, "undecided": 0, "share": 0.2}]
HOSTILE = '<script>alert("output")</script><img src="https://example.org/x.png"> {{ 7 * 7 }} & </blockquote>'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one round, with a hostile output among its examples."""
    return make_run(tmp_path_factory.mktemp("run") / "made-up", rounds=1, output=HOSTILE)


@pytest.fixture(scope="module")
def paths(finished: Path) -> ReportPaths:
    """Its reports."""
    return write_report(finished)


def test_a_report_names_the_sources_and_measures_of_its_task(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "tasks", rounds=1)
    counts = json.loads((folder / "rounds/000/sources/_done.json").read_text())
    (folder / "rounds/000/sources/_done.json").write_text(json.dumps(counts | {"rows_are": "tasks"}))
    file = folder / "rounds/000/evaluation.json"
    task = {"generator": "own", "measures": None, "controls": [], "inputs": "inputs"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"task": task}))
    on_test = json.loads((folder / "evaluation/test.json").read_text())
    for row in on_test["rounds"]["0"]:
        row["faithfulness"] = None
    (folder / "evaluation/test.json").write_text(json.dumps(on_test))
    written = write_report(folder)
    report, page = json.loads(written.json.read_text()), written.html.read_text()
    assert "on the 24 test inputs" in report["first_line"] or "the 24 test inputs)" in report["first_line"]
    assert "documents" not in report["first_line"]
    for words in ("tasks used", "<h2>Tasks</h2>", "On the test inputs", '<th scope="col">inputs</th>', "ROUGE-L"):
        assert words in page
    assert '<th scope="col">faithfulness</th>' not in page  # no value on the split that is shown


def test_a_run_of_a_recipe_with_an_override_has_a_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "toy", rounds=1)
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(f"{text}---\n# --with toy\nrounds: 1\n")
    assert json.loads(write_report(folder).json.read_text())["name"] == "made-up"
    (folder / "recipe.yaml").write_text(f"{text}---\nname: smaller\n")
    assert json.loads(write_report(folder).json.read_text())["name"] == "smaller"


class Page(HTMLParser):
    """What a browser would fetch or run, and the text it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside != "style":
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
    counts = {"used": 104, "train": 60, "dev": 20, "test": 24}
    assert report["sources"] == {"rows_are": "documents", **counts, "rejected": {"shorter than 200 characters": 9}}
    assert report["bounds"]["bounds"]["pmi"]["faithfulness"] == {"minimum": 0.2, "maximum": None}
    assert report["versions"]["torch"] == "2.13.0"


def test_a_report_written_twice_is_the_same(finished: Path, paths: ReportPaths) -> None:
    before = paths.html.read_bytes(), paths.json.read_bytes()
    write_report(finished)
    assert (paths.html.read_bytes(), paths.json.read_bytes()) == before


def test_the_page_fetches_nothing_has_no_script_and_is_small(paths: ReportPaths) -> None:
    html = paths.html.read_text(encoding="utf-8")
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "use", "image"}
        assert not {"src", "href", "srcset", "action", "data", "poster", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    style = html.split("</style>")[0]
    assert "@import" not in style and "url(" not in html and not re.search("https?:", html.replace(str(escape(HOSTILE)), ""))
    policies = [attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert len(html.encode("utf-8")) <= 150_000


def test_every_figure_is_drawn_and_named(paths: ReportPaths) -> None:
    html = paths.html.read_text(encoding="utf-8")
    drawn = charts(html)
    assert [chart.label for chart in drawn] == [
        "Pass rate by model",
        "Candidates kept and rejected, by round",
        "length: compression",
        "heuristics: copied",
        "pmi: faithfulness",
        "pmi: saliency",
        "Seconds by stage",
    ]
    assert all(chart.root.attrib["role"] == "img" and chart.description and chart.tooltips for chart in drawn)
    assert "Not drawn (only 0 and 1): cut_off." in " ".join("".join(Page(html).text).split())


def test_the_charts_show_what_the_report_says(paths: ReportPaths) -> None:
    report = Report.model_validate_json(paths.json.read_text(encoding="utf-8"))
    rates, funnel, *_, seconds = charts(paths.html.read_text(encoding="utf-8"))
    low, high = rates.horizontal()
    for split, tone in (("dev", "grey"), ("test", "blue")):
        rows = [row for row in report.rounds[0].evaluation if row.split == split]
        drawn = rates.of_class("interval", tone)
        assert len(drawn) == len(rows) == (2 if split == "dev" else 5)
        for group, row in zip(drawn, rows, strict=True):
            measure = row.pass_rate
            assert measure is not None
            bar, dot = group.findall("line")[0].attrib, group.findall("circle")[0].attrib
            found = [low + (high - low) * number(text) / 100 for text in (dot["cx"], bar["x1"], bar["x2"])]
            assert found == pytest.approx([100 * value for value in (measure.mean, measure.low, measure.high)], abs=0.05)
    rows = report.rounds[0].rows
    counts = [rows.kept, *(count for count in rows.rejected_by.values() if count)]
    assert widths(funnel.of_class("fill")) == pytest.approx([100 * count / rows.candidates for count in counts], abs=0.02)
    assert {number(text) for text in funnel.texts("inside")} <= set(counts) and str(rows.kept) in funnel.texts("inside")
    for name, stage in report.seconds.by_stage.items():
        assert f"{name}: in models {stage.model:.1f} s, everything else {stage.total - stage.model:.1f} s" in seconds.description
    assert seconds.texts("total") == [f"{stage.total:.1f} s" for stage in report.seconds.by_stage.values()]
    longest = max(stage.total for stage in report.seconds.by_stage.values())
    parts = [part for stage in report.seconds.by_stage.values() for part in (stage.model, stage.total - stage.model)]
    assert widths(seconds.of_class("fill")) == pytest.approx([100 * part / longest for part in parts if part], abs=0.02)


def test_a_histogram_of_the_page_counts_the_scores_of_the_run(finished: Path, paths: ReportPaths) -> None:
    (drawn,) = [chart for chart in charts(paths.html.read_text(encoding="utf-8")) if chart.label == "pmi: faithfulness"]
    values = np.array(read_parts(finished / "rounds/000/scores/pmi")["faithfulness"].to_pylist())
    low, high = drawn.horizontal()
    edges = np.linspace(low, high, report_figures.BINS + 1)
    shares = np.histogram(np.clip(values, low, high), edges)[0] / len(values)
    heights = [y for command, _, y in drawn.path("blue") if command == "H"]
    assert heights == pytest.approx(list(shares / shares.max() / 1.04), abs=0.02)
    assert drawn.texts("bound-label") == ["0.2"] and "bound 0.2" in drawn.description


def test_tables_that_scroll_can_be_focused_and_have_names(paths: ReportPaths) -> None:
    regions = [
        attributes
        for _, attributes in Page(paths.html.read_text(encoding="utf-8")).tags
        if attributes.get("class") == "scroll" or attributes.get("role") == "region"
    ]
    assert all(region["tabindex"] == "0" and region["role"] == "region" for region in regions)
    names = [region["aria-label"] for region in regions]
    assert names == [
        "Measures",
        "Paired difference to the round-0 teacher",
        "Pass rate of each filter alone",
        "Rounds",
        "Separation",
        "Documents",
        "Recipe",
    ]


def test_hostile_names_are_text_in_charts_too(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "rounds/000/evaluation.json"
    evaluated = json.loads(file.read_text())
    evaluated["rows"]["rejected_by"][HOSTILE] = 0
    evaluated["teacher"]["name"] = HOSTILE
    file.write_text(json.dumps(evaluated))
    Events(run / "events.jsonl").emit("stage_done", stage=HOSTILE, seconds=9.0, model_seconds=1.0)
    html = write_report(run).html.read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert sum(HOSTILE in text for text in page.text) >= 5, "legend, tooltips, the stage and the teacher"
    _, funnel, *_, seconds = charts(html)
    assert f"rejected by {HOSTILE} 0" in funnel.description and HOSTILE in seconds.tooltips


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
    assert "The final student passes" in report.first_line or "No significant difference" in report.first_line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": 0.2, "low": 0.1, "high": 0.3}, "more often than the round-0 teacher"),
        ({"mean": -0.2, "low": -0.3, "high": -0.1}, "less often than the round-0 teacher"),
        ({"mean": 0.2, "low": -0.1, "high": 0.3}, "No significant difference between the final student and the round-0 teacher"),
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
    assert ("is not used for filtering, decreased" in first_line) == (change is not None)


@pytest.mark.parametrize(
    ("shares", "low", "words"),
    [
        ((0.3, 0.5, 0.6), 0.1, "60.0 % by the student of round 1: this share rises in every round (+30.0 points"),
        ((0.3, 0.7, 0.6), 0.1, "this share rises over the rounds, though not in each of them"),
        ((0.3, 0.5, 0.6), -0.1, "30.0 % by the round-0 teacher, 50.0 % by the student of round 0, "),
        ((0.3, 0.5, 0.6), -0.1, "this share does not rise significantly"),
        ((0.6, 0.5, 0.3), -0.4, "this share falls over the rounds (-30.0 points, 95 % interval -40.0 to -20.0"),
        (None, 0.0, ""),
    ],
)
def test_the_first_line_says_whether_control_codes_are_followed_more_often(
    finished: Path, shares: tuple[float, ...] | None, low: float, words: str
) -> None:
    report = collect(RunFolder(finished))
    rows = {row.model: row for row in report.rounds[0].evaluation if row.split == "test"}
    teacher, student = rows["teacher"], rows["student"]
    rounds = [report.rounds[0].model_copy(update={"evaluation": [teacher, student]})] * 2
    if shares is not None:
        high = low + 0.2
        difference = Measure(mean=shares[-1] - shares[0], low=low, high=high)
        measured = [Measure(mean=share, low=share, high=share) for share in shares]
        students = [
            student.model_copy(
                update={
                    "code_accuracy": found,
                    "difference_to_round_0_teacher": {
                        **(student.difference_to_round_0_teacher or {}), "code_accuracy": difference,
                    },
                }
            )
            for found in measured[1:]
        ]  # fmt: skip
        first = teacher.model_copy(update={"code_accuracy": measured[0]})
        rounds = [one.model_copy(update={"evaluation": [first, made]}) for one, made in zip(rounds, students, strict=True)]
    line = first_line(rounds, finished=True)
    assert words in line
    assert ("control codes" in line) == (shares is not None)
    alone = [
        one.model_copy(update={"evaluation": [row.model_copy(update={"documents": 1}) for row in one.evaluation]})
        for one in rounds
    ]
    assert ("one input cannot show" in first_line(alone, finished=True)) == (shares is not None)


def remove(run: Path, *names: str) -> None:
    """Take away what an unfinished run does not have yet."""
    for name in names:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


LATER = ("evaluation", "rounds/000/evaluation.json", "rounds/000/dataset", "rounds/000/rows.json")


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
        ("rounds/000/evaluation.json", '{"rows": ', "is not valid JSON"),
        ("rounds/000/evaluation.json", '{"evaluation": []}', "does not have the format of this version"),
        ("calibration.json", '{"bounds": {"pmi": 3}}', "does not have the format of this version"),
        ("rounds/000/scores/pmi/part-00000.parquet", "PAR1", "is not a complete Parquet file"),
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
    with pytest.raises(ValidationError, match="rows are missing"):
        Rows(sources=1, candidates=4, kept=1, rejected_by={"pmi": 2})


@pytest.mark.parametrize(("minimum", "maximum"), [(0.2, None), (None, 0.9), (-5.0, 5.0), (0.5, 0.5)])
def test_a_histogram_counts_every_value_and_shows_its_bounds(minimum: float | None, maximum: float | None) -> None:
    values = np.concatenate([np.linspace(0, 1, 500), [1e6, -1e6]])
    by_round, limit = [values, values[:100], values], Limits(minimum=minimum, maximum=maximum)
    binned = report_figures.bins(by_round, limit)
    assert list(binned.shares) == ["round 0", "round 2"]
    assert all(abs(sum(shares) - 1) < 1e-9 for shares in binned.shares.values())
    fragment = report_figures.histogram(by_round, limit, "pmi", "faithfulness")
    drawn, given = chart(fragment), [bound for bound in (minimum, maximum) if bound is not None]
    assert legend(fragment) == ["round 0", "round 2"] and drawn.horizontal() == pytest.approx((binned.low, binned.high), abs=1e-3)
    assert drawn.texts("bound-label") == [f"{bound:.3g}" for bound in given] and len(drawn.of_class("shade")) == len(given)
    places = [(bound - binned.low) / (binned.high - binned.low) for bound in given]
    assert all(0 < place < 1 for place in places)
    assert [number(line.attrib["x1"]) / 100 for line in drawn.of_class("bound")] == pytest.approx(places, abs=1e-4)
    shades = [(number(part.attrib["x"]) / 100, number(part.attrib["width"]) / 100) for part in drawn.of_class("shade")]
    rejected = [(0.0, places[0])] if minimum is not None else []
    rejected += [(places[-1], 1 - places[-1])] if maximum is not None else []
    assert [end for pair in shades for end in pair] == pytest.approx([end for pair in rejected for end in pair], abs=1e-4)


def test_examples_show_their_document_before_the_output(finished: Path, paths: ReportPaths) -> None:
    """Its start is in sight; only the rest of a long one is folded away."""
    html = paths.html.read_text(encoding="utf-8")
    examples = html.split('<div class="example')[1:]
    assert len(examples) > 6
    documents = read_parts(finished / "rounds/000/sources/train")["document"].to_pylist()
    for text in examples:
        shown = text.split('<p class="document">')[1].split("</p>")[0]
        assert any(shown == str(escape(document)) for document in documents)
        assert text.index(">Document ·") < text.index(">Output<") < text.index("<blockquote>") and "<details>" not in text


def test_a_long_document_is_cut_and_can_be_unfolded(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.pipelines.report.page.DOCUMENT_SHOWN", 20)
    shutil.copytree(finished, tmp_path / "run")
    html = write_report(tmp_path / "run").html.read_text(encoding="utf-8")
    first = html.split('<div class="example')[1]
    assert len(first.split('<p class="document">')[1].split("</p>")[0]) == 22 and "<summary>Whole document</summary>" in first


def test_nothing_that_rounds_to_zero_has_a_sign(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    test = run / "evaluation/test.json"
    found = json.loads(test.read_text())
    tiny = {"mean": -1e-6, "low": -2e-6, "high": -1e-7}
    for row in found["rounds"]["0"]:
        row["faithfulness"] = tiny
        if row["difference_to_round_0_teacher"]:
            row["difference_to_round_0_teacher"] |= {"faithfulness": tiny, "pass_rate": tiny, "salient_recall": tiny}
    test.write_text(json.dumps(found))
    paths = write_report(run)
    text = " ".join("".join(Page(paths.html.read_text(encoding="utf-8")).text).split())
    assert not re.search(r"(?<!\w)-0(\.0+)?(?![.\d])", text) and "+0.0 pts" in text and "+0.000" in text


def test_the_verdict_says_of_what_a_share_is(finished: Path, paths: ReportPaths) -> None:
    report = Report.model_validate_json(paths.json.read_text(encoding="utf-8"))
    rows = {row.model: row for row in report.rounds[0].evaluation if row.split == "test"}
    for model in ("student", "teacher"):
        row = rows[model]
        assert row.pass_rate is not None and row.candidates and row.passing is not None
        assert row.passing / row.candidates == pytest.approx(row.pass_rate.mean)
        words = f"{row.passing} of {row.candidates} candidates ({100 * row.pass_rate.mean:.1f} %) of the {model}"
        assert words in report.first_line
    assert "pass the frozen filters" in report.first_line


def test_both_pages_follow_dark_mode(paths: ReportPaths) -> None:
    for html in (paths.html.read_text(encoding="utf-8"), render_sweep("filters.pmi.min_faithfulness", SWEEP)):
        style = html.split("<style>")[1].split("</style>")[0]
        assert "color-scheme: light dark" in style and "@media screen and (prefers-color-scheme: dark)" in style
        light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
        names = set(re.findall(r"(--[\w-]+): #", light.split("}")[0]))
        assert names == set(re.findall(r"(--[\w-]+): #", dark.split("}")[0])), "every colour has a dark form"
        assert "background: var(--paper)" in style and not re.search(r"(?<!-)color: #|background: #", style)


def test_a_histogram_of_one_value_has_an_axis() -> None:
    drawn = chart(report_figures.histogram([np.array([3.0])], Limits(minimum=3.0), "length", "words"))
    low, high = drawn.horizontal()
    assert low < 3 < high and max(y for _, _, y in drawn.path("blue")) == pytest.approx(1 / 1.04, abs=1e-3)


def test_a_round_that_drew_nothing_and_models_that_were_not_measured_are_drawn() -> None:
    rows = Rows(sources=0, candidates=0, kept=0, rejected_by={})
    empty = RoundReport(rows=rows, evaluation=[])
    assert chart(report_figures.funnel([empty])).texts("name") == ["round 0"]
    assert chart(report_figures.pass_rates([empty])).texts("name") == []
    assert chart(report_figures.seconds(Seconds(total=0, model=0, by_stage={}))).texts("total") == []
    none = Seconds(total=0, model=0, by_stage={"start": StageSeconds(total=0, model=0)})
    assert chart(report_figures.seconds(none)).texts("total") == ["0.0 s"]
