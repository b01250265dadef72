"""Builds in little memory, and builds that were killed: what stands at the end is what one undisturbed build makes."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.ngram_builds import content_of, dies_after, is_naive, killed_at, large_documents, naive_files, write_ids
from limbeck.infinigram.build import Settings, build


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What a killed process wrote survives it; only a power cut needs the disk, and the long tests wait for it all the same."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_memory_limit_and_threads_change_nothing(tmp_path: Path) -> None:
    source = write_ids(tmp_path, large_documents())
    tables = {}
    for memory, threads in ((None, 1), (None, 3), (400_000, 1), (100_000, 3), (20_000, 2)):
        out = tmp_path / f"{memory}-{threads}"
        build([source], out, Settings(memory_bytes=memory, threads=threads))
        tables[memory, threads] = (out / "table.0").read_bytes()
    assert len(set(tables.values())) == 1


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    source = write_ids(tmp_path, large_documents())
    build([source], tmp_path / "index", Settings(memory_bytes=100_000), lambda *told: seen.append(told))
    steps = {step for step, *_ in seen}
    assert steps == {"tokenise", "sort", "rank", "merge"}
    for step in steps:
        told = [(done, total) for name, done, total, _ in seen if name == step]
        assert all(done <= total for done, total in told) and told == sorted(told), step
        assert step == "tokenise" or told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("memory", "every"),
    [(None, 40), pytest.param(None, 7, marks=pytest.mark.slow), pytest.param(200_000, 7, marks=pytest.mark.slow)],
)
def test_kill_at_steps_of_a_build_and_resume(
    tmp_path: Path, memory: int | None, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each life of the build dies a step later than the last one; what stands at the end is what one life makes."""
    monkeypatch.setattr("limbeck.infinigram.encode._BATCH_DOCUMENTS", 20)
    monkeypatch.setattr("limbeck.infinigram.encode._CHECKPOINT_SECONDS", 0.0)
    source = write_ids(tmp_path, large_documents())
    chosen = Settings(shards=2, memory_bytes=memory, threads=1)
    build([source], tmp_path / "whole", chosen)
    lives = 0
    while killed_at(40, lambda step: build([source], tmp_path / "index", chosen, step)):
        lives += 1
        assert lives < 200
    assert lives > 2
    assert content_of(tmp_path / "index") == content_of(tmp_path / "whole")
    moment = 1
    while killed_at(moment, lambda step, out=tmp_path / f"at{moment}": build([source], out, chosen, step)):
        build([source], tmp_path / f"at{moment}", chosen)
        assert content_of(tmp_path / f"at{moment}") == content_of(tmp_path / "whole"), moment
        moment += every


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_kill_at_random_moments_of_a_long_build(tmp_path: Path, again: bool) -> None:
    """Ten builds killed once each and continued; or one killed `again` and again. What reaches the disk really does so here."""
    random = np.random.default_rng(8)
    np.save(tmp_path / "ids.npy", random.zipf(1.2, 3_000_000) % 60_000)
    chosen = Settings(memory_bytes=12_000_000, threads=2)
    started = time.monotonic()
    build([tmp_path / "ids.npy"], tmp_path / "whole", chosen)
    took_seconds = time.monotonic() - started
    whole = content_of(tmp_path / "whole")
    for turn in range(10):
        out = tmp_path / ("index" if again else f"index{turn}")
        moment = random.random() * took_seconds / (4 if again else 1)
        dies_after(moment, lambda out=out: build([tmp_path / "ids.npy"], out, chosen), last=out / "manifest.json")
        if not again:
            build([tmp_path / "ids.npy"], out, chosen)
            assert content_of(out) == whole, moment
            shutil.rmtree(out)
    if again:
        build([tmp_path / "ids.npy"], out, chosen)
        assert content_of(out) == whole


@pytest.mark.parametrize(("step", "told"), [("rank", 1), ("rank", 5), ("merge", 1)])
def test_finished_parts_are_not_sorted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, told: int) -> None:
    """Nor counted again: `rank` is told twice a part."""
    source = write_ids(tmp_path, large_documents())
    chosen = Settings(memory_bytes=100_000, threads=1)

    calls: list[str] = []

    def stop(now: str, *_: object) -> None:
        calls.append(now)
        if calls.count(step) == told:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([source], tmp_path / "index", chosen, stop)
    monkeypatch.setattr("limbeck.infinigram.tables.sort_part", None)  # calling it again would raise
    if step == "merge":
        monkeypatch.setattr("limbeck.infinigram.tables.count_gaps", None)
    monkeypatch.setattr("limbeck.infinigram.encode._write", None)
    build([source], tmp_path / "index", chosen)
    assert is_naive(tmp_path / "index", naive_files([], 0, 4, "u16"))
