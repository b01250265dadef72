"""Files and arguments that are wrong: one typed sentence, never a crash, never a silent zero."""

import json
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.errors import LimbeckError
from infinigram.errors import BadIndex, BadQuery
from infinigram.index import Index
from tests import ngram_oracle as naive

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
    with pytest.raises(BadIndex, match="not a file"):
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
    from infinigram import layout

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

    monkeypatch.setattr("infinigram.index.locate", interrupted)
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


BAD_IDS = [
    [-1],
    [65536],
    [2**70],
    [-(2**70)],
    [1.0],
    [True],
    ["1"],
    [None],
    [[1]],
    "text",
    None,
    5,
    {1: 2},
    {1},
    np.array([1.5]),
    np.array([[1, 2]]),
    np.array([-1]),
    np.array([65536], np.uint32),
    np.array([2**63], np.uint64),
    np.array([True]),
    np.array([1], ">i4"),
    np.array(["a"]),
    range(3),
]


@pytest.mark.parametrize("ids", BAD_IDS, ids=repr)
def test_ids_that_are_none(folder, ids):
    index = Index.open(folder)
    calls = (
        index.count,
        index.find,
        index.next_tokens,
        index.longest_suffix,
        index.infgram_next_tokens,
        index.score,
        index.creativity,
        index.trace,
        index.search,
        lambda given: index.prob(given, 1),
        lambda given: index.infgram_prob(given, 1),
        lambda given: index.search_cnf([[given]]),
        lambda given: index.count_batch(given, [0, 1]),
    )
    for call in calls:
        with pytest.raises((BadQuery, TypeError)) as caught:
            call(ids)
        assert "\n" not in str(caught.value) or isinstance(caught.value, TypeError)


@pytest.mark.parametrize("token", [-1, 65536, 2**70, 1.0, True, "1", None, [1]], ids=repr)
def test_continuations_that_are_none(folder, token):
    index = Index.open(folder)
    for call in (index.prob, index.infgram_prob):
        with pytest.raises(BadQuery):
            call([7], token)


@pytest.mark.parametrize("kind", [list, tuple, np.int8, np.uint16, np.int32, np.uint64, "strided", "torch", memoryview])
def test_ids_of_every_kind(folder, kind):
    index = Index.open(folder)
    ids = [7, 14, 21]
    if kind == "torch":
        given = pytest.importorskip("torch").tensor(ids)
    elif kind == "strided":
        given = np.array([7, 0, 14, 0, 21, 0])[::2]
    elif kind is memoryview:
        given = memoryview(np.array(ids))
    else:
        given = kind(ids) if kind in (list, tuple) else np.array(ids, kind)
    assert index.count(given) == index.count(ids) > 0
    assert index.count(np.array([])) == index.count([]) == index.tokens


@pytest.mark.parametrize(
    "offsets", [[], [0], [1, 3], [0, 2], [0, 4], [0, 2, 1, 3], [0, -1, 3], [0, 2**70], None, [0.0, 3.0], [[0, 3]]]
)
def test_offsets_that_do_not_fit(folder, offsets):
    index = Index.open(folder)
    for call in (index.count_batch, index.find_batch, index.next_tokens_batch, index.score_batch, index.creativity_batch):
        with pytest.raises((BadQuery, TypeError)):
            call([1, 2, 3], offsets)
    with pytest.raises((BadQuery, TypeError)):
        index.prob_batch([1, 2, 3], offsets, [1])
    with pytest.raises(BadQuery, match="continuations"):
        index.prob_batch([1, 2, 3], [0, 3], [1, 2])
    assert index.count_batch([], [0]).tolist() == []


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
@settings(max_examples=80, deadline=None)
def test_numbers_that_name_nothing(tmp_path_factory, first, second, third):
    folder = tmp_path_factory.getbasetemp() / "numbers"
    if not folder.exists():
        naive.write_index(folder, DOCUMENTS)
    index = Index.open(folder)
    calls = (
        lambda: index.document(first),
        lambda: index.document(3, max_tokens=first),
        lambda: index.document_at(first, second),
        lambda: index.document_at(0, second, max_tokens=third),
        lambda: index.document_by_rank(first, second),
        lambda: index.document_by_rank(0, second, needle_tokens=third),
        lambda: index.search([7], limit=1, skip=first, seed=second, max_tokens=third),
        lambda: index.search_cnf([[[7]], [[14]]], max_distance_tokens=first, max_anchors=second, seed=third),
        lambda: index.trace([7, 14], max_count=first, min_tokens=second, context_tokens=third),
    )
    for call in calls:
        try:
            call()
        except BadQuery as error:
            assert "\n" not in str(error)


def test_a_million_tokens(folder):
    index = Index.open(folder)
    long = np.tile(np.array(DOCUMENTS[3]), 3100)[:1_000_000]
    assert index.count(long) == 0
    scores = index.score(long)
    assert scores.suffix_tokens.max() >= 333
    assert (scores.continuation_counts <= scores.prompt_counts).all()
    assert index.creativity(long)[-1] == len(long)
    assert index.longest_suffix(long)[0] == scores_suffix(index, long)
    equal = Index.open(naive.write_index(folder.parent / "equal", [[5] * 3000]))
    fives = np.full(1_000_000, 5, np.uint16)
    assert equal.score(fives).suffix_tokens.max() == 3000
    assert equal.longest_suffix(fives) == (3000, 1)


def scores_suffix(index, text):
    return len(text) - int(np.searchsorted(index.creativity(text), len(text)))


@pytest.mark.parametrize("clauses", [[], [[]], [[[]]], [[[65535]]], [[[1, 65535]]], [[[1]], []]])
def test_clauses_that_are_none(folder, clauses):
    with pytest.raises(BadQuery):
        Index.open(folder).search_cnf(clauses)
