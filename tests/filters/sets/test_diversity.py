"""Algorithm 1: the graph as it is asked for, its components, and what is kept of each."""

import itertools
import random
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.models.entailment_graph import GraphConfig, Node, Question, entailment_graph
from limbeck.filters.models.equivalence import EquivalenceConfig, EquivalenceFilter
from limbeck.filters.sets.diversity import Components, DiversityConfig

Table = dict[Question, float]


def texts(nodes: int) -> list[str]:
    return [f"text {i} {'x' * (i % 3)}" for i in range(nodes)]


def drawn(seed: int, nodes: int, density: float) -> Table:
    """A probability for every ordered pair of texts."""
    rng = random.Random(seed)
    return {
        pair: rng.uniform(0.51, 1) if rng.random() < density else rng.uniform(0, 0.5)
        for pair in itertools.permutations(texts(nodes), 2)
    }


def asked_graph(table: Table, nodes: int, config: GraphConfig) -> tuple[dict[str, Any], list[Question]]:
    asked: list[Question] = []

    def ask(questions: Any) -> list[float]:
        asked.extend(questions)
        return [table[question] for question in questions]

    made = [Node(f"id{i:02}", "s", "document", text) for i, text in enumerate(texts(nodes))]
    return entailment_graph(made, ask, config), asked


def true_edges(table: Table, nodes: int) -> set[tuple[int, int]]:
    all_ = texts(nodes)
    return {
        (i, j) for i, j in itertools.combinations(range(nodes), 2) if max(table[all_[i], all_[j]], table[all_[j], all_[i]]) > 0.5
    }


def closure(edges: set[tuple[int, int]], nodes: int) -> set[frozenset[int]]:
    """The components by brute force: Warshall's transitive closure."""
    reach = np.eye(nodes, dtype=bool)
    for i, j in edges:
        reach[i, j] = reach[j, i] = True
    for k in range(nodes):
        reach |= np.outer(reach[:, k], reach[k])
    return {frozenset(np.flatnonzero(row).tolist()) for row in reach}


def components_of(links: dict[str, Any]) -> set[frozenset[int]]:
    places = {id_: place for place, id_ in enumerate(sorted(links))}
    return closure({(places[id_], places[other]) for id_, of in links.items() for other in of.entails}, len(places))


graphs = st.tuples(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([0.0, 0.03, 0.08, 0.2, 0.6, 1.0]))


@given(graphs)
@settings(deadline=None, max_examples=120)
def test_every_edge_is_found_and_a_spared_question_changes_no_component(graph: tuple[int, int, float]) -> None:
    seed, nodes, density = graph
    table = drawn(seed, nodes, density)
    edges = true_edges(table, nodes)
    full, asked = asked_graph(table, nodes, GraphConfig())
    assert {(int(id_[2:]), int(other[2:])) for id_, of in full.items() for other in of.entails} == edges | {
        (j, i) for i, j in edges
    }
    assert not any(of.unasked for of in full.values())
    spare, fewer = asked_graph(table, nodes, GraphConfig(ask="components"))
    assert components_of(spare) == components_of(full) == closure(edges, nodes)
    assert max(Counter(asked).values(), default=1) == max(Counter(fewer).values(), default=1) == 1
    assert len(fewer) <= len(asked) <= nodes * (nodes - 1)
    for id_, of in spare.items():
        assert set(of.entails) <= set(full[id_].entails)
        component = next(group for group in closure(edges, nodes) if int(id_[2:]) in group)
        assert {int(other[2:]) for other in of.unasked} <= component  # only there is anything spared


def test_a_component_of_equivalents_costs_a_question_a_node() -> None:
    table = drawn(0, 20, 1.0)
    _, asked = asked_graph(table, 20, GraphConfig(ask="components"))
    assert len(asked) == 19
    _, asked = asked_graph(table, 20, GraphConfig())
    assert len(asked) == 190  # one direction is enough


def test_tau_is_exclusive_and_either_direction_counts() -> None:
    a, b = texts(2)
    for table, linked in (({(a, b): 0.5, (b, a): 0.5}, False), ({(a, b): 0.1, (b, a): 0.6}, True)):
        links, _ = asked_graph(table, 2, GraphConfig())
        assert links["id00"].entails == (["id01"] if linked else [])


