import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_students import TEMPLATE, make_model
from limbeck.corpus.errors import LimbeckError
from limbeck.students.base.compatibility import compare


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "teacher")


def _copy(model: Path, folder: Path, **changes: Any) -> Path:
    """The model with some of its files changed: name → new text, a function of the parsed JSON, or None to delete it."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name, change in changes.items():
        path = folder / {"template": "chat_template.jinja"}.get(name, f"{name}.json")
        if change is None:
            path.unlink()
        elif callable(change):
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
        else:
            path.write_text(change)
    return folder


def test_a_model_agrees_with_itself_and_its_copy(model: Path, tmp_path: Path) -> None:
    assert compare(model, model) == []
    assert compare(model, _copy(model, tmp_path / "student")) == []


def _add_token(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["zzz"] = 399


def _drop_merges(content: dict[str, Any]) -> None:
    content["model"]["merges"] = content["model"]["merges"][:0]


def _other_end(content: dict[str, Any]) -> None:
    content["eos_token_id"] = [2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": _add_token}, r"tokenizers differ: (\d+) of the teacher's \1 tokens have the same id"),
        ({"tokenizer": _drop_merges}, "share a vocabulary but split"),
        ({"template": TEMPLATE + " "}, "chat templates of teacher and student differ"),
        ({"generation_config": _other_end}, r"end tokens differ: <\|end\|> \(teacher\), <\|end\|>, <\|start\|> \(student\)"),
    ],
)
def test_differences_are_warned_of(model: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    warnings = compare(model, _copy(model, tmp_path / "student", **changes))
    assert len(warnings) == 1
    assert re.search(message, warnings[0])


def test_a_teacher_without_a_template_is_warned_of(model: Path, tmp_path: Path) -> None:
    teacher = _copy(model, tmp_path / "base", template=None)
    assert "no chat template" in compare(teacher, model)[0]
    assert compare(teacher, model, conversational=False) == []


def _no_end(content: dict[str, Any]) -> None:
    del content["eos_token"]


def _unknown_end(content: dict[str, Any]) -> None:
    content["eos_token"] = "<|nowhere|>"


def _few_rows(content: dict[str, Any]) -> None:
    content["vocab_size"] = 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": None}, "has no chat template"),
        (
            {"template": "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"},
            "does not close an answer with an end token",
        ),
        ({"template": "{% for m in messages %}{{ m['role'] }}<|end|>{% endfor %}"}, "drops the assistant turn"),
        ({"template": "{{ raise_exception('no') }}"}, "fails on a user turn"),
        ({"template": "{% for %}"}, "fails on a user turn"),
        ({"tokenizer_config": _no_end}, "has no end token"),
        ({"tokenizer_config": _unknown_end}, "has no end token"),
        ({"config": _few_rows}, "only 100 embedding rows"),
        ({"tokenizer": None}, "has no tokenizer.json"),
        ({"config": None}, "config.json does not exist"),
    ],
)
def test_what_would_train_wrongly_is_refused(model: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    student = _copy(model, tmp_path / "student", **changes)
    with pytest.raises(LimbeckError, match=message):
        compare(model, student)
    with pytest.raises(LimbeckError, match=message):  # nor does it become right by being the teacher
        compare(student, student)


def test_plain_text_needs_no_template(model: Path, tmp_path: Path) -> None:
    assert compare(model, _copy(model, tmp_path / "student", template=None), conversational=False) == []


def test_comparing_imports_no_torch(model: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from limbeck.students.base.compatibility import compare
compare(Path({str(model)!r}), Path({str(model)!r}))
print("torch" in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "False", answer.stderr
