"""The distribution: the contents of the sdist and the wheel, and the wheel with only the core dependencies.

Child processes do not use this checkout's `limbeck`: they get no PYTHONPATH, so no tests/sitecustomize.py either.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from helpers.fault_server import FaultServer, byte_tokenizer
from helpers.paths import PACKAGE, ROOT
from helpers.tiny_run import write_documents
from limbeck.cluster.installation import PACKAGES

BESIDE = ("tests", "docs", "benchmarks", "examples")
FILES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "DECISIONS.md",
    "LICENSE",
    "Makefile",
    "MANIFEST.in",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", ".*_cache")
BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_{kind}(sys.argv[1]))"
STRANGERS = ("filters", "pipelines", "cluster", "corpus")
SECONDS = 1200


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what the tests put on Python's path."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")} | more


def call(*command: Any, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    arguments = [str(argument) for argument in command]
    env = clean_environment(**environment)
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=env, timeout=SECONDS)
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def files_below(folder: Path) -> set[str]:
    """Every source file, relative to the folder; links to folders are not followed."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".so"))
    return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy of this tree."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("sdist")
    rooms = PACKAGES if (ROOT / "src/limbeck/corpus").is_symlink() else ()  # in an sdist they are in src
    for name in ("src", *rooms, *BESIDE):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=NOT_SOURCE)
    for name in FILES:
        shutil.copyfile(ROOT / name, tree / name)
    (tree / "runs").mkdir()  # stray files must not be included
    (tree / "runs/left.py").write_text("")
    call(sys.executable, "-c", BUILD.format(kind="sdist"), out, cwd=tree)
    (archive,) = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def unpacked(sdist: Path) -> Path:
    """The folder with the unpacked sdist."""
    with tarfile.open(sdist) as archive:
        assert not [member.name for member in archive if not (member.isfile() or member.isdir())], "links"
        archive.extractall(sdist.parent.parent / "unpacked", filter="data")
    (folder,) = (sdist.parent.parent / "unpacked").iterdir()
    return folder


