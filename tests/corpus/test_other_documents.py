"""The other document against the plain rules that nulls and controls state."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from helpers.components import components
from limbeck.corpus.other_documents import NO_OTHER, groups_of, other_rows
from limbeck.corpus.seeds import derive_seed

ROWS = st.lists(st.sampled_from("abcdefg"), max_size=14)
GROUPS = {"a": "g", "b": "g", "c": "h", "d": "d", "e": "h", "f": "f", "g": "g"}


def next_after(rows: list[str], row: int, groups: dict[str, str]) -> int:
    """Walk around the circle of distinct documents until one is of another group."""
    circle = list(dict.fromkeys(rows))
    at = circle.index(rows[row])
    for document in [*circle[at + 1 :], *circle[:at]]:
        if groups[document] != groups[rows[row]]:
            return rows.index(document)
    return NO_OTHER


def test_near_duplicates_are_never_another_document() -> None:
    documents = ["The tool reads METAR reports.", "The tool reads METAR reports!", "Bread is baked."]
    assert other_rows(documents).tolist() == [2, 2, 0]
    assert other_rows(documents, ["g", "g", "h"]).tolist() == [2, 2, 0]
    assert other_rows(documents[:2]).tolist() == [NO_OTHER, NO_OTHER]


def scored(groups: list[str], inputs: list[str | None]) -> pa.Table:
    return pa.table({"group": pa.array(groups, pa.string()), "input": pa.array(inputs, pa.string())})


def test_candidates_with_inputs_of_their_own_are_grouped_by_these_too() -> None:
    near = ["The tool reads METAR reports.", "The tool reads METAR reports!"]
    assert groups_of(scored(["a", "b", "c"], [None] * 3)) == ["a", "b", "c"]
    assert groups_of(scored(["a", "b", "c", "d"], [near[0], near[1], "Bread is baked.", None])) == ["a", "a", "c", "d"]
    assert groups_of(scored(["a", "b", "b", "c"], [near[0], "Bread is baked.", near[1], ""])) == ["a", "a", "a", "c"]
    assert groups_of(scored([], [])) == []
    assert groups_of(pa.table({"document": near})) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x y", "z w", "u v", None])), max_size=8))
def test_rows_share_a_group_if_a_chain_of_groups_and_inputs_joins_them(rows: list[tuple[str, str | None]]) -> None:
    edges = [
        (i, j)
        for i, (group, text) in enumerate(rows)
        for j, (other, theirs) in enumerate(rows)
        if group == other or (text == theirs and text is not None)
    ]
    labels = components(len(rows), edges)
    found = groups_of(scored([group for group, _ in rows], [text for _, text in rows])) or []
    if any(text for _, text in rows):
        assert [[a == b for b in found] for a in found] == [[a == b for b in labels] for a in labels]


@given(ROWS)
def test_the_next_document_in_order_of_appearance(rows: list[str]) -> None:
    alone = {document: document for document in rows}
    assert other_rows(rows).tolist() == [next_after(rows, row, alone) for row in range(len(rows))]


@given(ROWS)
def test_the_next_document_of_another_group(rows: list[str]) -> None:
    found = other_rows(rows, [GROUPS[document] for document in rows]).tolist()
    assert found == [next_after(rows, row, GROUPS) for row in range(len(rows))]


@given(ROWS)
def test_a_document_of_another_group_drawn_by_id(rows: list[str]) -> None:
    ids = [f"id-{row}" for row in range(len(rows))]
    found = other_rows(rows, [GROUPS[document] for document in rows], drawn_by=ids).tolist()
    for row, id_ in enumerate(ids):
        others = sorted({document for document in rows if GROUPS[document] != GROUPS[rows[row]]})
        expected = rows.index(others[derive_seed("null", id_) % len(others)]) if others else NO_OTHER
        assert found[row] == expected
