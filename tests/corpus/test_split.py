"""Near-duplicate groups against brute force, and splits that never part a group."""

import random
import re
import unicodedata
from collections import Counter, defaultdict
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.packages import read_packages
from limbeck.corpus.split import SPLITS, Split, assign_splits, near_duplicate_groups

FAMILY = (
    "This library provides the {} exporter for the telemetry project. It collects spans and metrics from every service "
    "and sends them in batches to the collector, with retries and with back-pressure."
)
OTHERS = [
    "A parser for the C language, written in pure Python, that builds a syntax tree of every declaration it meets.",
    "Progress bars for loops: wrap any iterable and watch the remaining time while your program is running.",
]


def shingles(text: str) -> set[str]:
    """The pairs of neighbouring words, as the split read English before it shared its code with `duplicates`."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + 2]) for i in range(max(1, len(words) - 1))}


def jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


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


def test_the_descriptions_of_installed_packages_are_grouped_as_ever() -> None:
    """The quickstart's documents: the groups are those of comparing all pairs, so the split of older runs stays."""
    documents = {f"{number:04d}": row.text for number, row in enumerate(read_packages()) if row.text and not row.reason}
    sets = {source_id: shingles(text) for source_id, text in documents.items()}
    near = [(jaccard(sets[a], sets[b]), a, b) for a, b in combinations(sorted(documents), 2) if sets[a] & sets[b]]
    for threshold in (0.1, 0.2, 0.4, 0.7):
        group = {source_id: source_id for source_id in documents}
        for _ in range(20):
            for similarity, a, b in near:
                if similarity >= threshold:
                    group[a] = group[b] = min(group[a], group[b])
        assert near_duplicate_groups(documents, threshold) == group


def test_chinese_near_duplicates_share_a_group() -> None:
    documents = {
        "a": "城市图书馆今天宣布，新的阅览室将于下个月向所有居民开放，并提供免费的网络和安静的学习空间。",
        "b": "城市图书馆今天宣布，新的阅览室将于下个月向全体居民开放，并提供免费网络和安静的学习空间。",
        "c": "这个工具读取气象报告并检查其中的单位，然后输出表格。",
    }
    assert near_duplicate_groups(documents, 0.69) == {"a": "a", "b": "a", "c": "c"}


