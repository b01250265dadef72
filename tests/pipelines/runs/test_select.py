"""Selection against a plain-Python oracle, and its guarantees: one decision per candidate, by the first rejecting filter."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import write_part
from limbeck.corpus.schemas import CANDIDATES, DECISIONS
from limbeck.filters.contract import Bound
from limbeck.filters.sets.distinct import BestConfig
from limbeck.filters.sets.duplicates import DuplicatesConfig
from limbeck.pipelines.runs.scored import connect, connect_parts
from limbeck.pipelines.runs.select import decide, joined, passing, scores_of

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


def known_sources(texts: dict[str, tuple[str, str | None]]) -> pa.Table:
    """Sources by id: their document and their reference."""
    columns = {"document": [document for document, _ in texts.values()], "reference": [known for _, known in texts.values()]}
    return pa.table({"source_id": list(texts), **{name: pa.array(values, pa.string()) for name, values in columns.items()}})


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
    """The first rejecting (filter, column), computed naively."""
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
    with pytest.raises(LimbeckError, match="filter pmi has a bound on 'faith', but its columns are faithfulness"):
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
    with pytest.raises(LimbeckError, match=r"no score 'pmi.pmi' to rank by .*; available: .*pmi\.faithfulness"):
        decide(connection, [("pmi", [])], [BestConfig().build()])


@pytest.mark.parametrize("ids", [["id0", "id0"], ["elsewhere"]])
def test_a_set_filter_that_drops_what_it_was_not_given_is_refused(ids: list[str]) -> None:
    class Careless:
        name = "careless"

        def select(self, survivors: pa.Table) -> pa.Table:
            return pa.table({"candidate_id": ids, "reason": ["?"] * len(ids)})

    connection = connect(candidates([False]), {})
    with pytest.raises(LimbeckError, match=r"filter careless returned a duplicate .* fix its select"):
        decide(connection, [], [Careless()])


class Judging:
    """A set-wise filter that drops one row, cannot judge another, and returns evidence."""

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
    sources = known_sources({f"s{i}": (f"document of s{i}", None) for i in range(3)})
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


def test_a_generator_s_error_comes_first_and_has_words_in_any_case() -> None:
    table = candidates([True, True, False])
    table = table.set_column(table.schema.get_field_index("error"), "error", pa.array(["it's broken", None, None], pa.string()))
    scores = score_table({"x": [-1.0] * 3}, 3).append_column("skipped_by", pa.array(["other"] * 3))
    rows = decide(connect(table, {"pmi": scores}), [("pmi", [Bound("x", minimum=0.0)])]).to_pylist()
    assert [(row["rejected_by"], row["reason"]) for row in rows] == [
        ("generator", "it's broken"),
        ("generator", "the engine gave no reason"),
        ("pmi", "x -1 is below 0"),
    ]


def test_a_row_skipped_by_a_filter_without_bounds_is_kept() -> None:
    """A score without a bound has no effect."""
    scores = score_table({"x": [None]}, 1).append_column("skipped_by", pa.array(["cheap"]))
    connection = connect(candidates([False]), {"pmi": scores})
    assert decide(connection, [("pmi", [])])["kept"].to_pylist() == [True]
    (row,) = decide(connection, [("pmi", [Bound("x", minimum=0.0)])]).to_pylist()
    assert (row["rejected_by"], row["reason"]) == ("undecided", "pmi was not scored, since cheap rejected the row then")


@pytest.mark.parametrize(
    "type_",
    [pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float32()],
)
def test_every_type_of_number_is_a_score(type_: pa.DataType) -> None:
    values = pa.array([0, 1, None], pa.int64()).cast(type_)
    connection = connect(candidates([False] * 3), {"pmi": pa.table({"candidate_id": ["id0", "id1", "id2"], "x": values})})
    rows = decide(connection, [("pmi", [Bound("x", minimum=0.5)])]).to_pylist()
    assert {row["candidate_id"]: row["reason"] for row in rows} == {
        "id0": "x 0 is below 0.5",
        "id1": None,
        "id2": "x could not be scored",
    }
    assert joined(connection, ["pmi"])["pmi.x"].to_pylist() == [0.0, 1.0, None]


@pytest.mark.parametrize("values", [pa.array(["a"]), pa.array([[1.0]]), pa.array([{"b": 1}])])
def test_what_is_no_number_is_evidence_and_no_score(values: pa.Array) -> None:
    found = pa.table({"candidate_id": ["id0"], "error": ["e"], "skipped_by": ["s"], "x": values, "y": [1.0]})
    connection = connect(candidates([False]), {"pmi": found})
    with pytest.raises(LimbeckError, match="a bound on 'x', but its columns are y"):
        decide(connection, [("pmi", [Bound("x", minimum=0.0)])])
    plain, with_evidence = (joined(connection, ["pmi"], evidence=evidence) for evidence in (False, True))
    assert [name for name in plain.column_names if "." in name] == ["pmi.y"]
    assert [name for name in with_evidence.column_names if "." in name] == ["pmi.y", "pmi.x"]
    assert with_evidence["pmi.x"].to_pylist() == values.to_pylist()


def test_a_column_without_any_value_is_a_score_that_is_missing() -> None:
    found = pa.table({"candidate_id": ["id0"], "x": pa.nulls(1)})
    (row,) = decide(connect(candidates([False]), {"pmi": found}), [("pmi", [Bound("x", minimum=0.0)])]).to_pylist()
    assert (row["rejected_by"], row["reason"]) == ("pmi", "x could not be scored")


def test_a_filter_that_scores_nothing_and_an_unknown_score_are_named() -> None:
    connection = connect(
        candidates([False]), {"pmi": pa.table({"candidate_id": ["id0"]}), "length": score_table({"t": [1.0]}, 1)}
    )
    with pytest.raises(LimbeckError, match="filter pmi has a bound on 'x', but its columns are none"):
        decide(connection, [("pmi", [Bound("x", minimum=0.0)])])
    table = joined(connection, ["pmi", "length"])
    assert scores_of(table, "length", "t").tolist() == [1.0]
    with pytest.raises(LimbeckError, match="filter length has a bound on 'u', but its columns are t"):
        scores_of(table, "length", "u")


def test_documents_are_joined_where_evidence_is_asked_for_and_sources_are_known() -> None:
    table = candidates([False] * 4)
    sources = known_sources({"s0": ("zero", None), "s1": ("one", None)})  # s2 has no document; its candidate stays
    found = joined(connect(table, {}, sources), [], evidence=True)
    assert found["document"].to_pylist() == ["zero", "zero", "one", None]
    assert found["candidate_id"].to_pylist() == ["id0", "id3", "id1", "id2"]  # by (source_id, sample)
    assert "document" not in joined(connect(table, {}, sources), []).column_names
    assert "document" not in joined(connect(table, {}), [], evidence=True).column_names


def test_an_unscored_row_stays_in_the_joined_table() -> None:
    found = joined(connect(candidates([False, True]), {"pmi": score_table({"x": [1.0]}, 1)}), ["pmi"])
    assert found["candidate_id"].to_pylist() == ["id0", "id1"] and found["pmi.x"].to_pylist() == [1.0, None]


def in_parts(folder: Path, table: pa.Table, rows: int) -> Path:
    for number, start in enumerate(range(0, table.num_rows, rows)):
        write_part(folder, f"part-{number:05d}", table.slice(start, rows))
    return folder


def test_parts_on_disk_are_decided_as_the_tables_that_they_hold(tmp_path: Path) -> None:
    table = candidates([False, True, False, False, False])
    sources = known_sources({"s0": ("a", None), "s1": ("b", "said"), "s2": ("c", None)})
    scores = score_table({"x": [0.1, None, 0.9, None, 0.5]}, 5)
    folders = [in_parts(tmp_path / name, t, 2) for name, t in (("candidates", table), ("scores", scores), ("sources", sources))]
    filters = [("pmi", [Bound("x", minimum=0.4)])]
    connection = connect_parts(folders[0], {"pmi": folders[1]}, folders[2])
    assert decide(connection, filters) == decide(connect(table, {"pmi": scores}), filters)
    expected = joined(connect(table, {"pmi": scores}, sources), ["pmi"], evidence=True)
    assert joined(connection, ["pmi"], evidence=True) == expected
    some = connect_parts(folders[0], {"pmi": folders[1]}, folders[2], ["part-00000", "part-00002"])
    assert sorted(decide(some, filters)["candidate_id"].to_pylist()) == ["id0", "id1", "id4"]
    assert set(joined(some, [], evidence=True)["document"].to_pylist()) == {"a", "b"}


class Dropping:
    """A set-wise filter that drops by name, and records which rows it was given."""

    def __init__(self, name: str, drops: dict[str, str | None], **more: Any) -> None:
        self.name, self._drops, self._more, self.given = name, drops, more, list[str]()

    def select(self, survivors: pa.Table) -> pa.Table:
        self.given = survivors["candidate_id"].to_pylist()
        return pa.table({"candidate_id": list(self._drops), "reason": list(self._drops.values()), **self._more})


def test_each_set_filter_judges_what_the_one_before_left() -> None:
    first, second = Dropping("first", {"id1": "no", "id2": None}), Dropping("second", {"id2": "never"})
    third = Dropping("third", {})
    scores = {"pmi": score_table({"x": [1.0, 1.0, 1.0, 1.0, -1.0]}, 5)}
    decisions = decide(
        connect(candidates([False] * 5), scores), [("pmi", [Bound("x", minimum=0.0)])], [first, second, third]
    ).to_pylist()
    assert [sorted(each.given) for each in (first, second, third)] == [
        ["id0", "id1", "id2", "id3"],
        ["id0", "id2", "id3"],
        ["id0", "id3"],
    ]
    assert {row["candidate_id"]: (row["rejected_by"], row["reason"]) for row in decisions if not row["kept"]} == {
        "id1": ("first", "no"),
        "id2": ("second", "never"),
        "id4": ("pmi", "x -1 is below 0"),
    }
    with pytest.raises(LimbeckError, match="filter second returned"):  # rows dropped by the first are not passed to the second
        decide(connect(candidates([False] * 5), scores), [("pmi", [])], [first, Dropping("second", {"id1": "no"})])


def test_what_a_set_filter_cannot_judge_carries_its_words() -> None:
    ids: dict[str, str | None] = {"id0": None, "id1": "no graph", "id2": "far"}
    judging = Dropping("graph", ids, undecided=[True, True, False])
    rows = decide(connect(candidates([False] * 3), {}), [], [judging]).to_pylist()
    assert [(row["rejected_by"], row["reason"]) for row in rows] == [
        ("undecided", "graph cannot judge it: a score that it needs is missing"),
        ("undecided", "graph cannot judge it: no graph"),
        ("graph", "far"),
    ]


def test_evidence_of_set_filters_is_handed_on_where_there_is_some() -> None:
    found: dict[str, pa.Table] = {}
    plain, extra = Dropping("plain", {"id0": "x"}, undecided=[False]), Dropping("extra", {"id1": None}, group=[7])
    connection = connect(candidates([False] * 2), {})
    decide(connection, [], [plain, extra], found.__setitem__)
    assert {name: table.to_pydict() for name, table in found.items()} == {"extra": {"candidate_id": ["id1"], "group": [7]}}
    assert decide(connection, [], [extra])["kept"].to_pylist() == [True, True]  # not requested


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 12), st.randoms())
@settings(max_examples=40, deadline=None)
def test_a_target_keeps_the_first_accepted_rows_of_the_order(kept: list[bool], target: int, random: Any) -> None:
    """The oracle: walk through the candidates as they were drawn and count; rows rejected before keep their reason."""
    order = list(range(len(kept)))
    random.shuffle(order)
    drawn, scores = candidates([False] * len(kept)), score_table({"x": [float(passes) for passes in kept]}, len(kept))
    filters = [("pmi", [Bound("x", minimum=0.5)])]
    connection = connect(drawn.take(pa.array(order, pa.int64())), {"pmi": scores})
    accepted = [f"id{n}" for n in order if kept[n]]
    before, after = decide(connection, filters), decide(connection, filters, target=target)
    assert after.schema == DECISIONS and after["candidate_id"] == before["candidate_id"]
    for old, new in zip(before.to_pylist(), after.to_pylist(), strict=True):
        if old["candidate_id"] in accepted[target:]:
            assert not new["kept"] and new["rejected_by"] == "target" and f"its {target} rows" in new["reason"]
        else:
            assert new == old
