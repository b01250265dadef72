"""The core without extras, in this checkout with their packages hidden (tests/test_distribution.py installs it)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import command, settings
from helpers.fault_server import FaultServer, byte_tokenizer
from helpers.hidden_modules import LOCAL_MODELS
from helpers.tiny_run import recipe, write_documents, write_recipe
from helpers.tiny_students import make_model
from limbeck.corpus.parts import read_parts
from limbeck.filters.text.repetition import RepetitionConfig

SERVED = ({"id": "tiny", "max_model_len": 1024},)
NO_MODEL = [
    {"kind": "heuristics", "max_cut_off": None, "max_repeated": None, "max_copied": None, "max_echo_of_prompt": None},
    {"kind": "length", "min_output_tokens": 1, "max_compression": 500.0},
    {"kind": "repetition", **dict.fromkeys(RepetitionConfig.limit_fields())},
    {"kind": "invention"},
    {"kind": "language", "languages": ["en"], "min_probability": None},
]
ASKS_WHAT_IS_LOADED = """
import os, sys
import pyarrow as pa
from limbeck.filters.contract import Bound
from limbeck.pipelines.recipe import load
from limbeck.pipelines.run import run

class Loaded:
    name = "loaded"
    bounds = (Bound("torch", maximum=0, reason="a worker imported torch"),)
    def score(self, candidates):
        found = [float(module in sys.modules) for module in ("torch", "transformers", "datasets")]
        rows = candidates.num_rows
        return pa.table({{"torch": [found[0]] * rows, "others": [sum(found)] * rows, "process": [float(os.getpid())] * rows}})

if __name__ == "__main__":
    run(load({recipe!r}), {run!r}, filters=[Loaded()])
    print(os.getpid(), *(module for module in ("torch", "transformers", "trl") if module in sys.modules))
