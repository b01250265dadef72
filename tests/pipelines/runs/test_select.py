"""Selection against a plain-Python oracle, and its promises: one row each, the first rejecting filter, never a silent loss."""

import dataclasses
import math

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import CANDIDATES, DECISIONS
from limbeck.filters.contract import Bound
from limbeck.filters.sets.distinct import BestConfig
from limbeck.filters.sets.duplicates import DuplicatesConfig
from limbeck.pipelines.runs.select import connect, decide, joined, passing

COLUMNS = {"pmi": ("faithfulness", "saliency"), "length": ("tokens",), 'it\'s "odd"': ("a b",)}
VALUES = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 0.25, 0.5]), st.floats(-1, 1))
LIMITS = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.25]), st.floats(-1, 1))


def candidates(errors: list[bool]) -> pa.Table:
    rows = [
        {
            "candidate_id": f"id{index}",
            "source_id": f"s{index % 3}",
            "sample": index,
            "seed": index,
            "prompt": "p",
            "output": "" if failed else f"Output {index}.",
            "prompt_tokens": 1,
            "output_tokens": 2,
            "finish_reason": "error" if failed else "stop",
            "error": "it's broken" if failed else None,
        }
        for index, failed in enumerate(errors)
    ]
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def score_table(column_values: dict[str, list[float | None]], rows: int) -> pa.Table:
    columns = {column: pa.array(values, pa.float64()) for column, values in column_values.items()}
    return pa.table({"candidate_id": [f"id{index}" for index in range(rows)], **columns})


@st.composite
def situations(draw):
    errors = draw(st.lists(st.booleans(), max_size=12))
    scores, filters = {}, []
    for name, columns in COLUMNS.items():
        scores[name] = {c: draw(st.lists(VALUES, min_size=len(errors), max_size=len(errors))) for c in columns}
        bounds = [Bound(c, draw(LIMITS), draw(LIMITS), reason="isn't so") for c in columns if draw(st.booleans())]
        filters.append((name, bounds))
    return errors, scores, filters


def first_rejection(failed, row_scores, filters) -> tuple[str, str] | None:
    """(who, which column) rejects first, as a person would write it."""
    if failed:
        return "generator", "it's broken"
    for name, bounds in filters:
        for bound in bounds:
            value = row_scores[name][bound.column]
            if value is None or not math.isfinite(value):
                return name, f"{bound.column} could not be scored"
            if bound.minimum is not None and value < bound.minimum:
                return name, f"{bound.column} {value:.4g} is below {bound.minimum:.4g}: isn't so"
            if bound.maximum is not None and value > bound.maximum:
                return name, f"{bound.column} {value:.4g} is above {bound.maximum:.4g}: isn't so"
    return None


@given(situations())
@settings(max_examples=60, deadline=None)
def test_decisions_equal_the_oracle(situation) -> None:
    errors, scores, filters = situation
    tables = {name: score_table(columns, len(errors)) for name, columns in scores.items()}
    decisions = decide(connect(candidates(errors), tables), filters)
    assert decisions.schema == DECISIONS
    rows = decisions.to_pylist()
    assert [(row["source_id"], row["sample"]) for row in rows] == sorted((f"s{i % 3}", i) for i in range(len(errors)))
    for row in rows:
        index = row["sample"]
        mine = {name: {column: values[index] for column, values in columns.items()} for name, columns in scores.items()}
        expected = first_rejection(errors[index], mine, filters)
        assert row["kept"] == (expected is None)
        assert (row["rejected_by"], row["reason"]) == (expected or (None, None))


@given(situations())
@settings(max_examples=40, deadline=None)
def test_passing_agrees_with_the_decisions(situation) -> None:
    errors, scores, filters = situation
    tables = {name: score_table(columns, len(errors)) for name, columns in scores.items()}
    connection = connect(candidates(errors), tables)
    assert passing(joined(connection, list(tables)), filters).tolist() == decide(connection, filters)["kept"].to_pylist()


