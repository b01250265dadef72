"""Many threads at once: batches on the one pool from several callers, and builds whose steps use threads of their own."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.ngram_builds import content_of
from limbeck import _infinigram
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.index import Index

TOKENS, EOS, QUERIES = 900_000, 9_999, 2_000


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some documents of Zipf-distributed ids."""
    folder = tmp_path_factory.mktemp("threads")
    np.save(folder / "ids.npy", np.minimum(np.random.default_rng(4).zipf(1.4, TOKENS) - 1, 2_000).astype(np.uint16))
    np.save(folder / "ids.offsets.npy", np.arange(0, TOKENS + 1, 1_000))
    return folder / "ids.npy"


@pytest.fixture(scope="module")
def index(ids: Path) -> Index:
    build([ids], ids.parent / "index", Settings(dtype="u16", shards=2))
    return Index.open(ids.parent / "index", eos=EOS)


def plain(value: Any) -> Any:
    """An answer of arrays as something to compare, bit by bit."""
    if dataclasses.is_dataclass(value):
        return [plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return [plain(part) for part in value] if isinstance(value, tuple) else np.asarray(value).tobytes()


def test_callers_share_the_pool(index: Index, ids: Path) -> None:
    """Eight callers with the same batches, while another changes how many threads the pool may use."""
    flat = np.load(ids)[: 3 * QUERIES].astype(np.int64)
    offsets, tokens = np.arange(0, len(flat) + 1, 3), flat[::3].copy()
    calls: list[Callable[[], Any]] = [
        lambda: index.count_batch(flat, offsets),
        lambda: index.prob_batch(flat, offsets, tokens),
        lambda: index.infgram_prob_batch(flat, offsets, tokens),
        lambda: index.longest_suffix_batch(flat, offsets),
        lambda: index.score(flat),
        lambda: index.creativity(flat),
    ]
    _infinigram.set_threads(4)
    try:
        expected = [plain(call()) for call in calls]

        def ask(caller: int) -> bool:
            order = np.random.default_rng(caller).permutation(len(calls)).tolist() * 3
            return all(plain(calls[at]()) == expected[at] for at in order)

        def change(_: int) -> bool:
            for threads in [1, 2, 5, 3] * 20:
                _infinigram.set_threads(threads)
                index.count_batch(flat, offsets)
            return True

        with ThreadPoolExecutor(9) as callers:
            asked = [callers.submit(change if caller == 0 else ask, caller) for caller in range(9)]
            assert all(one.result() for one in asked)
    finally:
        _infinigram.set_threads(0)


def test_frequent_prompts_side_by_side(index: Index) -> None:
    """Their ranges are cut into pieces for the pool; a batch that fails leaves it in order."""
    _infinigram.set_threads(4)
    try:
        expected = [plain(index.next_tokens([prompt])) for prompt in range(4)]

        def ask(caller: int) -> None:
            for _ in range(5):
                assert plain(index.next_tokens([caller % 4])) == expected[caller % 4]
                with pytest.raises((BadIndex, ValueError)):
                    index.count_batch(np.array([70_000, 1]), np.array([0, 2]))

        with ThreadPoolExecutor(6) as callers:
            list(callers.map(ask, range(6)))
    finally:
        _infinigram.set_threads(0)


@pytest.mark.parametrize("memory", [None, 3_000_000])
def test_builds_side_by_side(ids: Path, tmp_path: Path, memory: int | None) -> None:
    """Two builds of four threads each, in memory or in parts, give what one thread gives."""
    build([ids], tmp_path / "alone", Settings(dtype="u16", threads=1))
    chosen = Settings(dtype="u16", threads=4, memory_bytes=memory)
    with ThreadPoolExecutor(2) as builders:
        list(builders.map(lambda name: build([ids], tmp_path / name, chosen), ("one", "two")))
    for name in ("one", "two"):
        assert content_of(tmp_path / name) == content_of(tmp_path / "alone")
