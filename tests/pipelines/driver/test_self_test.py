"""Pairs for the self-test of judges, the same for every size of parts, and the job that asks about them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from helpers.run_folder import candidates, sources
from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.protocol import Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import part_names, read_part, read_parts, write_parts
from limbeck.corpus.schemas import CANDIDATES, SOURCES
from limbeck.filters.contract import PROBED
from limbeck.filters.corruptions import CORRUPTIONS
from limbeck.filters.models.grade import GradeConfig
from limbeck.filters.models.judge import JudgeConfig
from limbeck.filters.text.length import LengthConfig
from limbeck.pipelines.driver import self_test
from limbeck.pipelines.driver.jobs import ProbeJob
from limbeck.pipelines.driver.self_test import PAIRS, draw_pairs
from limbeck.pipelines.runs.self_test import SelfTest, evaluate

ENGINE = TransformersConfig(model="m")
OUTPUT = "The tool number {} was made in Paris, which is far, and it reads {} files. It is free."


def written(folder: Path, size: int, count: int = 30) -> tuple[Path, Path]:
    """Candidates of three per source in parts of `size` sources; the first of every fifth source is an error, one is blank."""
    documents = sources("train", count)
    drawn = candidates(documents, 3, 0).to_pylist()
    for place, row in enumerate(drawn):
        row["output"] = OUTPUT.format(place + 20, place + 200)
        if place % 15 == 0:
            row |= {"output": "", "error": "too long"}
    drawn[3]["output"] = " \n"
    write_parts(folder / "sources", documents, size, SOURCES)
    write_parts(folder / "candidates", pa.Table.from_pylist(drawn, schema=CANDIDATES), 3 * size, CANDIDATES)
    return folder / "candidates", folder / "sources"


def test_pairs_do_not_depend_on_parts(tmp_path: Path) -> None:
    found = [draw_pairs(*written(tmp_path / str(size), size), 10, run_seed=4) for size in (1, 4, 30)]
    assert found[0].equals(found[1]) and found[1].equals(found[2]) and found[0].schema == PAIRS
    other = draw_pairs(tmp_path / "4/candidates", tmp_path / "4/sources", 10, run_seed=5)
    assert not other.equals(found[0])


def test_pairs_are_of_usable_candidates_one_per_source_and_corruption_and_bounded(tmp_path: Path) -> None:
    places = written(tmp_path, 7)
    every = {row["candidate_id"]: row for row in read_parts(places[0]).to_pylist()}
    pairs = draw_pairs(*places, 10, run_seed=0).to_pylist()
    for name in CORRUPTIONS:
        mine = [row for row in pairs if row["corruption"] == name]
        assert len(mine) == len({row["source_id"] for row in mine}) == 10
    for row in pairs:
        true = every[row["candidate_id"]]
        usable = [
            one
            for one in every.values()
            if one["source_id"] == row["source_id"] and one["error"] is None and one["output"].strip()
        ]
        assert true["output"] == row["output"] != row["corrupted"] and true["sample"] == min(one["sample"] for one in usable)
    outputs = {row["output"]: row["source_id"] for row in every.values()}
    easy = [row for row in pairs if row["corruption"] == "other_output"]
    assert all(outputs[row["corrupted"]] != row["source_id"] for row in easy)
    assert len(draw_pairs(*places, 1000, run_seed=0)) == 30 * len(CORRUPTIONS)
    assert (
        draw_pairs(*places, 3, run_seed=0).to_pylist()
        == [  # fewer pairs are the first of more
            row for row in pairs if row["source_id"] in {one["source_id"] for one in pairs[: 3 * len(CORRUPTIONS)]}
        ]
    )


def test_only_the_sources_with_the_lowest_hashes_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = written(tmp_path, 4)
    order = list(dict.fromkeys(draw_pairs(*places, 1000, run_seed=0)["source_id"].to_pylist()))
    monkeypatch.setattr(self_test, "MOST_SOURCES", 5)
    assert list(dict.fromkeys(draw_pairs(*places, 1000, run_seed=0)["source_id"].to_pylist())) == order[:5]


def test_without_candidates_there_are_no_pairs(tmp_path: Path) -> None:
    assert draw_pairs(tmp_path / "candidates", tmp_path / "sources", 10, 0).equals(PAIRS.empty_table())


class Models:
    """What a worker holds."""

    def __init__(self, measure: Callable[[Pair], list[float]]) -> None:
        self.engine = ScriptedEngine(measure=measure)

    def get(self, config: Any) -> ScriptedEngine:
        return self.engine


def probed(tmp_path: Path, filter_: Any, measure: Callable[[Pair], list[float]]) -> SelfTest:
    """The self-test of a filter whose engine is scripted, over pairs in parts of 7."""
    pairs = draw_pairs(*written(tmp_path, 4), 20, run_seed=0)
    write_parts(tmp_path / "pairs", pairs, 7, PAIRS)
    job = ProbeJob("self-test/x", tmp_path / "pairs", tmp_path / "answers", filter_)
    for part in part_names(tmp_path / "pairs"):
        assert not job.finished(part)
        assert job.publish(part, job.compute(part, 0, job.rows(part), Models(measure))) == job.rows(part)  # type: ignore[arg-type]
        assert job.finished(part)
    answers = read_parts(tmp_path / "answers")
    assert answers.column_names == ["candidate_id", "source_id", "corruption", "error", *PROBED.names]
    return evaluate(filter_.name, filter_.kind, filter_.probing.by, answers)


def says_a(pair: Pair) -> list[float]:
    return [{" A": -0.1, " B": -2.4}.get(pair.target, -1.6)]


def test_a_judge_that_always_says_a_fails(tmp_path: Path) -> None:
    found = probed(tmp_path, JudgeConfig(engine=ENGINE, compare="lead"), says_a)
    assert found.verdict == "not above chance" and found.subtle is not None and found.subtle.answers is not None
    assert found.subtle.answers.share == 0.5 and (found.subtle.orders_agree, found.subtle.answer_a) == (0.0, 1.0)
    assert [one.pairs for one in found.corruptions] == [20] * len(CORRUPTIONS)
    graded = probed(tmp_path / "grade", GradeConfig(engine=ENGINE), says_a)
    assert graded.verdict == "not above chance" and graded.subtle is not None and graded.subtle.scores is not None
    assert graded.subtle.scores.share == 0.5 and graded.subtle.answer_a == 1.0, "every grade is the same"


def test_a_judge_that_knows_the_true_outputs_passes(tmp_path: Path) -> None:
    places = written(tmp_path / "known", 4)
    true = {row["output"].strip() for row in read_parts(places[0]).to_pylist()}

    def knows(pair: Pair) -> list[float]:
        if pair.target in (" A", " B"):
            first, second = (pair.context.partition(f"Answer {place}: ")[2].partition("\n\n")[0] for place in "AB")
            own = pair.context.partition("Text: ")[2].partition("\n\n")[0]
            assert own
            best = " A" if first in true and second not in true else " B" if second in true and first not in true else None
            return [-0.1 if pair.target == best else -2.4]
        output = pair.context.partition("Answer: ")[2].partition("\n\n")[0]
        return [0.0 if pair.target == (" 5" if output in true else " 1") else -50.0]

    for config in (JudgeConfig(engine=ENGINE, compare="reference"), GradeConfig(engine=ENGINE)):
        found = probed(tmp_path / config.kind, config, knows)
        assert found.verdict == "above chance" and found.deciding is not None and found.deciding.share == 1.0
        for one in (one for one in found.corruptions if one.subtle):
            assert one.orders_agree == 1.0 and one.answer_a == 0.5 and one.unanswered == 0
            assert one.answers is not None and one.answers.share == 1.0


def test_pairs_that_do_not_fit_are_unanswered(tmp_path: Path) -> None:
    found = probed(tmp_path, GradeConfig(engine=ENGINE), lambda pair: [math.nan])
    assert (found.verdict, found.reason) == ("not tested", "it answered for no pair")
    assert all(one.pairs == 0 and one.unanswered == 20 for one in found.corruptions)


def test_a_pair_that_kills_its_worker_is_a_row_with_the_reason(tmp_path: Path) -> None:
    write_parts(tmp_path / "pairs", draw_pairs(*written(tmp_path, 4), 2, run_seed=0), 100, PAIRS)
    job = ProbeJob("self-test/x", tmp_path / "pairs", tmp_path / "answers", JudgeConfig(engine=ENGINE, compare="lead"))
    good = job.compute("part-00000", 0, 1, Models(says_a))  # type: ignore[arg-type]
    failed = job.failure("part-00000", 1, "the worker died")
    job.publish("part-00000", pa.concat_tables([good, failed]))
    rows = read_part(tmp_path / "answers", "part-00000").to_pylist()
    assert [row["error"] for row in rows] == [None, "the worker died"] and rows[1]["preference_first"] is None


def test_a_filter_that_cannot_be_probed_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path / "pairs", draw_pairs(*written(tmp_path, 4), 2, run_seed=0), 100, PAIRS)
    job = ProbeJob("self-test/x", tmp_path / "pairs", tmp_path / "answers", LengthConfig(kind="length"))
    with pytest.raises(LimbeckError, match=r"filter 'length' has no probe\(\)"):
        job.compute("part-00000", 0, 1, Models(says_a))  # type: ignore[arg-type]
