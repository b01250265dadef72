"""Compaction: whatever moment it is killed at, a stage reads the same, and no part is lost, doubled or computed again."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.corpus import compaction
from limbeck.corpus.compaction import compact
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import (
    count_rows,
    has_part,
    part_groups,
    part_names,
    part_rows,
    read_part,
    read_parts,
    read_some,
    stage_files,
    stage_schema,
    write_part,
)
from limbeck.corpus.storage.commits import Commits, Superseded
from limbeck.corpus.storage.local import LocalStore

PARTS = 23


def table(part: int) -> pa.Table:
    """Rows of a part: some have none, some lack a column, some have only nulls in one."""
    rows = random.Random(part).randrange(6) if part % 5 else 0
    columns = {"id": [f"{part}-{row}" for row in range(rows)], "x": [float(part * row) for row in range(rows)]}
    if part % 3:
        columns["text"] = [None if part % 3 == 1 else f"text {part}" for _ in range(rows)]
    kinds = {"id": pa.string(), "x": pa.float64(), "text": pa.null() if part % 3 == 1 else pa.string()}
    return pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()})


def name(part: int) -> str:
    return f"part-{part:05d}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for part in range(PARTS):
        write_part(tmp_path / "run" / "stage", name(part), table(part))
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "FILE_PARTS", 7)
    monkeypatch.setattr(compaction, "GROUP_ROWS", 8)


def commits(run: Path, driver: str = "driver") -> Commits:
    return Commits(LocalStore(run), driver)


def assert_reads_the_same(stage: Path, parts: int = PARTS) -> None:
    names = [name(part) for part in range(parts)]
    assert part_names(stage) == names and all(has_part(stage, part) for part in names)
    expected = {name(part): table(part).to_pylist() for part in range(parts)}
    for part in names:
        got = read_part(stage, part).to_pylist()
        assert [{key: row.get(key) for key in ("id", "x", "text")} for row in got] == [
            {key: row.get(key) for key in ("id", "x", "text")} for row in expected[part]
        ]
        assert part_rows(stage, part) == len(expected[part])
    every = [row for rows in expected.values() for row in rows]
    assert [row["id"] for row in read_parts(stage).to_pylist()] == [row["id"] for row in every]
    assert count_rows(stage) == len(every)
    schema = stage_schema(stage, names)
    assert sorted(schema.names) == ["id", "text", "x"] and schema.field("text").type == pa.string()
    shuffled = random.Random(1).sample(names, len(names))
    for part, found in zip(shuffled, read_some(stage, shuffled, schema), strict=True):
        assert found.schema == schema and found["id"].to_pylist() == [row["id"] for row in expected[part]]
    assert [part for group in part_groups(stage, names) for part in group] == names
    assert not has_part(stage, name(parts)) and read_some(stage, [name(parts)], schema)[0].num_rows == 0


def test_parts_are_in_a_few_files_in_order(run: Path) -> None:
    stage = run / "stage"
    assert_reads_the_same(stage)
    assert compact(run, stage, commits(run), at_least=2)
    assert_reads_the_same(stage)
    files = sorted(path.name for path in stage.iterdir())
    assert len(files) == 5 and files[0] == "_manifest.000001.json" and not list(stage.glob("part-*"))
    assert stage_files(stage, part_names(stage)) == [stage / file for file in files[1:]]
    ids = [id_ for file in files[1:] for id_ in pq.read_table(stage / file)["id"].to_pylist()]
    assert ids == [row["id"] for part in range(PARTS) for row in table(part).to_pylist()]
    before = {path: path.stat().st_mtime_ns for path in stage.iterdir()}
    assert not compact(run, stage, commits(run), at_least=2)
    write_part(stage, name(3), table(3))  # by a worker that was slow, or by a resumed run
    assert {path: path.stat().st_mtime_ns for path in stage.iterdir()} == before


def test_a_part_is_read_without_reading_its_file(run: Path) -> None:
    """Row groups end where parts do, and are small."""
    assert compact(run, run / "stage", commits(run), at_least=2)
    for file in (run / "stage").glob("parts-*"):
        groups = pq.read_metadata(file)
        rows = [groups.row_group(group).num_rows for group in range(groups.num_row_groups)]
        assert all(count < 8 + 6 for count in rows) and all(count >= 8 for count in rows[:-1])


def test_few_parts_stay_as_they_are(run: Path) -> None:
    assert not compact(run, run / "stage", commits(run)) and len(list((run / "stage").iterdir())) == PARTS
    assert not compact(run, run / "nothing", commits(run), at_least=0 + 1)


def test_each_wave_adds_files_and_keeps_those_of_earlier_waves(run: Path) -> None:
    stage = run / "stage"
    compact(run, stage, commits(run), at_least=2)
    first = set(stage.glob("parts-*"))
    for part in range(PARTS, PARTS + 9):
        write_part(stage, name(part), table(part))
    assert_reads_the_same(stage, PARTS + 9)
    assert compact(run, stage, commits(run), at_least=2)
    assert_reads_the_same(stage, PARTS + 9)
    assert first < set(stage.glob("parts-*")) and [path.name for path in stage.glob("_*")] == ["_manifest.000002.json"]


def test_a_driver_that_lost_the_run_compacts_nothing_and_removes_nothing(run: Path) -> None:
    stage, old = run / "stage", commits(run, "old")
    old.claim()
    commits(run, "new").claim()
    with pytest.raises(Superseded):
        compact(run, stage, old, at_least=2)
    assert len(list(stage.glob("part-*"))) == PARTS and not list(stage.glob("_manifest*"))
    assert_reads_the_same(stage)
    left = stage / "parts-00000-00006-abc-epoch1.parquet"
    left.write_bytes(b"what the old driver had begun")
    assert compact(run, stage, commits(run, "new"), at_least=2)
    assert_reads_the_same(stage)
    assert not left.exists()
    (stage / "parts-00090-00099-abc-epoch2.parquet").write_bytes(b"what the new driver is about to commit")
    compact(run, stage, old, at_least=2)
    assert (stage / "parts-00090-00099-abc-epoch2.parquet").exists()


def test_a_large_file_that_is_lost_takes_its_parts_with_it_and_they_can_be_made_again(run: Path) -> None:
    stage = run / "stage"
    compact(run, stage, commits(run), at_least=2)
    lost = sorted(stage.glob("parts-*"))[1]
    lost.unlink()
    names = part_names(stage)
    assert names == [name(part) for part in range(PARTS) if not 7 <= part < 14] and not has_part(stage, name(7))
    for part in range(7, 14):
        write_part(stage, name(part), table(part))
    assert_reads_the_same(stage)
    compact(run, stage, commits(run), at_least=2)
    assert_reads_the_same(stage)


def test_a_damaged_manifest_or_file_is_named(run: Path) -> None:
    stage = run / "stage"
    compact(run, stage, commits(run), at_least=2)
    file = sorted(stage.glob("parts-*"))[0]
    file.write_bytes(file.read_bytes()[:100])
    for read in (lambda: count_rows(stage), lambda: read_part(stage, name(1)), lambda: read_parts(stage)):
        with pytest.raises(LimbeckError, match=f"{file} is not a complete Parquet file"):
            read()
    (stage / "_manifest.000001.json").write_text('{"generation": 1')
    with pytest.raises(LimbeckError, match="_manifest.000001.json is damaged"):
        part_names(stage)


CALLS = ("rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir")


def killed_before(call: int, work: Callable[[], object]) -> bool:
    """Run in a fork that is killed before its n-th change of a folder; returns whether it was."""
    process = os.fork()
    if process == 0:
        left = [call]

        def counted(original: Callable[..., object]) -> Callable[..., object]:
            def change(*arguments: object, **more: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **more)

            return change

        for attribute in CALLS:
            setattr(os, attribute, counted(getattr(os, attribute)))
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_kill_between_any_two_steps_leaves_a_stage_that_reads_the_same_and_can_be_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FILE_PARTS", 4)
    parts, moments = 10, 0
    while True:
        run = tmp_path / str(moments)
        for part in range(parts):
            write_part(run / "stage", name(part), table(part))
        killed = killed_before(moments, lambda run=run: compact(run, run / "stage", commits(run), at_least=2))
        assert_reads_the_same(run / "stage", parts)
        resumed = commits(run, "resumed")
        resumed.claim()
        assert_reads_the_same(run / "stage", parts)
        compact(run, run / "stage", resumed, at_least=1)
        assert_reads_the_same(run / "stage", parts)
        left = sorted(path.name for path in (run / "stage").iterdir() if not path.name.endswith(".tmp"))
        assert [file for file in left if not file.startswith("parts-")] in (["_manifest.000001.json"], ["_manifest.000002.json"])
        named = {file.name for file in stage_files(run / "stage", part_names(run / "stage"))}
        assert {file for file in left if file.startswith("parts-")} == named, "nothing unnamed is left"
        if not killed:
            break
        moments += 1
    assert moments > 20, "every rename, link and removal was such a moment"
