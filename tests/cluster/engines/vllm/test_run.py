"""The quickstart's recipe with its teacher in the real vLLM, through Ray; and vLLM's processes killed while it works."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

pytest.importorskip("vllm")

from helpers.commands import start
from helpers.gates import PATIENCE_SECONDS, Gate, wait_for
from limbeck.corpus.parts import read_parts
from limbeck.corpus.schemas import CANDIDATES
from limbeck.generators.documents_qa.steps import REASONS
from limbeck.pipelines.runs.events import read_events
from limbeck.pipelines.runs.folder import RunFolder

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

KILLS = 5
SEED = int(os.environ.get("LIMBECK_SEED", "20261122"))
READY = "init engine"  # what vLLM tells once it has started


def quickstart(out: Path, *changes: str, faults: Path | None = None) -> subprocess.Popen[str]:
    """The quickstart with vLLM, a few documents and no student."""
    fewer = ["sources.split={train: 24, dev: 2, test: 2}", "rounds=1", "student=null", "cluster.rows_per_part=4"]
    assignments = ["teacher.kind=vllm", *fewer, *changes]
    options = [word for assignment in assignments for word in ("--set", assignment)]
    return start("run", "quickstart", "--out", out, "--no-panel", *options, faults=faults)


def assert_whole(out: Path) -> None:
    """Every sample of every document is there once, without an error, and scored."""
    sources = read_parts(RunFolder(out).sources("train"))
    candidates = read_parts(out / "rounds/000/candidates", CANDIDATES)
    assert candidates.num_rows == 24 * 4 and len(set(candidates["candidate_id"].to_pylist())) == 24 * 4
    assert set(candidates["source_id"].to_pylist()) == set(sources["source_id"].to_pylist())
    assert not candidates["error"].drop_null().to_pylist()
    assert sum(text != "" for text in candidates["output"].to_pylist()) > 80
    scores = read_parts(out / "rounds/000/scores/pmi")
    assert sorted(scores["candidate_id"].to_pylist()) == sorted(candidates["candidate_id"].to_pylist())
    events = [event for event in read_events(out / "events.jsonl") if event["event"] == "part_done"]
    done = Counter((event["stage"], event["part"]) for event in events if event["stage"].startswith("round-0"))
    assert set(done.values()) == {1}, "no part is done twice"


def test_the_quickstarts_teacher_in_vllm(tmp_path: Path) -> None:
    run = quickstart(tmp_path / "run")
    _, told = run.communicate()
    assert run.returncode == 0, told
    assert_whole(tmp_path / "run")


def test_both_steps_of_documents_qa_are_held_to_their_json_schemas(tmp_path: Path) -> None:
    """The override `structured`: a text is cut off, or it is an object of the schema, whose other fields are in the facts."""
    out = tmp_path / "run"
    sets = [
        "teacher.kind=vllm",
        "student=null",
        "filters=[{kind: length, max_compression: null}]",
        "select=[]",
        "sources.split={train: 16, dev: 2, test: 2}",
    ]
    options = [word for assignment in sets for word in ("--set", assignment)]
    run = start("run", "documents-qa", "--with", "toy", "--with", "structured", *options, "--out", out, "--no-panel")
    _, told = run.communicate()
    assert run.returncode == 0, told
    rows = read_parts(out / "rounds/000/candidates", CANDIDATES).to_pylist()
    whole = [json.loads(row["facts"]) for row in rows if row["error"] is None]
    errors = Counter(row["error"] for row in rows)
    assert len(rows) == 32 and whole and REASONS["not_json"] not in errors, errors
    assert all(facts["kind"] in ("fact", "definition", "reason", "procedure") for facts in whole)
    assert all(isinstance(facts["quote"], str) for facts in whole)


def cores(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """vLLM's engine processes under this run: what its workers spawn. Under Ray they may have no title to tell them by."""
    try:
        below = psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in below if _is_spawned_by_a_worker(process)]


def _is_spawned_by_a_worker(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        spawned = "spawn_main" in " ".join(process.cmdline()) or "EngineCore" in process.name()
        return spawned and parent is not None and "ray::Worker" in parent.name() + " ".join(parent.cmdline())
    except psutil.Error:
        return False


def starts(log: Path) -> int:
    """How often vLLM has come up."""
    return log.read_text().count(READY) if log.exists() else 0


def test_vllm_killed_at_five_random_moments_loses_no_row(tmp_path: Path) -> None:
    """Each part waits with its candidates for a kill of its own: so the run is not over early and needs vLLM after each kill."""
    rng, out = random.Random(SEED), tmp_path / "run"
    gate = Gate(tmp_path, *(f"rounds/000/candidates/part-{number:05d}.parquet$" for number in range(KILLS)))
    run = quickstart(out, "generator.max_new_tokens=64", faults=gate.plan)
    log = out / "logs" / "teacher-0.log"
    ready = 0
    for number in range(KILLS):
        loading = number in (1, 3)  # two of the moments lie in the start of the engine, the others in its work
        wait_for(lambda loading=loading, ready=ready: cores(run) and (loading or starts(log) > ready), run, seconds=900)
        time.sleep(rng.uniform(0, 12 if loading else 6))
        wait_for(lambda: cores(run), run, seconds=900)
        found, ready = cores(run), starts(log)
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        assert not psutil.wait_procs(found, timeout=PATIENCE_SECONDS)[1]
        gate.open(number)
    _, told = run.communicate()
    assert run.returncode == 0, told
    assert_whole(out)
    notes = [event["words"] for event in read_events(out / "events.jsonl") if event["event"] == "note"]
    assert any("vLLM" in words for words in notes), notes
    assert not re.search("Traceback", told)
