"""Shingles, MinHash and LSH, against a reader in plain Python, brute force and datasketch."""

import itertools
import math
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import example, given, settings

from helpers.components import components
from limbeck.corpus.near_duplicates import minhash
from limbeck.corpus.near_duplicates.groups import Components, representatives
from limbeck.corpus.near_duplicates.minhash import Bands, bands_for, jaccard, near_duplicates, signatures, sketch
from limbeck.corpus.near_duplicates.shingles import Shingles, Unit, chunks, shingles_of
from limbeck.corpus.text.words import Words

ALPHABET = st.one_of(st.sampled_from("ab cd.,'_-19é天気กΣßİ\u0301\n\x00"), st.characters(exclude_categories=["Cs"]))
TEXTS = st.lists(st.one_of(st.none(), st.text(ALPHABET, max_size=30)), max_size=20)


def read(text: str, unit: Unit) -> list[str]:
    """The words of the rule for all filters, or their characters with a space where something stands between two words."""
    text = unicodedata.normalize("NFC", text)
    symbols = [(place, place + 1) for place, character in enumerate(text) if unicodedata.category(character) == "So"]
    spans = [match.span() for match in Words().finditer(text)] or symbols
    words = ["".join(c.casefold() if len(c.casefold()) == 1 else c for c in text[start:end]) for start, end in spans]
    if unit == "word":
        return words
    gaps = [False, *(before[1] < after[0] for before, after in itertools.pairwise(spans))][: len(spans)]
    return list("".join((" " if gap else "") + word for word, gap in zip(words, gaps, strict=True)))


def plain(text: str | None, unit: Unit, size: int) -> set[tuple[str, ...]]:
    """The shingles of a text."""
    units = read(text or "", unit)
    return {tuple(units[i : i + size]) for i in range(max(1, len(units) - size + 1))} if units else set()


