"""Kinds of installed packages: a whole run with only a toy package's kinds, and packages that cannot be used."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from helpers.clusters import ray_cluster
from helpers.tiny_run import recipe, write_recipe
from helpers.toy import SOURCE, install, limbeck, scripted, write_distribution
from limbeck.corpus.parts import read_json, read_parts, read_table

KINDS = [
    ("generator", "titles"),
    ("filter", "vowels"),
    ("set filter", "shortest"),
    ("engine", "scripted"),
    ("student", "copy"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    recipe(folder)
    return folder


@pytest.fixture(scope="module")
def site(home: Path) -> dict[str, str]:
    return install(home / "site")


def toys(home: Path, **changes: Any) -> dict[str, Any]:
    return {
        "teacher": scripted(home / "model"),
        "generator": {"kind": "titles"},
        "filters": [{"kind": "vowels"}, {"kind": "length", "min_output_tokens": 1, "max_compression": 5.0}],
        "select": [{"kind": "shortest"}],
        "student": [{"kind": "copy", "label": "first"}, {"kind": "copy", "label": "second"}],
        **changes,
    }


@pytest.fixture(scope="module")
def run(home: Path, site: dict[str, str]) -> Path:
    done = limbeck("run", write_recipe(home, **toys(home)), "--out", home / "run", "--no-panel", **site)
    assert done.returncode == 0, done.stderr
    assert "round 1: student trained" in done.stderr
    return home / "run"


def test_a_package_s_kinds_make_a_whole_run(run: Path) -> None:
    for number in range(2):
        folder = run / f"rounds/{number:03d}"
        candidates = read_parts(folder / "candidates")
        assert candidates.num_rows == 24 and set(candidates["finish_reason"].to_pylist()) <= {"stop", "length"}
        steps = Counter(read_parts(folder / "steps")["step"].to_pylist())
        assert steps == {"title": 24, "sentence": 12, "sentence.2": 12}
        assert "share" in read_parts(folder / "scores/vowels").column_names
        decisions = read_table(folder / "decisions.parquet")
        assert "a shorter one is kept" in decisions["reason"].to_pylist()
        kept = decisions.filter(decisions["kept"])["source_id"].to_pylist()
        assert len(kept) == len(set(kept)) > 0
        assert read_json(folder / "student/training.json") == {"steps": len(kept), "label": ("first", "second")[number]}
    report = read_json(run / "report.json")
    measured = {row["model"] for row in report["rounds"][1]["evaluation"]}
    assert report["finished"] and measured == {"teacher", "student", "mismatched", "first-sentence"}


def test_evaluation_reports_the_measures_that_the_generator_declares(run: Path) -> None:
    report = read_json(run / "report.json")
    controls = ["mismatched", "first-sentence"]
    task = {"generator": "titles", "measures": ["distinct_2", "compression"], "controls": controls, "inputs": "documents"}
    assert [found["task"] for found in report["rounds"]] == [task, task]
    for row in report["rounds"][1]["evaluation"]:
        assert row["pass_rate"] and row["distinct_2"] and row["compression"]
        assert [row[name] for name in ("rouge_1", "faithfulness", "salient_recall")] == [None] * 3
    page = (run / "report.html").read_text()
    headings = [page.index(f'<th scope="col">{name}</th>') for name in ("pass rate", "distinct-2", "compression")]
    assert headings == sorted(headings) and "ROUGE" not in page and "alient recall" not in page


def test_the_lock_names_the_package_and_another_version_refuses_an_unfinished_run_alone(
    home: Path, run: Path, site: dict[str, str]
) -> None:
    lock = read_json(run / "lock.json")
    assert lock["packages"] == {"limbeck-toy": "0.1.0"}
    assert {name for kinds in lock["semantics"].values() for name in kinds} >= {f"{family} {kind}" for family, kind in KINDS}
    newer = install(home / "newer", version="0.2.0")
    command = ("run", home / "recipe.yaml", "--out", run, "--no-panel")
    assert limbeck(*command, **newer).returncode == 0  # finished: nothing is computed
    assert read_json(run / "lock.json")["packages"] == {"limbeck-toy": "0.1.0"}
    unfinished = home / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "evaluation/_done.json").unlink()
    done = limbeck("run", home / "recipe.yaml", "--out", unfinished, "--no-panel", **newer)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "started with limbeck-toy 0.1.0, but 0.2.0 is installed; install limbeck-toy==0.1.0" in done.stderr
    for verb in ("report", "inspect"):
        assert limbeck(verb, unfinished, **newer).returncode == 0


def test_kinds_are_listed_with_their_origin_and_described_by_the_schema(home: Path, site: dict[str, str]) -> None:
    listed = json.loads(limbeck("schema", "--kinds", "--json", **site).stdout)
    assert len({(kind["family"], kind["kind"]) for kind in listed}) == len(listed)
    toys_listed = {(kind["family"], kind["kind"]) for kind in listed if kind["origin"] == "limbeck-toy 0.1.0"}
    assert toys_listed == set(KINDS)
    assert all(kind["origin"].startswith("limbeck") and kind["description"] for kind in listed)
    lines = limbeck("schema", "--kinds", **site).stdout.splitlines()
    assert len(lines) == len(listed)
    assert any(line.split() == "student copy limbeck-toy 0.1.0 Copies the round's teacher.".split() for line in lines)
    schema = json.loads(limbeck("schema", **site).stdout)
    data = yaml.safe_load(yaml.safe_dump(recipe(home, **toys(home))))
    jsonschema.validate(data, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json.loads(limbeck("schema").stdout))


@pytest.mark.parametrize(
    ("point", "module", "words"),
    [
        ("broken:Config", "import no_such_module", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        ("broken:Config", "raise SyntaxError('of an older Python')", "cannot be imported (SyntaxError: of an older Python)"),
        ("broken:Missing", "", "cannot be imported (AttributeError"),
        ("broken:Config", "Config = 3", "is not a class derived from one of limbeck.generators.contract.GeneratorConfig"),
        (
            "broken:Config",
            "from limbeck.filters.config import SetFilterConfig\nclass Config(SetFilterConfig):\n    kind: str",
            "does not name its kind",
        ),
        (
            "broken:Config",
            "from limbeck.filters.text.length import LengthConfig\nclass Config(LengthConfig): pass",
            "its filter kind 'length' is already defined by limbeck 0.1.0",
        ),
    ],
)
def test_a_package_that_cannot_be_used_is_one_sentence(tmp_path: Path, point: str, module: str, words: str) -> None:
    (tmp_path / "broken.py").write_text(module)
    write_distribution(tmp_path, "their-kinds", "3.1", {"mine": point})
    environment = {"PYTHONPATH": f"{tmp_path}:{install(tmp_path)['PYTHONPATH']}"}
    done = limbeck("schema", "--kinds", **environment)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "package their-kinds 3.1" in done.stderr and words in done.stderr


def test_two_packages_of_one_kind(tmp_path: Path) -> None:
    write_distribution(tmp_path, "other-toy", "9", {"vowels": "other:VowelsConfig"})
    (tmp_path / "other.py").write_text("from limbeck_toy.filters import VowelsConfig as V\nclass VowelsConfig(V): pass")
    done = limbeck("schema", "--kinds", **install(tmp_path))
    assert done.returncode == 1
    assert "package other-toy 9: its filter kind 'vowels' is already defined by limbeck-toy 0.1.0" in done.stderr


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ({"kind": "sft", "epochs": "x"}, "student.epochs: expected an integer"),
        ([{"kind": "sft"}, {"kind": "sft", "epochs": "x"}], "student.1.epochs: expected an integer"),
        ([{"kind": "sft"}], "student is a list of length 1, but rounds is 2; give one per round, or one for all"),
        ({"kind": "sft", "base": {"kind": "layers", "layers": 0}}, "student.base.layers: must be at least 1"),
        ({"kind": "copy"}, "student: unknown student kind 'copy'; known are distil, sft"),  # without the toy package
    ],
)
def test_paths_of_a_student_s_errors(home: Path, student: Any, words: str) -> None:
    done = limbeck("check", write_recipe(home, student=student))
    assert done.returncode == 1 and words in done.stderr, done.stderr


def test_every_node_must_have_the_version_of_the_driver(home: Path, site: dict[str, str]) -> None:
    newer, path = install(home / "newer", version="0.2.0"), write_recipe(home, **toys(home))
    with ray_cluster({"num_cpus": 2}, **site) as cluster:
        checked = limbeck("check", path, "--json", RAY_ADDRESS=cluster.address, **newer)
        (problem,) = json.loads(checked.stdout)["problems"]
        assert "limbeck-toy 0.1.0, here 0.2.0; install the same on every node" in problem
        done = limbeck("run", path, "--out", home / "differing", "--no-panel", RAY_ADDRESS=cluster.address, **newer)
        assert done.returncode == 1 and problem in done.stderr.strip().splitlines()[-1]
        assert json.loads(limbeck("check", path, "--json", RAY_ADDRESS=cluster.address, **site).stdout)["problems"] == []


@pytest.mark.slow
def test_the_toy_package_can_be_installed(tmp_path: Path) -> None:
    source = shutil.copytree(SOURCE, tmp_path / "source")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(tmp_path / "to"),
    ]
    done = subprocess.run([*pip, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = {"PYTHONPATH": f"{tmp_path / 'to'}:{install(tmp_path / 'unused')['PYTHONPATH'].partition(':')[2]}"}
    listed = json.loads(limbeck("schema", "--kinds", "--json", **environment).stdout)
    assert {(kind["family"], kind["kind"]) for kind in listed if kind["origin"] == "limbeck-toy 0.1.0"} == set(KINDS)
