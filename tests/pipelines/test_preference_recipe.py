"""The recipe preferences with its toy: a whole run of the embedded model, by the command line."""

import json
from pathlib import Path

import pytest

from benchmarks.preferences import measured
from helpers.commands import limbeck
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.recipes, pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(3600)]


def test_the_toy_runs_to_its_report(tmp_path: Path, ray_address: str) -> None:
    out = tmp_path / "run"
    done = limbeck("run", "preferences", "--with", "toy", "--out", out, "--no-panel", timeout=1800, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr[-4000:]
    report, folder = json.loads((out / "report.json").read_text()), RunFolder(out)
    (found,) = report["rounds"]
    assert report["finished"] and found["task"]["generator"] == "preferences"
    assert found["rows"]["kept"] + sum(found["rows"]["rejected_by"].values()) == found["rows"]["candidates"] == 8 * 3
    outputs = {row["candidate_id"]: row["output"] for row in read_parts(folder.candidates(0), CANDIDATES).to_pylist()}
    rows = read_table(folder.dataset(0) / DATA).to_pylist()
    assert len(rows) == found["preferences"]["pairs"] > 0 and len({row["source_id"] for row in rows}) == len(rows)
    for row in rows:
        assert (
            row["chosen"][0]["content"]
            == outputs[row["chosen_id"]]
            != outputs[row["rejected_id"]]
            == row["rejected"][0]["content"]
        )
        assert row["score_chosen"] > row["score_rejected"]
    figures = measured(folder, 0, ["rows.by=pmi.pmi", "rows.pairs=all"])
    assert set(figures["measures"]) == {"salient_recall", "invention"} and figures["measures"]["invention"]["pairs"] > 0
