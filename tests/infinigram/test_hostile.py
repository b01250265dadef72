"""Files that are wrong: one typed sentence, never a crash, never a silent zero."""

import json
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from helpers import ngram_oracle as naive
from limbeck.corpus.errors import LimbeckError
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.index import Index

DOCUMENTS = [[at * 7 % 97 for at in range(size)] for size in (200, 0, 1, 333, 90, 12)]


@pytest.fixture
def folder(tmp_path):
    return naive.write_index(tmp_path / "index", DOCUMENTS)


def cut(path: Path, bytes_off: int) -> None:
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - bytes_off])


@pytest.mark.parametrize("name", ["tokenized.0", "table.0", "offset.0", "metaoff.0"])
@pytest.mark.parametrize("off", [1, 2, 3, 8, 16, 10**6])
def test_a_file_that_was_cut_off(folder, name, off):
    data = (folder / name).read_bytes()
    cut(folder / name, min(off, len(data)))
    with pytest.raises(BadIndex, match=name.split(".")[0]):
        Index.open(folder)


@pytest.mark.parametrize("name", ["tokenized.0", "table.0", "offset.0"])
def test_a_file_that_is_missing_or_a_folder(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadIndex, match=name if name != "tokenized.0" else "tokenized"):
        Index.open(folder)
    (folder / name).mkdir()
    with pytest.raises(BadIndex, match="not a regular file"):
        Index.open(folder)


def test_files_of_two_indexes(tmp_path, folder):
    other = naive.write_index(tmp_path / "other", [[at * 5 % 89 for at in range(len(document))] for document in DOCUMENTS])
    for name in ("table.0", "tokenized.0"):
        mixed = tmp_path / f"mixed-{name}"
        shutil.copytree(folder, mixed)
        shutil.copy(other / name, mixed / name)
        with pytest.raises(BadIndex):
            Index.open(mixed)
    shutil.copy(folder / "table.0", tmp_path / "table")
    shutil.copy(folder / "tokenized.0", folder / "table.0")
    with pytest.raises(BadIndex):
        Index.open(folder)


@pytest.mark.parametrize("dtype", ["u8", "u32", "u64"])
def test_another_dtype(folder, dtype):
    with pytest.raises(BadIndex, match="dtype"):
        Index.open(folder, dtype=dtype)


@pytest.mark.parametrize(("options", "message"), [({"version": 6}, "version 6"), ({"load": "disk"}, "load")])
def test_options_that_do_not_exist(folder, options, message):
    with pytest.raises(LimbeckError, match=message):
        Index.open(folder, **options)


def test_folders_that_are_no_index(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    for paths in (tmp_path / "empty", tmp_path / "nowhere", folder / "table.0", []):
        with pytest.raises(BadIndex):
            Index.open(paths)
    (tmp_path / "one").mkdir()
    for name in ("tokenized", "table", "offset"):
        (tmp_path / "one" / f"{name}.0").write_bytes(b"")
    with pytest.raises(BadIndex, match="empty"):
        Index.open(tmp_path / "one")


def test_paths_with_the_words_of_the_format_open(tmp_path):
    folder = naive.write_index(tmp_path / "stable" / "table" / "tokenized.0" / "offset", DOCUMENTS)
    (folder / "table.0.bak").write_text("not ours")
    assert Index.open(folder).count([0, 7]) == Index.open(str(folder)).count([0, 7]) > 0


def test_version_6_folders_open_as_shards(tmp_path):
    for shard, part in enumerate(naive.deal(DOCUMENTS, 2)):
        naive.write_shard(tmp_path / str(shard), "", part, "u16", 4)
    numbered = Index.open(naive.write_index(tmp_path / "numbered", DOCUMENTS, shards=2))
    loose = Index.open([tmp_path / "0", tmp_path / "1"])
    assert loose.find([7, 14]) == numbered.find([7, 14])
    assert loose.document(4).ids.tolist() == numbered.document(4).ids.tolist()


def test_shards_are_ordered_by_number_or_officially(tmp_path):
    documents = [[number] for number in range(12)]
    folder = naive.write_index(tmp_path / "twelve", documents, shards=12)
    assert [Index.open(folder).document(at).ids.tolist() for at in range(12)] == documents
    official = Index.open(folder, official_order=True)
    assert [official.document(at).ids.tolist()[0] for at in range(12)] == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]


def test_an_entry_that_points_nowhere_is_named_when_it_is_used(folder):
    index_bytes = (folder / "table.0").read_bytes()
    tokens = len((folder / "tokenized.0").read_bytes()) // 2
    width = len(index_bytes) // tokens
    damaged = bytearray(index_bytes)
    for rank in range(300, 330):
        damaged[rank * width : (rank + 1) * width] = b"\xff" * width
    (folder / "table.0").write_bytes(damaged)
    with pytest.raises(BadIndex, match="rank 3"):
        index = Index.open(folder)
        for token in range(97):
            index.count([token])
            index.next_tokens([token])


