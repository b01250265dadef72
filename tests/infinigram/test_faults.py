"""Full disks, and processes that end before their time: one sentence, and the same call continues."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers.gates import Gate, wait_for
from helpers.ngram_builds import content_of, killed_at, large_documents, write_ids
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.index import Index
from limbeck.infinigram.maintain import append, compact, remove
from limbeck.infinigram.memory import cgroup_free_bytes, free_memory_bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def leave_free(place: Path, free_bytes: int) -> None:
    """Fill a disk but for so many bytes."""
    ballast = place / "ballast"
    ballast.unlink(missing_ok=True)
    status = os.statvfs(place)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free_bytes)


@pytest.mark.parametrize("memory", [None, 200_000])
@pytest.mark.parametrize("apart", [False, True])
def test_a_build_on_a_full_disk(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, memory: int | None, apart: bool
) -> None:
    """Full at every stage: each call gets a little further, says what is wrong, and the last one ends as if nothing had been."""
    monkeypatch.setattr("limbeck.infinigram.encode_apart._SMALL_INPUT_BYTES", 0 if apart else 1 << 40)
    monkeypatch.setattr("limbeck.infinigram.encode_apart._SORTED_BYTES_PER_INPUT_BYTE", 1 << 40)
    source = write_ids(tmp_path, large_documents())
    chosen = Settings(memory_bytes=memory, threads=2)
    build([source], tmp_path / "whole", chosen)
    free_bytes, refusals = 0, 0
    while True:
        leave_free(small_disk, free_bytes)
        try:
            build([source], small_disk / "index", chosen)
            break
        except BadIndex as error:
            said = str(error)
            assert "No space left on device" in said and "free some space" in said and str(small_disk) in said, said
            refusals += 1
            free_bytes += 20_480
    assert refusals >= 4
    assert content_of(small_disk / "index") == content_of(tmp_path / "whole")


def test_changes_on_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    """An index stays as it was where a change of it finds no room."""
    source = write_ids(tmp_path, large_documents())
    index = small_disk / "index"
    build([source], index, Settings())
    before = Index.open(index).count([7, 7])
    for change in (
        lambda: append(index, [source], Settings()),
        lambda: remove(index, range(60)),
        lambda: compact(index, Settings()),
    ):
        leave_free(small_disk, 8192)
        with pytest.raises(BadIndex, match="free some space"):
            change()
        assert Index.open(index).count([7, 7]) == before
        (small_disk / "ballast").unlink()
        change()
        before = Index.open(index).count([7, 7])


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    source = write_ids(tmp_path, [[1, 2]])
    (tmp_path / "file").touch()
    with pytest.raises(BadIndex, match="file"):
        build([source], tmp_path / "file" / "index", Settings())
    with pytest.raises(BadIndex, match="file"):
        build([source], tmp_path / "file", Settings())


@pytest.fixture
def others() -> set[psutil.Process]:
    """What this process has started before, such as a shared cluster."""
    return set(psutil.Process().children())


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every build encodes in a process of its own."""
    monkeypatch.setattr("limbeck.infinigram.encode_apart._SMALL_INPUT_BYTES", 0)
    monkeypatch.setattr("limbeck.infinigram.encode_apart._SORTED_BYTES_PER_INPUT_BYTE", 1 << 40)


def many_ids(folder: Path) -> Path:
    """Enough documents for several batches."""
    np.save(folder / "many.npy", np.arange(200_000) % 5000)
    np.save(folder / "many.offsets.npy", np.arange(0, 200_001, 8))
    return folder / "many.npy"


def test_what_is_wrong_with_a_document_is_told_across(tmp_path: Path, apart: None) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "fine"}\n{"text": [300]}\n')
    with pytest.raises(BadIndex, match=r"texts\.jsonl, row 1 has the token id 300"):
        build([tmp_path / "texts.jsonl"], tmp_path / "index", Settings(tokenizer="bytes"))
    (tmp_path / "texts.jsonl").write_text('{"text": "fine"}\n{"text": 5}\n')
    manifest = build([tmp_path / "texts.jsonl"], tmp_path / "index", Settings(tokenizer="bytes"))
    assert [list(entry["rows"]) for entry in manifest["skipped"]] == [["neither text nor token ids but int"]]


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "memory ran out"), (signal.SIGTERM, "SIGTERM")])
def test_the_process_that_encodes_is_killed(
    tmp_path: Path,
    apart: None,
    others: set[psutil.Process],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    said: str,
) -> None:
    source, killed = many_ids(tmp_path), []
    gate = Gate(tmp_path, "encoded.json$")  # it does not finish before it is killed
    monkeypatch.setenv("FAULTS", str(gate.plan))

    def kill(step: str, *_: object) -> None:
        if step == "tokenise" and not killed:
            killed.extend(set(psutil.Process().children()) - others)
            os.kill(killed[0].pid, number)

    with pytest.raises(BadIndex, match=rf"{said}.*repeat the call to resume"):
        build([source], tmp_path / "index", Settings(), kill)
    gate.open()
    manifest = build([source], tmp_path / "index", Settings())
    assert manifest["shards"][0]["documents"] == 25_000


def test_an_interrupt_ends_the_process_that_encodes(tmp_path: Path, apart: None, others: set[psutil.Process]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([many_ids(tmp_path)], tmp_path / "index", Settings(), stop)
    assert set(psutil.Process().children()) <= others


def test_the_process_that_encodes_dies_with_its_parent(tmp_path: Path, apart: None) -> None:
    source, told = many_ids(tmp_path), tmp_path / "child"

    def work(step: object) -> None:
        def report(*_: object) -> None:
            told.write_text(str(psutil.Process().children()[0].pid))
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

        build([source], tmp_path / "index", Settings(), report)

    assert killed_at(10**9, work)
    child = int(told.read_text())
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    build([source], tmp_path / "index", Settings())


def test_free_memory(tmp_path: Path) -> None:
    """A cgroup's limit less what it uses, its page cache aside; those without a limit, and those not in sight, do not count."""
    assert 1 << 20 < free_memory_bytes() <= psutil.virtual_memory().total
    old, new = tmp_path / "memory" / "a" / "b", tmp_path / "slice"
    for folder in (old, new):
        folder.mkdir(parents=True)
    for folder, limit, used in ((old, "4096", "3000"), (old.parent, "9223372036854771712", "5000")):
        (folder / "memory.limit_in_bytes").write_text(limit)
        (folder / "memory.usage_in_bytes").write_text(used)
        (folder / "memory.stat").write_text("total_rss 1\ntotal_cache 1000\n")
    (new / "memory.max").write_text("max\n")
    (new / "memory.current").write_text("5000\n")
    (new / "memory.stat").write_text("anon 1\nfile 2000\n")
    groups = "5:cpu,memory:/a/b\n3:cpu:/a\n0::/slice\n"
    assert min(cgroup_free_bytes(groups, tmp_path)) == 4096 - 3000 + 1000
    (new / "memory.max").write_text("6000\n")
    assert sorted(cgroup_free_bytes(groups, tmp_path))[:2] == [2096, 3000]
    assert list(cgroup_free_bytes("0::/elsewhere\n", tmp_path)) == []
