"""Suffix sorting against a naive sort: whole texts, parts of them, and the exact merge."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck._infinigram import BadIndex, build_table, count_gaps, merge_parts, sort_part

DTYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32}
BORDERS = {1: [0, 1, 127, 254, 255], 2: [0, 1, 255, 256, 65534, 65535], 4: [0, 255, 256, 65535, 65536, 2**32 - 2, 2**32 - 1]}


def naive_table(tokens: np.ndarray) -> list[int]:
    """Byte offsets of the suffixes in the order of their bytes; a long text must not repeat 200 bytes."""
    text, width = tokens.tobytes(), tokens.itemsize
    cap = len(text) if len(text) < 5000 else 200
    order = sorted(range(0, len(text), width), key=lambda at: text[at : at + cap])
    assert cap == len(text) or all(text[a : a + cap] != text[b : b + cap] for a, b in itertools.pairwise(order))
    return order


def entry_bytes(text_bytes: int) -> int:
    return max(1, ((text_bytes - 1).bit_length() + 7) // 8) if text_bytes else 1


def read_table(path: Path, text_bytes: int) -> list[int]:
    width = entry_bytes(text_bytes)
    raw = path.read_bytes()
    return [int.from_bytes(raw[at : at + width], "little") for at in range(0, len(raw), width)]


def nothing(done: int) -> None:
    pass


def in_memory(folder: Path, tokens: np.ndarray, bounds: list[int]) -> list[int]:
    text, table = folder / "text", folder / "out"
    text.write_bytes(tokens.tobytes())
    build_table(str(text), tokens.itemsize, bounds, str(table), nothing)
    return read_table(table, tokens.nbytes)


def through_files(folder: Path, tokens: np.ndarray, bounds: list[int], threads: int = 1) -> list[int]:
    text, table = folder / "text", folder / "out"
    text.write_bytes(tokens.tobytes())
    ranges = [(begin, end) for begin, end in itertools.pairwise(bounds) if begin < end]
    parts, gaps, greater = ([str(folder / f"{kind}{number}") for number in range(len(ranges))] for kind in ("part", "gaps", "gt"))
    for (begin, end), part in zip(ranges, parts, strict=True):
        sort_part(str(text), tokens.itemsize, begin, end, part, nothing)
    behind = ""
    for (begin, end), part, gap, own in reversed(list(zip(ranges, parts, gaps, greater, strict=True))):
        count_gaps(str(text), tokens.itemsize, begin, end, part, behind, own, gap, threads, nothing)
        behind = own
    cuts = [0, *(end for _, end in ranges)]
    merge_parts(str(text), tokens.itemsize, cuts, parts, gaps, str(table), nothing)
    return read_table(table, tokens.nbytes)


@st.composite
def texts(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """A text of few symbols, some at the borders of the bytes, and where to cut it into parts."""
    width = draw(st.sampled_from([1, 2, 4]))
    symbols = draw(st.lists(st.sampled_from(BORDERS[width]), min_size=1, max_size=5, unique=True))
    pieces = draw(st.lists(st.lists(st.sampled_from(symbols), min_size=1, max_size=8), max_size=8))
    repeats = draw(st.lists(st.integers(1, 6), min_size=len(pieces), max_size=len(pieces)))
    flat = [token for piece, times in zip(pieces, repeats, strict=True) for token in piece * times]
    cuts = draw(st.lists(st.integers(0, len(flat)), max_size=4))
    return np.array(flat, dtype=DTYPES[width]), [0, *sorted(cuts), len(flat)]


@settings(max_examples=300, deadline=None)
@given(texts())
def test_tables_equal_a_naive_sort(tmp_path_factory: pytest.TempPathFactory, text: tuple[np.ndarray, list[int]]) -> None:
    tokens, bounds = text
    folder = tmp_path_factory.mktemp("sais")
    expected = naive_table(tokens)
    assert in_memory(folder, tokens, [0, len(tokens)]) == expected
    assert in_memory(folder, tokens, bounds) == expected
    if len(tokens):
        assert through_files(folder, tokens, bounds) == expected


@pytest.mark.parametrize("width", [1, 2, 4])
def test_every_id_of_the_type(tmp_path: Path, width: int) -> None:
    """More symbols than the type has, once a part ends before the text does."""
    random = np.random.default_rng(width)
    high = 1 << min(8 * width, 17)
    tokens = np.concatenate([random.permutation(high), random.integers(0, high, 500)]).astype(DTYPES[width])
    if width == 4:
        tokens *= np.uint32(32769)  # spread over the type
    expected = naive_table(tokens)
    assert in_memory(tmp_path, tokens, [0, len(tokens)]) == expected
    assert through_files(tmp_path, tokens, [0, len(tokens) - 100, len(tokens)], threads=2) == expected


def equal_tokens(count: int) -> np.ndarray:
    return np.full(count, 7, dtype=np.uint16)


def two_copies(count: int) -> np.ndarray:
    once = np.random.default_rng(0).integers(0, 500, count // 2).astype(np.uint16)
    return np.concatenate([once, once])


def periodic(count: int) -> np.ndarray:
    return np.tile(np.arange(40, dtype=np.uint16), count // 40)


def fibonacci(count: int) -> np.ndarray:
    before, word = [1], [1, 2]
    while len(word) < count:
        before, word = word, word + before
    return np.array(word[:count], dtype=np.uint16)


@pytest.mark.parametrize("make", [equal_tokens, two_copies, periodic, fibonacci])
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_repetitive_text_in_parts_equals_one_sort(tmp_path: Path, make: object, count: int) -> None:
    """Common prefixes as long as the text: neither the parts' borders nor the merge may look at each of their tokens."""
    tokens = make(count)  # type: ignore[operator]
    size = len(tokens)
    whole = in_memory(tmp_path, tokens, [0, size])
    assert sorted(whole) == list(range(0, 2 * size, 2))
    if make is equal_tokens:
        assert whole == list(range(2 * size - 2, -1, -2))
    assert in_memory(tmp_path, tokens, [0, size // 2, size]) == whole
    assert through_files(tmp_path, tokens, [0, size // 5, size // 2, size - 7, size], threads=2) == whole


def test_long_random_text(tmp_path: Path) -> None:
    """Enough of it for whole blocks, several pieces of the merge and buffers that are refilled."""
    random = np.random.default_rng(3)
    tokens = (random.zipf(1.3, 60_000) % 900).astype(np.uint16)
    expected = naive_table(tokens)
    assert in_memory(tmp_path, tokens, [0, 60_000]) == expected
    assert through_files(tmp_path, tokens, [0, 10_000, 10_000, 45_000, 60_000], threads=3) == expected


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(np.arange(5000, dtype=np.uint16).tobytes())
    seen: list[int] = []
    build_table(str(text), 2, [0, 2000, 5000], str(tmp_path / "out"), seen.append)
    assert seen == sorted(seen) and seen[-1] == 2 * 5000


def test_an_exception_of_the_report_stops_it(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(bytes(2000))

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_table(str(text), 2, [0, 1000], str(tmp_path / "out"), stop)


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    text, part, out = (str(tmp_path / name) for name in ("text", "part", "out"))
    with pytest.raises(BadIndex, match="cannot open"):
        sort_part(text, 2, 0, 1, part, nothing)
    Path(text).write_bytes(bytes(2001))
    with pytest.raises(BadIndex, match="is truncated"):
        sort_part(text, 2, 0, 1000, part, nothing)
    Path(text).write_bytes(bytes(2000))
    with pytest.raises(BadIndex, match="do not cover"):
        sort_part(text, 2, 0, 1001, part, nothing)
    with pytest.raises(BadIndex, match="1, 2 or 4"):
        sort_part(text, 3, 0, 1000, part, nothing)
    sort_part(text, 2, 0, 1000, part, nothing)
    os.truncate(part, 3996)
    with pytest.raises(BadIndex, match="part is truncated"):
        merge_parts(text, 2, [0, 1000], [part], [""], out, nothing)
    Path(part).write_bytes(np.full(1000, 1000, dtype=np.int32).tobytes())
    with pytest.raises(BadIndex, match="part is damaged"):
        merge_parts(text, 2, [0, 1000], [part], [""], out, nothing)
    with pytest.raises(BadIndex, match="cannot open"):
        build_table(text, 2, [0, 1000], str(tmp_path / "none" / "out"), nothing)
