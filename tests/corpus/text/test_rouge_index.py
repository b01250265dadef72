"""The ROUGE-L index against brute force with rouge_score: the same decisions, the same floats, the same neighbours."""

import math
import random
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from rouge_score.rouge_scorer import RougeScorer

import limbeck.corpus.text.rouge.index
import limbeck.corpus.text.rouge.join
import limbeck.corpus.text.rouge.words
from limbeck.corpus.text.rouge.index import Neighbour, RougeIndex, rouge_l
from limbeck.corpus.text.rouge.words import Vocabulary, words

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
PIECES = ["a", "b", "c", "dd", "the", "The", "x1", "é", "中文", "İ", "K", "-", "\n", "\x00", "\ud800", "שלום", "it's", "ſ"]
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=24).map(" ".join),
    st.lists(st.sampled_from("abc"), max_size=12).map(" ".join),
    st.text(max_size=20),
)


class AllScripts:
    """The words of scripts that `rouge_score` does not read."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


SCORER_OF_ALL = RougeScorer(["rougeL"], tokenizer=AllScripts())


def score(a: str, b: str) -> float:
    return float(SCORER_OF_ALL.score(a, b)["rougeL"].fmeasure)


def brute_force(texts: list[str], pool: list[str], limit: float) -> list[tuple[bool, float, int]]:
    """(accepted, maximum, the first of the index that has it) for one text after another, as self-instruct does it."""
    index, verdicts = list(pool), []
    for text in texts:
        scores = [score(text, other) for other in index]
        best = max(scores, default=0.0)
        verdicts.append((best <= limit, best, scores.index(best) if scores else -1))
        if best <= limit:
            index.append(text)
    return verdicts


def check(judged, expected, floor: float) -> None:
    assert judged.accepted.tolist() == [accepted for accepted, _, _ in expected]
    for found, place, (_, best, nearest) in zip(judged.rouge_l.tolist(), judged.nearest.tolist(), expected, strict=True):
        if best > floor:
            assert (found, place) == (best, nearest)
        else:
            assert math.isnan(found) and place == -1


@given(TEXTS, TEXTS)
@settings(max_examples=300, deadline=None)
def test_rouge_l_is_the_same_float(a: str, b: str) -> None:
    assert rouge_l(a, b) == rouge_l(b, a) == score(a, b)


LATIN = st.text(
    st.sampled_from("abcXYZ019 _-.,'’“”—é ñÄøßœŁİſK²ªµ½ℓ™ﬁ𝐀→©✓🎉️ẽǆ\u200d\n"),
    max_size=40,
)


@given(LATIN, LATIN)
@settings(max_examples=300, deadline=None)
def test_latin_texts_have_the_published_score(a: str, b: str) -> None:
    a, b = f"a {a}", f"b {b}"
    expected = float(SCORER.score(a, b)["rougeL"].fmeasure)
    assert rouge_l(a, b) == expected
    assert RougeIndex([b], floor=0.0).nearest(a, 1)[0].rouge_l == expected


@given(st.lists(TEXTS, max_size=8))
@settings(max_examples=200, deadline=None)
def test_the_index_reads_the_words_of_the_rule(texts: list[str]) -> None:
    vocabulary = Vocabulary()
    encoded = vocabulary.encode(texts)
    names = list(vocabulary._numbers)
    read = [[names[n].decode() for n in encoded.numbers[start:end]] for start, end in pairwise(encoded.starts)]
    assert read == [words(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The café’s naïve x_1 tool", "the caf s na ve x 1 tool"),
        ("cafe\u0301", "caf"),
        ("é ö", "é ö"),
        ("Python — это язык й2", "python это язык й 2"),
        ("中文Python3是", "中 文 python3 是"),
        ("हिन्दी a1", "हिन्दी a1"),
        ("שלום it's", "שלום it s"),
        ("🎉 🎊", "🎉 🎊"),
        ("Ok 🎉", "ok"),
        ("...", ""),
    ],
)
def test_words_of_other_scripts(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@given(st.lists(TEXTS, max_size=30), st.lists(TEXTS, max_size=5), st.sampled_from([0.0, 0.3, 0.7]), st.data())
@settings(max_examples=150, deadline=None)
def test_judging_equals_brute_force(texts, pool, floor, data) -> None:
    limit = data.draw(st.sampled_from([floor, 0.7, 0.9]))
    check(RougeIndex(pool, floor=floor).judge(texts, limit), brute_force(texts, pool, limit), floor)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=12), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_ties_at_the_limit_are_decided_by_the_same_float(lengths, seed) -> None:
    """Texts that share a run of exactly 0.35 (m + n) words, or one more or less."""
    draw = random.Random(seed)
    known = [f"w{number}" for number in range(40)]
    texts = [" ".join(known[:length]) for length in lengths]
    for length in lengths:
        shared = max(0, min(length, round(0.35 * 2 * length)) + draw.choice([-1, 0, 0, 1]))
        texts.append(" ".join([*known[:shared], *(f"own{draw.randrange(10**9)}" for _ in range(length - shared))]))
    draw.shuffle(texts)
    check(RougeIndex().judge(texts, 0.7), brute_force(texts, [], 0.7), 0.7)


@pytest.mark.parametrize("floor", [0.2, 0.7])
def test_a_growing_pool_of_copies_equals_brute_force_in_blocks_of_any_size(floor, monkeypatch) -> None:
    monkeypatch.setattr(limbeck.corpus.text.rouge.index, "_BLOCK_TEXTS", 13)
    monkeypatch.setattr(limbeck.corpus.text.rouge.index, "_CHUNK_PAIRS", 7)
    monkeypatch.setattr(limbeck.corpus.text.rouge.join, "_CHUNK_PAIRS", 11)
    texts = copies(150, seed=3)
    expected = brute_force(texts, [], 0.7)
    assert 0.2 < np.mean([accepted for accepted, _, _ in expected]) < 0.9
    check(RougeIndex(floor=floor).judge(texts, 0.7), expected, floor)
    index = RougeIndex(floor=floor)
    batches = [index.judge(texts[begin:end], 0.7) for begin, end in [(0, 1), (1, 2), (2, 2), (2, 40), (40, 41), (41, 150)]]
    parts = [getattr(batch, name).tolist() for name in ("accepted", "rouge_l", "nearest", "before") for batch in batches]
    whole = RougeIndex(floor=floor).judge(texts, 0.7)
    flat = [value for part in parts for value in part]
    np.testing.assert_array_equal(
        flat, [v for name in ("accepted", "rouge_l", "nearest", "before") for v in getattr(whole, name)]
    )


def test_one_at_a_time_equals_a_batch() -> None:
    texts = copies(120, seed=4)
    index = RougeIndex()
    for text, accepted, maximum, place in zip(texts, *verdicts(RougeIndex().judge(texts, 0.7)), strict=True):
        nearest = index.maximum(text)
        assert nearest == (None if place < 0 else Neighbour(place, maximum))
        if accepted:
            index.add([text])
    assert len(index) == sum(RougeIndex().judge(texts, 0.7).accepted)


@given(st.lists(TEXTS, max_size=20), TEXTS, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_nearest_equals_sorting_everything(pool, text, count) -> None:
    expected = sorted(((score(text, other), -place) for place, other in enumerate(pool)), reverse=True)[:count]
    assert RougeIndex(pool).nearest(text, count) == [Neighbour(-place, value) for value, place in expected]


def test_nearest_before_looks_only_at_what_came_before(monkeypatch) -> None:
    monkeypatch.setattr("limbeck.corpus.text.rouge.index._CHUNK_PAIRS", 50)
    pool = copies(40, seed=5)
    index = RougeIndex(pool)
    scores, places = index.nearest_before(pool, np.arange(40), 3)
    for place, text in enumerate(pool):
        before = RougeIndex(pool[:place]).nearest(text, 3)
        assert [Neighbour(int(p), float(s)) for p, s in zip(places[place], scores[place], strict=True) if p >= 0] == before
        assert np.isnan(scores[place, len(before) :]).all()


def test_long_texts_and_words_beyond_the_last_character(monkeypatch) -> None:
    draw = random.Random(6)
    long = [" ".join(draw.choice(["a", "b", f"n{draw.randrange(3000)}"]) for _ in range(20000)) for _ in range(2)]
    changed = long[0].replace("a", "c", 300)
    texts = [*long, changed, long[1] + " end", "word", "a" * 100_000, "a" * 100_000]
    judged = RougeIndex().judge(texts, 0.7)
    assert judged.accepted.tolist() == [True, True, False, False, True, True, False]
    assert judged.rouge_l[2] == rouge_l(changed, long[0])
    monkeypatch.setattr(limbeck.corpus.text.rouge.words, "_LAST_CHARACTER", 5)
    small = copies(60, seed=7)
    check(RougeIndex().judge(small, 0.7), brute_force(small, [], 0.7), 0.7)
    assert RougeIndex(small).nearest(small[3], 4) == [
        Neighbour(-p, s) for s, p in sorted(((score(small[3], t), -i) for i, t in enumerate(small)), reverse=True)[:4]
    ]


def test_nothing_and_texts_without_words_are_near_to_nothing() -> None:
    index = RougeIndex()
    assert index.maximum("a b") is None and index.nearest("a b") == []
    assert index.judge(["", "、。", "!", ""], 0.7).accepted.all()
    assert len(index) == 4 and index.maximum("") is None
    assert index.nearest("", 2) == [Neighbour(0, 0.0), Neighbour(1, 0.0)]
    assert len(index.judge([], 0.7).accepted) == 0


def copies(count: int, seed: int) -> list[str]:
    """Texts of Zipf words, most of them changed copies of earlier ones."""
    draw = np.random.default_rng(seed)
    texts: list[list[int]] = []
    for _ in range(count):
        chosen = (draw.zipf(1.4, draw.integers(1, 30)) % 500).tolist()
        if texts and draw.random() < 0.7:
            chosen = list(texts[draw.integers(len(texts))])
            for _ in range(draw.integers(0, len(chosen) // 2 + 1)):
                chosen[draw.integers(len(chosen))] = int(draw.integers(500))
        texts.append(chosen)
    return [" ".join(f"w{word}" for word in text) for text in texts]


def verdicts(judged):
    return judged.accepted.tolist(), judged.rouge_l.tolist(), judged.nearest.tolist()