def test_both_normal_forms_of_a_sentence_are_one_document() -> None:
    for text in ("Le café où l’élève a été reçu.", "한국어 문장을 읽는다", "Việt Nam ở đó", "が ぎ ぐ げ"):
        forms = {form: unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
        assert len(set(forms.values())) == 2
        assert set(near_duplicate_groups(forms, 1.0).values()) == {"NFC"}


def test_documents_without_words_are_one_group_if_they_are_equal() -> None:
    texts = {"a": "* * *", "b": "*  * *", "c": "---", "d": "🎉🎊", "e": "🎉 🎊", "f": "🐍🚀"}
    assert near_duplicate_groups(texts, 0.2) == {"a": "a", "b": "a", "c": "c", "d": "d", "e": "d", "f": "f"}


def pair(number: int, common: int, apart: int) -> tuple[str, str]:
    """Two texts with `common` shingles in both and `apart` in one of them only, all others distinct."""
    shared = [f"s{number}x{i}" for i in range(common + 1)]
    return " ".join(shared), " ".join(shared + [f"t{number}x{i}" for i in range(apart)])


@pytest.mark.parametrize(("common", "apart", "threshold"), [(20, 20, 0.5), (30, 10, 0.75), (32, 8, 0.8), (36, 4, 0.9)])
def test_a_pair_exactly_at_the_threshold_is_joined_and_one_below_is_not(common: int, apart: int, threshold: float) -> None:
    """Sketches may miss a pair at the threshold in 2 of 100 cases, so there are many; below, exact comparison joins none."""
    at = [pair(number, common, apart) for number in range(60)]
    assert {jaccard(shingles(a), shingles(b)) for a, b in at} == {threshold}
    groups = near_duplicate_groups({f"{n}-{side}": text[side] for n, text in enumerate(at) for side in (0, 1)}, threshold)
    joined = sum(groups[f"{n}-0"] == groups[f"{n}-1"] for n in range(60))
    assert joined >= 54
    assert all(group.split("-")[0] == source_id.split("-")[0] for source_id, group in groups.items())
    below = [pair(number, common, apart + 1) for number in range(60)]
    alone = near_duplicate_groups({f"{n}-{side}": text[side] for n, text in enumerate(below) for side in (0, 1)}, threshold)
    assert all(source_id == group for source_id, group in alone.items())


def test_a_chain_of_near_duplicates_is_one_group_however_it_is_named() -> None:
    """Neighbours share 80 of 120 shingles (0.67), the ends of the chain nothing; ids are in an order unlike the chain's."""
    words = [f"w{i}" for i in range(320)]
    names = random.Random(0).sample([f"n{i:02d}" for i in range(12)], 12)
    documents = {name: " ".join(words[20 * place : 20 * place + 101]) for place, name in enumerate(names)}
    assert not shingles(documents[names[0]]) & shingles(documents[names[-1]])
    assert near_duplicate_groups(documents, 0.6) == dict.fromkeys(documents, "n00")


def test_a_threshold_that_no_sketch_can_serve_still_joins_what_is_equal() -> None:
    texts = {"a": FAMILY, "b": FAMILY, "c": "nothing of this occurs above"}
    assert near_duplicate_groups(texts, 0.001) == {"a": "a", "b": "a", "c": "c"}


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


@pytest.mark.parametrize(
    ("documents", "split", "expected"),
    [
        (10, Split(), (8, 1, 1)),
        (3, Split(), (1, 1, 1)),  # at least one each, taken from the largest
        (4, Split(), (2, 1, 1)),
        (16, Split(), (13, 2, 1)),  # 12.8, 1.6, 1.6: the largest remainders are those of train and dev
        (25, Split(train=0.5, dev=0.25, test=0.25), (13, 6, 6)),
        (7, Split(train=0.6, dev=0.3, test=0.0), (4, 2, 0)),  # 4.2 and 2.1; one is left over
        (9, Split(train=0.1, dev=0.1, test=0.4), (1, 1, 3)),  # 0.9, 0.9, 3.6 are 5.4 in all
        (100, Split(train=0.29, dev=0.57, test=0.14), (29, 57, 14)),  # 0.29 × 100 is a hair below 29
        (20, Split(train=0.01, dev=0.9, test=0.01), (1, 16, 1)),  # 0.2, 18 and 0.2 are 18 in all, and no split stays empty
        (8, Split(train=0.1, dev=0.1, test=0.5), (1, 1, 4)),  # 0.8, 0.8 and 4 are 5.6, so 6, in all
        (5, Split(train=5, dev=0, test=0), (5, 0, 0)),
        (5, Split(train=1.0, dev=0, test=0), (5, 0, 0)),
        (6, Split(train=1, dev=0.0, test=2), (1, 0, 2)),
        (2, Split(train=0, dev=0.9, test=0.1), (0, 1, 1)),
    ],
)
def test_sizes_are_those_of_largest_remainders(documents: int, split: Split, expected: tuple[int, int, int]) -> None:
    counts = Counter(assign_splits({str(i): str(i) for i in range(documents)}, split, 0).values())
    assert tuple(counts[name] for name in SPLITS) == expected
    assert counts[None] == documents - sum(expected)


@example(17, 0.5, 0.5, 0.03125, 0.5)  # train gives one and is then no longer the largest
@given(st.integers(3, 400), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.05, 1))
def test_sizes_differ_from_the_exact_shares_by_less_than_one(documents: int, a: float, b: float, c: float, whole: float) -> None:
    """Except for the one document that each split which would be empty takes from a larger one."""
    shares = [share / (a + b + c) * whole for share in (a, b, c)]
    split = Split(train=shares[0], dev=shares[1], test=shares[2])
    counts = Counter(assign_splits({str(i): str(i) for i in range(documents)}, split, 0).values())
    filled = sum(counts[name] == 1 and share * documents < 1 for name, share in zip(SPLITS, shares, strict=True))
    for name, share in zip(SPLITS, shares, strict=True):
        assert -1 - filled - 1e-6 < counts[name] - share * documents < 1 + 1e-6
    total = sum(counts[name] for name in SPLITS)
    assert abs(total - documents * whole) <= 0.5 + 1e-6 or total == 3


