"""The other document against the plain rules that nulls and controls state."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.components import components
from limbeck.corpus import other_documents
from limbeck.corpus.other_documents import NO_OTHER, OtherDocuments, groups_of, other_rows, others_of
from limbeck.corpus.parts import write_parts
from limbeck.corpus.schemas import OTHER, OTHERS, SOURCES
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


def split_of(groups: list[str], texts: list[str] | None = None) -> pa.Table:
    """A split with a source per group named here; documents are dissimilar unless given."""
    texts = texts or [f"w{number} x{number} y{number}" for number in range(len(groups))]
    rows = [
        {"source_id": f"s{number:03d}", "document": text, "group": group, "document_tokens": number, "salient": [0, number]}
        for number, (group, text) in enumerate(zip(groups, texts, strict=True))
    ]
    rows = [{**row, "origin": "", "split": "train", "cut_characters": 0} for row in rows]
    return pa.Table.from_pylist(rows, schema=SOURCES)


def drawing(ids: list[str], groups: list[str], inputs: list[str | None] | None = None) -> pa.Table:
    """Candidates, as far as the draw looks at them."""
    given = pa.array(inputs or [None] * len(ids), pa.string())
    return pa.table({"candidate_id": pa.array(ids, pa.string()), "group": pa.array(groups, pa.string()), "input": given})


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.integers(1, 5), st.randoms())
def test_a_candidate_of_a_run_is_paired_over_its_split(groups: list[str], size: int, rng: random.Random) -> None:
    """Number `derive_seed("null", id)` of all documents of other groups, whichever the part and the order in it."""
    split = split_of(groups)
    ids = [f"{number}-{group}" for number, group in enumerate(groups)]
    expected = []
    for id_, group in zip(ids, groups, strict=True):
        others = [row["document"] for row in split.to_pylist() if row["group"] != group]
        expected.append(others[derive_seed("null", id_) % len(others)] if others else None)
    order = list(range(len(ids)))
    rng.shuffle(order)
    documents = OtherDocuments.of_table(split.take(pa.array(order, pa.int64())))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        found = documents.crossed(drawing([ids[row] for row in part], [groups[row] for row in part]), [True] * len(part))
        assert found.schema == OTHER
        assert found["other_document"].to_pylist() == [expected[row] for row in part]
        for row in found.to_pylist():
            number, text = row["other_document_tokens"], row["other_document"]
            assert text is None or (row["other_salient"] == [0, number] and f"w{number} " in text)


def test_blank_documents_and_unwanted_candidates_have_no_pair() -> None:
    documents = OtherDocuments.of_table(split_of(["a", "b", "c"], ["one", "\u200b ", ""]))
    found = documents.crossed(drawing(["1", "2", "3"], ["a", "b", "c"]), [True, True, False])
    assert found["other_document"].to_pylist() == [None, "one", None]


def test_an_input_is_never_paired_with_a_near_duplicate_of_itself() -> None:
    texts = ["The tool reads METAR reports.", "The tool reads METAR reports!", "Bread is baked."]
    documents = OtherDocuments.of_table(split_of(["a", "b", "c"], texts))
    ids = [str(number) for number in range(20)]
    found = documents.crossed(drawing(ids, ["z"] * 20, [texts[0]] * 20), [True] * 20)
    assert set(found["other_document"].to_pylist()) == {"Bread is baked."}
    alike = OtherDocuments.of_table(split_of(["a", "b"], texts[:2])).crossed(drawing(["1"], ["z"], [texts[0]]), [True])
    assert alike["other_document"].to_pylist() == [None]


def test_a_large_split_is_bounded_by_the_hash_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of any size leave the same documents."""
    monkeypatch.setattr(other_documents, "MOST_DOCUMENTS", 5)
    split = split_of([str(number) for number in range(23)])
    kept = sorted(sorted(split["source_id"].to_pylist(), key=lambda id_: derive_seed("other", id_))[:5])
    for size in (1, 4, 23):
        write_parts(tmp_path / str(size), split, size, SOURCES)
        assert OtherDocuments.of(tmp_path / str(size)).sources["source_id"].to_pylist() == kept


@given(st.lists(st.sampled_from("abcd"), max_size=9), st.integers(1, 6), st.randoms())
def test_several_documents_are_consecutive_ones_of_other_groups(groups: list[str], count: int, rng: random.Random) -> None:
    """From number `derive_seed("others", source_id)` on, around the end, each at most once, whatever the order of the rows."""
    split = split_of(groups)
    rows = split.to_pylist()
    rng.shuffle(rows)
    drawn = drawing([f"c{row['source_id']}" for row in rows], [row["group"] for row in rows])
    drawn = drawn.append_column("source_id", pa.array([row["source_id"] for row in rows], pa.string()))
    found = OtherDocuments.of_table(split).several(drawn, count)
    assert found.schema == pa.schema([OTHERS])
    for row, documents in zip(rows, found[OTHERS.name].to_pylist(), strict=True):
        others = [other["document"] for other in split.to_pylist() if other["group"] != row["group"]]
        first = derive_seed("others", row["source_id"])
        assert documents == [others[(first + step) % len(others)] for step in range(min(count, len(others)))]


def test_several_documents_are_never_near_an_input() -> None:
    texts = ["The tool reads METAR reports.", "The tool reads METAR reports!", "Bread is baked."]
    documents = OtherDocuments.of_table(split_of(["a", "b", "c"], texts))
    drawn = drawing(["1"], ["z"], [texts[0]]).append_column("source_id", pa.array(["s"]))
    assert documents.several(drawn, 3)[OTHERS.name].to_pylist() == [["Bread is baked."]]


def test_without_a_run_the_other_documents_are_those_of_the_table() -> None:
    texts = ["a tells of bread", "b tells of ships", "", "c tells of rivers", "a tells of bread"]
    table = pa.table({"document": texts, "group": ["1", "2", "3", "1", "1"]})
    assert others_of(table, 2).to_pylist() == [[texts[1]], [texts[3], texts[0]], [], [texts[1]], [texts[1]]]
    given_ = pa.array([["x"]] * 5, OTHERS.type)
    assert others_of(table.append_column(OTHERS, given_), 2).to_pylist() == [["x"]] * 5
