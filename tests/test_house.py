"""Project rules: packages come from this checkout, light imports stay light, shipped recipes are valid."""

import ast
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from helpers.commands import limbeck
from helpers.import_graph import cycles, import_graph
from helpers.paths import PACKAGE, ROOT
from limbeck.cluster.installation import PACKAGES, Installation, this_installation
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines import recipe as recipes

SHIPPED = sorted((PACKAGE / "pipelines/recipes").glob("*.yaml"))
QUICKSTART = PACKAGE / "pipelines/recipes/quickstart.yaml"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_lies_in_this_checkout(package: str) -> None:
    found = Path(str(importlib.import_module(f"limbeck.{package}").__file__)).resolve()
    assert found in (ROOT / package / "__init__.py", ROOT / "src/limbeck" / package / "__init__.py")  # the latter in an sdist


@pytest.mark.parametrize("package", PACKAGES)
def test_old_names_are_refused_here_and_in_child_processes(package: str) -> None:
    with pytest.raises(ImportError, match="old name"):
        importlib.import_module(package)
    done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, cwd=ROOT)
    assert "old name" in done.stderr


def test_only_infinigram_imports_its_extension() -> None:
    others = [path for room in PACKAGES if room != "infinigram" for path in (PACKAGE / room).resolve().rglob("*.py")]
    assert len(others) > 100
    assert not [path for path in others if "_infinigram" in path.read_text(encoding="utf-8")]


# A config is read on the driver and builds the heavy object on a worker, so its build() imports that object's module.
BUILT_BY_CONFIGS = {
    "limbeck.cluster.engines.endpoint.config": {
        "limbeck.cluster.engines.endpoint.engine",
        "limbeck.cluster.engines.endpoint.server",
    },
    "limbeck.cluster.engines.local.config": {"limbeck.cluster.engines.local.engine"},
    "limbeck.cluster.engines.vllm.config": {"limbeck.cluster.engines.vllm.engine"},
    "limbeck.students.base.healing": {"limbeck.students.base.healing_trainer"},
    "limbeck.students.training.config": {"limbeck.students.training.driver", "limbeck.students.training.trainer"},
    "limbeck.students.distil": {"limbeck.students.training.distilling"},
}


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "tests"], ids=lambda folder: folder.name)
def test_files_have_500_lines_at_most_and_functions_60(folder: Path) -> None:
    files = [Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names if name.endswith(".py")]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    assert len(texts) > 100
    assert [str(path) for path, text in texts.items() if text.count("\n") > 500] == []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [(path, node) for path, text in texts.items() for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    assert [f"{path}: {node.name}" for path, node in functions if (node.end_lineno or 0) - node.lineno >= 60] == []


def test_no_modules_import_each_other() -> None:
    """Imports inside functions and for type checkers count too, except those of a config's build()."""
    graph = import_graph(PACKAGE)
    assert len(graph) > 200
    for config, built in BUILT_BY_CONFIGS.items():
        assert built <= graph[config], f"{config} no longer builds {built}"
    assert cycles({name: imported - BUILT_BY_CONFIGS.get(name, set()) for name, imported in graph.items()}) == []


def test_a_cycle_is_found_wherever_its_imports_are(tmp_path: Path) -> None:
    package = tmp_path / "house"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "room/__init__.py").touch()
    (package / "room/a.py").write_text("if TYPE_CHECKING:\n    from house.room import b\n")
    (package / "room/b.py").write_text("def f():\n    import house.room.c\n")
    (package / "room/c.py").write_text("from house.room.a import x\n")
    (package / "room/d.py").write_text("from house.room import a\n")
    assert cycles(import_graph(package)) == [["house.room.a", "house.room.b", "house.room.c"]]


def test_runs_imports_neither_the_driver_nor_ray_nor_torch() -> None:
    names = sorted(path.stem for path in (PACKAGE / "pipelines/runs").glob("*.py") if path.stem != "__init__")
    assert len(names) > 8
    code = f"import importlib, json, sys; [importlib.import_module(f'limbeck.pipelines.runs.{{name}}') for name in {names}]"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(json.dumps(list(sys.modules)))"], capture_output=True, text=True, check=True
    )
    forbidden = (
        "ray",
        "torch",
        "transformers",
        "vllm",
        "limbeck.pipelines.driver",
        "limbeck.pipelines.console",
        "limbeck.pipelines.run",
    )
    assert not set(json.loads(done.stdout)) & set(forbidden)


def test_an_installation_is_known_by_its_code_and_not_by_its_place(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "limbeck", ignore=shutil.ignore_patterns("__pycache__"))  # real folders, as in a wheel
    script = "import json; from limbeck.cluster import installation; print(json.dumps(vars(installation.this_installation())))"

    def there() -> Installation:
        command, path = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=path, check=True)
        return Installation(**json.loads(done.stdout))

    ours, copied = this_installation(), there()
    assert ours.differences(copied) == [] and copied.folder == str(tmp_path / "limbeck")
    with open(tmp_path / "limbeck/generators/prompts/summary.jinja", "a") as prompt:
        prompt.write("Be brief.")
    (difference,) = ours.differences(there())
    assert difference.startswith(f"Limbeck {ours.version} (code ") and str(tmp_path) in difference and ours.code in difference