def test_equal_texts_need_no_question_and_sources_stay_apart() -> None:
    nodes = [Node("a", "1", "d", "same"), Node("b", "1", "d", "same"), Node("c", "2", "d", "same")]
    links = entailment_graph(nodes, lambda questions: [1.0 for _ in questions], GraphConfig())
    assert (links["a"].entails, links["b"].entails, links["c"].entails) == (["b"], ["a"], [])


def test_documents_count_where_both_sides_are_asked_and_differ() -> None:
    def ask(questions: Any) -> list[float]:
        return [float(question in (("long x2", "x1"), ("x3", "x1"))) for question in questions]

    documents = ["x1", "long x2", "x3", "x4", "x4"]
    nodes = [Node(f"id{i}", "s", document, f"y{i}") for i, document in enumerate(documents)]
    both = entailment_graph(nodes, ask, GraphConfig(sides="both"))
    assert [both[f"id{i}"].entails for i in range(5)] == [["id1", "id2"], ["id0"], ["id0"], ["id4"], ["id3"]]
    assert not any(of.entails for of in entailment_graph(nodes, ask, GraphConfig()).values())
    same = [Node(f"id{i}", "s", "x", f"y{i}") for i in range(3)]  # one document: only the outputs can tell
    assert not any(of.entails for of in entailment_graph(same, ask, GraphConfig(sides="both")).values())


def survivors(links: dict[str, Any], strength: list[float | None], sources: list[str] | None = None) -> pa.Table:
    ids = sorted(links)
    return pa.table(
        {
            "candidate_id": ids,
            "source_id": sources or ["s"] * len(ids),
            "sample": pa.array(range(len(ids)), pa.int32()),
            "equivalence.strength": pa.array(strength, pa.float64()),
            "equivalence.entails": pa.array([of and of.entails for of in links.values()], pa.list_(pa.string())),
            "equivalence.unasked": pa.array([of and of.unasked for of in links.values()], pa.list_(pa.string())),
        }
    )


def selected(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["candidate_id"]: row for row in DiversityConfig().build().select(table).to_pylist()}


@given(graphs, st.data())
@settings(deadline=None, max_examples=100)
def test_exactly_the_strongest_of_each_component_is_kept(graph: tuple[int, int, float], data: st.DataObject) -> None:
    seed, nodes, density = graph
    table = drawn(seed, nodes, density)
    strength = [data.draw(st.sampled_from([0.5, 1.0, 1.5])) for _ in range(nodes)]
    for ask in ("edges", "components"):
        links, _ = asked_graph(table, nodes, GraphConfig(ask=ask))  # type: ignore[arg-type]
        given_rows = survivors(links, strength)
        rows = selected(given_rows)
        kept = {int(id_[2:]) for id_, row in rows.items() if row["reason"] is None}
        expected = {min(group, key=lambda i: (-strength[i], i)) for group in closure(true_edges(table, nodes), nodes)}
        assert kept == expected
        assert not any(row["undecided"] for row in rows.values())
        order = data.draw(st.permutations(range(nodes)))
        assert selected(given_rows.take(pa.array(order, pa.int64()))) == rows
        survived = given_rows.filter(pa.array([i in kept for i in range(nodes)], pa.bool_()))
        again = selected(survived)
        if ask == "edges":  # what is left is left alone
            assert all(row["reason"] is None and not row["undecided"] for row in again.values())


@given(graphs, st.data())
@settings(deadline=None, max_examples=150)
def test_any_choice_of_rows_is_judged_as_if_it_had_been_asked_about_alone(
    graph: tuple[int, int, float], data: st.DataObject
) -> None:
    """With all edges always; with the spared ones wherever it is not said to be undecided."""
    seed, nodes, density = graph
    table = drawn(seed, nodes, density)
    strength: list[float | None] = [data.draw(st.sampled_from([0.5, 1.0, 1.5])) for _ in range(nodes)]
    chosen = sorted(data.draw(st.sets(st.integers(0, max(nodes - 1, 0)), max_size=nodes))) if nodes else []
    edges = true_edges(table, nodes)
    groups = closure({(chosen.index(i), chosen.index(j)) for i, j in edges if i in chosen and j in chosen}, len(chosen))
    expected = {min((chosen[place] for place in group), key=lambda i: (-float(strength[i] or 0), i)) for group in groups}
    mask = pa.array([i in chosen for i in range(nodes)], pa.bool_())
    for ask in ("edges", "components"):
        links, _ = asked_graph(table, nodes, GraphConfig(ask=ask))  # type: ignore[arg-type]
        rows = selected(survivors(links, strength).filter(mask))
        for i in chosen:
            row = rows[f"id{i:02}"]
            assert ask == "components" or not row["undecided"]
            if not row["undecided"]:
                assert (row["reason"] is None) == (i in expected)


