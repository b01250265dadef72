"""Clause queries: a count depends only on the documents that it counts in, and a request's memory on its limits."""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import ngram_oracle as naive
from helpers.ngram_served import environment
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.index import Index

SETTINGS = settings(max_examples=60, deadline=None)
SPREAD = [9] * 151
SPREAD[0], SPREAD[90], SPREAD[150] = 1, 2, 3
TERMS = st.lists(st.integers(1, 3), min_size=1, max_size=2)
CLAUSES = st.lists(st.lists(TERMS, min_size=1, max_size=3), min_size=1, max_size=3)
DOCUMENTS = st.lists(st.lists(st.integers(1, 4), max_size=24), min_size=1, max_size=6)


def count(documents, clauses, distance=100, **options):
    opening = {name: options.pop(name) for name in ("version", "shards") if name in options}
    with tempfile.TemporaryDirectory() as folder:
        naive.write_index(Path(folder), documents, "u16", **opening)
        index = Index.open(folder, dtype="u16", version=opening.get("version", 4))
        return index.count_cnf(clauses, max_distance_tokens=distance, **options)


@pytest.mark.parametrize("others", [[], [[2] * 50], [[3] * 50, [1]], [[1] * 50]])
@pytest.mark.parametrize("clauses", list(itertools.permutations([[[1]], [[2]], [[3]]])))
def test_a_count_does_not_depend_on_other_documents(others, clauses):
    assert count([SPREAD, *others], clauses) == (1, False)


def test_a_count_does_not_depend_on_text_far_away():
    far = [*SPREAD, *[9] * 500, *[2] * 50]
    assert count([far], [[[1]], [[2]], [[3]]]) == (1, False)
    assert count([[*far, *[9] * 300, *SPREAD]], [[[1]], [[2]], [[3]]]) == (2, False)


@pytest.mark.parametrize(
    ("document", "clauses", "distance", "expected"),
    [
        ([1, 1, 1, 2], [[[1]], [[2]]], 5, 1),  # at most the occurrences of each clause
        ([1, 2, 1, 2, 1], [[[1]], [[2]]], 5, 2),
        ([1, 9, 9, 1, 9, 9, 2], [[[1]], [[2]]], 3, 1),
        ([1, 9, 9, 1, 9, 9, 2], [[[1]], [[2]]], 2, 0),
        ([1, 9, 9, 1, 9, 9, 2], [[[1]], [[1]], [[2]]], 3, 1),
        ([1, 1, 1], [[[1]], [[1]]], 0, 3),  # a position serves several clauses
        ([1, 2, 3], [[[1, 2]], [[2, 3]]], 1, 1),
        ([1, 1, 1, 1], [[[1, 1], [1]]], 0, 4),  # several terms match at one position
        ([], [[[1]]], 5, 0),
    ],
)
def test_matches_are_disjoint(document, clauses, distance, expected):
    assert count([document, [4]], clauses, distance) == (expected, False)
    assert count([document, [4]], clauses, distance, version=5) == (expected, False)


@SETTINGS
@given(st.lists(st.integers(1, 3), max_size=8), CLAUSES, st.integers(0, 3))
def test_the_oracle_finds_the_most_disjoint_matches(document, clauses, distance):
    """The oracle itself, against every choice of starts."""
    starts = [
        [at for at in range(len(document)) if any(document[at : at + len(term)] == term for term in clause)] for clause in clauses
    ]
    spans = set()
    for chosen in itertools.product(*starts):
        ordered = sorted(chosen)
        if all(after - before <= distance for before, after in itertools.pairwise(ordered)):
            spans.add((ordered[0], ordered[-1]))
    most, end = 0, -1
    for left, right in sorted(spans, key=lambda span: span[1]):
        if left > end:
            most, end = most + 1, right
    assert naive.disjoint_matches(document, clauses, distance) == most


@SETTINGS
@given(DOCUMENTS, DOCUMENTS, CLAUSES, st.sampled_from([0, 1, 2, 5, 100]), st.sampled_from([4, 5]))
def test_counts_add_up_over_documents(documents, others, clauses, distance, version):
    expected = sum(naive.disjoint_matches(document, clauses, distance) for document in documents)
    assert count(documents, clauses, distance, version=version) == (expected, False)
    beside = sum(naive.disjoint_matches(document, clauses, distance) for document in others)
    assert count([*documents, *others], clauses[::-1], distance, version=version) == (expected + beside, False)
    shards = len(documents) + len(others)
    assert count([*others, *documents], clauses, distance, version=version, shards=shards)[0] == expected + beside


@SETTINGS
@given(DOCUMENTS, CLAUSES, st.integers(0, 9), st.sampled_from([4, 5]))
def test_every_match_belongs_to_one_occurrence(documents, clauses, seed, version):
    """A sample of all occurrences but one finds all matches but at most one."""
    with tempfile.TemporaryDirectory() as folder:
        index = Index.open(naive.write_index(Path(folder), documents, version=version), version=version)
        exact = index.count_cnf(clauses, max_distance_tokens=24)[0]
        occurrences = min(sum(index.count(term) for term in clause) for clause in clauses)
        if occurrences < 2:
            return
        options = {"max_distance_tokens": 24, "max_anchors": occurrences - 1, "seed": seed}
        found, approximate = index.count_cnf(clauses, **options)
        assert approximate and exact - 1 <= found * (occurrences - 1) / occurrences + 0.5
        shown = index.search_cnf(clauses, limit=1000, **options).documents
        assert exact - 1 <= len(shown) <= exact
        assert len({(one.number, one.begin + one.needle) for one in shown}) == len(shown)


def test_more_clauses_than_can_be_searched_are_refused():
    assert count([[1, 2, 1]], [[[1]], [[2]]] * 8, 1) == (1, False)
    with pytest.raises(BadQuery, match="at most 16 clauses, not 17"):
        count([[1]], [[[1]]] * 17)


ASK_WITH_LITTLE_MEMORY = """
import json, pathlib, re, resource, sys
from limbeck import _infinigram
from limbeck.infinigram.index import Index

_infinigram.set_threads(1)
index = Index.open(sys.argv[1])
clauses = [[[97]], [[98]]]
ask = {
    "exact": lambda: index.engine.cnf(clauses, 5, 0, 0, False)[:2],
    "estimate": lambda: index.engine.cnf(clauses, 5, 1000, 0, False)[:2],
    "official": lambda: index.engine.cnf(clauses, 5, 1000, 0, True)[:2],
}
ask["estimate"](), ask["official"]()
used = int(re.search(r"VmData:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (4 << 20),) * 2)
answers = {}
for name, call in ask.items():
    try:
        answers[name] = call()
    except MemoryError:
        answers[name] = "memory"
print(json.dumps(answers))
"""


def test_the_memory_of_a_sampled_request_does_not_grow_with_its_hits(tmp_path):
    """A million hits, 4 MB: a list of all positions, which an exact count needs, does not fit."""
    (tmp_path / "text.txt").write_text("ab" * 1_000_000)
    build([tmp_path / "text.txt"], tmp_path / "index", Settings(tokenizer="bytes", dtype="u16"))
    command = [sys.executable, "-c", ASK_WITH_LITTLE_MEMORY, str(tmp_path / "index")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment(), cwd="/")
    assert run.returncode == 0, run.stderr
    answers = json.loads(run.stdout)
    assert answers == {"exact": "memory", "estimate": [1_000_000, True], "official": [1_000_000, True]}
