"""Temporary folders: removed by their owner, never by others while it lives, and by others after it was killed."""

import gc
import os
import signal
from pathlib import Path

import pytest

from limbeck.corpus import scratch as module
from limbeck.corpus.scratch import SCRATCH, Scratch


def folders(near: Path) -> list[Path]:
    return [path for path in (near / SCRATCH).iterdir() if path.is_dir()] if (near / SCRATCH).exists() else []


def test_a_folder_exists_as_long_as_its_object(tmp_path: Path) -> None:
    first, second = Scratch(tmp_path), Scratch(tmp_path)
    (first.path / "file").write_text("x")
    assert sorted(folders(tmp_path)) == sorted([first.path, second.path])
    first.close()
    assert folders(tmp_path) == [second.path]
    del second
    gc.collect()
    assert not (tmp_path / SCRATCH).exists()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    mine = Scratch(tmp_path)
    process = os.fork()
    if process == 0:
        theirs = Scratch(tmp_path)
        (theirs.path / "file").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert len(folders(tmp_path)) == 2
    other = Scratch(tmp_path)
    assert sorted(folders(tmp_path)) == sorted([mine.path, other.path])


def test_a_fork_that_ends_leaves_the_folder_to_its_owner(tmp_path: Path) -> None:
    mine = Scratch(tmp_path)
    process = os.fork()
    if process == 0:
        mine.close()
        os._exit(0)
    os.waitpid(process, 0)
    assert folders(tmp_path) == [mine.path]


def test_a_place_that_cannot_be_written_is_replaced_by_the_system_s(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    scratch = Scratch(tmp_path / "file")
    assert scratch.path.is_dir() and tmp_path not in scratch.path.parents
    scratch.close()
    assert not scratch.path.exists()


def test_a_query_that_needs_more_than_its_memory_continues_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_LIMIT_MIB", 32)
    scratch = Scratch(tmp_path)
    with scratch.connect() as connection:
        connection.execute("create table many as select i, md5(i::varchar) as text from range(1500000) as r(i)")
        assert (scratch.path / "spilled").exists() and list((scratch.path / "spilled").iterdir())
        assert connection.execute("select count(*), max(i) from many where text > ''").fetchall() == [(1_500_000, 1_499_999)]
    scratch.close()
