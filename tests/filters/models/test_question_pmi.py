"""The filter of questions: arithmetic against log-probabilities that the test makes up, and which documents it compares."""

import math
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from helpers.scripted_engine import ScriptedEngine
from limbeck.cluster.engines.config import TransformersConfig
from limbeck.cluster.engines.protocol import Pair
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import part_names, read_parts, write_parts
from limbeck.corpus.schemas import CANDIDATES, OTHERS, SOURCES
from limbeck.corpus.seeds import derive_seed
from limbeck.filters.contract import Bound, Filter
from limbeck.filters.models.question_pmi import CONTEXT, QuestionPmiConfig, QuestionPmiFilter
from limbeck.pipelines.driver.jobs import ScoreJob

OWN, OTHER, THIRD = "Quern reads weather files.", "Bread is baked in ovens.", "Ferries leave twice a week."
TOTALS = {OWN: -4.0, OTHER: -10.0, THIRD: -7.0}


def inputs(questions: list[str | None], documents: list[str | None], others: list[list[str]] | None = None) -> pa.Table:
    table = pa.table(
        {
            "candidate_id": [f"id{number}" for number in range(len(questions))],
            "prompt": pa.array(questions, pa.string()),
            "output": pa.array([f"answer {number}" for number in range(len(questions))], pa.string()),
            "document": pa.array(documents, pa.string()),
        }
    )
    return table if others is None else table.append_column(OTHERS, pa.array(others, OTHERS.type))


def by_document(totals: dict[str, float]) -> Callable[[Pair], list[float]]:
    """The total of the document, spread evenly over the words of the question."""

    def measure(pair: Pair) -> list[float]:
        words = pair.target.split()
        return [totals[pair.context.removesuffix("\nQuestion:")] / len(words)] * len(words)

    return measure


def scored(table: pa.Table, measure: Callable[[Pair], list[float]], **settings: object) -> list[dict[str, float]]:
    filter_ = QuestionPmiFilter(ScriptedEngine(measure=measure), QuestionPmiConfig.model_validate(settings))
    return filter_.score(table).to_pylist()


def test_the_own_document_is_compared_with_the_mean_of_the_others() -> None:
    engine = ScriptedEngine(measure=by_document(TOTALS))
    table = inputs([" What does\n Quern read? "], [OWN], [[OTHER, THIRD]])
    (row,) = QuestionPmiFilter(engine, QuestionPmiConfig()).score(table).to_pylist()
    assert engine.pairs == [Pair(CONTEXT.format(document=text), " What does Quern read?") for text in (OWN, OTHER, THIRD)]
    assert row == {
        "candidate_id": "id0",
        "margin": pytest.approx((-4 - (-10 - 7) / 2) / 4),
        "beaten": 1.0,
        "log_p_given_document": pytest.approx(-4),
        "log_p_given_others": pytest.approx(-8.5),
    }
    (row,) = scored(inputs(["What is baked in them?"], [THIRD], [[OTHER, OWN]]), by_document(TOTALS))
    assert (row["margin"], row["beaten"]) == (pytest.approx(0.0, abs=1e-6), 0.5), (
        "a question that fits any document gains nothing"
    )


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(1, 5))
def test_scores_equal_their_definition(costs: list[int], words: int) -> None:
    """`costs` in whole nats per token, so that ties are exact."""
    documents = [f"Document {number}." for number in range(len(costs))]
    known = {text: -float(cost * words) for text, cost in zip(documents, costs, strict=True)}
    (row,) = scored(inputs([" ".join("w" * words)], [documents[0]], [documents[1:]]), by_document(known))
    others = costs[1:]
    assert row["margin"] == pytest.approx(sum(others) / len(others) - costs[0])
    assert row["beaten"] == sum(other > costs[0] for other in others) / len(others)


@pytest.mark.parametrize(
    ("question", "document", "others"),
    [
        ("", OWN, [OTHER]),
        (" \n", OWN, [OTHER]),
        (None, OWN, [OTHER]),
        ("What?", "", [OTHER]),
        ("What?", None, [OTHER]),
        ("What?", OWN, []),
    ],
)
def test_without_a_question_or_a_document_there_is_nothing_to_ask(
    question: str | None, document: str | None, others: list[str]
) -> None:
    engine = ScriptedEngine(measure=by_document(TOTALS))
    (row,) = QuestionPmiFilter(engine, QuestionPmiConfig()).score(inputs([question], [document], [others])).to_pylist()
    assert engine.pairs == [] and math.isnan(row["margin"]) and math.isnan(row["beaten"])


def test_documents_that_do_not_fit_the_context_are_left_out() -> None:
    def measure(pair: Pair) -> list[float]:
        return [math.nan] if pair.context.startswith(OTHER) else by_document(TOTALS)(pair)

    (row,) = scored(inputs(["What is read?"], [OWN], [[OTHER, THIRD]]), measure)
    assert row["margin"] == pytest.approx((-4 + 7) / 3) and row["beaten"] == 1.0
    (row,) = scored(inputs(["What is read?"], [OTHER], [[OWN, THIRD]]), measure)
    assert math.isnan(row["margin"])
    (row,) = scored(inputs(["What is read?"], [OWN], [[OTHER]]), measure)
    assert math.isnan(row["margin"])


