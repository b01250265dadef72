"""Mathematical equality by math-verify in a child process; if it is not installed, one sentence names the command to run."""

import pickle
import sys
import threading
from pathlib import Path

import pytest

from limbeck.corpus import extras
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.text.answers import math_equality
from limbeck.corpus.text.answers.math_equality import MathEquality

PARSER = '''
"""A stand-in for math-verify: words are equal if their lengths are; some answers misbehave."""
import os, signal, sys

def parse(text, parsing_timeout):
    assert parsing_timeout is None
    print("noise")
    word = text.strip("$")
    if word == "loop":
        while True:
            pass
    if word == "raise":
        raise RecursionError
    if word == "crash":
        os.abort()
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return word

def verify(reference, answer, timeout_seconds):
    return len(reference) == len(answer)
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text(PARSER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "math_verify", raising=False)


def test_without_the_package_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module != "math_verify")
    with pytest.raises(
        LimbeckError, match=r"compare: math needs math_verify, which is not installed: pip install 'limbeck\[math\]'"
    ):
        MathEquality().equal("1", "2")


def test_the_child_answers_and_survives_what_raises(stand_in: None) -> None:
    equality = MathEquality()
    assert equality.equal("ab", "xy") and not equality.equal("ab", "xyz")
    child = equality._child
    assert not equality.equal("ab", "raise") and equality.equal("line\nbreak", "on\"'line\t.") and equality._child is child


def test_a_pair_that_takes_too_long_is_different_and_the_next_one_is_answered(
    stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(math_equality, "_CHILD", math_equality._CHILD.replace("main()", "main(0.2)"))
    equality = MathEquality()
    assert equality.equal("ab", "xy")
    first = equality._child
    assert not equality.equal("ab", "loop") and not equality.equal("ab", "crash")
    assert equality.equal("abc", "xyz") and equality._child is not first and first.returncode is not None


def test_a_child_that_was_killed_is_an_error_that_names_the_answer(stand_in: None) -> None:
    equality = MathEquality()
    with pytest.raises(LimbeckError, match=r"ended with status -9 at the answer 'die'; repeat the command"):
        equality.equal("ab", "die")
    assert equality.equal("ab", "xy")


def test_a_package_that_cannot_be_loaded_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('no sympy')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(LimbeckError, match=r"math-verify could not be loaded \(status 1, see above\): pip install --upgrade"):
        MathEquality().equal("1", "2")


def test_threads_take_turns_and_a_copy_has_a_child_of_its_own(stand_in: None) -> None:
    equality = MathEquality()
    found: dict[int, bool] = {}

    def ask(number: int) -> None:
        found[number] = equality.equal("x" * (number % 3), f"{'y' * (number % 2)}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number % 3 == number % 2 for number in range(12)}
    copy = pickle.loads(pickle.dumps(equality))
    assert copy.equal("a", "b") and copy._child is not equality._child


def test_the_child_ends_with_the_object(stand_in: None) -> None:
    equality = MathEquality()
    equality.equal("a", "b")
    child = equality._child
    del equality
    assert child.poll() == 0


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        ("x + 1", "1+x", True),
        (r"3\sqrt{2}", r"\sqrt{18}", True),
        ("x^2 - 1", "(x-1)(x+1)", True),
        ("x + 1", "x + 2", False),
        ("(1, 2)", "(2, 1)", False),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        ("}{", "1", False),
    ],
)
def test_the_package_itself(reference: str, answer: str, same: bool) -> None:
    pytest.importorskip("math_verify", reason="the extra `math` is not installed")
    assert _shared.equal(reference, answer) == same


_shared = MathEquality()
