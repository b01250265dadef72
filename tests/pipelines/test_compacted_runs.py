"""A run whose stages are compacted is the same run: it is read, decided again and resumed, and no part is computed again."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.run_tables import run_digests
from limbeck.corpus.compaction import compact
from limbeck.corpus.parts import part_names
from limbeck.pipelines.runs.events import read_events
from limbeck.pipelines.runs.folder import RunFolder


@pytest.fixture
def run(plain_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run with every stage in one file."""
    folder = RunFolder(Path(shutil.copytree(plain_run, tmp_path / "run")))
    commits = folder.commits("test")
    places = sorted({file.parent for file in folder.path.rglob("part-*.parquet") if "sources" not in file.parts})
    assert len(places) > 8
    for place in places:
        assert compact(folder.path, place, commits, at_least=1) and not list(place.glob("part-*"))
    return folder.path


def shown(run: Path, *command: object) -> object:
    done = limbeck(command[0], run, *command[1:], "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_commands_show_the_same(run: Path, plain_run: Path) -> None:
    some_id = shown(run, "inspect", "--limit", 1)[0]["candidate_id"]  # type: ignore[index]
    for command in (
        ("inspect", "--limit", 1000, "--sort", "faithfulness"),
        ("inspect", "--limit", 1000, "--sort", "output", "--ascending"),
        ("inspect", "--steps", some_id),
        ("filter", "--set", "filters.length.min_output_tokens=8"),
        ("filter", "--sweep", "filters.length.min_output_tokens=1:9:4"),
        ("report",),
    ):
        assert shown(run, *command) == shown(plain_run, *command), command


def test_a_resumed_run_computes_no_part_again(run: Path, plain_run: Path, ray_address: str) -> None:
    expected = run_digests(plain_run)
    (run / "rounds/000/decisions.parquet").unlink()
    shutil.rmtree(run / "rounds/000/dataset")
    (run / "evaluation/test.json").unlink()
    before = len(read_events(run / "events.jsonl"))
    done = limbeck("run", plain_run.parent / "recipe.yaml", "--out", run, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    events = read_events(run / "events.jsonl")[before:]
    assert [event["stage"] for event in events if event["event"] == "part_done"] == []
    found = run_digests(run)
    for table in ("rounds/000/decisions", "rounds/000/dataset/data/train-00000-of-00001"):
        assert found[table] == expected[table]
    assert (run / "evaluation/test.json").read_text() == (plain_run / "evaluation/test.json").read_text()


def test_a_lost_large_file_is_computed_again(run: Path, plain_run: Path, ray_address: str) -> None:
    scores = run / "rounds/000/scores/length"
    (lost,) = scores.glob("parts-*.parquet")
    lost.unlink()
    done = limbeck("run", plain_run.parent / "recipe.yaml", "--out", run, RAY_ADDRESS=ray_address)
    assert done.returncode == 0 and "missing and are computed again" in done.stderr, done.stderr
    assert part_names(scores) == part_names(plain_run / "rounds/000/scores/length")
    assert shown(run, "inspect", "--limit", 1000) == shown(plain_run, "inspect", "--limit", 1000)