def plain_jaccard(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    return len(first & second) / len(first | second) if first | second else 1.0


def pool(rows: int, seed: int, edits: float = 0.15) -> list[str]:
    """Sentences of which two in three are a copy of an earlier one with some words replaced."""
    rng = np.random.default_rng(seed)
    texts: list[list[str]] = []
    for row in range(rows):
        if row % 3 and texts:
            words = list(texts[rng.integers(len(texts))])
            for place in np.flatnonzero(rng.random(len(words)) < edits * rng.random()):
                words[place] = f"w{rng.zipf(1.3) % 5000}"
        else:
            words = [f"w{number % 5000}" for number in rng.zipf(1.3, rng.integers(3, 25))]
        texts.append(words)
    return [" ".join(words) for words in texts]


def sketched(texts: list[str | None], unit: Unit = "word", size: int = 2) -> Shingles:
    return sketch(pa.chunked_array([pa.array(texts, pa.string())]), unit, size, Bands(1, 1)).shingles


def all_pairs(rows: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(rows, 1)


@given(TEXTS, st.sampled_from(["word", "character"]), st.integers(1, 6))
@example(["\U000e0100", "a\U000e0100b"], "word", 1)
@settings(max_examples=300, deadline=None)
def test_shingles_are_those_of_a_plain_reader(texts: list[str | None], unit: Unit, size: int) -> None:
    found = shingles_of(pa.array(texts, pa.string()), unit, size)
    expected = [plain(text, unit, size) for text in texts]
    assert found.counts.tolist() == [len(shingles) for shingles in expected]
    sets = [set(found.hashes[start:end].tolist()) for start, end in zip(found.starts, found.ends, strict=True)]
    assert all(np.all(np.diff(row.astype(np.int64)) > 0) for row in np.split(found.hashes, found.ends))
    for (i, first), (j, second) in itertools.combinations(enumerate(expected), 2):
        assert len(sets[i] & sets[j]) == len(first & second)
        assert (found.texts[i] == found.texts[j]) == (read(texts[i] or "", unit) == read(texts[j] or "", unit))


@given(TEXTS, st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_slices_and_nulls_are_read_as_they_lie(texts: list[str | None], start: int, rows: int) -> None:
    sliced = pa.array(texts, pa.string()).slice(start, rows)
    whole, copied = (shingles_of(array, "word", 2) for array in (sliced, pa.array(sliced.to_pylist(), pa.string())))
    assert whole.hashes.tolist() == copied.hashes.tolist() and whole.ends.tolist() == copied.ends.tolist()


def test_chunks_hold_every_text_once_and_in_order() -> None:
    texts = ["x" * (3 << 20), *map(str, range(10_000)), None, "y" * (1 << 20), "z" * (3 << 20)]
    column = pa.chunked_array([pa.array(texts[:7000]), pa.array([], pa.string()), pa.array(texts[7000:])])
    pieces = list(chunks(column))
    assert [text for piece in pieces for text in piece.to_pylist()] == texts
    assert max(map(len, pieces)) == 4096
    assert len(pieces[0]) == 1


@given(TEXTS, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_jaccard_is_that_of_the_sets(texts: list[str | None], size: int) -> None:
    first, second = all_pairs(len(texts))
    found = jaccard(sketched(texts, "word", size), first, second)
    sets = [plain(text, "word", size) for text in texts]
    assert found.tolist() == [plain_jaccard(sets[i], sets[j]) for i, j in zip(first, second, strict=True)]


def test_jaccard_in_many_batches() -> None:
    texts = pool(300, 1)
    sets = [plain(text, "word", 2) for text in texts]
    first, second = all_pairs(len(texts))
    found = jaccard(sketched(texts), first, second)
    assert found.tolist() == [plain_jaccard(sets[i], sets[j]) for i, j in zip(first, second, strict=True)]


def test_estimates_scatter_about_the_truth_as_datasketch_s_do() -> None:
    """Over 3,000 pairs of all similarities: unbiased, and with the standard error of 256 coin tosses, sqrt(j (1 - j) / 256)."""
    rng = np.random.default_rng(5)
    texts = []
    for _ in range(1500):
        words = [f"w{number}" for number in rng.integers(0, 1 << 40, rng.integers(5, 80))]
        kept = rng.random(len(words)) < rng.random()
        texts += [" ".join(words), " ".join(w if k else f"v{rng.integers(1 << 40)}" for w, k in zip(words, kept, strict=True))]
    shingles = sketched(texts, "word", 1)
    minima = signatures(shingles, 256)
    first = np.arange(0, len(texts), 2)
    truth = jaccard(shingles, first, first + 1)
    ours = (minima[:, first] == minima[:, first + 1]).mean(axis=0)
    sketches = MinHash.bulk([[word.encode() for word in text.split()] for text in texts], num_perm=256)
    theirs = np.array([sketches[i].jaccard(sketches[i + 1]) for i in first])
    sure = np.sqrt(np.maximum(truth * (1 - truth), 1e-9) / 256)
    inner = (truth > 0.02) & (truth < 0.98)
    assert abs(((ours - truth) / sure)[inner].mean()) < 0.1
    for estimate in (ours, theirs):
        assert 0.9 < ((estimate - truth) / sure)[inner].std() < 1.1
    assert np.abs(ours - theirs).max() < 6 * math.sqrt(0.5 / 256)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_bands_are_the_widest_that_keep_the_recall(threshold: float) -> None:
    found = bands_for(threshold, 256, 0.99)
    assert found.bands * found.rows <= 256
    assert found.chance(threshold) >= 0.99
    wider = Bands(256 // (found.rows + 1), found.rows + 1)
    assert threshold == 1.0 or wider.chance(threshold) < 0.99
    assert found.chance(0.5) == pytest.approx(1 - (1 - 0.5**found.rows) ** found.bands)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85])
def test_at_least_the_pairs_of_datasketch_and_none_below_the_threshold(threshold: float) -> None:
    texts = pool(1200, 3, edits=0.5)
    sets = [plain(text, "word", 2) for text in texts]
    pairs = {(i, j) for i, j in itertools.combinations(range(len(texts)), 2) if plain_jaccard(sets[i], sets[j]) >= threshold}
    assert len(pairs) > 200
    index = MinHashLSH(threshold, num_perm=256)
    theirs = set()
    for row, words in enumerate(sets):
        row_sketch = MinHash(256)
        row_sketch.update_batch([" ".join(word).encode() for word in sorted(words)])
        theirs |= {(other, row) for other in index.query(row_sketch)} & pairs
        index.insert(row, row_sketch)
    made = sketch(pa.chunked_array([pa.array(texts)]), "word", 2, bands_for(threshold, 256, 0.99))
    first, second = all_pairs(len(texts))
    meet = (made.keys[:, first] == made.keys[:, second]).any(axis=0)
    ours = set(zip(first[meet].tolist(), second[meet].tolist(), strict=True)) & pairs
    assert len(ours) >= max(0.99 * len(pairs), len(theirs))
    assert near_duplicates(made, np.zeros(len(texts), np.int64), threshold).tolist() == components(len(texts), sorted(ours))


@pytest.mark.parametrize("size", [1, 2])
def test_bitmaps_never_bound_a_similarity_too_low(size: int) -> None:
    texts = [*pool(250, 11, edits=0.8), "w1 " * 400, " ".join(f"w{i}" for i in range(3000))]
    made = sketch(pa.chunked_array([pa.array(texts)]), "word", size, Bands(1, 1))
    first, second = all_pairs(len(texts))
    truth = jaccard(made.shingles, first, second)
    bound = minhash._at_most(made.shingles.counts, made.bitmaps, first, second)
    assert (bound >= truth).all()
    assert (bound[truth < 0.3] < 0.5).mean() > 0.9  # and is of use


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8), max_size=25), st.integers(0, 1 << 30), st.booleans())
@settings(max_examples=100, deadline=None)
def test_small_pools_equal_brute_force(rows: list[list[str]], seed: int, scoped: bool) -> None:
    """With bands of one minimum, every pair that shares anything much meets, so the components are those of the definition."""
    texts = [" ".join(row) for row in rows]
    scopes = np.random.default_rng(seed).integers(0, 2 if scoped else 1, len(texts))
    made = sketch(pa.chunked_array([pa.array(texts, pa.string())]), "word", 1, Bands(128, 1))
    sets = [plain(text, "word", 1) for text in texts]
    edges = [
        (i, j)
        for i, j in itertools.combinations(range(len(texts)), 2)
        if scopes[i] == scopes[j] and sets[i] and plain_jaccard(sets[i], sets[j]) >= 0.6
    ]
    assert near_duplicates(made, scopes, 0.6).tolist() == components(len(texts), edges)


