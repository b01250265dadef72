"""The self-test of judges: figures against plain counting, verdicts, and what report, status and card say."""

import json
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from helpers.run_folder import make_run
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import PROBED
from limbeck.filters.corruptions import CORRUPTIONS
from limbeck.pipelines.report.build import collect, write_report
from limbeck.pipelines.runs.card import DatasetFacts, card
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.report_model import Rows
from limbeck.pipelines.runs.self_test import SelfTest, beside, evaluate, not_tested, note, stored, warning, wilson
from limbeck.pipelines.runs.status import show, status

NAMES = tuple(CORRUPTIONS)
SUBTLE = [name for name, corruption in CORRUPTIONS.items() if corruption.subtle]
PREFERENCE = st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0, math.nan])
GRADE = st.sampled_from([1.0, 2.5, 4.0, math.nan])


def table(rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of source, corruption, and the columns `PROBED`."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    names = ["source_id", "corruption", *PROBED.names]
    kinds = [pa.string(), pa.string(), *[pa.float64()] * 4]
    return pa.table({name: pa.array(column, kind) for name, column, kind in zip(names, columns, kinds, strict=True)})


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(NAMES), PREFERENCE, PREFERENCE, GRADE, GRADE), max_size=30))
def test_figures_are_those_of_plain_counting(rows: list[tuple[Any, ...]]) -> None:
    found = evaluate("judge", "judge", "answers", table(rows))
    by_name = {one.corruption: one for one in (*found.corruptions, *found.together)}
    assert set(by_name) == {row[1] for row in rows} | {"all subtle ones", "all easy ones"}
    for name, one in by_name.items():
        chosen = {"all subtle ones": SUBTLE, "all easy ones": ["other_output"]}.get(name, [name])
        mine = [row for row in rows if row[1] in chosen]
        answered = [row for row in mine if not any(math.isnan(value) for value in row[2:])]
        assert (one.pairs, one.unanswered) == (len(answered), len(mine) - len(answered))
        if not answered:
            assert one.answers is None and one.orders_agree is None and one.scores is None
            continue
        right, says_a, agree, higher = 0.0, 0.0, 0, 0.0
        for _, _, first, second, true, corrupted in answered:
            named = ["true" if first > 0.5 else "corrupted" if first < 0.5 else None]
            named.append("true" if second > 0.5 else "corrupted" if second < 0.5 else None)
            places = [{"true": "A", "corrupted": "B"}.get(named[0]), {"true": "B", "corrupted": "A"}.get(named[1])]
            right += sum({"true": 1, "corrupted": 0, None: 0.5}[answer] for answer in named) / 2
            says_a += sum({"A": 1, "B": 0, None: 0.5}[place] for place in places) / 2
            agree += named[0] is not None and named[0] == named[1]
            higher += 1 if true > corrupted else 0.5 if true == corrupted else 0
        assert one.answers is not None and one.scores is not None
        assert one.answers.share == pytest.approx(right / len(answered))
        assert one.scores.share == pytest.approx(higher / len(answered))
        assert one.orders_agree == pytest.approx(agree / len(answered))
        assert one.answer_a == pytest.approx(says_a / len(answered))
        sources = len({row[0] for row in answered})
        assert one.answers == wilson(right / len(answered), sources), "pairs of one source are not independent"


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (10, 10, 0.7225, 1.0)],
)
def test_wilson_s_interval_has_the_published_values(right: int, number: int, low: float, high: float) -> None:
    """Newcombe (1998), table I, method 3, and the last by hand: 10 / (10 + z²)."""
    found = wilson(right / number, number)
    assert (found.low, found.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@given(st.integers(1, 400), st.data())
def test_wilson_s_interval_solves_its_equation(number: int, data: st.DataObject) -> None:
    """Its ends are the shares from which the found one is exactly z standard errors away."""
    share = data.draw(st.integers(0, number)) / number
    found = wilson(share, number)
    for end in (found.low, found.high):
        assert (share - end) ** 2 == pytest.approx(1.959963984540054**2 * end * (1 - end) / number, abs=1e-12)


def drawn(pairs: int, first: float, second: float, true: float = 2.0, corrupted: float = 2.0) -> pa.Table:
    """The same answers for every pair of every corruption."""
    return table([(f"s{i}", name, first, second, true, corrupted) for i in range(pairs) for name in NAMES])


def always_a(pairs: int = 50) -> SelfTest:
    """What the embedded model of 135M weights does: A, whatever stands there."""
    return evaluate("judge", "judge", "answers", drawn(pairs, 0.93, 0.07))


def test_a_judge_that_always_says_a_is_at_chance_and_its_orders_never_agree() -> None:
    found = always_a()
    assert found.verdict == "not above chance"
    for one in (*found.corruptions, *found.together):
        assert one.answers is not None and one.answers.share == 0.5 and not one.answers.above_chance
        assert (one.orders_agree, one.answer_a) == (0.0, 1.0)
    words = str(warning([found]))
    for part in ("The judge judge does not tell", "50 % (95 % interval", "same output for 0 %", '100 % of its answers are "A"'):
        assert part in words
    assert "filters.judge a better engine" in words and "use more sources" not in words


def test_a_judge_that_knows_is_above_chance() -> None:
    found = evaluate("judge", "judge", "answers", drawn(50, 0.9, 0.8))
    assert found.verdict == "above chance" and warning([found]) is None and note([found]) is None
    assert found.deciding is not None and found.deciding.share == 1.0
    assert beside(found) == "right on 100 % (95 % interval 93 to 100) of subtle corruptions, orders agree on 100 %"


def test_passing_the_easy_ones_proves_nothing() -> None:
    rows = [
        (f"s{i}", name, *((0.9, 0.9) if name == "other_output" else (0.9, 0.1)), 1.0, 1.0) for i in range(50) for name in NAMES
    ]
    found = evaluate("judge", "judge", "answers", table(rows))
    easy = next(one for one in found.together if not one.subtle)
    assert easy.answers is not None and easy.answers.share == 1.0 and found.verdict == "not above chance"


def test_scores_decide_on_grades() -> None:
    good = evaluate("grade", "grade", "scores", drawn(50, 0.9, 0.1, true=3.0))
    assert good.verdict == "above chance" and "orders agree on 0 %" in beside(good)
    bad = evaluate("grade", "grade", "scores", drawn(50, 0.9, 0.9))
    assert bad.verdict == "not above chance" and "its scores prefer the true output in 50 %" in str(warning([bad]))
    assert "better than chance" in str(warning([bad])) and beside(bad).startswith("not above chance: right on 50 %")


def test_few_pairs_are_not_above_chance_and_the_warning_says_what_helps() -> None:
    found = evaluate("judge", "judge", "answers", drawn(3, 0.9, 0.9))
    assert found.verdict == "not above chance" and found.sources == 3
    assert "15 pairs of 3 sources" in str(warning([found])) and "use more sources to be certain" in str(warning([found]))
    assert evaluate("judge", "judge", "answers", drawn(6, 0.9, 0.9)).verdict == "above chance"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no output could be corrupted subtly"),
        ([("s0", "other_output", 0.9, 0.9, 1.0, 1.0)], "no output could be corrupted subtly"),
        ([("s0", "name", math.nan, math.nan, math.nan, math.nan)], "it answered for no pair"),
    ],
)
def test_what_could_not_be_tested_says_why(rows: list[tuple[Any, ...]], reason: str) -> None:
    found = evaluate("judge", "judge", "answers", table(rows))
    assert (found.verdict, found.reason) == ("not tested", reason)
    assert note([found]) == f"The judge judge was not tested on corrupted outputs: {reason}." and warning([found]) is None
    off = not_tested("mine", "grade", "scores", "its self_test is 0")
    assert note([off]) == "The grade mine was not tested on corrupted outputs: its self_test is 0."
    assert beside(off) == "not tested on corrupted outputs"


