"""Splits of no, one and two documents through whole runs of a tiny model, and folders of a few texts."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.tiny_run import WORDS, write_documents, write_recipe

KEEP_ALL: dict[str, Any] = {
    "rounds": 1,
    "filters": [{"kind": "length", "min_output_tokens": 0, "max_compression": None}, {"kind": "pmi"}],
    "calibration": {"pass_rate": 1.0},
}


def named(value: Any) -> str:
    """A parameter's name, the same in every process (the text of a set is not), or several processes cannot share the tests."""
    if isinstance(value, set):
        return "-".join(sorted(value)) or "none"
    return str(value)


def run_with(home: Path, address: str, sources: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The report of a run that must end well."""
    recipe = write_recipe(home, **{**KEEP_ALL, **changes}, sources={"max_source_tokens": 200, **sources})
    done = limbeck("run", recipe, "--out", home / "run", RAY_ADDRESS=address)
    assert done.returncode == 0, done.stderr
    assert limbeck("report", home / "run").returncode == 0
    return json.loads((home / "run/report.json").read_text())


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("split", "controls"),
    [
        ({"train": 4, "dev": 1, "test": 1}, {"first-sentence", "document"}),  # no other document to take an output from
        pytest.param({"train": 1, "dev": 0, "test": 2}, {"first-sentence", "document", "mismatched"}, marks=pytest.mark.slow),
        pytest.param({"train": 2, "dev": 2, "test": 0}, set(), marks=pytest.mark.slow),
        pytest.param({"train": 1, "dev": 1, "test": 1}, {"first-sentence", "document"}, marks=pytest.mark.slow),
        pytest.param({"train": 1, "dev": 0, "test": 0}, set(), marks=pytest.mark.slow),
    ],
    ids=named,
)
def test_splits_of_few_documents(tmp_path: Path, ray_address: str, split: dict[str, int], controls: set[str]) -> None:
    documents = write_documents(tmp_path / "documents.jsonl", sum(split.values()))
    report = run_with(tmp_path, ray_address, {"kind": "jsonl", "path": str(documents), "split": split})
    assert report["finished"] and {name: report["sources"][name] for name in split} == split
    rows = report["rounds"][0]["evaluation"]
    measured = {row["model"] for row in rows if row["split"] == "test"}
    assert measured == (controls | {"teacher", "student"} if split["test"] else set())
    assert bool(split["dev"]) == any(row["split"] == "dev" for row in rows)
    page = (tmp_path / "run/report.html").read_text()
    for name in ("dev", "test"):
        assert (f"There are no {name} documents." in page) == (split[name] == 0)
    assert ("The control mismatched was not measured" in page) == (split["test"] == 1)


@pytest.mark.timeout(900)
def test_held_out_inputs_of_which_none_is_usable(tmp_path: Path, ray_address: str) -> None:
    documents = write_documents(tmp_path / "documents.jsonl", 6)
    never_ends = {"kind": "magpie", "instruction": {"max_new_tokens": 4}, "response": {"max_new_tokens": 8}}
    split = {"train": 2, "dev": 2, "test": 2}
    sources = {"kind": "jsonl", "path": str(documents), "split": split}
    report = run_with(tmp_path, ray_address, sources, task=never_ends, rows={"kind": "conversation"}, student=None)
    assert report["finished"] and report["sources"]["test"] == 2 and report["rounds"][0]["evaluation"] == []
    page = (tmp_path / "run/report.html").read_text()
    for name in ("dev", "test"):
        assert f"None of the 2 {name} inputs that the teacher drew is usable" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [10, 5, 3])
def test_a_folder_of_a_few_texts(tmp_path: Path, ray_address: str, count: int) -> None:
    write_texts(tmp_path / "texts", count)
    split = {"train": 0.6, "dev": 0.2, "test": 0.2}
    report = run_with(tmp_path, ray_address, {"kind": "text", "path": str(tmp_path / "texts"), "split": split})
    assert report["sources"]["used"] == count and all(report["sources"][name] >= 1 for name in split)


@pytest.mark.parametrize(
    ("count", "split", "words"),
    [
        (2, {"train": 0.6, "dev": 0.2, "test": 0.2}, ["2 usable documents: too few for train, dev, test", "sources.split"]),
        (1, {"train": 0.6, "dev": 0.2, "test": 0.2}, ["1 usable document: too few for train, dev, test", "sources.split"]),
        (5, {"train": 60, "dev": 8, "test": 24}, ["sources.split needs 60 train + 8 dev + 24 test documents", "5 are usable"]),
        (1, {"train": 2, "dev": 0, "test": 0}, ["only 1 is usable"]),
        (-12, {"train": 0.6, "dev": 0.2, "test": 0.2}, ["1 usable document:", "(not usable: 11 same content)"]),
    ],
    ids=str,
)
def test_too_few_texts_are_refused_before_anything_is_spent(
    tmp_path: Path, ray_address: str, count: int, split: dict[str, float], words: list[str]
) -> None:
    write_texts(tmp_path / "texts", count)
    recipe = write_recipe(tmp_path, **KEEP_ALL, sources={"kind": "text", "path": str(tmp_path / "texts"), "split": split})
    for verb in ("check", "run"):
        done = limbeck(verb, recipe, "--out", tmp_path / verb, RAY_ADDRESS=ray_address)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and all(word in said for word in words) and "Traceback" not in said, said
    assert not (tmp_path / "run/rounds/000/candidates").exists()


def write_texts(folder: Path, count: int) -> None:
    """Distinct texts, or, for a negative count, that many copies of one."""
    folder.mkdir()
    for number in range(abs(count)):
        chosen = WORDS[number % 5 :: 5] if count > 0 else WORDS
        (folder / f"{number}.txt").write_text(" ".join(f"{word}{number if count > 0 else ''}" for word in chosen) + ".")