@pytest.fixture(scope="module")
def built(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel of the sdist would put into site-packages, with this checkout's extension in place of one to compile."""
    folder = tmp_path_factory.mktemp("built")
    call(sys.executable, "setup.py", "-q", "build_py", "--build-lib", folder, cwd=unpacked)
    (extension,) = PACKAGE.glob("_infinigram.*.so")
    shutil.copyfile(extension, folder / "limbeck" / extension.name)
    return folder


def test_the_sdist_is_complete(unpacked: Path) -> None:
    for package in PACKAGES:
        wanted = files_below((PACKAGE / package).resolve())
        assert wanted and files_below(unpacked / "src/limbeck" / package) == wanted
    assert {"__init__.py", "__main__.py", "py.typed", "_infinigram.pyi"} <= files_below(unpacked / "src/limbeck")
    for folder in BESIDE:
        if (ROOT / folder).exists():
            assert files_below(unpacked / folder) == files_below(ROOT / folder)
    others = {path.name for path in unpacked.iterdir()}
    assert others - {*BESIDE} == {"src", "PKG-INFO", "setup.cfg", *FILES}


def test_a_build_holds_the_package_whole_and_nothing_else(built: Path) -> None:
    assert [path.name for path in built.iterdir()] == ["limbeck"]
    for package in PACKAGES:
        assert files_below(built / "limbeck" / package) == files_below((PACKAGE / package).resolve()), package
    assert {"py.typed", "_infinigram.pyi"} <= files_below(built / "limbeck")


def test_a_build_finds_its_recipes_prompts_and_schemas(built: Path, tmp_path: Path) -> None:
    def limbeck(*arguments: object) -> str:
        return call(sys.executable, "-P", "-m", "limbeck", *arguments, cwd=tmp_path, PYTHONPATH=str(built))

    where = "import limbeck, limbeck._infinigram as x; print(limbeck.__file__, x.__file__)"
    places = call(sys.executable, "-P", "-c", where, cwd=tmp_path, PYTHONPATH=str(built)).split()
    assert all(Path(place).is_relative_to(built) for place in places)
    assert limbeck("--version").startswith("limbeck ")
    recipes = json.loads(limbeck("recipes", "--json"))
    assert recipes and all(Path(recipe["path"]).is_relative_to(built) for recipe in recipes)
    seeds = "from limbeck.generators.instruction_tasks import *; print(len(seed_tasks(SEED_TASKS)))"
    assert call(sys.executable, "-P", "-c", seeds, cwd=tmp_path, PYTHONPATH=str(built)).split() == ["175"]
    limbeck("recipes", "--copy", "quickstart", tmp_path / "copy")
    assert files_below(tmp_path / "copy") == {"quickstart.yaml", "toy/quickstart.yaml"}
    assert json.loads(limbeck("schema"))["properties"] and json.loads(limbeck("schema", "--report"))["properties"]


@pytest.mark.slow
def test_the_tests_and_checks_of_the_sdist_pass_where_it_is_unpacked(unpacked: Path, tmp_path: Path) -> None:
    folder = tmp_path / "limbeck"
    shutil.copytree(unpacked, folder)
    (extension,) = PACKAGE.glob("_infinigram.*.so")
    shutil.copyfile(extension, folder / "src/limbeck" / extension.name)
    some = ["tests/test_house.py", "tests/corpus", "tests/generators", "tests/pipelines/runs", "tests/infinigram/test_query.py"]
    call(sys.executable, "-m", "pytest", "-q", "-m", "not slow", *some, cwd=folder)
    for check in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        call(sys.executable, "-m", *check, cwd=folder)
    call(Path(sys.executable).with_name("lint-imports"), cwd=folder)
    planned = call("make", "-n", "test", cwd=folder)
    assert "pytest" in planned and "build_ext" in planned


@pytest.fixture(scope="module")
def core(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel of the sdist, with the core dependencies; its folder."""
    out, home = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("core")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, sdist]
    call(*pip, cwd=out)
    (wheel,) = out.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        assert len(tops) == 2 and "limbeck" in tops and any(top.endswith(".dist-info") for top in tops), tops
        assert any(name.startswith("limbeck/_infinigram.") and name.endswith(".so") for name in archive.namelist())
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    call(sys.executable, "-m", "venv", home, cwd=out)
    call(home / "bin/pip", "install", "-q", wheel, cwd=out)
    return home


def empty(folder: Path) -> None:
    """A folder with nothing in it."""


def with_strangers(folder: Path) -> None:
    """User packages with the names of Limbeck's folders, which fail when imported."""
    for name in STRANGERS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise ImportError('the user\\'s own {name} was imported')\n")


@pytest.fixture(scope="module", params=[empty, with_strangers])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the user runs Limbeck."""
    folder = tmp_path_factory.mktemp("place")
    request.param(folder)
    return folder


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, and the tokenizer of a model whose weights are on a server."""
    folder = tmp_path_factory.mktemp("material")
    byte_tokenizer(folder / "served", context_tokens=1024)
    write_documents(folder / "documents.jsonl")
    return folder


@pytest.mark.slow
def test_the_wheel_adds_nothing_but_limbeck_to_site_packages(core: Path, tmp_path: Path) -> None:
    (record,) = core.glob("lib/python*/site-packages/limbeck-*.dist-info/RECORD")
    tops = {line.split(",")[0].partition("/")[0] for line in record.read_text().splitlines()}
    assert tops == {"limbeck", record.parent.name, ".."}
    scripts = [line.split(",")[0] for line in record.read_text().splitlines() if line.startswith("..")]
    assert scripts == ["../../../bin/limbeck"]
    absent = "import importlib.util as u; print([n for n in {names!r} if u.find_spec(n)])"
    names = ("torch", "transformers", "plotly", "vllm", "spacy", "tiktoken", "trl", *PACKAGES)
    assert call(core / "bin/python", "-P", "-c", absent.format(names=names), cwd=tmp_path).strip() == "[]"


@pytest.mark.slow
def test_every_ngram_command_of_the_core(core: Path, place: Path, material: Path) -> None:
    def ngram(*arguments: object) -> Any:
        return json.loads(call(core / "bin/limbeck", "ngram", *arguments, "--json", cwd=place))

    documents = material / "documents.jsonl"
    ngram("build", documents, "--out", "index", "--tokenizer", material / "served")
    ngram("append", "index", documents)
    before = ngram("count", "index", "stone")["count"]
    assert before > 0 and ngram("next", "index", "stone") and ngram("prob", "index", "stone cloud")
    assert ngram("search", "index", "stone") and ngram("score", "index", "stone cloud") and ngram("trace", "index", "stone cloud")
    ngram("remove", "index", 0, 1, 2)
    ngram("compact", "index")
    assert ngram("count", "index", "stone")["count"] <= before and ngram("info", "index") and ngram("verify", "index")
    with serving(core, place) as url:
        assert httpx.post(url, json={"index": "main", "query_type": "count", "query": "stone"}).json()["count"] > 0


@contextlib.contextmanager
def serving(core: Path, place: Path) -> Iterator[str]:
    """Run `limbeck ngram serve` during the block; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(core / "bin/limbeck"), "ngram", "serve", "main=index", "--port", str(port)]
    with subprocess.Popen(command, cwd=place, env=clean_environment()) as server:
        try:
            url = f"http://127.0.0.1:{port}/"
            for _ in range(600):
                assert server.poll() is None
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(url)
                    break
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()


def recipe(material: Path, url: str) -> dict[str, Any]:
    """Everything that a run can use without an extra."""
    return {
        "name": "remote",
        "sources": {
            "kind": "jsonl",
            "path": str(material / "documents.jsonl"),
            "reference_column": "summary",
            "max_source_tokens": 200,
            "split": {"train": 12, "dev": 4, "test": 6},
        },
        "teacher": {"kind": "endpoint", "model": str(material / "served"), "base_url": url},
        "generator": {"kind": "summaries", "samples": 3, "max_new_tokens": 12},
        "filters": [
            {"kind": "length", "min_output_tokens": 1, "max_compression": 500.0},
            {"kind": "language", "languages": ["en"], "min_probability": None},
            {"kind": "pmi", "min_faithfulness": None, "min_saliency": None},
        ],
        "select": [{"kind": "duplicates", "within_source": True}],
        "evaluation": {"samples": 2, "dev_samples": 1},
        "cluster": {"rows_per_part": 4},
    }


@pytest.mark.slow
def test_a_run_of_the_core_and_what_is_read_from_it(core: Path, place: Path, material: Path) -> None:
    def limbeck(*arguments: object) -> str:
        return call(core / "bin/limbeck", *arguments, cwd=place)

    with FaultServer(models=({"id": "tiny", "max_model_len": 1024},)) as server:
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe(material, server.url)))
        assert json.loads(limbeck("check", "recipe.yaml", "--json"))["problems"] == []
        assert json.loads(limbeck("preview", "recipe.yaml", "-n", 1, "--json"))["candidates"]
        report = json.loads(limbeck("run", "recipe.yaml", "--out", "run", "--json"))
    assert report["finished"] and report["rounds"][0]["rows"]["kept"] > 0
    lock = json.loads((place / "run/lock.json").read_text())
    assert "torch" not in lock["versions"] and lock["versions"]["limbeck"]
    for command in (
        ["status", "run"],
        ["inspect", "run"],
        ["report", "run"],
        ["filter", "run", "--set", "filters.length.max_compression=1.0"],
        ["filter", "run", "--sweep", "filters.length.max_compression=1:5:1", "--plot", "curve.html"],
        ["schema"],
        ["recipes", "--json"],
    ):
        options = ["--json"] if command[0] in ("status", "inspect", "report", "filter") else []
        assert json.loads(limbeck(*command, *options)), command
    assert "kept" in limbeck("inspect", "run") and "report" in limbeck("report", "run") and limbeck("recipes")
    assert (place / "curve.html").stat().st_size > 1000
    limbeck("export", "run", "--out", "exported")
    assert (place / "exported").read_text().count("\n") == report["rounds"][0]["rows"]["kept"]


@pytest.mark.slow
def test_what_the_core_lacks_is_named_in_one_sentence(core: Path, place: Path, material: Path) -> None:
    for command, extra in (
        (["run", "quickstart", "--with", "toy"], "limbeck[local,train]"),
        (["critic", "train-nli"], "limbeck[local]"),
        (["critic", "measure-nli", "embedded:nli-minilm"], "limbeck[local]"),
        (["ngram", "build", material / "documents.jsonl", "--out", "other", "--tokenizer", "tiktoken:gpt2"], "limbeck[tiktoken]"),
    ):
        arguments = [str(core / "bin/limbeck"), *map(str, command)]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=place, env=clean_environment(), timeout=SECONDS)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 1 and len(lines) == 1 and f"pip install '{extra}'" in lines[0], (command, done.stderr)
