"""Selection part by part equals selection in memory, whatever the parts; and the kept table of scores is disposable."""

import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import earlier_selection as earlier
from limbeck.corpus import compaction
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_table, write_part
from limbeck.corpus.schemas import CANDIDATES, DECISIONS, SOURCES
from limbeck.corpus.storage.commits import Commits
from limbeck.corpus.storage.local import LocalStore
from limbeck.filters.contract import Bound
from limbeck.filters.own import OwnSetFilter
from limbeck.filters.sets.distinct import BestConfig
from limbeck.filters.sets.duplicates import DuplicatesConfig
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.runs import scored as scored_module
from limbeck.pipelines.runs.calibrate import calibrate
from limbeck.pipelines.runs.card import DATA, DatasetFacts, write_dataset
from limbeck.pipelines.runs.dataset import dataset_rows
from limbeck.pipelines.runs.funnel import funnel, kept_sources
from limbeck.pipelines.runs.report_model import Rows
from limbeck.pipelines.runs.scored import Scored, connect_parts
from limbeck.pipelines.runs.select import Numbers, accepted, decide, write_decisions

VALUES = (None, math.nan, math.inf, -math.inf, -1.0, 0.0, 0.25, 0.5, 0.75)
FILTERS = {"pmi": ("faithfulness", "saliency"), "length": ("tokens",)}


class Unlucky:
    """A set-wise filter of the user's own: drops some rows, leaves others undecided, and reads evidence and documents."""

    name = "unlucky"

    def select(self, survivors: pa.Table) -> pa.Table:
        rows = survivors.to_pylist()
        assert all(row["document"] == f"Document of {row['source_id']}." for row in rows)
        told = [row for row in rows if (row["pmi.spans"] is None or len(row["pmi.spans"]) != 1) and row["prompt"]]
        return pa.table(
            {
                "candidate_id": pa.array([row["candidate_id"] for row in told], pa.string()),
                "reason": pa.array([None if row["pmi.spans"] is None else "two spans" for row in told], pa.string()),
                "undecided": pa.array([row["pmi.spans"] is None for row in told], pa.bool_()),
                "spans": pa.array([len(row["pmi.spans"] or ()) for row in told], pa.int64()),
            }
        )