def test_every_pair_is_asked_once_and_no_rows_are_no_question() -> None:
    engine = ScriptedEngine(measure=by_document(TOTALS))
    filter_ = QuestionPmiFilter(engine, QuestionPmiConfig())
    rows = filter_.score(inputs(["What?", "What?", "Why?"], [OWN, OWN, OWN], [[OTHER]] * 3)).to_pylist()
    assert len(engine.pairs) == 4 and rows[0]["margin"] == rows[1]["margin"]
    assert filter_.score(inputs([], [], [])).num_rows == 0 and len(engine.pairs) == 4


def test_a_table_outside_of_a_run_is_its_own_split() -> None:
    table = inputs(["Q one?", "Q two?", "Q three?", "Q four?"], [OWN, OTHER, OWN, THIRD])
    engine = ScriptedEngine(measure=by_document(TOTALS))
    rows = QuestionPmiFilter(engine, QuestionPmiConfig(documents=1)).score(table).to_pylist()
    asked = {pair.target: [] for pair in engine.pairs}
    for pair in engine.pairs:
        asked[pair.target].append(pair.context.removesuffix("\nQuestion:"))
    assert asked == {" Q one?": [OWN, OTHER], " Q two?": [OTHER, THIRD], " Q three?": [OWN, OTHER], " Q four?": [THIRD, OWN]}
    assert [row["beaten"] for row in rows] == [1.0, 0.0, 1.0, 0.0]


def test_the_question_may_be_the_output() -> None:
    engine = ScriptedEngine(measure=by_document(TOTALS))
    QuestionPmiFilter(engine, QuestionPmiConfig(question="output")).score(inputs(["What?"], [OWN], [[OTHER]]))
    assert {pair.target for pair in engine.pairs} == {" answer 0"}


def test_the_bound_rejects_what_no_document_makes_likelier() -> None:
    config = QuestionPmiConfig()
    (bound,) = config.bounds
    assert bound == Bound("margin", minimum=0.0, reason="other documents make the question as likely as its own")
    assert config.others == 4 and config.columns is not None and set(config.columns) >= {"margin", "beaten"}
    assert isinstance(QuestionPmiFilter(ScriptedEngine(), config), Filter)
    assert config.with_engine(TransformersConfig(model="m")).asks is not None
    assert set(QuestionPmiConfig.reasons) == set(QuestionPmiConfig.limit_fields())
    with pytest.raises(LimbeckError, match="filter question_pmi has no engine"):
        config.build(None)  # type: ignore[arg-type]


DOCUMENTS = [
    "Quern reads old weather files.",
    "Quern reads old weather files!",
    "Bread is baked in ovens.",
    "Ferries leave twice every week.",
    "Basil wants six sunny hours.",
    "Tables have aligned columns here.",
    "Rivers flow towards some sea.",
]
COUNT = len(DOCUMENTS)
GROUPS = ["g0", "g0", "g2", "g3", "g4", "g5", "g6"]  # the first two are near-duplicates


def by_hash(pair: Pair) -> list[float]:
    return [-float(derive_seed(pair.context, pair.target, word) % 97) - 1 for word in pair.target.split()]


def margin(number: int, question: str) -> float:
    """Of the question on document `number` of the split, against three consecutive documents of other groups."""
    others = [text for text, group in zip(DOCUMENTS, GROUPS, strict=True) if group != GROUPS[number]]
    first = derive_seed("others", f"s{number}") % len(others)
    compared = [others[(first + step) % len(others)] for step in range(3)]
    own, *rest = (sum(by_hash(Pair(CONTEXT.format(document=text), f" {question}"))) for text in (DOCUMENTS[number], *compared))
    return (own - sum(rest) / 3) / len(question.split())


@pytest.mark.parametrize("size", [1, 3, 7])
def test_in_a_run_the_documents_are_those_of_the_split_whatever_the_parts(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {
            **{"source_id": f"s{number}", "document": DOCUMENTS[number], "group": GROUPS[number]},
            **{"origin": "", "split": "train", "document_tokens": 3, "cut_characters": 0, "salient": []},
        }
        for number in range(COUNT)
    ]
    rows = [
        {
            **{"candidate_id": f"c{number}-{sample}", "source_id": f"s{number}", "sample": sample, "seed": 0},
            **{"prompt": f"What is {sample}?", "output": "x", "prompt_tokens": 0, "output_tokens": 0},
            **{"finish_reason": "stop", "input": DOCUMENTS[number]},
        }
        for number in range(COUNT)
        for sample in range(2)
    ]
    monkeypatch.setattr(
        QuestionPmiConfig, "build", lambda self, engines: QuestionPmiFilter(ScriptedEngine(measure=by_hash), self)
    )
    write_parts(tmp_path / "sources", pa.Table.from_pylist(sources, schema=SOURCES), size, SOURCES)
    write_parts(tmp_path / "candidates", pa.Table.from_pylist(rows, schema=CANDIDATES), 2 * size, CANDIDATES)
    filter_ = QuestionPmiConfig(documents=3, engine=TransformersConfig(model="m"))
    job = ScoreJob("s", tmp_path / "sources", tmp_path / "candidates", tmp_path / "out", filter_)
    for part in part_names(tmp_path / "candidates"):
        job.publish(part, job.compute(part, 0, job.rows(part), engines=None))  # type: ignore[arg-type]
    found = {row["candidate_id"]: row["margin"] for row in read_parts(tmp_path / "out").to_pylist()}
    assert found == {
        f"c{number}-{sample}": pytest.approx(margin(number, f"What is {sample}?"))
        for number in range(COUNT)
        for sample in range(2)
    }
