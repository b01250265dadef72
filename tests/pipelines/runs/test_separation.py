"""Whether bounds separate: the statistic against naive ones, its verdicts on drawn scores, and what a run says."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from rich.console import Console

from helpers.commands import limbeck
from helpers.run_folder import candidates, make_run
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.model_cache import Engines
from limbeck.cluster.engines.models import resolve
from limbeck.corpus.parts import write_part
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.corpus.sources import PackagesSources, read_sources
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.filters.contract import Bound
from limbeck.filters.models.embedding import EmbeddingConfig
from limbeck.filters.models.pmi import PmiConfig
from limbeck.filters.own import own_filter
from limbeck.pipelines.console.panel import State, sentence
from limbeck.pipelines.driver.jobs import ScoreJob
from limbeck.pipelines.report.build import collect, write_report
from limbeck.pipelines.runs import separation
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.separation import Separation, compare, separations, student_t, unclear, verdict, warning
from limbeck.pipelines.runs.status import show, status

SCORE = st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(st.sampled_from("abcd"), SCORE, SCORE), min_size=1, max_size=20), SCORE)
def test_figures_are_those_of_plain_counting(rows: list[tuple[str, float, float]], limit: float) -> None:
    owners, own, mismatched = zip(*rows, strict=True)
    found = compare(owners, np.array(own), np.array(mismatched), limit)
    wins = [(a > b) + 0.5 * (a == b) for a in own for b in mismatched]
    assert found["auroc"] == pytest.approx(sum(wins) / len(wins))
    assert found["passing"] == pytest.approx(sum(score >= limit for score in own) / len(own))
    assert found["passing_mismatched"] == pytest.approx(sum(score >= limit for score in mismatched) / len(own))
    assert (found["pairs"], found["sources"]) == (len(rows), len(set(owners)))
    assert 0 <= found["auroc_low"] <= found["auroc"] <= found["auroc_high"] <= 1
    parts = sorted(set(owners))
    if len(parts) > 1:  # the jackknife, one source at a time
        without = []
        for part in parts:
            rest = [(a, b) for owner, a, b in rows if owner != part]
            wins = [(a > b) + 0.5 * (a == b) for a, _ in rest for _, b in rest]
            without.append(sum(wins) / len(wins))
        error = math.sqrt((len(parts) - 1) / len(parts) * sum((one - np.mean(without)) ** 2 for one in without))
        reach = student_t(len(parts) - 1) * error
        assert found["auroc_low"] == pytest.approx(max(0, found["auroc"] - reach))


def test_the_quantile_of_students_t() -> None:
    tabled = {4: 2.7764, 5: 2.5706, 7: 2.3646, 11: 2.2010, 30: 2.0423, 100: 1.9840}
    for degrees, value in tabled.items():
        assert student_t(degrees) == pytest.approx(value, rel=5e-4)


@pytest.mark.parametrize(
    ("sources", "auroc", "excess_low", "expected"),
    [
        (5, (1.0, 1.0), -0.2, "too few to tell"),
        (6, (1.0, 1.0), -0.2, "separates"),
        (60, (0.51, 0.58), -0.2, "does not separate"),  # better than chance, but hardly
        (60, (0.51, 0.7), -0.2, "separates"),
        (60, (0.3, 0.45), -0.2, "does not separate"),  # the wrong way round
        (60, (0.45, 0.7), -0.2, "does not separate"),
        (8, (0.45, 0.8), -0.2, "too few to tell"),
        (60, (0.9, 1.0), 0.01, "does not separate"),  # the scores separate, but the bound lets both pass
    ],
)
def test_verdicts(sources: int, auroc: tuple[float, float], excess_low: float, expected: str) -> None:
    assert verdict(sources, auroc, excess_low) == expected


@pytest.mark.parametrize(
    ("shift", "least"), [(0.0, {"does not separate": 0.8, "separates": 0.0}), (3.0, {"separates": 1.0, "does not separate": 0.0})]
)
@pytest.mark.parametrize(("sources", "samples"), [(12, 4), (60, 2), (128, 1)])
def test_drawn_scores_are_judged_right(shift: float, least: dict[str, float], sources: int, samples: int) -> None:
    """Scores that share a part of their source and a part of their output with their mismatched pair; the best half passes."""
    rng = np.random.default_rng(sources)
    owners = [str(source) for source in range(sources) for _ in range(samples)]
    found: Counter[str] = Counter()
    for _ in range(60):
        of_source, of_output = np.repeat(rng.normal(size=sources), samples), rng.normal(size=sources * samples)
        own = 0.7 * of_source + 0.5 * of_output + rng.normal(size=len(owners)) / 2 + shift
        mismatched = 0.5 * of_output + rng.normal(size=len(owners))
        found[str(compare(owners, own, mismatched, float(np.median(own)))["verdict"])] += 1
    for name, share in least.items():
        assert found[name] >= 60 * share if share else found[name] <= 3, found


def of(**changes: Any) -> Separation:
    """A bound of the kind that calibration finds in the scores of a random model."""
    given = {"filter": "pmi", "column": "faithfulness", "side": "minimum", "limit": 0.0123, "calibrated": True}
    figures = {"auroc": 0.52, "auroc_low": 0.43, "auroc_high": 0.61, "passing": 0.25, "passing_mismatched": 0.27}
    counts = {"verdict": "does not separate", "pairs": 48, "sources": 12}
    return Separation.model_validate(given | figures | counts | changes)


def test_a_bound_that_does_not_separate_is_one_sentence_with_figures_and_the_way_out() -> None:
    words = warning([of()])
    assert words is not None and words.count(". ") == 0 and words.endswith(".")
    for part in (
        "pmi.faithfulness ≥ 0.0123",
        "AUROC 0.52",
        "0.43 to 0.61",
        "25 %",
        "27 %",
        "48 pairs of 12 sources",
        "filters.pmi",
    ):
        assert part in words
    assert "stricter" not in words and "stricter" in str(warning([of(calibrated=False)]))
    both = str(warning([of(), of(column="saliency"), of(filter="x", verdict="separates")]))
    assert "The bounds" in both and "pmi.saliency" in both and "x." not in both and both.count("filters.pmi") == 1
    assert warning([of(verdict="separates")]) is None and warning([]) is None
    assert "Too few to tell whether pmi.faithfulness" in str(unclear([of(verdict="too few to tell", sources=3, pairs=1)]))
    assert "1 pair of 3 sources" in str(unclear([of(verdict="too few to tell", sources=3, pairs=1)])) and unclear([of()]) is None


def scored(folder: Path, columns: dict[str, list[float | None]]) -> None:
    """Candidates of two per source with these scores of the filter `pmi`, in parts of four."""
    rows = len(next(iter(columns.values())))
    ids = [f"c{row}" for row in range(rows)]
    for number, start in enumerate(range(0, rows, 4)):
        span = slice(start, start + 4)
        place = pa.table({"candidate_id": ids[span], "source_id": [f"s{row // 2}" for row in range(rows)][span]})
        write_part(folder / "candidates", f"part-{number:05d}", place)
        table = pa.table({"candidate_id": ids[span]} | {name: pa.array(column[span]) for name, column in columns.items()})
        write_part(folder / "scores", f"part-{number:05d}", table)


def test_bounds_of_recipes_are_checked_where_there_are_mismatched_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrated and fixed ones, on candidates with both scores, and never one that mismatched pairs are not meant to fail."""
    rows = 40
    faithfulness: list[float | None] = [float(row % 7) for row in range(rows)]
    null: list[float | None] = [None if row % 2 else math.nan if row == 2 else float(row % 5) for row in range(rows)]
    scored(tmp_path, {"faithfulness": faithfulness, "faithfulness_null": null, "saliency": faithfulness})
    filter_ = PmiConfig(engine=TransformersConfig(model="m"), min_saliency=0.5)
    frozen = {"pmi": (Bound("faithfulness", minimum=2.0), Bound("saliency", minimum=0.5))}
    folders = {"pmi": tmp_path / "scores"}
    (found,) = separations(tmp_path / "candidates", folders, [filter_], frozen)
    assert (found.column, found.side, found.limit, found.calibrated, found.pairs, found.sources) == (
        *("faithfulness", "minimum", 2.0, True, 19, 19),
    )
    (fixed,) = separations(tmp_path / "candidates", folders, [filter_.model_copy(update={"min_faithfulness": 2.0})], frozen)
    assert fixed.model_dump() == found.model_dump() | {"calibrated": False}
    (first,) = separations(tmp_path / "candidates", folders, [filter_], frozen, ["part-00000", "part-00001"])
    assert first.sources == 3
    monkeypatch.setattr(separation, "MOST_SOURCES", 4)
    assert separations(tmp_path / "candidates", folders, [filter_], frozen)[0].sources == 4
    embedding = EmbeddingConfig(max_similarity=0.9, min_similarity=0.1)
    assert [(bound.minimum, bound.maximum) for bound in embedding.rejecting_mismatched] == [(0.1, None)]


