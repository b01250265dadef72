"""Errors that the user can fix are one clear sentence with exit code 1, and completed work is kept."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck, start
from helpers.gates import PATIENCE_SECONDS, Gate, wait_for
from helpers.tiny_run import recipe, write_documents, write_recipe
from limbeck.corpus.parts import part_names, read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES

NO_STUDENT: dict[str, Any] = {"rounds": 1, "student": None}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    recipe(folder)
    return folder


def one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """The last line of the error, which must contain all of `words`; no traceback, exit code 1."""
    assert done.returncode == 1, (done.returncode, done.stderr[-3000:])
    assert "Traceback" not in done.stderr, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("limbeck: ")
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"
    return line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("generator.sample=3", ["generator", "'sample'", "did you mean 'samples'"]),
        ("filters.2.min_faithfulnes=0.1", ["filters.pmi", "did you mean 'min_faithfulness'"]),
        ("filters.pmi.min_faithfulnes=0.1", ["filters.pmi", "did you mean 'min_faithfulness'"]),
        ("filters.pni.min_faithfulness=0.1", ["no filter is named 'pni'", "heuristics, length, pmi"]),
        ("rounds=two", ["rounds", "integer", "'two'"]),
        ("generator.temperature=-1", ["generator.temperature", "at least 0"]),
        ("filters.0.kind=heuristic", ["filters.heuristic", "did you mean 'heuristics'"]),
        ("filters.9.kind=pmi", ["'9'", "position from 0 to 2"]),
        ("teacher.model=no/such/model", ["teacher.model", "no/such/model"]),
        ("teacher.model=nobody/nothing", ["teacher.model", "nobody/nothing"]),
        ("teacher.model=embedded:nothing", ["teacher.model", "embedded:"]),
        ("sources.path=/no/such/file.jsonl", ["/no/such/file.jsonl"]),
        ("sources.document_column=txt", ["txt", "text"]),
        ("generator.prompt=sumary", ["sumary", "summary"]),
        ("sources.max_source_tokens=2000", ["context of 1024 tokens", "max_source_tokens"]),
        ("cluster.address=127.0.0.1:1", ["Ray cluster at 127.0.0.1:1"]),
    ],
)
def test_a_recipe_that_cannot_run(home: Path, tmp_path: Path, ray_address: str, override: str, words: list[str]) -> None:
    path = write_recipe(home, **NO_STUDENT)
    one_sentence(limbeck("run", path, "--out", tmp_path / "run", "--set", override, RAY_ADDRESS=ray_address), *words)


def test_no_recipe(tmp_path: Path) -> None:
    one_sentence(limbeck("run", tmp_path / "none.yaml"), "none.yaml", "no such file", "quickstart, self-instruct")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: }")
    one_sentence(limbeck("check", tmp_path / "broken.yaml"), "broken.yaml", "not YAML")


def test_an_unset_variable_and_a_set_one(home: Path, tmp_path: Path) -> None:
    data = recipe(home, **NO_STUDENT)
    data["name"] = "${NAME_OF_RUN}"
    (tmp_path / "recipe.yaml").write_text(json.dumps(data))
    one_sentence(limbeck("check", tmp_path / "recipe.yaml"), "${NAME_OF_RUN}", "not set")
    checked = limbeck("check", tmp_path / "recipe.yaml", "--json", NAME_OF_RUN="mine")
    assert checked.returncode == 0 and json.loads(checked.stdout)["name"] == "mine"


def test_no_documents(home: Path, tmp_path: Path, ray_address: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    path, override = write_recipe(home, **NO_STUDENT), f"sources.path={tmp_path / 'empty.jsonl'}"
    one_sentence(limbeck("run", path, "--out", tmp_path / "run", "--set", override, RAY_ADDRESS=ray_address), "empty.jsonl")


def test_a_folder_that_is_no_run(home: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    one_sentence(limbeck("run", write_recipe(home, **NO_STUDENT), "--out", tmp_path), "not a run folder", "--out")
    assert (tmp_path / "letter.txt").read_text() == "mine"
    for verb in ("status", "stop", "report", "inspect"):
        one_sentence(limbeck(verb, tmp_path), str(tmp_path))


def test_one_run_and_what_may_go_wrong_after_it(home: Path, tmp_path: Path, ray_address: str) -> None:
    """A document that does not fit, another recipe, a truncated part, a damaged run; all on one run."""
    documents = write_documents(tmp_path / "documents.jsonl", count=10)
    with documents.open("a") as handle:
        handle.write(json.dumps({"text": "A very long story. " * 600, "summary": "long"}) + "\n")
    sources = {
        "kind": "jsonl",
        "path": str(documents),
        "max_source_tokens": None,
        "split": {"train": 1.0, "dev": 0.0, "test": 0.0},
    }
    path, run = write_recipe(home, **NO_STUDENT, sources=sources), tmp_path / "run"
    done = limbeck("run", path, "--out", run, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    decisions = read_table(run / "rounds/000/decisions.parquet").to_pylist()
    errors = [row for row in decisions if row["rejected_by"] == "generator"]
    assert len(errors) == 3 and all("context" in row["reason"] for row in errors)  # one document, three samples
    assert len(decisions) == 33
    report = json.loads((run / "report.json").read_text())
    assert report["rounds"][0]["rows"]["rejected_by"]["generator"] == 3

    dataset = read_parts(run / "rounds/000/candidates", CANDIDATES)
    line = one_sentence(
        limbeck("run", path, "--out", run, "--set", "generator.samples=5"),
        "another recipe",
        "generator.samples: 3 in the folder, 5 in this recipe",
    )
    assert "recipe.yaml" in line and "--out" in line
    assert read_parts(run / "rounds/000/candidates", CANDIDATES).equals(dataset)

    again = limbeck("run", path, "--out", run)
    assert again.returncode == 0, again.stderr  # a finished run stays finished

    part = next((run / "rounds/000/candidates").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-50])
    one_sentence(limbeck("inspect", run), part.name, "not a complete Parquet file", "delete it")


@pytest.mark.slow
def test_a_cut_off_part_is_named_and_made_again(home: Path, tmp_path: Path, ray_address: str) -> None:
    path, run = write_recipe(home, **NO_STUDENT), tmp_path / "run"
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"rename": "decisions.parquet", "when": "before", "victim": "self"}]))
    assert limbeck("run", path, "--out", run, faults=faults, RAY_ADDRESS=ray_address).returncode == -9
    part = run / "rounds/000/candidates/part-00001.parquet"
    before = read_table(part)
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    one_sentence(limbeck("run", path, "--out", run, RAY_ADDRESS=ray_address), "part-00001.parquet", "delete it")
    part.unlink()
    done = limbeck("run", path, "--out", run, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert read_table(part).equals(before)


def test_ctrl_c_and_stop_and_a_second_driver(home: Path, tmp_path: Path) -> None:
    path, run = write_recipe(home, **NO_STUDENT), tmp_path / "run"
    gate = Gate(tmp_path, "rounds/000/candidates/part-00001.parquet$")  # a worker waits there, so the run does not end
    driver = start("run", path, "--out", run, faults=gate.plan)
    wait_for(lambda: (run / "events.jsonl").exists(), driver)
    one_sentence(limbeck("run", path, "--out", run), "is being run by process", str(driver.pid), "limbeck stop")
    status = json.loads(limbeck("status", run, "--json").stdout)
    assert status["state"] == "running" and status["driver"]["process"] == driver.pid
    gate.wait(driver)
    assert part_names(run / "rounds/000/candidates") == ["part-00000"]
    driver.send_signal(signal.SIGINT)
    _, words = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == 130 and "completed work is saved" in words.splitlines()[-1], words
    assert "Traceback" not in words
    assert not (run / "run.lock").exists()
    driver = start("run", path, "--out", run, faults=gate.plan)
    wait_for(lambda: (run / "events.jsonl").read_text().count('"event": "cluster"') == 2, driver)
    assert "stopped; rerun" in limbeck("stop", run).stdout
    _, words = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == 130 and "completed work is saved" in words.splitlines()[-1], words
    done = limbeck("run", path, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "not running" in limbeck("stop", run).stdout


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=21m", "tmpfs", str(place)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr}")
    try:
        path, run, ballast = write_recipe(home, **NO_STUDENT), place / "run", place / "ballast"
        ballast.write_bytes(bytes(4_000_000))
        one_sentence(limbeck("run", path, "--out", run), "GB free", "--out")
        ballast.unlink()
        gate = Gate(tmp_path, "rounds/000/candidates/part-00001.parquet$")
        driver = start("run", path, "--out", run, faults=gate.plan)
        gate.wait(driver)
        fill(ballast)
        gate.open()
        _, words = driver.communicate(timeout=PATIENCE_SECONDS)
        one_sentence(subprocess.CompletedProcess([], driver.returncode, "", words), "cannot write", "free some space")
        kept = part_names(run / "rounds/000/candidates")
        ballast.unlink()
        done = limbeck("run", path, "--out", run)
        assert done.returncode == 0, done.stderr
        assert kept and set(kept) <= set(part_names(run / "rounds/000/candidates"))
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path: Path) -> None:
    with path.open("ab", buffering=0) as handle:
        try:
            while handle.write(bytes(4096)):
                pass
        except OSError:
            return


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["filter", "--plot", "x.html"], "--plot draws the curve of a sweep; add --sweep"),
        (["filter", "--sweep", "filters.length.max_compression=1:2:1", "--apply", "x"], "--sweep and --apply exclude each other"),
        (["inspect", "--kept", "--rejected-by", "length"], "--kept and --rejected-by exclude each other"),
        (["inspect", "--steps", "x", "--sort", "pmi"], "--steps and --sort exclude each other"),
    ],
    ids=str,
)
def test_an_option_that_would_do_nothing_is_refused(plain_run: Path, arguments: list[str], words: str) -> None:
    verb, *options = arguments
    one_sentence(limbeck(verb, plain_run, *options), words)
    assert not Path("x.html").exists()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_output_in_another_encoding(plain_run: Path, encoding: str) -> None:
    shown = limbeck("inspect", plain_run, "--limit", 1, PYTHONIOENCODING=encoding)
    assert shown.returncode == 0 and "sample" in shown.stdout, shown.stderr
    as_json = limbeck("inspect", plain_run, "--limit", 1, "--json", PYTHONIOENCODING=encoding)
    assert json.loads(as_json.stdout) == json.loads(limbeck("inspect", plain_run, "--limit", 1, "--json").stdout)


def test_a_refused_run_leaves_no_folder_and_an_override_is_named(home: Path, tmp_path: Path) -> None:
    override = tmp_path / "mine.yaml"
    override.write_text("generator: {sampels: 2}")
    line = one_sentence(limbeck("check", write_recipe(home), "--with", override), "did you mean 'samples'")
    assert str(override) in line
    one_sentence(limbeck("run", write_recipe(home), "--set", "teacher.model=none", "--out", tmp_path / "a/run"), "none")
    assert not (tmp_path / "a/run").exists()


def test_a_run_without_a_student_says_what_it_kept(plain_run: Path) -> None:
    rows = json.loads((plain_run / "report.json").read_text())["rounds"][0]["rows"]
    said = limbeck("report", plain_run).stdout
    assert f"Kept {rows['kept']} of {rows['candidates']} candidates; the recipe trains no student." in said
