"""Construction and queries together: built, appended to, taken down, compacted, and after each step asked everything.

The answers are those of a naive scan over the documents that should be there.
"""

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import ngram_oracle as naive
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.index import Index
from limbeck.infinigram.layout import locate, state, taken_down
from limbeck.infinigram.maintain import append, compact, remove
from limbeck.infinigram.readers import state as reader_state
from limbeck.infinigram.verify import verify

EOS = 7
BORDERS = {"u8": [0, 1, 2, EOS, 254], "u16": [0, 1, EOS, 255, 256, 65534], "u32": [0, EOS, 255, 256, 65535, 65536, 2**32 - 2]}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@dataclass
class Life:
    """An index on the disk, and the documents that it should hold: by shard, None where one was taken down."""

    folder: Path
    dtype: Any
    version: Any
    kept: list[list[list[int] | None]] = field(default_factory=list)

    def add(self, documents: list[list[int]], shards: int) -> None:
        source = self.folder.with_name(f"{len(self.kept)}.jsonl")
        source.write_text("".join(json.dumps({"text": ids, "n": number}) + "\n" for number, ids in enumerate(documents)))
        if not self.kept:
            build([source], self.folder, Settings(dtype=self.dtype, version=self.version, shards=shards, threads=1))
        else:
            append(self.folder, [source], Settings(shards=shards, threads=1))
        self.kept += naive.deal(documents, shards)  # type: ignore[arg-type]

    def take_down(self, numbers: list[int]) -> None:
        places = [(shard, at) for shard, documents in enumerate(self.kept) for at in range(len(documents))]
        remove(self.folder, numbers)
        for number in numbers:
            shard, at = places[number]
            self.kept[shard][at] = None

    def compact(self) -> None:
        compact(self.folder, Settings(threads=1))
        self.kept = [[document for document in documents if document is not None] for documents in self.kept]

    def total(self) -> int:
        return sum(map(len, self.kept))


def check(life: Life, queries: list[list[int]], load: Any) -> None:
    """Every query is answered as the naive scan answers it."""
    verify(life.folder)
    if life.total() == 0:
        with pytest.raises(BadIndex, match="holds no document"):
            Index.open(life.folder, load=load)
        return
    index, oracle = Index.open(life.folder, eos=EOS, load=load), naive.Oracle(life.dtype, life.version, life.kept)
    flat, offsets = [token for query in queries for token in query], np.cumsum([0, *map(len, queries)])
    counts = [oracle.count(query) for query in queries]
    assert index.count_batch(flat, offsets).tolist() == counts == [index.count(query) for query in queries]
    scores = index.score(flat)
    assert list(zip(scores.suffix_tokens, scores.prompt_counts, scores.continuation_counts, strict=True)) == oracle.score(flat)
    reached = index.creativity(flat).tolist()
    assert reached == oracle.creativity(flat)
    for query, count in zip(queries, counts, strict=True):
        follow = index.next_tokens(query)
        assert dict(zip(follow.ids.tolist(), follow.counts.tolist(), strict=True)) == oracle.next_tokens(query, EOS)
        size = oracle.longest_suffix(query)
        assert index.longest_suffix(query) == (size, oracle.count(query[len(query) - size :]))
        if query:
            found = index.search(query, limit=10_000, max_tokens=2 * len(query))
            assert found.count == len(found.documents) == count
            assert all(life_of(life)[document.number] is not None for document in found.documents)
    check_spans(index, oracle, flat, reached)
    check_documents(index, life)


def check_spans(index: Index, oracle: naive.Oracle, text: list[int], reached: list[int]) -> None:
    expected, last = [], 0
    for begin, end in enumerate(reached):
        if end > max(last, begin):
            last = end
            expected.append((begin, end, oracle.count(text[begin:end])))
    spans = index.trace(text, max_count=10**6, spans_per_token=None)
    assert [(span.begin, span.end, span.count) for span in spans] == expected
    terms = [text[:1], text[-1:]]
    if all(terms) and naive.separator(index.dtype) not in text[:1] + text[-1:]:
        assert index.count_cnf([[term] for term in terms], max_distance_tokens=3)[0] == oracle.cnf([[term] for term in terms], 3)


def life_of(life: Life) -> list[list[int] | None]:
    return [document for documents in life.kept for document in documents]


