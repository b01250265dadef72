"""Indexes damaged at random: opening and every query give the intact answer or one typed sentence, and nothing crashes.

A byte of a text that still sorts as its table says is another text, which only `verify` tells; answers are not compared then.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import ngram_oracle as naive
from helpers.paths import child_environment
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.maintain import append, remove

REPOSITORY = Path(__file__).parents[1]
KINDS = [("u8", 4), ("u16", 4), ("u16", 5), ("u32", 4)]
TEXTS = ("tokenized", "removed")  # what may hold another text


class Asked:
    """A process of `ngram_asked`, started again where it was killed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, folder: Path, queries: list[list[int]], options: dict[str, Any]) -> dict[str, Any]:
        if self.process is None:
            environment = child_environment()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "helpers.ngram_asked"],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        try:
            self.process.stdin.write(json.dumps({"folder": str(folder), "queries": queries, "options": options}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it says below what ended it
        line = self.process.stdout.readline()
        if not line:
            process, self.process = self.process, None
            said = process.stderr.read()[-3000:] if process.stderr else ""
            raise AssertionError(f"the process ended with {process.wait()}: {said}")
        return dict(json.loads(line))

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    process = Asked()
    yield process
    process.end()


def documents(dtype: str) -> list[list[int]]:
    generator = random.Random(3)
    alphabet = [0, 1, 2, 3, 9, 254] + ([255, 256, 65534] if dtype != "u8" else [])
    drawn = [[generator.choice(alphabet) for _ in range(generator.randrange(60))] for _ in range(9)]
    return [*drawn, drawn[0] + drawn[1], []]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """An index of each kind, built, appended to and with documents taken down."""
    made = {}
    for dtype, version in KINDS:
        folder = tmp_path_factory.mktemp(f"{dtype}-{version}")
        source, chosen = folder / "a.jsonl", Settings(dtype=dtype, version=version, shards=2, threads=1)  # type: ignore[arg-type]
        source.write_text("".join(json.dumps({"text": ids}) + "\n" for ids in documents(dtype)))
        build([source], folder / "index", chosen)
        append(folder / "index", [source], Settings(threads=1))
        remove(folder / "index", [2, 5, 13])
        made[dtype, version] = folder / "index"
    return made


def flip(path: Path, other: Path, at: float, amount: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[int(at * len(data))] ^= 1 << amount % 8
    path.write_bytes(data)


def overwrite(path: Path, other: Path, at: float, amount: int) -> None:
    data = bytearray(path.read_bytes())
    begin = int(at * len(data))
    data[begin : begin + amount] = (b"\0" if amount % 2 else b"\xff") * len(data[begin : begin + amount])
    path.write_bytes(data)


def truncate(path: Path, other: Path, at: float, amount: int) -> None:
    os.truncate(path, int(at * path.stat().st_size))


def lengthen(path: Path, other: Path, at: float, amount: int) -> None:
    path.write_bytes(path.read_bytes() + bytes(amount))


def swap(path: Path, other: Path, at: float, amount: int) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def delete(path: Path, other: Path, at: float, amount: int) -> None:
    path.unlink()


def make_folder(path: Path, other: Path, at: float, amount: int) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[Callable[[Path, Path, float, int], None]] = [flip, overwrite, truncate, lengthen, swap, delete, make_folder]


def damage(folder: Path, data: st.DataObject) -> list[str]:
    """Damage one to three files and return their names, relative to the folder."""
    names = []
    for _ in range(data.draw(st.integers(1, 3))):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.resolve() == path)
        path, other = data.draw(st.sampled_from(files)), data.draw(st.sampled_from(files))
        how = data.draw(st.sampled_from(DAMAGES))
        how(path, other, data.draw(st.floats(0, 1, exclude_max=True)), data.draw(st.integers(1, 40)))
        names += [str(path.relative_to(folder))] + ([str(other.relative_to(folder))] if how is swap else [])
    return names


def compare(expected: dict[str, Any], found: dict[str, Any], names: list[str], whole_texts: bool) -> None:
    for sentence in [found.get("open"), *(answer["error"] for answer in found.values() if is_error(answer))]:
        assert sentence is None or (len(sentence) > 20 and "\n" not in sentence), (names, sentence)
    if "open" in found or not whole_texts:
        return
    for call, answer in expected.items():
        assert found[call] == answer or is_error(found[call]), (names, call, answer, found[call])


def is_error(answer: Any) -> bool:
    return isinstance(answer, dict) and "error" in answer


def queries_of(dtype: str) -> list[list[int]]:
    first = documents(dtype)[0]
    return [[], first[:1], first[2:5], first[:9], first[3:4] * 2, [naive.separator(dtype)], [7]]


@pytest.fixture(scope="module")
def right(asked: Asked, intact: dict[tuple[str, int], Path]) -> dict[tuple[str, int], dict[str, Any]]:
    """What each intact index answers."""
    options = [{"dtype": dtype, "version": version, "eos": 3} for dtype, version in KINDS]
    found = {kind: asked(intact[kind], queries_of(kind[0]), options[at]) for at, kind in enumerate(KINDS)}
    assert all(len(answers) > 70 for answers in found.values())
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_index(
    asked: Asked,
    intact: dict[tuple[str, int], Path],
    right: dict[tuple[str, int], dict[str, Any]],
    tmp_path: Path,
    data: st.DataObject,
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(intact[kind], folder, symlinks=True)
    if data.draw(st.booleans()):
        (folder / "manifest.json").unlink()
    names = damage(folder, data)
    options = {"dtype": kind[0], "version": kind[1], "eos": 3, "load": data.draw(st.sampled_from(["mmap", "ram"]))}
    found = asked(folder, queries_of(kind[0]), options)
    compare(right[kind], found, names, not any(name.startswith(TEXTS) for name in names))


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard too large to be looked at whole."""
    folder = tmp_path_factory.mktemp("larger")
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": ids}) + "\n" for ids in documents("u16") * 400))
    build([folder / "a.jsonl"], folder / "index", Settings(dtype="u16", threads=1))
    assert (folder / "index" / "tokenized.0").stat().st_size > 1 << 17
    return folder / "index"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_larger_index(asked: Asked, larger: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Only samples of it are looked at on opening, so answers may differ; but nothing crashes, and errors are sentences."""
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(larger, folder)
    name = data.draw(st.sampled_from(["tokenized.0", "table.0", "offset.0", "metaoff.0", "keys64.0.ig"]))
    for _ in range(data.draw(st.integers(1, 20))):
        at, amount = data.draw(st.floats(0, 1, exclude_max=True)), data.draw(st.integers(1, 300))
        data.draw(st.sampled_from([flip, overwrite]))(folder / name, folder / name, at, amount)
    found = asked(folder, queries_of("u16"), {"load": data.draw(st.sampled_from(["mmap", "ram"]))})
    compare({}, found, [name], False)


@pytest.mark.parametrize(("dtype", "version"), KINDS)
@pytest.mark.parametrize("wrong", ["u8", "u16", "u32"])
def test_a_wrong_dtype(
    asked: Asked, intact: dict[tuple[str, int], Path], tmp_path: Path, dtype: str, version: int, wrong: str
) -> None:
    if wrong == dtype:
        return
    assert "dtype" in asked(intact[dtype, version], [], {"dtype": wrong})["open"]
    shutil.copytree(
        intact[dtype, version], tmp_path / "official", ignore=shutil.ignore_patterns("manifest.json", "*.ig", "removed*")
    )
    assert "dtype" in asked(tmp_path / "official", [], {"dtype": wrong})["open"]


def test_every_byte_of_a_table_flipped(asked: Asked, intact: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    """A small table is looked at whole: no byte of it can change without a word, whatever the manifest does not say."""
    shutil.copytree(intact["u16", 4], tmp_path / "index", symlinks=True)
    table = tmp_path / "index" / "table.0"
    right = table.read_bytes()
    for at in range(0, len(right), 3):
        table.write_bytes(right[:at] + bytes([right[at] ^ 1 << at % 8]) + right[at + 1 :])
        assert "table.0" in asked(tmp_path / "index", [], {})["open"], at