@pytest.mark.parametrize("load", ["mmap", "ram"])
def test_flipped_bytes_never_crash(tmp_path, load):
    generator = random.Random(7)
    for turn in range(80):
        folder = naive.write_index(tmp_path / str(turn), DOCUMENTS, shards=2)
        naive.write_keys(folder, ".0", "u16")
        path = generator.choice(sorted(folder.iterdir()))
        data = bytearray(path.read_bytes())
        for _ in range(generator.choice([1, 1, 5, 50])):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        try:
            index = Index.open(folder, load=load)
        except BadIndex:
            continue
        for query in ([], [0], [7, 14], [3, 10, 17, 24], [65535], [65535, 0]):
            for call in (index.count, index.next_tokens, index.score, index.trace, index.search, index.longest_suffix):
                try:
                    call(query)
                except LimbeckError as error:
                    assert str(error).count("\n") == 0
        for number in range(6):
            try:
                index.document(number)
            except LimbeckError:
                continue


def test_wrong_keys_slow_a_search_but_do_not_change_it(folder):
    right = Index.open(folder)
    naive.write_keys(folder, ".0", "u16")
    keys = folder / "keys64.0.ig"
    data = keys.read_bytes()
    queries = [[token] for token in range(97)] + [[token, (token + 7) % 97] for token in range(97)]
    for wrong in (bytes(len(data)), b"\xff" * len(data), data[8:] + data[:8], data[::-1]):
        keys.write_bytes(wrong)
        index = Index.open(folder)
        assert [index.find(query) for query in queries] == [right.find(query) for query in queries]
        assert np.array_equal(index.creativity(DOCUMENTS[3]), right.creativity(DOCUMENTS[3]))
    keys.write_bytes(data[:-8])
    with pytest.raises(BadIndex, match="keys64"):
        Index.open(folder)


def write_manifest(folder: Path, **changed) -> None:
    """The manifest of a folder of one shard in u16."""
    sizes = {
        f"{kind}.0": (folder / f"{kind}.0").stat().st_size for kind in ("tokenized", "table", "offset", "metadata", "metaoff")
    }
    shard = {
        "number": 0,
        "documents": sizes["offset.0"] // 8,
        "tokens": sizes["tokenized.0"] // 2,
        "files": {name: {"bytes": size} for name, size in sizes.items()},
    }
    manifest = {"format": 1, "dtype": "u16", "version": 4, "eos": 3, "shards": [shard], **changed}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_manifest_that_differs_from_the_files(folder):
    write_manifest(folder)
    assert Index.open(folder).eos == 3
    with pytest.raises(BadIndex, match="dtype"):
        Index.open(folder, dtype="u8")
    cut(folder / "metadata.0", 1)
    with pytest.raises(BadIndex, match=r"metadata\.0 has"):
        Index.open(folder)
    (folder / "manifest.json").write_text('{"dtype": ')
    with pytest.raises(BadIndex, match="cannot be read"):
        Index.open(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": "1"}, "format is wrong"),
        ({"dtype": "u64"}, "dtype is wrong"),
        ({"dtype": ["u16"]}, "dtype is wrong"),
        ({"version": 6}, "version is wrong"),
        ({"eos": -1}, "eos is wrong"),
        ({"tokenizer": "bytes"}, "tokenizer is wrong"),
        ({"shards": {}}, "shards is wrong"),
        ({"shards": [7]}, "a shard is wrong"),
        ({"shards": [{"number": 0, "documents": 1, "tokens": 2, "files": {"../x": {"bytes": 1}}}]}, "list of files"),
        ({"shards": []}, "holds no document"),
    ],
)
def test_a_manifest_that_is_none(folder, changed, message):
    write_manifest(folder, **changed)
    with pytest.raises(BadIndex, match=message):
        Index.open(folder)


def test_only_the_shards_of_the_manifest_are_read(folder):
    whole = Index.open(folder)
    write_manifest(folder)
    for name in ("tokenized.1", "table.1"):
        (folder / name).write_bytes(b"half moved")
    appended = Index.open(folder)
    assert len(appended.layout.shards) == 1
    assert appended.find([7, 14]) == whole.find([7, 14])


def test_an_index_that_changes_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    from limbeck.infinigram import layout

    folder = naive.write_index(tmp_path / "index", DOCUMENTS)
    write_manifest(folder)
    locate, calls = layout.locate, []

    def interrupted(paths, **options):
        found = locate(paths, **options)
        if not calls:
            shutil.rmtree(folder)
            naive.write_index(folder, [document * 2 for document in DOCUMENTS])
            write_manifest(folder)
        calls.append(paths)
        return found

    monkeypatch.setattr("limbeck.infinigram.opened.locate", interrupted)
    assert Index.open(folder).count([42]) == Index.open(naive.write_index(tmp_path / "same", DOCUMENTS)).count([42]) * 2
    assert len(calls) > 2


@pytest.mark.parametrize(
    "pairs", [b"1234567", struct.pack("<4Q", 0, 2, 0, 1), struct.pack("<2Q", 9, 0), struct.pack("<2Q", 0, 999)]
)
def test_a_list_of_removed_documents_that_is_wrong(folder, pairs):
    naive.write_removed(folder, DOCUMENTS, 1, {(0, 1)}, "u16", 4)
    (folder / "removed.ig").write_bytes(pairs)
    with pytest.raises(BadIndex, match=r"removed\.ig"):
        Index.open(folder)
