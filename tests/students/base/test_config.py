from typing import Any

import pytest
from pydantic import ValidationError

from limbeck.students.base.config import BaseConfig, LayersBase, ScratchBase, TeacherBase
from limbeck.students.sft import SftConfig


def _base(**section: Any) -> BaseConfig:
    return SftConfig.model_validate({"kind": "sft", "base": section}).base


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "scratch", "layers": 2, "width": 30, "heads": 4}, "width 30 is not a multiple of heads 4"),
        (
            {"kind": "scratch", "layers": 2, "width": 12, "heads": 4},
            "gives each of 4 heads 3 values, but rotary positions need an even",
        ),
        ({"kind": "scratch", "layers": 2, "width": 32, "heads": 4, "kv_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
        ({"kind": "scratch", "layers": 2, "width": 32, "heads": 4, "healing": None}, "fine-tuning alone teaches it nothing"),
        ({"kind": "layers", "layers": 2, "choose": "evenly spaced"}, "'importance' or 'evenly'"),
        ({"kind": "layers", "layers": 2, "healing": {"text": {"kind": "draws", "count": 9}}}, "draws have no text to train on"),
        ({"kind": "teacher", "sample": 3}, "sample is only used with healing or vocabulary"),
        ({"kind": "teacher", "vocabulary": {"keep": 1.5}}, "1.5 is neither a whole number of tokens nor a share"),
    ],
)
def test_impossible_bases_are_one_sentence(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _base(**section)


def test_a_model_is_made_only_if_something_is_asked_of_it() -> None:
    assert not TeacherBase().is_made and not TeacherBase().needs_documents
    assert _base(kind="teacher", vocabulary={}).needs_documents
    assert LayersBase(layers=2, healing=None).is_made
    own = {"text": {"kind": "installed-packages"}}
    assert not _base(kind="layers", layers=2, healing=own).needs_documents


def test_a_new_model_has_a_larger_budget() -> None:
    new = _base(kind="scratch", layers=2, width=32, heads=4, healing={"batch_size": 4})
    assert isinstance(new, ScratchBase) and new.healing.tokens == 5_000_000 and new.healing.learning_rate == 1e-3
    old = _base(kind="layers", layers=2, healing={"batch_size": 4})
    assert old.healing is not None and old.healing.tokens == 200_000


@pytest.mark.parametrize("section", [{"kind": "teacher"}, {"kind": "layers", "layers": 2}])
def test_a_recorded_base_has_all_keys_and_is_read_again(section: dict[str, Any]) -> None:
    assert _base(**_base(**section).model_dump(mode="json")) == _base(**section)
