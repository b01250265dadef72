"""`limbeck mix` end to end: what a mixture has of each component, where its rows come from, and what is refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from helpers.commands import limbeck
from helpers.small_datasets import chat_row, chat_run, lines, run_of
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_table
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.mixture import file
from limbeck.pipelines.runs.mixture.facts import MixtureFacts


def mixture(path: Path, *components: dict[str, Any], **keys: Any) -> Path:
    path.write_text(yaml.safe_dump({"name": "mixed", "components": list(components), **keys}))
    return path


def mixed(path: Path, out: Path) -> list[dict[str, Any]]:
    """The rows that the library call writes."""
    file.mix(file.load(path), out)
    return read_table(out / DATA).to_pylist()


@pytest.fixture
def parts(tmp_path: Path) -> list[dict[str, Any]]:
    """A run of 40 rows, 30 conversations, and 20 instructions in a CSV file."""
    chat_run(tmp_path / "first", 40)
    talks = [
        {"messages": [*row["prompt"], *row["completion"]]} for row in (chat_row(f"talk {n}", f"said {n}") for n in range(30))
    ]
    lines(tmp_path / "talks.jsonl", talks)
    (tmp_path / "tasks.csv").write_text("instruction,input,output\n" + "".join(f"do {n},with {n},done {n}\n" for n in range(20)))
    return [
        {"kind": "run", "name": "own-run", "run": str(tmp_path / "first"), "weight": 2},
        {"kind": "rows", "name": "talks", "path": str(tmp_path / "talks.jsonl"), "weight": 1},
        {"kind": "rows", "name": "tasks", "path": str(tmp_path / "tasks.csv"), "weight": 1},
    ]


def test_the_command_writes_a_dataset_with_its_card(parts: list[dict[str, Any]], tmp_path: Path) -> None:
    path, out = mixture(tmp_path / "mix.yaml", *parts, size=32), tmp_path / "out"
    done = limbeck("mix", path, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert {one["name"]: one["rows"] for one in facts["components"]} == {"own-run": 16, "talks": 8, "tasks": 8}
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache")).to_list()
    assert Counter(row["component"] for row in rows) == {"own-run": 16, "talks": 8, "tasks": 8}
    assert len({row["component"] for row in rows[:8]}) > 1, "components are shuffled together"
    by_component = {row["component"]: row for row in rows}
    assert by_component["own-run"]["origin"].startswith("first/rounds/000/dataset:c")
    assert by_component["talks"]["origin"].startswith("talks.jsonl:")
    (turn,) = by_component["tasks"]["prompt"]
    number = turn["content"].split()[-1]
    assert (
        turn["content"] == f"do {number}\n\nwith {number}"
        and by_component["tasks"]["completion"][0]["content"] == f"done {number}"
    )
    card = (out / "README.md").read_text()
    assert "| own-run |" in card and "50.00%" in card and str(tmp_path / "first") in card
    assert MixtureFacts.model_validate_json((out / "mixture.json").read_text()).rows == 32
    again = limbeck("mix", path, "--out", out)
    assert again.returncode == 1 and "already exists; choose another --out" in again.stderr


def test_the_same_rows_are_chosen_whatever_their_order(parts: list[dict[str, Any]], tmp_path: Path) -> None:
    path = mixture(tmp_path / "mix.yaml", *parts, size=20)
    first = mixed(path, tmp_path / "one")
    talks = tmp_path / "talks.jsonl"
    talks.write_text("".join(reversed(talks.read_text().splitlines(keepends=True))))
    second = mixed(path, tmp_path / "two")
    said = [[(row["component"], row["prompt"], row["completion"]) for row in rows] for rows in (first, second)]
    assert said[0] == said[1]
    other = mixed(mixture(tmp_path / "mix.yaml", *parts, size=20, seed=1), tmp_path / "three")
    assert [row["prompt"] for row in other] != [row["prompt"] for row in first]


def test_rows_repeat_evenly_and_never_above_the_cap(parts: list[dict[str, Any]], tmp_path: Path) -> None:
    parts[1] |= {"cap": 45}
    rows = mixed(mixture(tmp_path / "mix.yaml", parts[1], max_repeats=2), tmp_path / "out")
    times = Counter(json.dumps(row["prompt"]) for row in rows)
    assert len(rows) == 45 and Counter(times.values()) == {2: 15, 1: 15}


def test_a_mixture_of_mixtures_keeps_where_its_rows_came_from(parts: list[dict[str, Any]], tmp_path: Path) -> None:
    inner = mixed(mixture(tmp_path / "inner.yaml", *parts, size=12), tmp_path / "inner")
    chat_run(tmp_path / "second", 9)
    outer = {"kind": "rows", "name": "old", "path": str(tmp_path / "inner")}
    out = tmp_path / "out"
    rows = mixed(mixture(tmp_path / "mix.yaml", outer, {"kind": "run", "name": "new", "run": str(tmp_path / "second")}), out)
    assert {row["component"] for row in rows} == {"old/own-run", "old/talks", "old/tasks", "new"}
    kept = {(row["component"].removeprefix("old/"), row["origin"]) for row in rows if row["component"] != "new"}
    assert kept == {(row["component"], row["origin"]) for row in inner}
    facts = MixtureFacts.model_validate_json((out / "mixture.json").read_text())
    assert [Path(run.run).name for run in facts.runs] == ["first", "second"]


def test_rows_that_cannot_be_used_are_counted_with_their_reasons(tmp_path: Path) -> None:
    good = [*chat_row("q", "a")["prompt"], *chat_row("q", "a")["completion"]]
    path = lines(tmp_path / "talks.jsonl", [{"messages": talk} for talk in (good, good[:1], [], good[1:])])
    with path.open("a") as broken:
        broken.write("{not json\n")
    (tmp_path / "tasks.jsonl").write_text('{"instruction": "x", "output": ""}\n{"instruction": "y", "output": "z"}\n')
    names = ("talks", "tasks")
    parts = [{"kind": "rows", "name": name, "path": str(tmp_path / f"{name}.jsonl")} for name in names]
    facts = file.mix(file.load(mixture(tmp_path / "mix.yaml", *parts)), tmp_path / "out")
    talks, tasks = facts.components
    assert (talks.rows_read, talks.usable, sum(talks.unusable.values())) == (5, 1, 4)
    assert talks.unusable["no assistant turn to train on"] == 1 and tasks.unusable == {"empty output": 1}
    assert "malformed conversation" in (tmp_path / "out/README.md").read_text()


def test_text_rows_are_rendered_in_the_format_of_the_mixture(tmp_path: Path) -> None:
    path = lines(tmp_path / "tasks.jsonl", [{"instruction": "Add.", "input": "1 + 1", "output": "2"}])
    component = {"kind": "rows", "name": "tasks", "path": str(path)}
    (row,) = mixed(mixture(tmp_path / "mix.yaml", component, rows={"kind": "alpaca"}), tmp_path / "out")
    assert row["prompt"].endswith("### Instruction:\nAdd.\n\n### Input:\n1 + 1\n\n### Response:") and row["completion"] == "2"


TEXT = [{"prompt": "a", "completion": "b"}]
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing run": ({"kind": "run", "run": "gone"}, {}, "component 'x' of the mixture: no such run folder: gone"),
    "no run": ({"kind": "run", "run": "{}"}, {}, "is not a run folder"),
    "missing round": ({"kind": "run", "run": "{}/chat", "round": 4}, {}, "has no dataset of round 4"),
    "missing file": ({"path": "{}/gone.jsonl"}, {}, "component 'x' of the mixture: there is no file or folder"),
    "columns": ({"path": "{}/columns.jsonl"}, {}, "has the columns answer, text; rows to train on have prompt"),
    "text for chat": ({"path": "{}/text.jsonl"}, {}, "are text, but those of the mixture are conversations"),
    "chat for text": ({"path": "{}/talks.jsonl"}, {"rows": {"kind": "plain"}}, "are conversations, but those of the mixture are"),
    "a run's text": ({"kind": "run", "run": "{}/text"}, {}, "are text, but those of the mixture are conversations"),
    "nothing usable": ({"path": "{}/empty.jsonl"}, {}, "has no usable row .the first, empty.jsonl:1: no assistant turn"),
    "no row at all": ({"path": "{}/nothing.jsonl"}, {}, "component 'x' of the mixture has no usable row"),
    "too few": ({"path": "{}/talks.jsonl"}, {"size": 9}, "should give 9 of the 9 rows .* has 1; lower size to 1"),
    "weights": ({"path": "{}/talks.jsonl", "weight": 0}, {}, "the weights sum to 0"),
    "both weights": ({"path": "{}/talks.jsonl", "weight": 1}, {"temperature": 2}, "temperature weighs components by size"),
    "two inputs": ({"path": "a", "dataset": "b"}, {}, "either path or dataset"),
    "unknown kind": ({"kind": "rums"}, {}, "unknown kind 'rums'; did you mean 'run'"),
    "own": ({"kind": "own"}, {}, "unknown kind 'own'"),
    "codes": ({"path": "{}/tasks.jsonl"}, {"rows": {"kind": "control_codes"}}, "has instructions, which rows.kind control_codes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_mixed_is_one_sentence(case: str, tmp_path: Path) -> None:
    component, keys, words = REFUSED[case]
    chat_run(tmp_path / "chat", 3)
    run_of(tmp_path / "text", TEXT)
    lines(tmp_path / "text.jsonl", TEXT)
    lines(tmp_path / "columns.jsonl", [{"text": "a", "answer": "b"}])
    lines(tmp_path / "talks.jsonl", [{"messages": [*chat_row("q", "a")["prompt"], *chat_row("q", "a")["completion"]]}])
    lines(tmp_path / "tasks.jsonl", [{"instruction": "x", "output": "y"}])
    lines(tmp_path / "empty.jsonl", [{"messages": chat_row("q", "a")["prompt"]}])
    (tmp_path / "nothing.jsonl").touch()
    found = {key: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value for key, value in component.items()}
    path = mixture(tmp_path / "mix.yaml", {"kind": "rows", "name": "x", **found}, **keys)
    with pytest.raises(LimbeckError, match=words) as raised:
        mixed(path, tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_contradictory_weights_are_refused(tmp_path: Path) -> None:
    first, second = ({"kind": "run", "name": name, "run": "r"} for name in "ab")
    for components, words in (
        ([{**first, "weight": 1}, second], "'a' has a weight and 'b' has none"),
        ([first, first], "two components are named 'a'"),
    ):
        with pytest.raises(LimbeckError, match=words):
            file.load(mixture(tmp_path / "mix.yaml", *components))
    with pytest.raises(LimbeckError, match="there is no file"):
        file.load(tmp_path / "gone.yaml")
