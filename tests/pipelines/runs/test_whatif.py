"""What-ifs on one real run of a tiny model, through the command line, against an oracle; the run is not changed."""

import hashlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.charts import Chart, charts, number
from helpers.commands import limbeck
from helpers.tiny_run import recipe, write_recipe
from limbeck.corpus.earlier_runs import read_run
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts, read_table
from limbeck.pipelines.console.whatif import plot_sweep
from limbeck.pipelines.driver.rescore import score_here
from limbeck.pipelines.runs.inspect import candidates
from limbeck.pipelines.runs.whatif import Sweep, WhatIf, apply, compare, counts, parse_sweep, sweep


@pytest.fixture(scope="module")
def run(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whatif")
    filters = [part for part in recipe(home)["filters"] if part["kind"] != "pmi"]
    filters[1]["min_output_tokens"] = 12  # some of the outputs end earlier
    filters.insert(0, {"kind": "pmi", "lazy": True})  # first in the recipe, last to be computed
    select = [{"kind": "duplicates"}, {"kind": "best", "per_source": 1}]
    changes = {"rounds": 1, "student": None, "filters": filters, "select": select, "calibration": {"pass_rate": 0.3}}
    done = limbeck("run", write_recipe(home, **changes), "--out", home / "run", "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    return home / "run"


def digest(folder: Path) -> dict[str, str]:
    """Every file of a run except its selections."""
    files = [path for path in folder.rglob("*") if path.is_file() and "selections" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def scores(run: Path, name: str) -> dict[str, dict]:
    return {row["candidate_id"]: row for row in read_parts(run / "rounds/000/scores" / name).to_pylist()}


def test_without_a_change_the_decisions_are_the_runs_own(run: Path) -> None:
    trial = WhatIf(run)
    assert trial.decide([]).decisions.equals(trial.before.decisions)
    found = compare(trial, trial.decide([]), 5)
    assert found["newly_kept"] == found["newly_rejected"] == found["undecided"] == 0 and found["before"] == found["after"]


def test_a_lazy_filter_skips_what_a_cheaper_one_rejects_and_only_that(run: Path) -> None:
    length, pmi, decisions = scores(run, "length"), scores(run, "pmi"), read_table(run / "rounds/000/decisions.parquet")
    short = {id_ for id_, row in length.items() if row["output_tokens"] < 12}
    assert 0 < len(short) < len(length)
    empty = {id_ for id_, row in scores(run, "heuristics").items() if row["empty"]}
    assert {id_ for id_, row in pmi.items() if row["skipped_by"] is not None} == short | empty
    assert all(pmi[id_]["skipped_by"] == ("heuristics" if id_ in empty else "length") for id_ in short)
    assert all(pmi[id_]["faithfulness"] is None for id_ in short)
    by = {row["candidate_id"]: row["rejected_by"] for row in decisions.to_pylist()}
    assert all(by[id_] == pmi[id_]["skipped_by"] for id_ in short), "pmi comes first in the recipe but did not reject"


def test_other_limits_decide_as_an_oracle_does(run: Path) -> None:
    pmi, length = scores(run, "pmi"), scores(run, "length")
    values = sorted(row["faithfulness"] for row in pmi.values() if row["faithfulness"] is not None)
    limit = values[len(values) // 2]
    settings = [f"filters.pmi.min_faithfulness={limit!r}", "filters.pmi.min_saliency=null", "select=[]"]
    selection = WhatIf(run).decide(settings)
    kept = {row["candidate_id"] for row in selection.decisions.to_pylist() if row["kept"]}
    passing = {id_ for id_, row in length.items() if row["output_tokens"] >= 12 and row["compression"] <= 5.0}
    passing -= {id_ for id_, row in scores(run, "heuristics").items() if row["empty"] or row["refusal"]}
    assert kept == {id_ for id_ in passing if pmi[id_]["faithfulness"] >= limit}
    assert sum(counts(selection)["rejected_by"].values()) + len(kept) == len(pmi)


def test_a_row_whose_score_was_skipped_is_undecided_once_its_rejecter_lets_it_go(run: Path) -> None:
    before = digest(run)
    done = limbeck("filter", run, "--set", "filters.length.min_output_tokens=1", "--json", "--examples", 3)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    skipped = sum(row["skipped_by"] == "length" for row in scores(run, "pmi").values())
    assert found["undecided"] == skipped > 0
    refused = limbeck("filter", run, "--set", "filters.length.min_output_tokens=1", "--apply", "looser")
    assert refused.returncode == 1 and f"cannot decide {skipped} row" in refused.stderr and "lazy=false --score" in refused.stderr
    assert digest(run) == before and not (run / "rounds/000/selections/looser").exists()


def test_what_was_skipped_is_scored_on_request_and_applied_beside_the_dataset(run: Path) -> None:
    before = digest(run)
    settings = ["--set", "filters.length.min_output_tokens=1", "--set", "filters.pmi.lazy=false"]
    refused = limbeck("filter", run, *settings)
    assert refused.returncode == 1 and "add --score" in refused.stderr
    done = limbeck("filter", run, *settings, "--score", "--apply", "looser", "--json")
    assert done.returncode == 0, done.stderr
    found, folder = json.loads(done.stdout), run / "rounds/000/selections/looser"
    assert found["undecided"] == 0 and found["written"] == str(folder)
    rows = read_table(folder / "dataset/data/train-00000-of-00001.parquet")
    assert rows.num_rows == found["after"]["kept"] and rows["pmi.faithfulness"].null_count == 0
    assert json.loads((folder / "selection.json").read_text())["settings"] == settings[1::2]
    assert digest(run) == before
    again = limbeck("filter", run, *settings, "--score", "--apply", "looser")
    assert again.returncode == 1 and "already exists" in again.stderr
    assert WhatIf(run, score=None).decide(settings[1::2]).undecided == 0, "scores that were computed once are kept"


def test_a_sweep_equals_single_trials_and_falls_with_the_limit(run: Path, tmp_path: Path) -> None:
    key, plot = "filters.pmi.min_faithfulness", tmp_path / "curve.html"
    done = limbeck("filter", run, "--sweep", f"{key}=-1:1:0.25", "--plot", plot, "--json")
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["points"]
    assert [point["value"] for point in points] == [-1 + 0.25 * index for index in range(9)]
    kept = [point["kept"] for point in points]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[-1] == 0
    for point in points[::4]:
        assert counts(WhatIf(run).decide([f"{key}={point['value']}"]))["kept"] == point["kept"]
    drawn = shown_curve(plot, points)
    assert [y for _, _, y in drawn.path("blue")] == pytest.approx([value / max(kept) / 1.04 for value in kept], abs=1e-3)
    shown = limbeck("filter", run, "--sweep", f"{key}=-1:1:0.5")
    assert shown.stdout.count("█") > 0 and f"{kept[0]} (" in shown.stdout


def shown_curve(plot: Path, points: list[dict]) -> Chart:
    """The chart of a --plot page, whose table and tooltips have the same points."""
    page = plot.read_text(encoding="utf-8")
    (drawn,) = charts(page)
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.S)[1:]]
    assert [(float(row[0]), int(row[1]), int(row[3]), int(row[4])) for row in rows] == [
        (point["value"], point["kept"], point["sources_kept"], point["undecided"]) for point in points
    ]
    for tip, point in zip(drawn.tooltips, points, strict=True):
        assert number(tip.splitlines()[0].rsplit(" ")[-1]) == point["value"] and f"kept candidates: {point['kept']}" in tip
    assert "<script" not in page and not re.search(r"https?:|url\(| src=| href=", page)
    return drawn


def test_the_page_of_a_sweep_escapes_its_key_and_draws_one_point_or_none(tmp_path: Path) -> None:
    key, file = 'filters.</title><script>alert(1)</script>&"', tmp_path / "curve.html"
    nothing = {"value": 0.5, "kept": 0, "sources_kept": 0, "undecided": 0, "share": 0.0}
    for points in ([nothing], [], [nothing | {"kept": 3, "undecided": 2}, nothing | {"value": 1e6}]):
        plot_sweep(key, points, file)
        assert shown_curve(file, points).label == f"kept by {key}"
    assert "undecided: 2" in shown_curve(file, points).tooltips[0]
    with pytest.raises(LimbeckError, match="name another file for --plot"):
        plot_sweep(key, [nothing], tmp_path / "missing" / "curve.html")


def test_calibration_can_be_tried_with_another_rate(run: Path) -> None:
    selection = WhatIf(run).decide(["calibration.pass_rate=0.15", "select=[]"])
    rate = counts(selection)["kept"] / counts(selection)["candidates"]
    assert rate == pytest.approx(selection.calibration["pass_rate"]) and rate == pytest.approx(0.15, abs=0.06)


def test_another_model_or_filter_needs_scores(run: Path) -> None:
    trial = WhatIf(run)
    with pytest.raises(
        LimbeckError, match="differs from the run's in more than its bounds, so its scores must be computed first"
    ):
        trial.decide(["filters.pmi.engine.dtype=bfloat16"])
    with pytest.raises(LimbeckError, match="filter second is not part of the run"):
        trial.decide(['filters=[{"kind": "length", "name": "second"}]'])
    settings = ['filters=[{"kind": "length", "name": "second", "min_output_tokens": 12}]', "select=[]"]
    found = counts(WhatIf(run, score=score_here).decide(settings))
    enough = sum(row["output_tokens"] >= 12 for row in scores(run, "length").values())
    assert found["kept"] == enough and found["rejected_by"] == {"second": found["candidates"] - enough}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "teacher.model=x"], "only filters, select, calibration and pairs (rows)"),
        (["--set", "filters.pni.min_saliency=1"], "no filter is named 'pni'; known filters: pmi, heuristics, length"),
        (["--set", "filters.pmi.min_salienci=1"], "did you mean 'min_saliency'"),
        (["--sweep", "filters.pmi.min_saliency=1:0:0.1"], "low:high:step"),
        (["--sweep", "filters.pmi.min_saliency"], "low:high:step"),
        (["--set", "filters.pmi.min_faithfulness=1.0", "--apply", "none"], "no candidate passes these bounds"),
        (["--set", "filters.pmi.min_faithfulness=2.0"], "faithfulness is 1 at most, so it rejects every row"),
        (["--round", "7"], "round 7"),
    ],
)
def test_faults_are_one_sentence(run: Path, arguments: list[str], words: str) -> None:
    done = limbeck("filter", run, *arguments)
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_sweep_includes_its_last_value_and_its_values_are_exact() -> None:
    assert parse_sweep("a=0.1:0.6:0.05").values == (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
    assert parse_sweep("a=-0.1:0.1:0.1").values == (-0.1, 0.0, 0.1)
    assert parse_sweep("a=1e-15:3e-15:1e-15").values == (1e-15, 2e-15, 3e-15)
    assert parse_sweep("a=0:0:1").values == (0,)


def test_a_sweep_of_whole_numbers_can_vary_a_bound_that_counts(run: Path) -> None:
    values = parse_sweep("filters.length.min_output_tokens=1:21:10").values
    assert values == (1, 11, 21) and all(isinstance(value, int) for value in values)
    kept = [point["kept"] for point in sweep(WhatIf(run), ["select=[]"], Sweep("filters.length.min_output_tokens", values))]
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize(
    "span",
    ["", "0.1", "0.1:0.6", "0.1:0.6:0.05:1", "a:b:c", "0.6:0.1:1", "0:1:0", "0:1:-1", "1:0:-1", "nan:0.6:0.1", "0:inf:0.1"]
    + ["0:1:nan", "0:1:inf", "0:1:1e-9", "0:1e999:1e998", "0:1:1e-400", "::", "0::1", "sNaN:1:1"],
)
def test_what_is_no_sweep_is_one_sentence(span: str) -> None:
    with pytest.raises(LimbeckError, match="low:high:step"):
        parse_sweep(f"filters.pmi.min_faithfulness={span}")


@given(st.text(max_size=12) | st.lists(st.floats(), min_size=3, max_size=3).map(lambda numbers: ":".join(map(repr, numbers))))
def test_whatever_the_text_a_sweep_is_refused_or_rises_from_low_to_high(span: str) -> None:
    try:
        values = parse_sweep(f"key={span}").values
    except LimbeckError:
        return
    low, high, step = map(Fraction, span.split(":"))
    assert float(low) == float(values[0]) and float(values[-1]) <= float(high)
    assert list(values) == sorted(values) and 1 <= len(values) <= 1000 and low + len(values) * step > high


@pytest.mark.parametrize("name", ["../student", "../../../x", "/tmp/x", ".scores", "", "a/b", "A", "a\n", "-a", "a.b", "x\0"])
def test_a_selection_has_a_name_and_no_path(run: Path, name: str) -> None:
    trial, before = WhatIf(run), digest(run)
    with pytest.raises(LimbeckError, match="a selection's name begins with"):
        apply(trial, trial.decide([]), name, [])
    assert digest(run) == before and not (run / "rounds/000/selections" / name / "selection.json").exists()


def test_of_several_selections_with_one_name_exactly_one_is_written(run: Path) -> None:
    trial, barrier = WhatIf(run), threading.Barrier(8)
    selection = trial.decide([])

    def attempt(number: int) -> int | None:
        barrier.wait()
        try:
            apply(trial, selection, "raced", [f"calibration.parts={number}"])
        except LimbeckError as error:
            assert "raced" in str(error) and "choose another name, or remove it" in str(error)
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number in threads.map(attempt, range(8)) if number is not None]
    written = json.loads((run / "rounds/000/selections/raced/selection.json").read_text())
    assert [f"calibration.parts={number}" for number in winners] == written["settings"]


