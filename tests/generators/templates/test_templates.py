"""Labelled rows by templates: what is drawn, what is known of it, and what is refused; no engine is asked."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from helpers.scripted_engine import ScriptedEngine
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.local_labels import read_local_labels
from limbeck.generators.contract import TEACHER
from limbeck.generators.runner import Runner
from limbeck.generators.templates.generator import REASONS, TemplatesConfig
from limbeck.generators.templates.tasks import read_tasks

Row = dict[str, Any]
COLOURS: Row = {
    "task": "colour",
    "where": {"table": "colours"},
    "choices": ["red", "blue"],
    "templates": [
        {"name": "plain", "prompt": "Colour of {{ thing }}? {{ choices | join(' or ') }}", "answer": "{{ colour }}"},
        {"name": "reason", "prompt": "Why is {{ thing }} so?", "answer": "Look: {{ colour }}.", "reference": "{{ colour }}"},
        {
            "name": "german",
            "prompt": "Farbe von {{ thing }}?",
            "answer": "{{ de }}",
            "choices": ["rot", "blau"],
            "language": "de",
        },
        {"name": "kept", "prompt": "Name the colour: {{ thing }}", "answer": "{{ colour }}", "held_out": True, "original": False},
    ],
}
LENGTH: Row = {
    "task": "length", "held_out": True,
    "templates": [{"name": "letters", "prompt": "How long is {{ thing }}?", "answer": "{{ thing | length }}"}],
}  # fmt: skip
RECORD: Row = {"table": "colours", "thing": "a rose", "colour": "red", "de": "rot"}


def drawn(records: list[Row], **section: Any) -> list[Row]:
    """The candidates of some rows, with their facts read."""
    config = TemplatesConfig.model_validate({"tasks": [COLOURS, LENGTH], **section})
    sources = pa.table(
        {
            "source_id": [f"s{place}" for place in range(len(records))],
            "document": [""] * len(records),
            "record": [json.dumps(record) for record in records],
        }
    )
    engine = ScriptedEngine()
    rows = Runner(config.build(), 1, 0).run(sources, {TEACHER: engine}).to_pylist()
    assert not engine.requests and not engine.pairs
    return [{**row, "facts": json.loads(row["facts"])} for row in rows]


def test_a_row_draws_different_templates_with_what_is_known_of_them() -> None:
    rows = {row["facts"]["template"]: row for row in drawn([RECORD], samples=9)}
    assert set(rows) == {"plain", "reason", "german"}
    assert rows["plain"]["prompt"] == "Colour of a rose? red or blue" and rows["plain"]["output"] == "red"
    assert rows["plain"]["facts"] == {
        "task": "colour", "template": "plain", "language": "en", "original_task": True, "choices": ["red", "blue"],
    }  # fmt: skip
    assert (rows["reason"]["output"], rows["reason"]["reference"]) == ("Look: red.", "red")
    assert rows["german"]["facts"]["language"] == "de" and rows["german"]["facts"]["choices"] == ["rot", "blau"]


def test_held_out_templates_and_tasks_are_asked_apart() -> None:
    rows = {row["facts"]["task"]: row for row in drawn([RECORD], samples=9, use="held-out")}
    assert rows["colour"]["facts"]["held_out"] == "template" and rows["colour"]["facts"]["original_task"] is False
    assert rows["length"]["facts"]["held_out"] == "task" and rows["length"]["output"] == "6"
    assert len(drawn([RECORD], samples=9, use="all")) == 5
    seen = {(task.task, one.name) for task in read_tasks("local-labels") for one in task.templates if not task.held_out}
    rendered = {(row["facts"]["task"], row["facts"]["template"]) for row in _local("seen")}
    asked = {(row["facts"]["task"], row["facts"]["template"]) for row in _local("held-out")}
    assert rendered and asked and not rendered & asked and rendered <= seen


def test_tasks_and_templates_are_drawn_by_their_weights() -> None:
    colour = {**COLOURS, "weight": 3, "templates": [{**COLOURS["templates"][0], "weight": 2}, COLOURS["templates"][1]]}
    length = {**LENGTH, "held_out": False}
    records = [{**RECORD, "thing": f"thing {place}"} for place in range(1200)]
    found = Counter(row["facts"]["template"] for row in drawn(records, tasks=[colour, length]))
    for name, share in {"plain": 1 / 2, "reason": 1 / 4, "letters": 1 / 4}.items():
        assert abs(found[name] / 1200 - share) < 4 * (share * (1 - share) / 1200) ** 0.5  # four standard errors
    assert drawn(records[:50], tasks=[colour, length]) == drawn(records[:50], tasks=[colour, length])


@pytest.mark.parametrize(
    ("record", "template", "rule"),
    [
        ({**RECORD, "table": "other"}, COLOURS["templates"][0], "no_task"),
        ({**RECORD, "colour": None}, COLOURS["templates"][0], "missing"),
        ({**RECORD, "colour": "green"}, COLOURS["templates"][0], "not_a_choice"),
        (RECORD, {"name": "n", "prompt": "{{ '' }}", "answer": "x"}, "empty_prompt"),
        (RECORD, {"name": "n", "prompt": "x", "answer": "{% if 0 %}y{% endif %}"}, "empty_answer"),
    ],
)
def test_a_row_that_a_template_does_not_fit_costs_itself(record: Row, template: Row, rule: str) -> None:
    (row,) = drawn([record], tasks=[{**COLOURS, "templates": [template]}])
    assert row["error"].startswith(REASONS[rule]) and row["facts"]["rule"] == rule and row["output"] == ""


def _local(use: str) -> list[Row]:
    records = [dict(row.record or {}) for row in read_local_labels({"arithmetic": 120, "packages": 40}, "/nowhere")]
    return drawn(records, tasks="local-labels", use=use, samples=3)


def test_built_in_tasks_give_answers_that_are_right() -> None:
    rows = [row for use in ("seen", "held-out") for row in _local(use)]
    made = [row for row in rows if row["error"] is None]
    assert len(made) > 0.8 * len(rows)
    assert {row["facts"]["language"] for row in made} == {"en", "de", "fr"}
    solutions = [row for row in made if row["facts"]["task"] == "worked-solution"]
    assert solutions and all(row["output"].endswith(f"The answer is {row['reference']}.") for row in solutions)
    assert all(row["reference"] in row["facts"]["choices"] for row in made if "choices" in row["facts"])


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ("local-label", "no tasks local-label .*did you mean 'local-labels'"),
        ("{}/gone.yaml", "no tasks .*gone.yaml"),
        ([{**LENGTH, "held_out": False}, {**LENGTH, "held_out": False}], "two tasks are named 'length'"),
        ([LENGTH], "use is seen, but no template is not held out"),
        ([{"task": "t", "templates": [{"name": "n", "prompt": "{{ a", "answer": "b"}]}], "t.n is not a Jinja template"),
    ],
)
def test_tasks_that_cannot_be_used_are_one_sentence(tasks: Any, words: str, tmp_path: Path) -> None:
    given = tasks.replace("{}", str(tmp_path)) if isinstance(tasks, str) else tasks
    config = TemplatesConfig.model_validate({"tasks": given})
    with pytest.raises(LimbeckError, match=words):
        config.build()
    assert len(config.problems({})) == 1


def test_a_file_of_tasks_is_read_and_belongs_to_what_a_run_is(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump([COLOURS]))
    config = TemplatesConfig(tasks=str(path))
    before = config.determining()
    assert before["tasks"][0]["templates"][0]["prompt"].startswith("Colour of") and before["samples"] == 1
    path.write_text(yaml.safe_dump([{**COLOURS, "weight": 2}]))
    assert config.determining() != before
    for text, words in (
        ("a: 1", "is not a list of tasks"),
        ("- {task: t", "is not YAML"),
        ("- {task: t}", "0.templates: Field required"),
    ):
        path.write_text(text)
        with pytest.raises(LimbeckError, match=words):
            read_tasks(str(path))


def test_two_templates_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two templates of the task 'length' are named 'letters'"):
        TemplatesConfig.model_validate({"tasks": [{**LENGTH, "templates": LENGTH["templates"] * 2}]})
