"""Runs whose students are trained on a mixture, by the command line: shares, records, resume, and what `check` refuses."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import limbeck
from helpers.small_datasets import chat_run, lines, run_of
from helpers.tiny_run import write_recipe
from limbeck.corpus.parts import read_table
from limbeck.pipelines.runs.card import DATA

OWN: dict[str, Any] = {"kind": "own", "weight": 2}
EARLIER: dict[str, Any] = {"kind": "earlier", "rounds": [0], "weight": 1}


def recipe(home: Path, *components: dict[str, Any], **changes: Any) -> Path:
    """The tiny recipe with a mixture of its own rows and these."""
    mix = {"components": [OWN, *components], **changes.pop("mix", {})}
    return write_recipe(home, mix=mix, **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    chat_run(folder / "old", 60)
    return folder


@pytest.fixture(scope="module")
def mixing(home: Path) -> Path:
    return recipe(home, EARLIER, {"kind": "run", "name": "old", "run": str(home / "old"), "weight": 1})


@pytest.fixture(scope="module")
def run(home: Path, mixing: Path, ray_address: str) -> Path:
    done = limbeck("run", mixing, "--out", home / "run", "--no-panel", RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert "round 1 trains on" in done.stderr
    return home / "run"


def mixture(run: Path, number: int) -> Path:
    return run / f"rounds/{number:03d}/mixture"


def test_students_are_trained_on_the_mixture_of_their_round(run: Path) -> None:
    for number, names in enumerate((["own", "old"], ["own", "earlier", "old"])):
        rows = read_table(mixture(run, number) / DATA).to_pylist()
        weights = {"own": 2, "earlier": 1, "old": 1}
        total, counts = sum(weights[name] for name in names), Counter(row["component"] for row in rows)
        assert set(counts) == set(names)
        assert all(abs(counts[name] - len(rows) * weights[name] / total) < 1 for name in names)
        training = json.loads((run / f"rounds/{number:03d}/student/training.json").read_text())
        assert training["rows"] == len(rows)
        assert json.loads((mixture(run, number) / "_done.json").read_text())["rows_out"] == len(rows)
    origins = {row["origin"].rpartition("/")[0] for row in rows if row["component"] != "old"}
    assert origins == {"run/rounds/000", "run/rounds/001"}


def test_the_report_says_what_students_were_trained_on(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert [[one["name"] for one in found["mixture"]] for found in report["rounds"]] == [
        ["own", "old"],
        ["own", "earlier", "old"],
    ]
    assert [(one["gives"], Path(one["run"]).name, one["round"]) for one in report["origins"]] == [("mixture", "old", 0)]
    assert "What students were trained on" in (run / "report.html").read_text()


def test_a_mixture_is_part_of_what_a_run_is(run: Path, home: Path, mixing: Path, ray_address: str) -> None:
    again = limbeck("run", mixing, "--out", run, "--no-panel", RAY_ADDRESS=ray_address)
    assert again.returncode == 0, again.stderr
    other = limbeck("run", mixing, "--out", run, "--no-panel", "--set", "mix.components.old.weight=3", RAY_ADDRESS=ray_address)
    assert other.returncode == 1 and "stage 'student' differs (mix.components" in other.stderr
    without = limbeck("run", mixing, "--out", run, "--no-panel", "--set", "mix=null", RAY_ADDRESS=ray_address)
    assert without.returncode == 1 and "stage 'student' differs (mix" in without.stderr


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_at_its_mixture_ends_with_the_same_one(
    when: str, run: Path, home: Path, mixing: Path, tmp_path: Path, ray_address: str
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"rename": r"001/mixture$", "when": when, "victim": "self"}]))
    command = ("run", mixing, "--out", tmp_path / "run", "--no-panel")
    assert limbeck(*command, faults=plan, RAY_ADDRESS=ray_address).returncode == -9
    done = limbeck(*command, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    for number in (0, 1):
        assert read_table(mixture(tmp_path / "run", number) / DATA).equals(read_table(mixture(run, number) / DATA))


PROBLEMS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing run": ({"kind": "run", "run": "{}/gone"}, {}, "mix: component 'x' of the mixture: no such run folder"),
    "columns": ({"path": "{}/columns.jsonl"}, {}, "has the columns answer, text; rows to train on have"),
    "another form": ({"kind": "run", "run": "{}/text"}, {}, "are text, but those of the mixture are conversations"),
    "weights": ({"kind": "run", "run": "{}/old", "weight": 0}, {"own": 0}, "the weights sum to 0"),
    "no own": ({"kind": "run", "run": "{}/old"}, {"own": 0}, "exactly one component of kind own, with a weight above 0"),
    "a cap": (
        {"kind": "run", "run": "{}/old", "cap": 1},
        {"mix": {"size": 20}},
        "'x' should give 7 of the 20 rows .* capped at 1",
    ),
    "a cap that leaves nothing": (
        {"kind": "run", "run": "{}/old", "weight": 0.01},
        {"own": 90, "mix": {"size": 20}},
        "component 'x' gives none of the 20 rows",
    ),
    "more than there is": (
        {"kind": "run", "run": "{}/old"},
        {"mix": {"size": 600}},
        "if every candidate were kept: .* of the 600",
    ),
    "no student": ({"kind": "run", "run": "{}/old"}, {"student": None, "rounds": 1}, "mix is what students are trained on, but"),
    "no earlier round": ({"kind": "earlier"}, {"rounds": 1}, "rows of earlier rounds, but rounds is 1"),
    "a later round": ({"kind": "earlier", "rounds": [1]}, {}, "names round 1, but the last student's is round 1"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_check_reports_what_cannot_be_mixed(case: str, home: Path, tmp_path: Path) -> None:
    component, changes, words = PROBLEMS[case]
    lines(tmp_path / "columns.jsonl", [{"text": "a", "answer": "b"}])
    run_of(tmp_path / "text", [{"prompt": "a", "completion": "b"}])
    chat_run(tmp_path / "old", 9)
    given = {key: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value for key, value in component.items()}
    kind = {} if "kind" in given else {"kind": "rows"}
    components = [{**OWN, "weight": changes.get("own", 2)}, {"name": "x", "weight": 1, **kind, **given}]
    keys = {
        "rounds": 2,
        "student": {"kind": "sft", "batch_size": 4},
        **{key: changes[key] for key in changes if key not in ("own", "mix")},
    }
    path = write_recipe(home, mix={"components": components, **changes.get("mix", {})}, **keys)
    done = limbeck("check", path, "--out", tmp_path / "run")
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and re.search(words, said), said