"""


def core(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line without any extra, in a separate process."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=600, env=settings(HIDDEN_MODULES=LOCAL_MODELS, **environment)
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one-sentence error of a command."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line.removeprefix("limbeck: ")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("core")
    byte_tokenizer(home / "served", context_tokens=1024)  # no weights: they are on the server
    write_documents(home / "documents.jsonl")
    make_model(home / "model", max_position_embeddings=1024)
    return home


def endpoint(home: Path, url: str) -> dict[str, object]:
    teacher = {"kind": "endpoint", "model": str(home / "served"), "base_url": url, "backoff_seconds": 0.05}
    return {"rounds": 1, "student": None, "teacher": teacher, "filters": NO_MODEL}


def test_a_run_behind_an_endpoint_loads_no_torch_in_driver_or_worker(home: Path, ray_address: str) -> None:
    with FaultServer(models=SERVED) as server:
        path = write_recipe(home, **endpoint(home, server.url))
        script = home / "mine.py"
        script.write_text(ASKS_WHAT_IS_LOADED.format(recipe=str(path), run=str(home / "asked")))
        env = settings(RAY_ADDRESS=ray_address)
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    (driver,) = done.stdout.split()[-1:]  # torch would be imported through it
    scores = read_parts(home / "asked/rounds/000/scores/loaded")
    assert scores.num_rows == 36 and set(scores["others"].to_pylist()) == {0.0}
    assert float(driver) not in scores["process"].to_pylist()


def test_the_core_runs_and_shows_a_run(home: Path, ray_address: str) -> None:
    out = home / "run"
    with FaultServer(models=SERVED) as server:
        path = write_recipe(home, **endpoint(home, server.url))
        checked = core("check", path, "--json")
        assert checked.returncode == 0, checked.stdout
        assert json.loads(checked.stdout)["models"]["teacher.model"]["parameters"] == 0
        previewed = core("preview", path, "-n", 1, "--json")
        assert previewed.returncode == 0 and len(json.loads(previewed.stdout)["candidates"]) == 3, previewed.stderr
        done = core("run", path, "--out", out, "--json", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"][0]["rows"]["kept"] > 0
    for show in (["status"], ["inspect"], ["report"], ["filter", "--set", "filters.length.max_compression=1.0"]):
        shown = core(show[0], out, *show[1:], "--json")
        assert shown.returncode == 0 and json.loads(shown.stdout), (show, shown.stderr)
    rows = json.loads(core("inspect", out, "--sort", "invented", "--json").stdout)
    assert rows and all(row["invented"] == len(row["absent"]) for row in rows), rows
    exported = core("export", out, "--out", home / "exported")
    assert exported.returncode == 0, exported.stderr


def test_commands_without_a_run(home: Path) -> None:
    assert json.loads(core("recipes", "--json").stdout) and json.loads(core("schema").stdout)
    index = home / "index"
    built = core("ngram", "build", home / "documents.jsonl", "--out", index, "--tokenizer", home / "served", "--json")
    assert built.returncode == 0, built.stderr
    counted = core("ngram", "count", index, "alpha", "--json")
    assert counted.returncode == 0 and json.loads(counted.stdout)["count"] > 0, counted.stderr


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"student": None, "rounds": 1},
            "teacher (kind transformers) needs torch, which is not installed: pip install 'limbeck[local]'",
        ),
        (
            {},
            "teacher (kind transformers) and student (kind sft) need torch, which is not installed: "
            "pip install 'limbeck[local,train]'",
        ),
        (
            {"student": None, "rounds": 1, "filters": [{"kind": "nli", "classifier": {"model": "MODEL"}}]},
            "teacher (kind transformers) and filters.nli.classifier need torch, which is not installed: "
            "pip install 'limbeck[local]'",
        ),
    ],
)
def test_check_and_run_name_the_missing_extra_before_anything_is_spent(
    home: Path, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    path = write_recipe(home, **json.loads(json.dumps(changes).replace("MODEL", str(home / "model"))))
    checked = core("check", path, "--json")
    assert checked.returncode == 1 and json.loads(checked.stdout)["problems"] == [sentence]
    assert refusal(core("run", path, "--out", tmp_path / "run")) == sentence
    assert not (tmp_path / "run/rounds").exists()


def test_the_shipped_recipe_names_what_it_needs(tmp_path: Path) -> None:
    done = core("check", "quickstart", "--json", LIMBECK_CACHE=str(tmp_path))
    (problem,) = json.loads(done.stdout)["problems"]  # not also that the embedded teacher cannot be unpacked
    assert problem.endswith("pip install 'limbeck[local,train]'")


def test_commands_that_need_an_extra_name_it(home: Path, tmp_path: Path) -> None:
    trained = refusal(core("critic", "train-nli", "--corpus", home / "documents.jsonl", "--out", tmp_path / "nli"))
    assert trained == "limbeck critic train-nli needs torch, which is not installed: pip install 'limbeck[local]'"
    measured = refusal(core("critic", "measure-nli", home / "model"))
    assert "needs torch" in measured and "pip install 'limbeck[local]'" in measured
    built = refusal(core("ngram", "build", home / "documents.jsonl", "--out", tmp_path / "i", "--tokenizer", "tiktoken:gpt2"))
    assert built == "the tokenizer tiktoken:gpt2 needs tiktoken, which is not installed: pip install 'limbeck[tiktoken]'"


def test_a_critic_s_own_parser_and_vllm_are_named(home: Path) -> None:
    changes = recipe(home, rounds=1, student=None, filters=[{"kind": "equivalence", "parser": {}}])
    vllm = {"kind": "vllm", "model": str(home / "model")}
    checked = core("check", write_recipe(home, **{**changes, "teacher": vllm}), "--json")
    problems = json.loads(checked.stdout)["problems"]
    assert any("needs vllm" in problem and "limbeck[vllm" in problem for problem in problems), problems
    assert any("needs spacy" in problem and "limbeck[parser]" in problem for problem in problems), problems