def test_the_number_of_threads_changes_nothing() -> None:
    texts = pa.chunked_array([pa.array(pool(9000, 7))])
    one, three = (sketch(texts, "word", 2, Bands(20, 5), threads) for threads in (1, 3))
    assert np.array_equal(one.keys, three.keys)
    assert np.array_equal(one.shingles.hashes, three.shingles.hashes) and np.array_equal(one.shingles.ends, three.shingles.ends)


def test_a_crowd_under_one_key_is_one_group() -> None:
    """5,000 texts that all share all keys but one word: more than are compared with each other, yet one component."""
    common = " ".join(f"w{i}" for i in range(60))
    texts = [f"{common} x{i}" for i in range(5000)]
    made = sketch(pa.chunked_array([pa.array(texts)]), "word", 2, bands_for(0.7, 64, 0.9))
    assert not near_duplicates(made, np.zeros(5000, np.int64), 0.7).any()


@given(st.integers(1, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_components_and_their_representatives(rows: int, data: st.DataObject) -> None:
    row = st.integers(0, rows - 1)
    edges = data.draw(st.lists(st.tuples(row, row), max_size=60))
    found = Components(rows)
    for start in range(0, len(edges), 7):
        found.join(*np.array(edges[start : start + 7]).T)
    expected = components(rows, edges)
    assert found.labels.tolist() == expected
    ranks = np.array(data.draw(st.permutations(range(rows))))
    chosen = representatives(found.labels, ranks)
    for place in range(rows):
        group = [other for other in range(rows) if expected[other] == expected[place]]
        assert chosen[place] == min(group, key=lambda other: ranks[other])
