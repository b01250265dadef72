"""Next tokens after frequent prompts, whose ranges are cut into pieces for the pool's threads."""

from pathlib import Path

import numpy as np
import pytest

from limbeck import _infinigram
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.index import Index

TOKENS, VOCABULARY, EOS = 900_000, 3_000, 9_999


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Path]:
    """One document of Zipf-distributed ids, whose commonest is a third of it, and its index."""
    folder = tmp_path_factory.mktemp("borders")
    ids = np.minimum(np.random.default_rng(1).zipf(1.4, TOKENS) - 1, VOCABULARY - 1).astype(np.uint16)
    np.save(folder / "ids.npy", ids)
    np.save(folder / "ids.offsets.npy", np.array([0, TOKENS]))
    build([folder / "ids.npy"], folder / "index", Settings(dtype="u16"))
    return ids, folder / "index"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_next_tokens_of_a_range_in_pieces_are_counted_exactly(text: tuple[np.ndarray, Path], threads: int) -> None:
    ids, folder = text
    _infinigram.set_threads(threads)
    try:
        index = Index.open(folder, eos=EOS)
        for prompt in ([], [0], [1], [0, 0], [VOCABULARY - 1]):
            size = len(prompt)
            follows = np.ones(TOKENS - size, dtype=bool)
            for at, token in enumerate(prompt):
                follows &= ids[at : TOKENS - size + at] == token
            expected = np.bincount(ids[size:][follows], minlength=EOS + 1)
            expected[EOS] = int(ids[TOKENS - size :].tolist() == prompt) if prompt else 1  # the document's end, or its separator
            found = index.next_tokens(prompt)
            assert dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True)) == {
                token: count for token, count in enumerate(expected.tolist()) if count
            }
    finally:
        _infinigram.set_threads(0)


def test_the_commonest_range_is_large_enough_to_be_cut(text: tuple[np.ndarray, Path]) -> None:
    assert np.count_nonzero(text[0] == 0) > 2 * 2**17


def test_a_batch_large_enough_to_be_sorted_counts_what_single_calls_do(text: tuple[np.ndarray, Path]) -> None:
    index, rng = Index.open(text[1], eos=EOS), np.random.default_rng(2)
    starts, sizes = rng.integers(0, TOKENS - 4, 6_000), rng.integers(0, 4, 6_000)
    queries = [text[0][start : start + size].astype(np.int64) for start, size in zip(starts, sizes, strict=True)]
    queries[7:9] = [np.array([VOCABULARY - 1] * 3), np.array([65_535])]
    offsets = np.concatenate([[0], np.cumsum([len(query) for query in queries])])
    assert index.count_batch(np.concatenate(queries), offsets).tolist() == [index.count(query) for query in queries]
