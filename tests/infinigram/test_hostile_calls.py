"""Arguments that are wrong: one typed sentence, never a crash, never a silent zero."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import ngram_oracle as naive
from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.index import Index

DOCUMENTS = [[at * 7 % 97 for at in range(size)] for size in (200, 0, 1, 333, 90, 12)]


@pytest.fixture
def folder(tmp_path):
    return naive.write_index(tmp_path / "index", DOCUMENTS)


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
