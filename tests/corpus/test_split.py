"""Near-duplicate groups against brute force, and splits that never part a group."""

from collections import Counter, defaultdict
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.split import SPLITS, Split, assign_splits, jaccard, near_duplicate_groups, shingles

FAMILY = (
    "This library provides the {} exporter for the telemetry project. It collects spans and metrics from every service "
    "and sends them in batches to the collector, with retries and with back-pressure."
)
OTHERS = [
    "A parser for the C language, written in pure Python, that builds a syntax tree of every declaration it meets.",
    "Progress bars for loops: wrap any iterable and watch the remaining time while your program is running.",
]


def components(documents: dict[str, str], threshold: float) -> dict[str, str]:
    """Brute force: every pair compared, and the smallest id flooded until nothing changes."""
    group = {source_id: source_id for source_id in documents}
    changed = True
    while changed:
        changed = False
        for a, b in combinations(documents, 2):
            if group[a] != group[b] and jaccard(shingles(documents[a]), shingles(documents[b])) >= threshold:
                group[a] = group[b] = min(group[a], group[b])
                changed = True
    return group


def test_a_family_shares_a_group_and_strangers_do_not() -> None:
    documents = {f"f{i}": FAMILY.format(name) for i, name in enumerate(["Jaeger", "Zipkin", "Prometheus"])}
    documents |= {f"o{i}": text for i, text in enumerate(OTHERS)}
    groups = near_duplicate_groups(documents, 0.5)
    assert groups == {"f0": "f0", "f1": "f0", "f2": "f0", "o0": "o0", "o1": "o1"}


WORDS = [f"word{i}" for i in range(40)]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_groups_equal_brute_force_away_from_the_threshold(data: st.DataObject) -> None:
    """LSH may miss a pair close to the threshold, so the documents are near copies (one word changed) or strangers."""
    documents: dict[str, str] = {}
    for family in range(data.draw(st.integers(1, 4))):
        words = [f"{family}{word}" for word in data.draw(st.lists(st.sampled_from(WORDS), min_size=25, max_size=40, unique=True))]
        for member in range(data.draw(st.integers(1, 4))):
            words[data.draw(st.integers(0, len(words) - 1))] = f"changed{family}{member}"
            documents[f"{family}-{member}"] = " ".join(words)
    groups = near_duplicate_groups(documents, 0.5)
    assert groups == components(documents, 0.5)
    assert groups == near_duplicate_groups(dict(reversed(documents.items())), 0.5)


@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=40),
    st.sampled_from(
        [Split(), Split(train=0.5, dev=0.25, test=0.25), Split(train=0.6, dev=0.0, test=0.2), Split(train=2, dev=1, test=0)]
    ),
    st.integers(0, 5),
)
def test_splits_keep_groups_whole_and_meet_their_sizes(sizes: list[int], split: Split, seed: int) -> None:
    groups = {f"{g}-{i}": f"{g}" for g, size in enumerate(sizes) for i in range(size)}
    chosen = assign_splits(groups, split, seed)
    by_group = defaultdict(set)
    for source_id, name in chosen.items():
        by_group[groups[source_id]].add(name)
    assert set(chosen) == set(groups)
    assert all(len(names) == 1 for names in by_group.values())
    counts = Counter(chosen.values())
    for name in SPLITS:
        share = getattr(split, name)
        target = share if isinstance(share, int) else share * len(groups)
        assert counts[name] > 0 if target else counts[name] == 0 or share == 0
        assert abs(counts[name] - target) <= 2 * max(sizes) + 1
    assert chosen == assign_splits(dict(reversed(groups.items())), split, seed)


@given(st.integers(3, 60), st.integers(0, 9))
def test_counts_are_met_exactly_by_single_documents(documents: int, seed: int) -> None:
    split = Split(train=documents - 2, dev=1, test=1)
    counts = Counter(assign_splits({str(i): str(i) for i in range(documents)}, split, seed).values())
    assert counts == {"train": documents - 2, "dev": 1, "test": 1}


def test_what_the_split_does_not_ask_for_is_left_over() -> None:
    chosen = assign_splits({str(i): str(i) for i in range(20)}, Split(train=5, dev=2, test=3), 0)
    assert Counter(chosen.values()) == {"train": 5, "dev": 2, "test": 3, None: 10}


def test_the_seed_draws_the_split() -> None:
    groups = {str(i): str(i) for i in range(30)}
    assert assign_splits(groups, Split(), 1) != assign_splits(groups, Split(), 2)


@pytest.mark.parametrize(
    ("groups", "split", "message"),
    [
        ({"a": "a", "b": "b"}, Split(train=2, dev=1, test=1), "asks for 2 train .* 1 dev .* 1 test documents, but only 2"),
        ({"a": "g", "b": "g", "c": "g"}, Split(), "only 1 near-duplicate group"),
    ],
)
def test_impossible_splits_say_why(groups: dict[str, str], split: Split, message: str) -> None:
    with pytest.raises(LimbeckError, match=message):
        assign_splits(groups, split, 0)


@pytest.mark.parametrize(
    "values",
    [{"train": 0.9, "dev": 0.2, "test": 0.1}, {"train": 60, "dev": 0.1, "test": 0.1}, {"train": -1, "dev": 1, "test": 1}],
)
def test_nonsense_splits_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Split.model_validate(values)
