"""A run over HTTP keeps the server full with requests of many parts, and accounts for them exactly."""

import json
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.fault_server import FaultServer, byte_tokenizer
from helpers.tiny_run import recipe, write_recipe
from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES

SAMPLES = 3


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_requests_of_many_parts_are_in_flight_together(tmp_path: Path, ray_address: str) -> None:
    model = Path(recipe(tmp_path)["teacher"]["model"])
    config = (model / "config.json").read_text()
    byte_tokenizer(model)  # the server's tokens are bytes
    (model / "config.json").write_text(config)
    with FaultServer(seconds=0.2, models=({"id": "tiny", "max_model_len": 1024},)) as server:
        teacher = {"kind": "endpoint", "model": str(model), "base_url": server.url}
        changes = {"rounds": 1, "student": None, "teacher": teacher, "cluster": {"rows_per_part": 1}}
        done = limbeck("run", write_recipe(tmp_path, **changes), "--out", tmp_path / "run", "--no-panel", RAY_ADDRESS=ray_address)
        assert done.returncode == 0, done.stderr
        assert max(server.seen) > 2 * SAMPLES, "one part alone has so few requests"
        assert not [call for call in server.sent_again if not call.endswith("|None")], "nothing was drawn twice"
    candidates = read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES)
    assert candidates.num_rows == 12 * SAMPLES and not candidates["error"].drop_null().to_pylist()
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    parts = [event for event in events if event["event"] == "part_done" and event["stage"] == "round-0/candidates"]
    assert len(parts) == 12
    took = events[-1]["time"] - events[0]["time"]
    stages = [event for event in events if event["event"] == "stage_done"]
    assert sum(stage["seconds"] for stage in stages) <= took + 0.1 * len(stages), "side by side, yet no more than the clock"
    assert sum(stage["model_seconds"] for stage in stages) <= took
