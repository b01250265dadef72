"""What a set-wise filter is given: references, and rejected rows if it asks, from tables and from parts."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pytest
from pydantic import ConfigDict

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_table, write_part
from limbeck.corpus.schemas import CANDIDATES
from limbeck.filters.config import SetFilterConfig
from limbeck.filters.contract import Bound
from limbeck.filters.sets.distinct import BestConfig
from limbeck.filters.sets.pass_rate import PassRateConfig
from limbeck.filters.sets.vote import VoteConfig
from limbeck.pipelines.runs.scored import connect, connect_parts
from limbeck.pipelines.runs.select import joined, write_decisions


def candidates(errors: list[bool]) -> pa.Table:
    """Candidates of sources s0, s1, s2, s0, ...; those with an error were never made."""
    given = {"seed": 0, "prompt": "p", "prompt_tokens": 1, "output_tokens": 2}
    rows = [
        {
            **given,
            "candidate_id": f"id{index}",
            "source_id": f"s{index % 3}",
            "sample": index,
            "output": "" if failed else f"Output {index}.",
            "finish_reason": "error" if failed else "stop",
            "error": "broken" if failed else None,
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


def in_parts(folder: Path, table: pa.Table, rows: int) -> Path:
    for number, start in enumerate(range(0, table.num_rows, rows)):
        write_part(folder, f"part-{number:05d}", table.slice(start, rows))
    return folder


class Watching:
    """A set-wise filter that records the rows it was given."""

    name = "watching"

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def select(self, survivors: pa.Table) -> pa.Table:
        self.rows = survivors.to_pylist()
        return pa.table({"candidate_id": pa.array([], pa.string()), "reason": pa.array([], pa.string())})


class WatchingConfig(SetFilterConfig):
    """Hands out its filter."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    also_rejected: ClassVar[bool] = True

    kind: Literal["watching"] = "watching"
    name: str = "watching"
    filter: Watching
    columns: tuple[str, ...] | None

    @property
    def needs(self) -> frozenset[str] | None:
        return None if self.columns is None else frozenset(self.columns)

    def build(self) -> Watching:
        return self.filter


@pytest.mark.parametrize("columns", [None, ("reference", "output", "rejected_by")])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_set_filter_sees_references_and_if_it_asks_the_rejected_rows_of_all_parts(
    tmp_path: Path, in_memory: bool, columns: tuple[str, ...] | None
) -> None:
    table = candidates([False, False, True, False, False, False])  # sources s0 s1 s2 s0 s1 s2
    own = pa.array([None, "own", None, "mine", None, None], pa.string())
    table = table.set_column(table.schema.get_field_index("reference"), CANDIDATES.field("reference"), own)
    sources = known_sources({"s0": ("a", "of s0"), "s1": ("b", None), "s2": ("c", "of s2")})
    scores = score_table({"x": [0.1, 0.9, None, 0.9, 0.1, 0.9]}, 6)
    if in_memory:
        connection = connect(table, {"pmi": scores}, sources)
    else:
        folders = [in_parts(tmp_path / name, t, 2) for name, t in (("c", table), ("s", scores), ("d", sources))]
        connection = connect_parts(folders[0], {"pmi": folders[1]}, folders[2])
    watching = Watching()
    config = WatchingConfig(filter=watching, columns=columns)
    write_decisions(connection, tmp_path / "decisions", [("pmi", [Bound("x", minimum=0.5)])], [BestConfig(by="pmi.x"), config])
    found = {row["candidate_id"]: (row["reference"], row["rejected_by"]) for row in watching.rows}
    assert found == {
        "id0": ("of s0", "pmi"),
        "id1": ("own", None),
        "id3": ("mine", None),
        "id4": (None, "pmi"),
        "id5": ("of s2", None),
    }
    wanted = {"candidate_id", "source_id", "sample", *(columns or ())}
    assert set(watching.rows[0]) == wanted if columns else set(watching.rows[0]) > {"document", "pmi.x", "prompt"}


def test_a_set_filter_that_returns_a_rejected_row_is_refused(tmp_path: Path) -> None:
    class Returning(Watching):
        def select(self, survivors: pa.Table) -> pa.Table:
            return survivors.select(["candidate_id"]).append_column("reason", survivors["rejected_by"])

    connection = connect(candidates([False, False]), {"pmi": score_table({"x": [0.1, 0.9]}, 2)})
    config = WatchingConfig(filter=Returning(), columns=("rejected_by",))
    with pytest.raises(LimbeckError, match="returned a duplicate or unknown candidate_id"):
        write_decisions(connection, tmp_path / "decisions", [("pmi", [Bound("x", minimum=0.5)])], [config])


def test_references_without_sources_and_of_older_candidates() -> None:
    table = candidates([False, False]).drop_columns(["reference"])
    assert joined(connect(table, {}), [], evidence=True)["reference"].to_pylist() == [None, None]
    sources = known_sources({"s0": ("a", "of s0")})
    assert joined(connect(table, {}, sources), [], evidence=True)["reference"].to_pylist() == ["of s0", None]


def test_answers_vote_and_pass_in_one_selection(tmp_path: Path) -> None:
    """Samples of a source in several parts: the pass rate counts those that other filters rejected, the vote does not."""
    outputs = ["It is 4.", "It is 7", "It is 5.", "It is 4", "It is 9", "It is 4, cut o"]
    rows = [
        {**row, "source_id": "s", "output": output}
        for row, output in zip(candidates([False] * 6).to_pylist(), outputs, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=CANDIDATES)
    scores = score_table({"cut_off": [0.0] * 5 + [1.0]}, 6)
    sources = known_sources({"s": ("What is 2 + 2?", "4")})
    folders = [in_parts(tmp_path / name, t, 2) for name, t in (("c", table), ("s", scores), ("d", sources))]
    connection = connect_parts(folders[0], {"heuristics": folders[1]}, folders[2])
    filters = [("heuristics", [Bound("cut_off", maximum=0.0)])]
    chosen = [PassRateConfig(min_rate=0.5, max_rate=0.5, keep="all"), VoteConfig(min_votes=2, keep="one")]
    file = tmp_path / "decisions"
    write_decisions(connection, file, filters, chosen)
    decisions = {row["candidate_id"]: row for row in read_table(file).to_pylist()}
    assert [id_ for id_, row in decisions.items() if row["kept"]] == ["id0"]
    assert decisions["id3"]["reason"] == "'4' has 2 of 5 votes, and candidate id0 is kept for them"
    assert decisions["id5"]["rejected_by"] == "heuristics"