def test_a_filter_object_is_checked_if_it_scores_mismatched_pairs(tmp_path: Path) -> None:
    class Own:
        name = "own"
        bounds = (Bound("risk", maximum=0.5), Bound("size", minimum=1))

        def score(self, candidates: pa.Table) -> pa.Table:
            raise AssertionError

    filter_ = own_filter(Own())
    scored(tmp_path, {"risk": [0.1] * 16, "risk_null": [0.9] * 16, "size": [2.0] * 16})
    (found,) = separations(tmp_path / "candidates", {"own": tmp_path / "scores"}, [filter_], {"own": Own.bounds})
    assert (found.column, found.side, found.verdict, found.auroc) == ("risk", "maximum", "separates", 1.0)
    assert (found.passing, found.passing_mismatched) == (1.0, 0.0)


def test_report_status_and_panel_say_it_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", rounds=1)
    file = run / "calibration.json"
    before = collect(RunFolder(run)).first_line
    few = of(column="saliency", verdict="too few to tell", auroc_high=0.8)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"separation": [of().model_dump(), few.model_dump()]}))
    words = str(warning([of()]))
    paths = write_report(run)
    report, page = json.loads(paths.json.read_text()), paths.html.read_text()
    assert report["first_line"] == f"{words} {before}"
    assert page.index("does not separate candidates") < page.index("Did it learn?") and "Too few to tell" in page
    assert '<td class="bad">does not separate</td>' in page and "52.0 %" in page
    found = status(run)
    assert found["warning"] == words and "saliency" in found["note"]
    show(found)
    printed = capsys.readouterr().out
    assert printed.startswith(f"warning: {words}\n") and "Too few to tell" in printed
    assert sentence({"event": "warning", "words": words}) == f"warning: {words}"
    state, console = State(), Console(width=200, record=True)
    state.take({"event": "warning", "words": words})
    for number in range(9):
        state.take({"event": "note", "words": f"note {number}"})
    console.print(state.render())
    assert "does not separate" in console.export_text(), "later lines do not push it out"