@given(st.integers(0, 5))
def test_noise_is_rarely_above_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    passed = 0
    for _ in range(40):
        first, second = rng.random((2, 40 * len(NAMES)))
        rows = [(f"s{i % 40}", NAMES[i // 40], first[i], second[i], 0.0, 0.0) for i in range(len(first))]
        passed += evaluate("judge", "judge", "answers", table(rows)).verdict == "above chance"
    assert passed <= 3


def with_tests(folder: Path, *tests: SelfTest) -> RunFolder:
    run = make_run(folder, rounds=1)
    (run / "self_test.json").write_text(json.dumps([one.model_dump(mode="json") for one in tests]))
    return RunFolder(run)


def test_report_status_and_card_say_it_first_and_beside_every_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = collect(RunFolder(make_run(tmp_path / "before", rounds=1))).first_line
    bad = always_a(44).model_copy(update={"filter": "pmi"})  # a filter whose scores the made-up run has
    off = not_tested("other", "grade", "scores", "its self_test is 0")
    folder = with_tests(tmp_path / "run", bad, off)
    words = str(warning([bad]))
    assert stored(folder.self_test) == [bad, off]
    paths = write_report(folder.path)
    report, page = json.loads(paths.json.read_text()), paths.html.read_text()
    assert report["first_line"] == f"{words} {before}"
    assert [one["verdict"] for one in report["self_tests"]] == ["not above chance", "not tested"]
    assert report["self_tests"][0]["corruptions"][1]["answers"]["share"] == 0.5
    assert page.index("does not tell outputs") < page.index("Did it learn?")
    for part in (
        "one number changed (subtle)",
        "all subtle ones",
        "its self_test is 0",
        '<span class="bad">not above chance</span>',
    ):
        assert part in page, part
    assert page.count("pmi: not above chance: right on 50 %") == page.count('class="example'), (
        "beside the scores of every example"
    )
    assert page.count('<figcaption class="bad">Self-test: not above chance') == 2, "of faithfulness and saliency"
    assert "<script" not in page and len(page.encode()) <= 150_000
    found = status(folder.path)
    assert found["warning"] == words and "its self_test is 0" in found["note"]
    show(found)
    assert capsys.readouterr().out.startswith(f"warning: {words}\n")
    rows = Rows(sources=1, candidates=1, kept=1, rejected_by={})
    text = card(pa.schema([]), DatasetFacts(name="x", round=0, rows=rows, teacher="t", seed=0, self_tests=[bad, off]))
    assert "## Self-tests of the judging filters" in text and "| pmi | judge | not above chance: right on 50 %" in text


def test_names_in_a_self_test_are_escaped(tmp_path: Path) -> None:
    hostile = always_a().model_copy(update={"filter": "<script>alert(1)</script>"})
    page = write_report(with_tests(tmp_path / "run", hostile).path).html.read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for content in ('[{"filter": "judge"}]', "[3]", "3"):
        (tmp_path / "self_test.json").write_text(content)
        with pytest.raises(LimbeckError, match=r"self_test\.json does not have the format of this version"):
            stored(tmp_path / "self_test.json")
    assert stored(tmp_path / "nothing.json") == []
