"""Values that sources draw: by seed, name and source alone; every form, and every fault as one sentence."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.vary import Vary, drawing, example

IDS = [f"s{number}" for number in range(3000)]


def parsed(vary: dict[str, Any]) -> dict[str, Any]:
    return dict(TypeAdapter(Vary).validate_python(vary))


def values(form: Any, seed: int = 0) -> list[Any]:
    draw = drawing(parsed({"x": form}), seed)
    return [draw(source_id)["x"] for source_id in IDS]


def test_draws_are_what_they_were() -> None:
    """A changed draw would change the candidates of every run that uses `vary`."""
    forms = {"p": ["a", "b", "c"], "n": {"range": [0, 9]}, "f": {"range": [0.1, 0.9, 0.1]}, "w": {"weights": {"x": 1, "y": 3}}}
    draw = drawing(parsed(forms), 7)
    assert [draw(source_id) for source_id in ("s0", "s1", "s2")] == [
        {"p": "c", "n": 7, "f": 0.6, "w": "y"},
        {"p": "c", "n": 7, "f": 0.6, "w": "y"},
        {"p": "a", "n": 1, "f": 0.4, "w": "x"},
    ]


@given(
    st.dictionaries(st.sampled_from(["persona", "style", "n", "audience"]), st.lists(st.integers(), min_size=1), min_size=1),
    st.integers(0, 2**40),
    st.text(),
)
def test_a_draw_depends_on_neither_other_names_nor_their_order(vary: dict[str, list[int]], seed: int, source_id: str) -> None:
    together = drawing(vary, seed)(source_id)
    assert together == drawing(dict(reversed(vary.items())), seed)(source_id)
    assert together == {name: drawing({name: found}, seed)(source_id)[name] for name, found in vary.items()}
    assert all(together[name] in found for name, found in vary.items())


def test_every_value_is_drawn_about_as_often_as_it_should_be() -> None:
    assert all(850 < count < 1150 for count in Counter(values(["a", "b", "c"])).values())
    weighted = Counter(values({"weights": {"often": 3, "rarely": 1, "never": 0}}))
    assert set(weighted) == {"often", "rarely"} and 2100 < weighted["often"] < 2400
    assert values(["a", "b", "c"], seed=1) != values(["a", "b", "c"])


def test_weights_do_not_depend_on_the_order_in_which_they_are_written() -> None:
    assert values({"weights": {"a": 1, "b": 2, "c": 3}}) == values({"weights": {"c": 3, "b": 2, "a": 1}})


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([3, 6], [3, 4, 5, 6]),
        ([0, 10, 4], [0, 4, 8]),
        ([-1, -1], [-1]),
        ([0.1, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5]),
        ([0, 1, 0.25], [0.0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_a_range_has_both_ends(ends: list[Any], expected: list[Any]) -> None:
    found = set(values({"range": ends}))
    assert found == set(expected) and {type(value) for value in found} == {type(value) for value in expected}


def test_a_huge_range_is_not_written_out() -> None:
    assert all(0 <= value <= 10**15 for value in values({"range": [0, 10**15]}))


def test_values_from_files(tmp_path: Path) -> None:
    lines = tmp_path / "personas.txt"
    lines.write_bytes("\ufeffa nurse\r\n\r\n  a café owner \na judge".encode())
    assert set(values({"file": str(lines)})) == {"a nurse", "a café owner", "a judge"}
    objects = tmp_path / "personas.jsonl"
    objects.write_text('{"job": "nurse", "age": 40}\n\n"plain"\n3\n')
    found = values({"file": str(objects)})
    assert {json.dumps(value) for value in found} == {'{"job": "nurse", "age": 40}', '"plain"', "3"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.txt", None, "vary.persona: cannot read .*absent.txt: No such file"),
        ("empty.txt", b"\n \n", "vary.persona: .*empty.txt lists no values"),
        ("latin.txt", b"caf\xe9", "vary.persona: .*latin.txt is not UTF-8"),
        ("broken.jsonl", b'"a"\n{"a"\n', "vary.persona: line 2 of .*broken.jsonl is not JSON"),
        ("nan.jsonl", b"NaN\n", "line 1 of .*nan.jsonl is not JSON"),
        ("half.jsonl", b'"\\ud800"\n', "line 1 of .*half.jsonl is not JSON"),
        ("null.jsonl", b"null\n", "line 1 of .*null.jsonl is null"),
    ],
)
def test_a_faulty_file_is_one_sentence(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LimbeckError, match=message):
        example(parsed({"persona": {"file": str(tmp_path / name)}}))


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"a b": ["x"]}, "'a b' cannot be a name in a prompt"),
        ({"if": ["x"]}, "'if' cannot be a name"),
        ({"document": ["x"]}, "'document' is reserved"),
        ({"x": []}, "needs at least one"),
        ({"x": ["a", None]}, "none of them null"),
        ({"x": "file.txt"}, "expected a list of values, {file: PATH}"),
        ({"x": {"files": "a"}}, "expected a list of values"),
        ({"x": {"file": "a", "rang": 1}}, "unknown key 'rang'"),
        ({"x": {"range": [1]}}, r"a range is \[low, high\]"),
        ({"x": {"range": [0.5, 1]}}, "needs a step"),
        ({"x": {"range": [2, 1]}}, "low <= high"),
        ({"x": {"range": [1, 2, 0]}}, "a step above 0"),
        ({"x": {"weights": {}}}, "at least one value"),
        ({"x": {"weights": {"a": 0}}}, "at least one must be positive"),
        ({"x": {"weights": {"a": -1, "b": 2}}}, "none may be negative"),
    ],
)
def test_nonsense_is_refused(vary: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parsed(vary)


def test_nothing_to_draw() -> None:
    assert example(None) == {}