def test_a_run_of_a_random_model_says_that_its_bounds_do_not_separate(plain_run: Path) -> None:
    events = [json.loads(line) for line in (plain_run / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.index("warning") < kinds.index("calibrated") < kinds.index("selected")
    (warned,) = [event["words"] for event in events if event["event"] == "warning"]
    assert warned.startswith("The bound") and "pmi." in warned and "calibrated" in warned
    checked = json.loads((plain_run / "calibration.json").read_text())["separation"]
    assert {one["column"] for one in checked} == {"faithfulness", "saliency"}
    assert all(one["verdict"] != "separates" and one["sources"] == 12 for one in checked)
    assert json.loads((plain_run / "report.json").read_text())["first_line"].startswith(warned)
    assert limbeck("status", plain_run).stdout.startswith(f"warning: {warned}")


@pytest.mark.model
@pytest.mark.slow
def test_the_scores_of_the_embedded_teacher_separate(tmp_path: Path) -> None:
    """Summaries of installed packages: the kind of text that the quickstart keeps."""
    teacher = TransformersConfig(model="embedded:smollm2-135m-instruct")
    settings = {
        "kind": "installed-packages",
        "max_documents": 14,
        "max_source_tokens": 80,
        "split": {"train": 14, "dev": 0, "test": 0},
    }
    table = read_sources(PackagesSources.model_validate(settings), Tokenizer.load(resolve(teacher.model)), seed=0)
    table = table.filter(pa.array([split == "train" for split in table["split"].to_pylist()]))
    drawn = candidates(table, 1, 0).set_column(5, "output", table["reference"])
    write_part(tmp_path / "sources", "part-00000", table, SOURCES)
    write_part(tmp_path / "candidates", "part-00000", drawn, CANDIDATES)
    filter_ = PmiConfig(engine=teacher)
    job = ScoreJob("s", tmp_path / "sources", tmp_path / "candidates", tmp_path / "scores", filter_, nulls=filter_.nulls)
    job.publish("part-00000", job.compute("part-00000", 0, 14, Engines()))
    frozen = {"pmi": (Bound("faithfulness", minimum=0.2), Bound("saliency", minimum=0.05))}
    found = separations(tmp_path / "candidates", {"pmi": tmp_path / "scores"}, [filter_], frozen)
    assert [one.verdict for one in found] == ["separates"] * 2, found
    assert warning(found) is None
