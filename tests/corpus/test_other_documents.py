"""The other document against the plain rules that nulls and controls state."""

from hypothesis import given
from hypothesis import strategies as st

from limbeck.corpus.other_documents import NO_OTHER, other_rows
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
