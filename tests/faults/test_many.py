"""Faults among many rows, in whole runs: one prompt too long in 10,000; 2,000 requests to a server that fails in every way."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from helpers.commands import limbeck
from helpers.fault_server import FaultServer, byte_tokenizer, reply_text, scattered
from helpers.tiny_run import recipe, write_recipe
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES

ROWS = 10_000
LENGTH = [{"kind": "length", "min_output_tokens": 0, "max_compression": None}]
TRIAL = "Hello|None"  # the probe of a server that answers none of the remaining rows; not a row
SERVED = ({"id": "tiny", "max_model_len": 1024},)
BEFORE_IT_BREAKS = 70  # rows, in parts of 20 that are drawn one at a time
ALL_TRAIN = {"train": 1.0, "dev": 0.0, "test": 0.0}


def write_notes(path: Path, count: int) -> list[str]:
    """Short documents that are not near-duplicates of each other."""
    rng = random.Random(0)
    texts = [f"Note {number}: " + " ".join(f"w{rng.randrange(10**6)}" for _ in range(4)) + "." for number in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return texts


def served_recipe(folder: Path, server: FaultServer, notes: int, **cluster: int) -> Path:
    """A run with four samples per note, drawn by the server; the prompt is the note itself."""
    write_notes(folder / "notes.jsonl", notes)
    model = Path(recipe(folder)["teacher"]["model"])
    config = (model / "config.json").read_text()
    byte_tokenizer(model)  # the server's tokens are bytes
    (model / "config.json").write_text(config)
    (folder / "prompt.jinja").write_text("{{ document }}")
    patience = {"backoff_seconds": 0.01, "patience_seconds": 5.0, "timeout_seconds": 4.0}
    return write_recipe(
        folder,
        rounds=1,
        student=None,
        teacher={"kind": "endpoint", "model": str(model), "base_url": server.url, **patience},
        sources={"kind": "jsonl", "path": str(folder / "notes.jsonl"), "max_source_tokens": None, "split": ALL_TRAIN},
        generator={"kind": "summaries", "samples": 4, "max_new_tokens": 24, "prompt": str(folder / "prompt.jinja")},
        filters=LENGTH,
        cluster={"cpus_per_worker": 0.5, **cluster},
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_prompt_too_long_in_ten_thousand(tmp_path: Path, ray_address: str) -> None:
    notes = tmp_path / "notes.jsonl"
    write_notes(notes, ROWS - 1)
    with notes.open("a") as handle:
        handle.write(json.dumps({"text": "A very long story. " * 600}) + "\n")
    path = write_recipe(
        tmp_path,
        rounds=1,
        student=None,
        sources={"kind": "jsonl", "path": str(notes), "max_source_tokens": None, "split": ALL_TRAIN},
        generator={"kind": "summaries", "samples": 1, "max_new_tokens": 1},
        filters=LENGTH,
        cluster={"rows_per_part": 1000},
    )
    done = limbeck("run", path, "--out", tmp_path / "run", "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    candidates = read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES)
    failed = [row for row in candidates.select(["error", "finish_reason", "prompt"]).to_pylist() if row["error"]]
    assert candidates.num_rows == ROWS and len(set(candidates["source_id"].to_pylist())) == ROWS
    assert len(failed) == 1 and "very long story" in failed[0]["prompt"] and "context" in failed[0]["error"]
    decisions = read_table(tmp_path / "run/rounds/000/decisions.parquet").to_pylist()
    assert Counter(row["rejected_by"] for row in decisions)["generator"] == 1 and len(decisions) == ROWS
    assert sum(row["kept"] for row in decisions) + sum(bool(row["reason"]) for row in decisions) == ROWS
    notes_in_log = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert not [event for event in notes_in_log if event["event"] == "part_done" and event["deaths"]], "no worker died of it"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_thousand_requests_of_a_run_over_every_fault(tmp_path: Path, ray_address: str) -> None:
    notes = write_notes(tmp_path / "notes.jsonl", 500)
    poison, too_long = set(notes[7::200]), set(notes[9::200])
    with FaultServer(plan=scattered(1, poison, too_long), seconds=0.002, hang_seconds=300.0, models=SERVED) as server:
        path = served_recipe(tmp_path, server, notes=500, workers=2, rows_per_part=100)
        done = limbeck("run", path, "--out", tmp_path / "run", "--no-panel", RAY_ADDRESS=ray_address)
        assert done.returncode == 0, done.stderr
    assert server.answered.pop(TRIAL, 0) <= 4
    assert [name for name in server.sent_again if name != TRIAL] == [], "answered, and sent again"
    rows = read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES).to_pylist()
    assert len(rows) == len({row["candidate_id"] for row in rows}) == 2000
    for row in rows:
        if row["prompt"] in poison:
            assert "attempts failed, the last with: 500" in row["error"]
        elif row["prompt"] in too_long:
            assert "maximum context length" in row["error"]
        else:
            assert (row["error"], row["output"]) == (None, reply_text(row["prompt"], row["seed"] & (2**31 - 1), 24).strip())
    failed = 4 * len(poison | too_long)
    assert sum(row["error"] is not None for row in rows) == failed == 4 * 6
    assert sum(server.answered.values()) == 2000 - failed, "each once"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_that_breaks_in_the_middle_of_a_run_stops_it_and_is_asked_on_once_it_is_mended(
    tmp_path: Path, ray_address: str
) -> None:
    left = {"rows": BEFORE_IT_BREAKS}

    def plan(prompt: str, before: int) -> str:
        if left["rows"] <= 0:
            return "500"
        left["rows"] -= f"{prompt}|None" != TRIAL
        return ""

    with FaultServer(plan=plan, seconds=0.002, models=SERVED) as server:
        path = served_recipe(tmp_path, server, notes=30, workers=1, rows_per_part=5, parts_in_flight=1)
        first = limbeck("run", path, "--out", tmp_path / "run", "--no-panel", RAY_ADDRESS=ray_address)
        assert first.returncode == 1 and "Traceback" not in first.stderr, first.stderr
        assert "started 3 times" in first.stderr.splitlines()[-1]
        assert "answered no request for" in first.stderr.splitlines()[-1], "the exit message is kept"
        kept = read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES).num_rows
        left["rows"] = 10**6
        server.sent_again.clear()
        done = limbeck("run", path, "--out", tmp_path / "run", "--no-panel", RAY_ADDRESS=ray_address)
        assert done.returncode == 0, done.stderr
        again = [name for name in server.sent_again if name != TRIAL]
        assert len(again) <= BEFORE_IT_BREAKS - kept, "what was published is not asked again"
    rows = read_parts(tmp_path / "run/rounds/000/candidates", CANDIDATES).to_pylist()
    assert 0 < kept < len(rows) == 120 and not any(row["error"] for row in rows)