@pytest.mark.parametrize(
    ("sizes", "split", "expected"),
    [
        # the largest group first, into the split with the most room; what fits nowhere else goes to train
        ({"a": 6, "b": 2, "c": 1, "d": 1}, Split(), {"a": "train", "b": "train", "c": "dev", "d": "test"}),
        # the last groups go where nothing is yet, although train has room for all
        ({"a": 5, "b": 4, "c": 3}, Split(), {"a": "train", "b": "dev", "c": "test"}),
        ({"a": 5, "b": 4}, Split(train=0.8, dev=0, test=0.2), {"a": "train", "b": "test"}),
        # a tie goes to train, then to dev; then test alone is empty
        ({"a": 3, "b": 2, "c": 1}, Split(train=2, dev=2, test=2), {"a": "train", "b": "dev", "c": "test"}),
        # a group that fits no split is left over, where that has room, and goes to the roomiest split where it has not
        ({"a": 7, "b": 2, "c": 2, "d": 1}, Split(train=2, dev=2, test=1), {"a": None, "b": "train", "c": "dev", "d": "test"}),
        ({"a": 9, "b": 2, "c": 1, "d": 1}, Split(train=6, dev=3, test=2), {"a": "train", "b": "dev", "c": "test", "d": "dev"}),
        ({"a": 5, "b": 1, "c": 1, "d": 1}, Split(train=2, dev=1, test=1), {"a": "train", "b": "dev", "c": "test", "d": None}),
        # shares of 0.8, 0.8 and 0.4 documents: test gets its one, and train does not give up its own to it
        ({"a": 2, "b": 1, "c": 1}, Split(train=0.2, dev=0.2, test=0.1), {"a": "train", "b": "dev", "c": "test"}),
        # rather a split that has exactly the room than what is left over
        ({"a": 4, "b": 4, "c": 1}, Split(train=4, dev=1, test=0), {"a": "train", "b": None, "c": "dev"}),
    ],
)
def test_whole_groups_go_where_there_is_most_room(sizes: dict[str, int], split: Split, expected: dict[str, str | None]) -> None:
    groups = {f"{group}{i}": group for group, size in sizes.items() for i in range(size)}
    for seed in range(3):
        chosen = assign_splits(groups, split, seed)
        found = {group: {chosen[f"{group}{i}"] for i in range(size)} for group, size in sizes.items()}
        assert all(len(names) == 1 for names in found.values())
        # groups of one size may swap their places, as the seed draws
        assert Counter((sizes[group], *found[group]) for group in sizes) == Counter((sizes[g], expected[g]) for g in sizes)


def test_a_seed_draws_the_same_split_in_every_version() -> None:
    """A run that is resumed, or made again from its recipe, must not move documents from test to train."""
    chosen = assign_splits({name: name for name in "abcdefgh"}, Split(train=0.5, dev=0.25, test=0.25), 7)
    assert {name: "".join(sorted(i for i, split in chosen.items() if split == name)) for name in SPLITS} == {
        "train": "acfh",
        "dev": "eg",
        "test": "bd",
    }


def test_the_seed_draws_the_split() -> None:
    groups = {str(i): str(i) for i in range(30)}
    assert assign_splits(groups, Split(), 1) != assign_splits(groups, Split(), 2)


@pytest.mark.parametrize(
    ("groups", "split", "message"),
    [
        ({"a": "a", "b": "b"}, Split(train=2, dev=1, test=1), "needs 2 train .* 1 dev .* 1 test documents, but only 2"),
        (
            {"a": "g", "b": "g", "c": "g"},
            Split(),
            "^3 usable documents in only 1 near-duplicate group: .* sources.split",
        ),
        (
            {"a": "g", "b": "h", "c": "h"},
            Split(),
            "only 2 near-duplicate groups: too few for train, dev, test",
        ),
        ({"a": "g", "b": "g"}, Split(train=0.5, dev=0, test=0.5), "only 1 near-duplicate group.* for train, test"),
    ],
)
def test_impossible_splits_say_why(groups: dict[str, str], split: Split, message: str) -> None:
    with pytest.raises(LimbeckError, match=message):
        assign_splits(groups, split, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"train": 0.33, "dev": 0.56, "test": 0.11},  # in floating point a hair above 1
        {"train": 1.0, "dev": 0, "test": 0},  # 0 is a count and a fraction
        {"train": 0.0, "dev": 3, "test": 0},
        {"train": 0.01, "dev": 0.01, "test": 0.01},
        {"train": 500, "dev": 1, "test": 1},
    ],
)
def test_what_a_split_may_be(values: dict[str, float]) -> None:
    assert Split.model_validate(values).model_dump() == values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train": 0.9, "dev": 0.2, "test": 0.1}, r"at most 1: 0\.9 \+ 0\.2 \+ 0\.1 = 1\.2"),
        ({"train": 0.9, "dev": 0.1, "test": 0.0001}, r"= 1\.0001"),
        ({"train": 60, "dev": 0.1, "test": 0.1}, r"all counts .* or all fractions .*60"),
        ({"train": -1, "dev": 1, "test": 1}, "at least 0"),
        ({"train": 0.5, "dev": -0.1, "test": 0.1}, "at least 0"),
        ({"train": 0, "dev": 0, "test": 0}, "not all 0"),
    ],
)
def test_nonsense_splits_say_why(values: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Split.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [{"train": 0.9, "dev": 0.2, "test": 0.1}, {"train": 60, "dev": 0.1, "test": 0.1}, {"train": -1, "dev": 1, "test": 1}],
)
def test_nonsense_splits_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Split.model_validate(values)