def check_documents(index: Index, life: Life) -> None:
    for number, document in enumerate(life_of(life)):
        if document is None:
            with pytest.raises(BadQuery, match="was removed"):
                index.document(number)
        else:
            found = index.document(number)
            assert found.ids.tolist() == document and found.metadata is not None and "n" in found.metadata["metadata"]
    assert index.document_count == sum(document is not None for document in life_of(life))
    with pytest.raises(BadQuery, match="does not exist"):
        index.document(life.total())


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_a_life_of_an_index(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["u8", "u16", "u32"]))
    alphabet = data.draw(st.lists(st.sampled_from(BORDERS[dtype]), min_size=1, max_size=4, unique=True))
    documents = st.lists(st.lists(st.sampled_from(alphabet), max_size=12), min_size=1, max_size=14)
    query = st.lists(st.sampled_from([*alphabet, 3, naive.separator(dtype)]), max_size=5)
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder) / "index", dtype, data.draw(st.sampled_from([4, 5])))
        life.add(data.draw(documents), data.draw(st.integers(1, 12)))
        for _ in range(data.draw(st.integers(0, 3))):
            step = data.draw(st.sampled_from(["append", "remove", "compact"]))
            if step == "append":
                life.add(data.draw(documents), data.draw(st.integers(1, 3)))
            elif step == "remove" and life.total():
                life.take_down(data.draw(st.lists(st.integers(0, life.total() - 1), max_size=4)))
            else:
                life.compact()
        check(life, data.draw(st.lists(query, min_size=1, max_size=5)), data.draw(st.sampled_from(["mmap", "ram"])))


@pytest.mark.parametrize("dtype", ["u8", "u16", "u32"])
@pytest.mark.parametrize("version", [4, 5])
def test_every_step_in_turn(tmp_path: Path, dtype: Any, version: Any) -> None:
    generator = np.random.default_rng(3)
    alphabet = BORDERS[dtype]

    def some(number: int) -> list[list[int]]:
        drawn = [generator.choice(alphabet, generator.integers(0, 20)).tolist() for _ in range(number)]
        return [*drawn, drawn[0] + drawn[1]]

    life = Life(tmp_path / "index", dtype, version)
    queries = [[], [alphabet[0]], alphabet[1:3], alphabet[:4], [naive.separator(dtype), alphabet[1]]]
    life.add(some(12), 3)
    queries.append([token for documents in life.kept for document in documents for token in document or []][5:14])
    check(life, queries, "mmap")
    life.add(some(4), 2)
    check(life, queries, "mmap")
    life.take_down([0, 5, 6, 12, 17])
    check(life, queries, "ram")
    life.add(some(3), 1)
    check(life, queries, "mmap")
    life.take_down([1, life.total() - 1])
    check(life, queries, "mmap")
    life.compact()
    check(life, queries, "mmap")
    life.take_down(list(range(life.total())))
    check(life, queries, "mmap")
    life.compact()
    check(life, queries, "mmap")
    life.add(some(5), 1)
    check(life, queries, "ram")


def test_readers_meet_whole_states(tmp_path: Path) -> None:
    """While one process appends, takes down and compacts, another opens the index again and again."""
    life = Life(tmp_path / "index", "u8", 4)
    life.add([[1, 2]] * 10, 2)
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(6):
                life.add([[1, 2, 1]], 1)
                life.take_down([life.total() - 1])
                life.compact()
                life.kept = [documents for documents in life.kept if documents]
            os._exit(0)
        finally:
            os._exit(1)
    opened = 0
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        try:
            index = Index.open(life.folder)
        except BadIndex as error:
            assert "is not a folder" in str(error) or "changed while" in str(error)  # between the renames of a compaction
            continue
        opened += 1
        assert (index.count([1]), index.document_count) in ((10, 10), (12, 11))
    assert ended == (pid, 0) and opened > 5
    assert Index.open(life.folder).count([1]) == 10
    verify(life.folder)


def test_a_link_that_vanishes_while_it_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction removes the link after a reader has seen that it is one, and before it asks where the link points."""
    life = Life(tmp_path / "index", "u8", 4)
    life.add([[1, 2]] * 10, 2)
    follow = os.readlink
    vanished: list[Any] = []

    def count_ones(folder: Path) -> int:
        return Index.open(folder).count([1])

    def vanishing(path: Any, **others: Any) -> str:
        if Path(path).name == "removed":
            vanished.append(path)
            life.compact()
        return follow(path, **others)

    for read, is_new in ((lambda folder: state([folder]), True), (reader_state, False), (count_ones, True)):
        life.take_down([0])
        with monkeypatch.context() as patched:
            patched.setattr(os, "readlink", vanishing)
            first = read(life.folder)
        assert vanished and not (life.folder / "removed").exists()
        assert (first == read(life.folder)) == is_new, "what was read before the compaction is not told as read after it"
        vanished.clear()


def test_copies_are_compared_as_far_as_asked(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"ids": [number, 1, 2]}) + "\n" for number in range(6)))
    folder = tmp_path / "index"
    build([tmp_path / "texts.jsonl"], folder, Settings(dtype="u8", text_column="ids"))
    remove(folder, [1, 3, 4])
    shards = locate([folder]).shards
    copies = (folder / "removed" / "tokenized.0").resolve()
    content = bytearray(copies.read_bytes())
    content[-1] = 7  # of the last of the three
    copies.write_bytes(bytes(content))
    assert taken_down(folder, shards, most_compared=2) is not None
    with pytest.raises(BadIndex, match="disagree about document 4 of shard 0"):
        taken_down(folder, shards, most_compared=3)
