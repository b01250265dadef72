"""The contract of a store, for local disks and for an object store that has only a conditional put."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.memory_store import Bucket, MemoryStore
from limbeck.corpus.storage import local
from limbeck.corpus.storage.contract import Store
from limbeck.corpus.storage.local import LocalStore

KINDS = ("local", "conditional-put")
Open = Callable[[], Store]


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same store again and again, as processes on several machines do."""
    bucket = Bucket()
    if request.param == "local":
        return lambda: LocalStore(tmp_path / "store")
    return lambda: MemoryStore(bucket)


def file(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_an_object_is_created_once_and_never_replaced(opened: Open) -> None:
    assert opened().names() == [] and opened().put("a/b.json", b"first")
    assert not opened().put("a/b.json", b"second") and not opened().put("a/b.json", b"first")
    assert opened().read("a/b.json") == b"first" and opened().names() == ["a/b.json"]


def test_what_is_not_there_is_a_key_error_and_removed_without_one(opened: Open) -> None:
    opened().put("a/b", b"x")
    for name in ("c", "a", "a/b/c", "a/c"):
        with pytest.raises(KeyError):
            opened().read(name)
        opened().remove(name) if name != "a" else None
    assert opened().names() == ["a/b"]
    opened().remove("a/b")
    opened().remove("a/b")
    assert opened().names() == [] and opened().put("a/b", b"again") and opened().read("a/b") == b"again"


def test_names_are_sorted_and_have_the_prefix(opened: Open) -> None:
    for name in ("b/2", "a", "b/10", "bc/1", "b/d/e"):
        opened().put(name, name.encode())
    assert opened().names() == ["a", "b/10", "b/2", "b/d/e", "bc/1"]
    assert opened().names("b/") == ["b/10", "b/2", "b/d/e"] and opened().names("b/1") == ["b/10"]
    assert opened().names("b") == ["b/10", "b/2", "b/d/e", "bc/1"] and opened().names("x/") == []


def test_a_file_and_a_folder_are_published_whole_and_once(opened: Open, tmp_path: Path) -> None:
    assert opened().publish("part", file(tmp_path / "one", "1")) and opened().read("part") == b"1"
    assert not opened().publish("part", file(tmp_path / "two", "2")) and opened().read("part") == b"1"
    for content in ("first", "second"):
        folder = file(tmp_path / "folder" / "data" / "rows", content).parent.parent
        file(folder / "README", content)
        assert opened().publish("dataset", folder) == (content == "first")
        assert not folder.exists(), "what was published is consumed, and so is what was not"
    assert opened().names("dataset") == ["dataset/README", "dataset/data/rows"]
    assert {opened().read(name) for name in opened().names("dataset")} == {b"first"}


def test_of_many_writers_of_one_name_exactly_one_wins(opened: Open, tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def write(number: int, what: str) -> bool:
        content = str(number).encode()
        if what == "put":
            barrier.wait()
            return opened().put(what, content)
        source = file(tmp_path / f"{what}{number}" / "inner", str(number))
        source = source if what == "file" else source.parent
        barrier.wait()
        return opened().publish(what, source)

    with ThreadPoolExecutor(8) as threads:
        for what, name in (("put", "put"), ("file", "file"), ("folder", "folder/inner")):
            won = list(threads.map(lambda number, what=what: write(number, what), range(8)))
            assert sum(won) == 1 and opened().read(name) == str(won.index(True)).encode()


def test_records_are_kept_in_order_over_segments(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SEGMENT_BYTES", 40)
    assert list(opened().records("log/events.jsonl")) == []
    written = [f'{{"number": {number}, "é": 1}}'.encode() for number in range(30)]
    for record in written:
        opened().append("log/events.jsonl", record)
    assert list(opened().records("log/events.jsonl")) == written


def test_a_local_log_continues_one_of_an_earlier_version_and_after_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b'{"a": 1}\n{"b": ')
    LocalStore(tmp_path).append("events.jsonl", b'{"c": 3}')
    assert list(LocalStore(tmp_path).records("events.jsonl")) == [b'{"a": 1}', b'{"b": ', b'{"c": 3}']


def test_a_local_file_in_progress_has_no_name(tmp_path: Path) -> None:
    (tmp_path / ".x.tmp").write_text("half")
    (tmp_path / ".scratch").mkdir()
    (tmp_path / ".scratch" / "y").write_text("half")
    assert LocalStore(tmp_path).names() == []
