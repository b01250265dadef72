"""The parts of a cached teacher: what is written is read again, by the tokens that it was drawn for."""

from pathlib import Path

import numpy as np
import pytest

from limbeck.cluster.engines.protocol import TopLogprobs
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import mark_done, write_part
from limbeck.students.contract import CachedTeacher
from limbeck.students.training import teacher_cache
from limbeck.students.training.rows import Row
from limbeck.students.training.teacher_cache import TeacherCache, row_key

K = 5


def given(positions: int, seed: int, vocabulary: int = 400) -> TopLogprobs:
    random = np.random.default_rng(seed)
    ids = np.stack([random.permutation(vocabulary)[:K] for _ in range(positions)]).astype(np.uint32)
    logits = -np.sort(random.exponential(2.0, (positions, K + 1)))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return TopLogprobs(ids, logs[:, :K].astype(np.float32), logs[:, K].astype(np.float32))


ROWS = [Row(np.arange(10, 10 + length, dtype=np.int32), first) for length, first in ((9, 4), (5, 4), (7, 1))]


def write(folder: Path, dtype: str = "float16", vocabulary: int = 400) -> list[TopLogprobs]:
    columns = teacher_cache.schema(CachedTeacher(K, dtype, 512), vocabulary)  # type: ignore[arg-type]
    found = [given(len(row.ids) - row.prompt_length, seed, vocabulary) for seed, row in enumerate(ROWS)]
    keys = [row_key("me", row.ids, row.prompt_length) for row in ROWS]
    write_part(folder, "part-00000", teacher_cache.table([keys[0], None], [found[0], "it is too long"], columns), columns)
    write_part(folder, "part-00001", teacher_cache.table(keys[1:], found[1:], columns), columns)
    write_part(folder, "part-00002", teacher_cache.failed_row("its worker died", columns), columns)
    mark_done(folder, "x", teacher="me", top_k=K)
    return found


@pytest.mark.parametrize(("dtype", "exact"), [("float16", 1e-2), ("float32", 0)])
@pytest.mark.parametrize("vocabulary", [400, 70_000])
def test_what_is_written_is_read_again(tmp_path: Path, dtype: str, exact: float, vocabulary: int) -> None:
    found = write(tmp_path, dtype, vocabulary)
    cache = TeacherCache(tmp_path)
    for row, expected in zip(ROWS, found, strict=True):
        assert cache.has(row)
        read = cache.of(row.ids, row.prompt_length)
        np.testing.assert_array_equal(read.ids, expected.ids)
        assert read.logprobs.dtype == read.tail.dtype == np.float32
        np.testing.assert_allclose(read.logprobs, expected.logprobs, atol=exact, rtol=1e-3 if exact else 0)
        np.testing.assert_allclose(read.tail, expected.tail, atol=exact, rtol=1e-3 if exact else 0)


def test_no_row_is_found_for_other_tokens_another_label_or_another_teacher(tmp_path: Path) -> None:
    write(tmp_path)
    cache = TeacherCache(tmp_path)
    assert not cache.has(Row(ROWS[0].ids, 5)) and not cache.has(Row(ROWS[0].ids[:-1], 4))
    with pytest.raises(LimbeckError, match="it was drawn for other rows; delete it, and `limbeck run` draws it again"):
        cache.of([1, 2, 3], 1)
    (tmp_path / "_done.json").unlink()
    mark_done(tmp_path, "x", teacher="you", top_k=K)
    assert not TeacherCache(tmp_path).has(ROWS[0])


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "_done.json").unlink()
    with pytest.raises(LimbeckError, match="not complete"):
        TeacherCache(tmp_path)


def test_the_summary_counts_rows_labels_mass_and_bytes(tmp_path: Path) -> None:
    found = write(tmp_path, "float32")
    summary = teacher_cache.summarised(tmp_path)
    mass = np.concatenate([np.exp(one.logprobs).sum(-1) for one in found])
    assert (summary.rows, summary.failed, summary.positions) == (5, 2, 12)
    assert summary.mass == pytest.approx(mass.mean(), abs=1e-6)
    assert summary.bytes_per_position == sum(path.stat().st_size for path in tmp_path.glob("*.parquet")) / 12


def test_an_empty_tail_stays_empty(tmp_path: Path) -> None:
    columns = teacher_cache.schema(CachedTeacher(K, "float16", 512), 400)
    whole = TopLogprobs(np.arange(K, dtype=np.uint32)[None], np.full((1, K), -np.log(K), np.float32), np.full(1, -np.inf))
    key = row_key("me", [1, 2], 1)
    write_part(tmp_path, "part-00000", teacher_cache.table([key], [whole], columns), columns)
    mark_done(tmp_path, "x", teacher="me", top_k=K)
    assert np.isneginf(TeacherCache(tmp_path).of([1, 2], 1).tail).all()