def test_rows_without_links_are_undecided_and_so_is_what_they_could_change() -> None:
    links, _ = asked_graph(drawn(0, 3, 1.0), 3, GraphConfig())
    table = survivors({**links, "id03": None, "z": links["id00"]}, [1.0, 2.0, 0.5, 1.0, 1.0], ["s"] * 4 + ["other"])
    rows = selected(table)
    assert {id_: row["undecided"] for id_, row in rows.items()} == {
        "id00": False,  # a stronger one says the same, whatever else is linked
        "id01": True,
        "id02": False,
        "id03": True,
        "z": False,
    }
    assert rows["id00"]["reason"] == ("entailment links it to candidate id01, which has the highest equivalence.strength of 3")
    assert rows["id03"]["reason"] == "its links to other candidates were never computed"
    assert rows["z"] == {"candidate_id": "z", "reason": None, "undecided": False, "representative": "z"}


def test_a_strength_that_is_no_number_is_the_lowest_and_a_missing_one_undecided() -> None:
    links, _ = asked_graph(drawn(0, 3, 1.0), 3, GraphConfig())
    rows = selected(survivors(links, [float("nan"), 0.0, 0.0]))
    assert [row["reason"] is None for row in rows.values()] == [False, True, False]
    assert rows["id00"]["representative"] == "id01"
    assert selected(survivors(links, [None, 1.0, 0.5]))["id01"]["undecided"]


def test_no_rows_and_no_columns() -> None:
    assert DiversityConfig().build().select(survivors({}, [])).num_rows == 0
    with pytest.raises(LimbeckError, match="no column 'equivalence.entails'.*graph:"):
        DiversityConfig().build().select(survivors({}, []).drop_columns(["equivalence.entails"]))
    with pytest.raises(LimbeckError, match="no column 'nli.forward'.*equivalence.strength"):
        DiversityConfig(by="nli.forward").build().select(survivors({}, []))


@given(st.integers(0, 10), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_components_are_those_of_the_closure(nodes: int, joins: list[tuple[int, int]]) -> None:
    found, edges = Components(nodes), {(a, b) for a, b in joins if max(a, b) < nodes}
    for a, b in edges:
        found.join(a, b)
    assert {frozenset(group) for group in found.lists()} == closure(edges, nodes)


def test_from_scores_to_choice() -> None:
    """Only rows that pass the filter's own limits are in the graph; the stored links make the choice without a model."""
    document = "Quern reads weather files."
    outputs = ["It parses weather data.", "Weather data is parsed.", "A tool for storms.", document, "It makes 3 plots."]
    said = {document: {0: 0.8, 1: 0.95, 2: 0.9, 4: 0.9}}
    alike = {(outputs[0], outputs[1]), (outputs[1], outputs[0])}

    class Oracle:
        def probabilities(self, pairs: Any) -> Any:
            values = [self._entails(*pair) for pair in pairs]
            return np.array([[value, 1 - value, 0] for value in values], np.float32)

        def _entails(self, premise: str, hypothesis: str) -> float:
            if document in (premise, hypothesis):
                return said[document][outputs.index(hypothesis if premise == document else premise)]
            return float((premise, hypothesis) in alike)

    candidates = pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(5)],
            "source_id": ["s"] * 5,
            "document": [document] * 5,
            "output": outputs,
        }
    )
    config = EquivalenceConfig(graph=GraphConfig())
    scores = EquivalenceFilter(config, Oracle()).score(candidates)
    assert scores["entails"].to_pylist() == [["id1"], ["id0"], [], None, None]  # a copy, and numbers that do not agree
    joined = candidates.append_column("sample", pa.array(range(5), pa.int32()))
    for name in config.columns:
        joined = joined.append_column(f"equivalence.{name}", scores[name])
    rows = selected(joined.slice(0, 3))
    assert [row["reason"] is None for row in rows.values()] == [False, True, True]
    assert rows["id0"]["representative"] == "id1"