@given(situations(), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_raising_a_minimum_never_raises_the_pass_count(situation, by: float) -> None:
    errors, scores, filters = situation
    tables = {name: score_table(columns, len(errors)) for name, columns in scores.items()}
    connection = connect(candidates(errors), tables)
    raised = [
        (name, [dataclasses.replace(b, minimum=None if b.minimum is None else b.minimum + by) for b in bounds])
        for name, bounds in filters
    ]
    kept, kept_after = (set(_kept(decide(connection, these))) for these in (filters, raised))
    assert kept_after <= kept


def test_the_order_of_rows_and_of_score_tables_does_not_matter() -> None:
    errors = [False, False, True, False]
    table = candidates(errors)
    scores = score_table({"faithfulness": [0.1, 0.9, None, 0.5]}, 4)
    filters = [("pmi", [Bound("faithfulness", minimum=0.4)])]
    backwards = [3, 2, 1, 0]
    assert decide(connect(table, {"pmi": scores}), filters) == decide(
        connect(table.take(backwards), {"pmi": scores.take(backwards)}), filters
    )


def test_a_candidate_without_a_score_row_is_rejected_not_lost() -> None:
    decisions = decide(
        connect(candidates([False, False]), {"pmi": score_table({"x": [1.0]}, 1)}), [("pmi", [Bound("x", minimum=0.0)])]
    )
    assert dict(zip(decisions["candidate_id"].to_pylist(), decisions["reason"].to_pylist(), strict=True)) == {
        "id0": None,
        "id1": "x could not be scored",
    }


def test_why_there_is_no_score_is_told() -> None:
    scores = score_table({"x": [None, 0.5, None]}, 3).append_column("error", pa.array(["it's lost", None, None], pa.string()))
    connection = connect(candidates([False] * 3), {"pmi": scores})
    decisions = decide(connection, [("pmi", [Bound("x", minimum=0.0)])]).to_pylist()
    assert {row["candidate_id"]: row["reason"] for row in decisions} == {
        "id0": "x could not be scored: it's lost",
        "id1": None,
        "id2": "x could not be scored",
    }
    assert [name for name in joined(connection, ["pmi"]).column_names if name.startswith("pmi.")] == ["pmi.x"]


def test_a_candidate_scored_twice_is_our_fault() -> None:
    twice = pa.table({"candidate_id": ["id0", "id0"], "x": [1.0, 2.0]})
    with pytest.raises(AssertionError, match="1 candidates, 2 decisions"):
        decide(connect(candidates([False]), {"pmi": twice}), [("pmi", [])])


def test_a_bound_on_a_column_that_is_not_there_names_those_that_are() -> None:
    connection = connect(candidates([False]), {"pmi": score_table({"faithfulness": [1.0]}, 1)})
    with pytest.raises(LimbeckError, match="filter pmi has a bound on 'faith' but scores only faithfulness"):
        decide(connection, [("pmi", [Bound("faith", minimum=0.0)])])


def test_an_open_bound_is_refused() -> None:
    connection = connect(candidates([False]), {"pmi": score_table({"faithfulness": [1.0]}, 1)})
    with pytest.raises(AssertionError, match="calibrated first"):
        decide(connection, [("pmi", [Bound("faithfulness", calibrate="minimum")])])


def _kept(decisions: pa.Table) -> list[str]:
    return [id_ for id_, kept in zip(decisions["candidate_id"].to_pylist(), decisions["kept"].to_pylist(), strict=True) if kept]


def _rewritten(outputs: list[str]) -> pa.Table:
    table = candidates([False] * len(outputs))
    return table.set_column(table.schema.get_field_index("output"), CANDIDATES.field("output"), pa.array(outputs, pa.string()))


def test_set_filters_see_only_survivors_and_say_why() -> None:
    table = _rewritten(["A tool.", "a  TOOL", "B.", "A tool!", "C.", "D."])  # sources s0 s1 s2 s0 s1 s2
    scores = {"pmi": score_table({"pmi": [0.1, 0.9, 0.5, 0.7, 0.2, -1.0]}, 6)}
    decisions = decide(
        connect(table, scores),
        [("pmi", [Bound("pmi", minimum=0.0)])],
        [DuplicatesConfig(by="pmi.pmi").build(), BestConfig(per_source=1).build()],
    )
    found = {row["candidate_id"]: (row["rejected_by"], row["reason"]) for row in decisions.to_pylist()}
    assert found == {
        "id0": ("duplicates", "says the same as candidate id1"),
        "id1": (None, None),
        "id2": (None, None),
        "id3": ("duplicates", "says the same as candidate id1"),
        "id4": ("best", "number 2 of its source by highest pmi.pmi; 1 are kept"),
        "id5": ("pmi", "pmi -1 is below 0"),
    }


@given(st.lists(st.sampled_from(["A.", "a", "B.", " b ", "C"]), max_size=10), st.booleans(), st.integers(1, 3), st.data())
@settings(max_examples=40, deadline=None)
def test_set_filters_leave_distinct_outputs_and_so_many_a_source(outputs, within_source, per_source, data) -> None:
    scores = data.draw(st.lists(VALUES, min_size=len(outputs), max_size=len(outputs)))
    connection = connect(_rewritten(outputs), {"pmi": score_table({"pmi": scores}, len(outputs))})
    filters = [DuplicatesConfig(within_source=within_source).build(), BestConfig(per_source=per_source).build()]
    decisions = decide(connection, [("pmi", [])], filters)
    survivors = [row for row in joined(connection, []).to_pylist() if row["candidate_id"] in set(_kept(decisions))]
    said = [((row["source_id"] if within_source else ""), row["output"].strip().rstrip(".").lower()) for row in survivors]
    assert len(set(said)) == len(said)
    for source in {row["source_id"] for row in survivors}:
        assert 1 <= sum(row["source_id"] == source for row in survivors) <= per_source
    assert bool(survivors) == bool(outputs)


def test_the_best_may_be_the_lowest_and_a_missing_score_is_never_best() -> None:
    table = _rewritten(["A.", "B.", "C.", "D."])  # sources s0 s1 s2 s0
    scores = {"heuristics": score_table({"copied": [0.5, float("nan"), 0.1, 0.2]}, 4)}
    decisions = decide(connect(table, scores), [("heuristics", [])], [BestConfig(by="heuristics.copied", order="lowest").build()])
    assert _kept(decisions) == ["id3", "id1", "id2"]


def test_ranking_by_an_unknown_score_names_the_known() -> None:
    connection = connect(candidates([False]), {"pmi": score_table({"faithfulness": [1.0]}, 1)})
    with pytest.raises(LimbeckError, match=r"no score 'pmi.pmi' to rank by; .* pmi\.faithfulness"):
        decide(connection, [("pmi", [])], [BestConfig().build()])


@pytest.mark.parametrize("ids", [["id0", "id0"], ["elsewhere"]])
def test_a_set_filter_that_drops_what_it_was_not_given_is_refused(ids: list[str]) -> None:
    class Careless:
        name = "careless"

        def select(self, survivors: pa.Table) -> pa.Table:
            return pa.table({"candidate_id": ids, "reason": ["?"] * len(ids)})

    connection = connect(candidates([False]), {})
    with pytest.raises(LimbeckError, match=r"filter careless drops .* mend its select"):
        decide(connection, [], [Careless()])


class Judging:
    """A set-wise filter that drops one row, cannot judge another, and keeps what it found out."""

    name = "judging"

    def select(self, survivors: pa.Table) -> pa.Table:
        ids = survivors["candidate_id"].to_pylist()
        lists = [len(values) if values is not None else None for values in survivors["pmi.graph"].to_pylist()]
        assert survivors["document"].to_pylist() == [f"document of {id_}" for id_ in survivors["source_id"].to_pylist()]
        return pa.table(
            {
                "candidate_id": ids,
                "reason": ["linked" if count else None for count in lists],
                "undecided": [count is None for count in lists],
                "links": lists,
            }
        )


def test_set_wise_filters_see_evidence_and_documents_and_may_leave_a_row_undecided() -> None:
    table = candidates([False] * 4)
    sources = pa.table({"source_id": [f"s{i}" for i in range(3)], "document": [f"document of s{i}" for i in range(3)]})
    graph = pa.array([[1], [], None, []], pa.list_(pa.int64()))
    scored = score_table({"x": [1.0] * 4}, 4).append_column("graph", graph)
    found: dict[str, pa.Table] = {}
    connection = connect(table, {"pmi": scored}, sources)
    decisions = {
        row["candidate_id"]: row for row in decide(connection, [("pmi", [])], [Judging()], found.__setitem__).to_pylist()
    }
    assert [decisions[f"id{i}"]["kept"] for i in range(4)] == [False, True, False, True]
    assert decisions["id0"]["rejected_by"] == "judging" and decisions["id0"]["reason"] == "linked"
    assert decisions["id2"]["rejected_by"] == "undecided" and "judging cannot judge it" in decisions["id2"]["reason"]
    by_id = dict(zip(found["judging"]["candidate_id"].to_pylist(), found["judging"]["links"].to_pylist(), strict=True))
    assert by_id == {"id0": 1, "id1": 0, "id2": None, "id3": 0}
    assert "pmi.graph" not in joined(connection, ["pmi"]).column_names


@pytest.mark.parametrize(
    ("limit", "rejected_by", "words"),
    [(None, "undecided", "costly was not scored, since cheap rejected"), (0.5, "cheap", "x 0.2 is below 0.5")],
)
def test_a_skipped_score_rejects_nothing_itself(limit: float | None, rejected_by: str, words: str) -> None:
    cheap = score_table({"x": [0.2]}, 1)
    costly = score_table({"y": [None]}, 1).append_column("skipped_by", pa.array(["cheap"]))
    filters = [("costly", [Bound("y", minimum=0.0)]), ("cheap", [Bound("x", minimum=limit)])]
    (row,) = decide(connect(candidates([False]), {"cheap": cheap, "costly": costly}), filters).to_pylist()
    assert row["rejected_by"] == rejected_by and words in row["reason"]