def test_a_selection_is_inspected_exported_and_a_source(run: Path, tmp_path: Path) -> None:
    trial = WhatIf(run)
    selection = trial.decide(["select=[]"])
    apply(trial, selection, "all", ["select=[]"])
    kept = set(selection.decisions.filter(selection.decisions["kept"])["candidate_id"].to_pylist())
    own = set(candidates(run, kept=True, limit=None)["candidate_id"].to_pylist())
    shown = limbeck("inspect", run, "--selection", "all", "--kept", "--limit", 1000, "--json")
    assert {row["candidate_id"] for row in json.loads(shown.stdout)} == kept > own
    exported = limbeck("export", run, "--selection", "all", "--out", tmp_path / "all.jsonl")
    assert exported.returncode == 0 and len((tmp_path / "all.jsonl").read_text().splitlines()) == len(kept)
    rows = list(read_run(str(run), "last", "all"))
    assert {row.origin.rpartition(":")[2] for row in rows} == kept
    limbeck("export", run, "--selection", "all", "--format", "alpaca", "--out", tmp_path / "alpaca")
    assert list(json.loads((tmp_path / "alpaca/dataset_info.json").read_text())) == ["run-round-0-all"]
    for verb in (["inspect"], ["export", "--out", tmp_path / "x"]):
        done = limbeck(*verb, run, "--selection", "al")
        assert done.returncode == 1 and "has no selection 'al'; it has" in done.stderr


def test_a_sweep_keeps_the_other_settings(run: Path) -> None:
    points = list(sweep(WhatIf(run), ["select=[]"], parse_sweep("filters.length.max_compression=5:5:1")))
    assert points[0]["kept"] == counts(WhatIf(run).decide(["select=[]"]))["kept"]