class Round:
    """Random candidates, scores and sources in random parts, and the same as whole tables."""

    def __init__(self, home: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.home = home
        self.sources = [f"s{number:03d}" for number in range(self.rng.randrange(1, 12))]
        if seed % 2:
            self.rng.shuffle(self.sources)  # else parts are in the order of the result
        parts = [self._part(number, ids) for number, ids in enumerate(self._cut(self.sources))]
        self.parts = [f"part-{number:05d}" for number in range(len(parts))]
        names = ("sources", "candidates", *FILTERS)
        for part, tables in zip(self.parts, parts, strict=True):
            for name, table in zip(names, tables, strict=True):
                write_part(self.folder(name), part, table)
        self.tables = {
            name: pa.concat_tables([tables[index] for tables in parts], promote_options="permissive")
            for index, name in enumerate(names)
        }

    def folder(self, name: str) -> Path:
        return self.home / "round" / (name if name in ("sources", "candidates") else f"scores/{name}")

    def connect(self, parts: list[str] | None = None) -> Scored:
        scores = {name: self.folder(name) for name in FILTERS}
        return connect_parts(self.folder("candidates"), scores, self.folder("sources"), parts)

    def in_memory(self) -> Any:
        scores = {name: self.tables[name] for name in FILTERS}
        return earlier.connect(self.tables["candidates"], scores, self.tables["sources"])

    def _cut(self, ids: list[str]) -> list[list[str]]:
        parts: list[list[str]] = [[]]
        for id_ in ids:
            if parts[-1] and self.rng.random() < 0.4:
                parts.append([])
            parts[-1].append(id_)
        return parts

    def _part(self, number: int, ids: list[str]) -> list[pa.Table]:
        rng, optional = self.rng, self.rng.random() < 0.7
        sources = [
            {"source_id": id_, "document": f"Document of {id_}.", "reference": rng.choice((None, f"Reference of {id_}.")),
             "origin": "x", "split": "train", "group": id_, "document_tokens": 3, "cut_characters": 0, "salient": []}
            for id_ in ids
        ]  # fmt: skip
        rows = [self._candidate(id_, sample, optional) for id_ in ids for sample in range(rng.randrange(1, 4))]
        own = [rows[place]["candidate_id"] for place in range(len(rows))]
        tables = [pa.Table.from_pylist(sources, schema=SOURCES), pa.Table.from_pylist(rows, schema=CANDIDATES)]
        for name, columns in FILTERS.items():
            found: dict[str, Any] = {"candidate_id": pa.array(own, pa.string())}
            found |= {column: pa.array([rng.choice(VALUES) for _ in own], pa.float64()) for column in columns}
            if name == "pmi":
                found["error"] = pa.array([rng.choice((None, "it's lost")) for _ in own], pa.string())
                found["skipped_by"] = pa.array([rng.choice((None, None, "length")) for _ in own], pa.string())
                spans = [rng.choice((None, ["a"], ["a", "b"], [])) for _ in own]
                found["spans"] = pa.nulls(len(own)) if number % 3 == 1 else pa.array(spans, pa.list_(pa.string()))
            table = pa.table(found)
            shuffled = rng.sample(range(len(own)), len(own))[: len(own) - (rng.random() < 0.2)]
            tables.append(table.take(pa.array(shuffled, pa.int64())))
        return tables

    def _candidate(self, source_id: str, sample: int, optional: bool) -> dict[str, Any]:
        rng = self.rng
        failed = rng.random() < 0.1
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        return {
            "candidate_id": f"{source_id}-{sample}", "source_id": source_id, "sample": sample, "seed": 1,
            "prompt": f"About {source_id}",
            "output": "" if failed else rng.choice(("One thing.", "one  THING", f"Another {sample}.", "ありがとう。")),
            "prompt_tokens": 1, "output_tokens": 2, "finish_reason": "error" if failed else "stop",
            "error": rng.choice((None, "it's broken")) if failed else None,
            "messages": rng.choice((None, said)) if optional else None,
            "input": rng.choice((None, "an input")) if optional else None, "reference": rng.choice((None, "own")), "facts": None,
        }  # fmt: skip


def bounds(rng: random.Random) -> list[tuple[str, list[Bound]]]:
    def some(column: str) -> Bound:
        return Bound(column, minimum=rng.choice((None, 0.0, 0.25)), maximum=rng.choice((None, 0.5)), reason="isn't so")

    return [(name, [some(column) for column in columns if rng.random() < 0.7]) for name, columns in FILTERS.items()]


@pytest.mark.parametrize("seed", range(16))
def test_decisions_dataset_and_order_equal_those_of_selection_in_memory(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.corpus.parts.GROUP_BYTES", 1 if seed % 3 else 1 << 20)  # one part per group, or all
    monkeypatch.setattr(scored_module, "BATCH_ROWS", 3)
    made = Round(tmp_path, seed)
    filters, target = bounds(made.rng), made.rng.choice((None, 0, 3, 100))
    set_filters = [OwnSetFilter(name="unlucky", filter=Unlucky()), DuplicatesConfig(), BestConfig(by="pmi.saliency")]
    set_filters = set_filters[: made.rng.randrange(4)]
    theirs: dict[str, pa.Table] = {}
    ours: dict[str, pa.Table] = {}
    memory = made.in_memory()
    expected = earlier.decide(memory, filters, [config.build() for config in set_filters], theirs.__setitem__)
    if target is not None:
        expected = earlier.to_target(expected, made.tables["candidates"]["candidate_id"].to_pylist(), target)
    if seed % 4 == 3:
        for name in ("candidates", *FILTERS):
            compaction.compact(tmp_path, made.folder(name), Commits(LocalStore(tmp_path), "driver"), at_least=1)
    file = tmp_path / "decisions.parquet"
    with made.connect() as scored:
        write_decisions(scored, file, filters, set_filters, ours.__setitem__, target)
        assert read_table(file).equals(expected) and pq.read_schema(file).equals(DECISIONS)
        if target is None:
            kept = expected.filter(expected["kept"])["candidate_id"].to_pylist()
            found = accepted(scored, filters, set_filters)
            assert sorted(found.ids.to_pylist()) == sorted(kept) and found.candidates == expected.num_rows
        for kind in ("chat", "plain", "conversation"):
            assert_same_dataset(tmp_path / kind, scored, made, expected, kind)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert sorted(map(repr, ours[name].to_pylist())) == sorted(map(repr, theirs[name].to_pylist()))
    rows = funnel(file)
    assert (rows.candidates, rows.kept) == (expected.num_rows, sum(expected["kept"].to_pylist()))
    assert list(rows.rejected_by) == list(dict.fromkeys(expected["rejected_by"].drop_null().to_pylist()))
    assert kept_sources(file) == len(set(expected.filter(expected["kept"])["source_id"].to_pylist()))


def assert_same_dataset(home: Path, scored: Scored, made: Round, decisions: pa.Table, kind: str) -> None:
    section = {"name": "x", "sources": {"kind": "text", "path": "x"}, "teacher": {"kind": "transformers", "model": "x"}}
    data = {**section, "generator": {"kind": "summaries"}, "filters": [{"kind": "length"}], "rows": {"kind": kind}}
    recipe = recipes.validate(data, "here")
    table = earlier.joined(made.in_memory(), list(FILTERS), evidence=True)
    expected = earlier.dataset_rows(made.tables["sources"], recipe.renderer, table.filter(decisions["kept"]))
    file = home.with_suffix(".decisions")
    pq.write_table(decisions, file)
    kept = expected.num_rows
    facts = DatasetFacts(name="x", round=0, rows=Rows(sources=1, candidates=kept, kept=kept, rejected_by={}), teacher="t", seed=1)
    write_dataset(home, dataset_rows(scored, recipe, file), facts)
    found = read_table(home / DATA)
    assert found.schema.equals(expected.schema)
    assert repr(found.to_pylist()) == repr(expected.to_pylist())  # as text, in which NaN equals NaN


def test_calibration_reads_the_same_numbers(tmp_path: Path) -> None:
    made = Round(tmp_path, 5)
    filters = [("pmi", [Bound("faithfulness", calibrate="minimum")]), ("length", [Bound("tokens", maximum=0.75)])]
    expected = calibrate(earlier.joined(made.in_memory(), list(FILTERS)), filters, 0.2)
    with made.connect() as scored:
        assert calibrate(Numbers(scored), filters, 0.2) == expected


def kept_tables(made: Round) -> list[Path]:
    return sorted((made.home / "round" / ".cache").glob("*"))


def decisions_of(made: Round, parts: list[str] | None = None) -> pa.Table:
    with made.connect(parts) as scored:
        return decide(scored, [("pmi", [Bound("faithfulness", minimum=0.0)]), ("length", [])])


def test_the_table_is_kept_and_follows_its_parts(tmp_path: Path) -> None:
    made = Round(tmp_path, 2)
    before = decisions_of(made)
    (kept,) = kept_tables(made)
    state = kept.stat().st_mtime_ns, kept.stat().st_ino
    assert decisions_of(made).equals(before) and [kept] == kept_tables(made)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == state, "it is used again"
    part = made.folder("pmi") / "part-00000.parquet"
    scores = pq.read_table(part)
    column = scores.column_names.index("faithfulness")
    pq.write_table(scores.set_column(column, "faithfulness", pa.array([-1.0] * scores.num_rows)), part)
    after = decisions_of(made)
    assert not after.equals(before) and kept_tables(made) != [kept] and len(kept_tables(made)) == 1
    kept_tables(made)[0].unlink()
    assert decisions_of(made).equals(after)
    kept_tables(made)[0].write_bytes(b"PAR1 cut off")
    assert decisions_of(made).equals(after)


def test_some_parts_are_decided_without_keeping_a_table(tmp_path: Path) -> None:
    made = Round(tmp_path, 4)
    some = made.parts[:1]
    ids = pq.read_table(made.folder("candidates") / f"{some[0]}.parquet")["candidate_id"].to_pylist()
    assert sorted(decisions_of(made, some)["candidate_id"].to_pylist()) == sorted(ids) and kept_tables(made) == []


def die_at(moment: int) -> None:
    """Let this process be killed before the table is written, after it, or before it is given its name."""
    left, write = [moment], Scored.write

    def count_down(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(*arguments: Any) -> None:
        count_down()
        write(*arguments)
        count_down()

    Scored.write = counted  # type: ignore[assignment, method-assign]
    os.link = count_down  # type: ignore[assignment]


def test_a_process_that_is_killed_while_it_builds_the_table_leaves_nothing_that_counts(tmp_path: Path) -> None:
    made, expected = Round(tmp_path, 3), decisions_of(Round(tmp_path / "other", 3))
    for moment in range(3):
        process = os.fork()
        if process == 0:
            die_at(moment)
            decisions_of(made)
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
        assert kept_tables(made) == [], "an unfinished table has no name"
    left = [path for path in (made.home / "round" / ".scratch").iterdir() if path.is_dir()]
    assert len(left) == 1, "what earlier ones left was removed"
    assert decisions_of(made).equals(expected) and len(kept_tables(made)) == 1
    assert not (made.home / "round" / ".scratch").exists()


def test_a_truncated_part_is_named(tmp_path: Path) -> None:
    made = Round(tmp_path, 6)
    part = made.folder("length") / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(LimbeckError, match=f"{part} is not a complete Parquet file"):
        decisions_of(made)