def test_packages_that_bring_kinds_are_compared_by_version() -> None:
    ours = this_installation(["pyarrow", "no-such-package"])
    theirs = replace(ours, others={"pyarrow": "0.1", "no-such-package": "not installed"})
    assert ours.differences(theirs) == [f"pyarrow 0.1, here {ours.others['pyarrow']}"]


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "DECISIONS.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "|".join([*PACKAGES, "src", "tests", "docs", "benchmarks", "examples"])
NAMED_FILE = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]+\.(?:py|md|yaml|jsonl|json|hpp|cpp|jinja|svg))(?:::(\w+))?")
NAMED_OBJECT = re.compile(rf"(?<![\w./-])limbeck\.(?:{'|'.join(PACKAGES)})(?:\.\w+)+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_objects_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, function in NAMED_FILE.findall(text):
        if "NAME" in name:  # stands for the name of a new kind
            continue
        found = next((folder / name for folder in (ROOT, PACKAGE, page.parent) if (folder / name).is_file()), None)
        assert found is not None, f"{page.name} names {name}"
        assert not function or f"def {function}" in found.read_text(encoding="utf-8"), f"{page.name}: {name}::{function}"
    for name in NAMED_OBJECT.findall(text):
        assert pkgutil.resolve_name(name) is not None, f"{page.name} names {name}"


@pytest.mark.parametrize(
    "module",
    [
        "limbeck.filters.models.pmi",
        "limbeck",
        "limbeck.infinigram",
        "limbeck.infinigram.service.app",
        "limbeck.pipelines.cli.main",
        "limbeck.pipelines.recipe",
        "limbeck.pipelines.run",
        "limbeck.cluster.workers.pool",
        "limbeck.corpus.sources",
        "limbeck.students.distil",
        "limbeck.students.sft",
    ],
)
def test_the_driver_s_modules_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(json.dumps([m for m in ('torch', 'transformers', 'ray', 'trl') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout) == []


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "limbeck", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "preview" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "ray", "transformers", "pyarrow", "duckdb", "pydantic", "jinja2"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = recipes.load(path)
    assert recipe.name == path.stem
    jsonschema.validate(yaml.safe_load(path.read_text()), recipes.json_schema())


def test_schema_is_printed_and_refuses_what_the_recipe_refuses() -> None:
    schema = json.loads(limbeck("schema").stdout)
    data = yaml.safe_load(QUICKSTART.read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "sead": 1}, schema)
    report = json.loads(limbeck("schema", "--report").stdout)
    assert "first_line" in report["properties"]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("generator.samples=8", ("generator", "samples"), 8),
        ("filters.0.max_copied=null", ("filters", 0, "max_copied"), None),
        ("filters.pmi.min_saliency=0.25", ("filters", 2, "min_saliency"), 0.25),
        ("student.lora.rank=4", ("student", "lora", "rank"), 4),
        ("teacher.model=a/b", ("teacher", "model"), "a/b"),
        ("generator.stop=[a, b]", ("generator", "stop"), ("a", "b")),
    ],
)
def test_overrides_reach_their_key(override: str, path: tuple[str | int, ...], value: object) -> None:
    found: object = recipes.load(QUICKSTART, [override])
    for step in path:
        found = found[step] if isinstance(step, int) else getattr(found, step)  # type: ignore[index]
    assert found == value


@pytest.mark.parametrize("override", ["rounds", "=3", "rounds.x=1", "filters.x.name=a"])
def test_overrides_that_cannot_be_meant(override: str) -> None:
    with pytest.raises(LimbeckError, match="--set"):
        recipes.load(QUICKSTART, [override])


def test_a_variable_with_a_default_may_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"seed": "${SEED:-3}", "name": "run-${NAME}", "deep": [{"x": "${SEED:-4} of ${NAME}"}]}
    monkeypatch.setenv("NAME", "one")
    assert recipes.interpolate(data) == {"seed": 3, "name": "run-one", "deep": [{"x": "4 of one"}]}
    monkeypatch.setenv("SEED", "7")
    assert recipes.interpolate(data)["seed"] == 7


def test_a_critic_without_an_engine_gets_the_round_0_teacher() -> None:
    recipe = recipes.load("quickstart").resolved()
    engines = [part.engine for part in recipe.filters if part.kind == "pmi"]
    assert engines == [recipe.teacher]


def test_pipelines_ask_no_kind_what_it_has() -> None:
    """Kinds are used through their contracts. Exception: usage errors of typer's click."""
    files = sorted((PACKAGE / "pipelines").resolve().rglob("*.py"))
    asking = [path.name for path in files for line in path.read_text().splitlines() if re.search("hasattr|getattr", line)]
    assert asking == ["main.py"]


@pytest.mark.parametrize("room", ["pipelines", "generators", "filters", "students", "cluster/placement", "cluster/workers"])
def test_only_engines_know_kinds_of_engines(room: str) -> None:
    named = re.compile("VllmConfig|EndpointConfig|TransformersConfig|AutoConfig")
    files = list((PACKAGE / room).resolve().rglob("*.py"))
    assert files and [path for path in files if named.search(path.read_text(encoding="utf-8"))] == []


def test_two_filters_of_one_name_are_refused() -> None:
    data = yaml.safe_load(QUICKSTART.read_text())
    data["filters"].append({"kind": "length"})
    with pytest.raises(LimbeckError, match="two filters are named 'length'"):
        recipes.validate(data, "here")
