"""Appending, taking down, compacting and verifying an index; kills between the steps, and every byte flipped."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.corpus.errors import LimbeckError
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.maintain import append, compact, remove, removed_documents
from limbeck.infinigram.verify import verify

DOCUMENTS = [[1, 2, 3], [], [2, 3, 1, 2], [5], [1, 2, 3], [4, 4, 4, 4], [250, 3]]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def write(path: Path, documents: list[list[int]]) -> Path:
    path.write_text("".join(json.dumps({"text": ids, "n": number}) + "\n" for number, ids in enumerate(documents)))
    return path


def made(folder: Path, documents: list[list[int]], shards: int = 1, version: Any = 4) -> Path:
    """An index of the documents, in u8."""
    source = write(folder / "made.jsonl", documents)
    build([source], folder / "index", Settings(dtype="u8", shards=shards, version=version))
    return folder / "index"


def documents_of(folder: Path) -> list[list[int]]:
    """The token ids of every document of an index, shard by shard."""
    found: list[list[int]] = []
    for path in sorted(folder.glob("tokenized.*"), key=lambda path: int(path.suffix[1:])):
        found += [list(piece) for piece in path.read_bytes().split(b"\xff")[1:]]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def killed_at(moment: int, work: Callable[[], object]) -> bool:
    """Run `work` in a forked process that kills itself at the so-many-th time it changes names or sizes on the disk."""
    pid = os.fork()
    if pid == 0:
        try:
            left = moment
            for name in ("replace", "rename", "truncate", "unlink", "link", "symlink", "rmdir", "mkdir"):
                original = getattr(os, name)

                def counted(*args: Any, original: Callable[..., Any] = original, **named: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return original(*args, **named)

                setattr(os, name, counted)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("version", [4, 5])
def test_append_adds_shards(tmp_path: Path, version: Any) -> None:
    index = made(tmp_path, DOCUMENTS, version=version)
    before = contents(index)
    more = write(tmp_path / "more.jsonl", [[9, 8], [7], [6]])
    manifest = append(index, [more], Settings(shards=2))
    assert [shard["number"] for shard in manifest["shards"]] == [0, 1, 2]
    added = [[9, 8], [6], [7]]
    assert documents_of(index)[len(DOCUMENTS) :] == [ids if version == 4 else ids[::-1] for ids in added]
    after = contents(index)
    assert all(after[name] == before[name] for name in before if name != "manifest.json")
    assert (index / "metadata.2").read_text().count("\n") == 1
    assert verify(index).documents == len(DOCUMENTS) + 3


def test_append_keeps_to_the_index(tmp_path: Path) -> None:
    index = made(tmp_path, DOCUMENTS)
    for chosen, said in (
        (Settings(dtype="u16"), "already has a dtype"),
        (Settings(tokenizer="bytes"), "already has a tokenizer"),
    ):
        with pytest.raises(BadIndex, match=said):
            append(index, [tmp_path / "made.jsonl"], chosen)
    with pytest.raises(BadIndex, match="token id 300"):
        append(index, [write(tmp_path / "more.jsonl", [[300]])], Settings())
    with pytest.raises(BadIndex, match="unfinished"):
        remove(index, [0])
    (tmp_path / "none").mkdir()
    with pytest.raises(BadIndex, match="only finished indexes built by limbeck"):
        append(tmp_path / "none", [tmp_path / "made.jsonl"], Settings())


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_append_resumes_after_every_kill(tmp_path: Path, step: int) -> None:
    index = made(tmp_path, DOCUMENTS)
    more = write(tmp_path / "more.jsonl", [[9, 8], [7]])
    shutil.copytree(index, tmp_path / "whole")
    append(tmp_path / "whole", [more], Settings())
    for moment in range(1, 100, step):
        out = tmp_path / str(moment)
        shutil.copytree(index, out)
        died = killed_at(moment, lambda out=out: append(out, [more], Settings()))
        if (out / ".building").exists() or len(json.loads((out / "manifest.json").read_text())["shards"]) == 1:
            append(out, [more], Settings())
        shutil.rmtree(out / ".built", ignore_errors=True)  # all that a kill in the last step leaves
        assert contents(out) == contents(tmp_path / "whole"), moment
        if not died:
            break
    assert moment > 10


def test_remove_keeps_what_was_taken_down_as_an_index(tmp_path: Path) -> None:
    index = made(tmp_path, DOCUMENTS, shards=2)  # shard 0 has documents 0, 2, 4, 6; shard 1 has 1, 3, 5
    order = DOCUMENTS[::2] + DOCUMENTS[1::2]
    assert documents_of(index) == order
    assert remove(index, [5, 1]) == 2
    assert removed_documents(index).tolist() == [[0, 1], [1, 1]]
    assert documents_of(index / "removed") == [order[1], order[5]]
    assert remove(index, [1, 6, 0]) == 4
    assert removed_documents(index).tolist() == [[0, 0], [0, 1], [1, 1], [1, 2]]
    assert documents_of(index / "removed") == [order[at] for at in (0, 1, 5, 6)]
    assert documents_of(index) == order
    assert verify(index).documents == len(DOCUMENTS)
    for wrong in (7, -1):
        with pytest.raises(BadIndex, match=f"no document {wrong}; its documents are 0 to 6"):
            remove(index, [wrong])
    assert remove(index, []) == 4


def test_every_file_of_an_index_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    index = made(tmp_path, DOCUMENTS, shards=2)
    names = [path.name for path in index.iterdir() if path.is_file() and path.name not in ("limbeck.json", "manifest.json")]
    assert any(name.startswith("keys64") for name in names), names
    for name in names:
        content = (index / name).read_bytes()
        (index / name).unlink()
        with pytest.raises(LimbeckError):
            verify(index)
        (index / name).write_bytes(content)
    assert verify(index).documents == len(DOCUMENTS)


def test_remove_is_all_or_nothing_at_every_kill(tmp_path: Path) -> None:
    index = made(tmp_path, DOCUMENTS)
    remove(index, [3])
    moment, states = 1, []
    while True:
        out = tmp_path / str(moment)
        shutil.copytree(index, out, symlinks=True)
        died = killed_at(moment, lambda out=out: remove(out, [0, 2]))
        states.append([number for _, number in removed_documents(out).tolist()])
        assert documents_of(out / "removed") == [DOCUMENTS[number] for number in states[-1]]
        verify(out)
        assert remove(out, [0, 2]) == 3
        assert documents_of(out / "removed") == [DOCUMENTS[number] for number in (0, 2, 3)]
        if not died:
            break
        moment += 1
    assert states == sorted(states, key=len) and {tuple(state) for state in states} == {(3,), (0, 2, 3)}


def test_a_copy_whose_links_became_files_works_on(tmp_path: Path) -> None:
    index = made(tmp_path, DOCUMENTS)
    remove(index, [3])
    shutil.copytree(index, tmp_path / "copy", symlinks=False)
    assert remove(tmp_path / "copy", [0]) == 2
    assert documents_of(tmp_path / "copy" / "removed") == [DOCUMENTS[0], DOCUMENTS[3]]
    verify(tmp_path / "copy")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_compact_equals_a_build_without_them(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], shards: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("compact")
    index = made(folder, documents, shards)
    order = [document for shard in range(shards) for document in documents[shard::shards]]
    gone = data.draw(st.sets(st.integers(0, len(documents) - 1)))
    remove(index, gone)
    manifest = compact(index, Settings())
    kept = [document for number, document in enumerate(order) if number not in gone]
    assert documents_of(index) == kept
    assert sum(shard["documents"] for shard in manifest["shards"]) == len(kept)
    assert len(removed_documents(index)) == 0 and not (index / "removed").exists()
    assert verify(index).documents == len(kept)
    if shards == 1 and kept:
        (folder / "again").mkdir()
        other = made(folder / "again", kept)
        for name in ("tokenized.0", "offset.0", "table.0", "unigram.0", "keys64.0.ig"):
            assert (index / name).read_bytes() == (other / name).read_bytes(), name


def test_compact_resumes_after_every_kill(tmp_path: Path) -> None:
    index = made(tmp_path, DOCUMENTS, shards=2)
    remove(index, [0, 3])
    shutil.copytree(index, tmp_path / "whole", symlinks=True)
    compact(tmp_path / "whole", Settings())
    for moment in range(1, 300):
        out = tmp_path / str(moment)
        shutil.copytree(index, out, symlinks=True)
        died = killed_at(moment, lambda out=out: compact(out, Settings()))
        compact(out, Settings())
        assert contents(out) == contents(tmp_path / "whole"), moment
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        shutil.rmtree(out)
        if not died:
            break
    assert moment > 20


def flipped(path: Path, at: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("with_manifest", [True, False])
def test_verify_finds_every_flipped_byte_of_a_table(tmp_path: Path, with_manifest: bool) -> None:
    """Without checksums too: every other table than the right one holds a wrong entry, one twice, or a wrong order."""
    random = np.random.default_rng(1)
    index = made(tmp_path, [random.integers(0, 3, 20).tolist() for _ in range(8)])
    if not with_manifest:
        (index / "manifest.json").unlink()
    table = index / "table.0"
    right = table.read_bytes()
    verify(index, dtype="u8")
    for at in range(len(right)):
        flipped(table, at, int(random.integers(8)))
        with pytest.raises(BadIndex, match=r"table\.0 is damaged: the entry of rank \d+, at byte \d+"):
            verify(index, dtype="u8")
        table.write_bytes(right)
    verify(index, dtype="u8")


@pytest.mark.slow
@pytest.mark.parametrize("with_manifest", [True, False])
def test_verify_finds_flipped_bytes_of_a_larger_table(tmp_path: Path, with_manifest: bool) -> None:
    """With long repeats, in which neighbours differ late or not at all."""
    random = np.random.default_rng(4)
    once = random.zipf(1.3, 120_000) % 50_000
    np.save(tmp_path / "ids.npy", np.concatenate([once, once, once[5000:90_000], np.full(20_000, 3)]))
    build([tmp_path / "ids.npy"], tmp_path / "index", Settings())
    if not with_manifest:
        (tmp_path / "index" / "manifest.json").unlink()
    table = tmp_path / "index" / "table.0"
    right = table.read_bytes()
    for at in random.integers(0, len(right), 60).tolist():
        flipped(table, at, int(random.integers(8)))
        with pytest.raises(BadIndex, match=r"table\.0 is damaged: the entry of rank \d+, at byte \d+"):
            verify(tmp_path / "index", dtype="u16")
        table.write_bytes(right)


@pytest.mark.parametrize(
    "name", ["tokenized.0", "offset.0", "metadata.0", "metaoff.0", "unigram.0", "table.0", "keys64.0.ig", "removed.1/tokenized.0"]
)
def test_verify_names_the_file_that_changed(tmp_path: Path, name: str) -> None:
    index = made(tmp_path, DOCUMENTS)
    remove(index, [2])
    right = (index / name).read_bytes()
    stem = name.split(".")[0]
    for at in range(0, len(right), 1 + len(right) // 60):
        flipped(index / name, at, 0)
        with pytest.raises(BadIndex) as raised:
            verify(index)
        assert stem in str(raised.value)
        (index / name).write_bytes(right)
    os.truncate(index / name, len(right) - 1)
    with pytest.raises(BadIndex, match=stem):
        verify(index)


def test_verify_of_a_sample(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    index = made(tmp_path, [random.integers(0, 9, 500).tolist() for _ in range(20)])
    assert verify(index, samples=100).tokens == 10_020
    table = np.fromfile(index / "table.0", dtype="<u2")
    random.shuffle(table)
    table.tofile(index / "table.0")
    with pytest.raises(BadIndex, match="comes after a larger suffix"):
        verify(index, samples=100)
    with pytest.raises(BadIndex, match="omit it"):
        verify(index, dtype="u16")


def test_verify_finds_a_swapped_pair_deep_in_a_repeat(tmp_path: Path) -> None:
    index = made(tmp_path, [[7] * 5000])
    table = np.fromfile(index / "table.0", dtype="<u2")
    verify(index)
    table[[2000, 2001]] = table[[2001, 2000]]
    table.tofile(index / "table.0")
    with pytest.raises(BadIndex, match="rank 2000|rank 2001"):
        verify(index)
