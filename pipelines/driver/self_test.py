"""Test the judging filters of a run on its own data: draw pairs of true and corrupted outputs, and ask each filter about them.

The pairs come from the candidates of round 0, before any decision: one candidate per source, of up to `MOST_SOURCES` sources
whose ids hash lowest. For each corruption those sources are tried in that order until the filter's number of pairs is reached,
so pairs depend on the run seed and on ids, never on parts or workers.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from limbeck.corpus.other_documents import groups_of
from limbeck.corpus.parts import part_names, publishing, read_part, read_parts, write_json, write_parts
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.text.invisible import is_blank
from limbeck.filters.config import FilterConfig, Probing
from limbeck.filters.contract import PROBED
from limbeck.filters.corruptions import CORRUPTIONS
from limbeck.pipelines.driver.context import Context, for_run, stream
from limbeck.pipelines.driver.jobs import ProbeJob, with_sources
from limbeck.pipelines.runs import self_test as results
from limbeck.pipelines.runs.self_test import SelfTest

if TYPE_CHECKING:
    from limbeck.cluster.workers.pool import WorkerPool

STAGE = "self-test"

MOST_SOURCES = 1024
"""The sources that pairs are drawn from: enough to find pairs for rare corruptions, at a constant cost."""

OTHERS = 16
"""How many outputs of other sources a corruption may take names and clauses from."""

PAIRS = pa.schema([*SCORED_INPUT, pa.field("corruption", pa.string()), pa.field("corrupted", pa.string())])


def probe_judges(context: Context, pool: "WorkerPool") -> None:
    """Write `self_test.json`, once per run, if some filter can be tested; a failed test is a warning."""
    folder = context.folder
    testable = [(filter_, probing) for filter_ in context.filters if (probing := filter_.probing) is not None]
    if not testable or folder.self_test.exists():
        return
    from limbeck.cluster.workers.pool import Lane

    lanes = []
    for filter_, probing in testable:
        if not probing.pairs:
            continue
        place = folder.probes(filter_.name)
        if not (place / "pairs").exists():
            _publish_pairs(context, place / "pairs", probing.pairs)
        job = ProbeJob(f"{STAGE}/{filter_.name}", place / "pairs", place / "answers", for_run(context, filter_))
        lanes.append(Lane([job], part_names(place / "pairs")))
    if lanes:
        stream(context, pool, STAGE, lanes)
    found = [_result(context, filter_, probing) for filter_, probing in testable]
    write_json(folder.self_test, [one.model_dump(mode="json") for one in found])
    if (words := results.warning(found)) is not None:
        context.events.emit("warning", words=words)
    if (words := results.note(found)) is not None:
        context.events.emit("note", words=words)


def _publish_pairs(context: Context, out: Path, number: int) -> None:
    folder = context.folder
    pairs = draw_pairs(folder.candidates(0), folder.sources("train"), number, context.recipe.seed)
    with publishing(out) as temporary:
        temporary.mkdir()
        write_parts(temporary, pairs, context.recipe.cluster.rows_per_part, PAIRS)


def _result(context: Context, filter_: FilterConfig, probing: Probing) -> SelfTest:
    if not probing.pairs:
        return results.not_tested(filter_.name, filter_.kind, probing.by, probing.off or "it draws no pairs")
    schema = pa.schema([pa.field("source_id", pa.string()), pa.field("corruption", pa.string()), *PROBED])
    answers = read_parts(context.folder.probes(filter_.name) / "answers", schema)
    return results.evaluate(filter_.name, filter_.kind, probing.by, answers)


def draw_pairs(candidates: Path, sources: Path, number: int, run_seed: int) -> pa.Table:
    """Return the pairs, up to `number` per corruption: the columns of `PAIRS`, by source in the order in which they are tried."""
    chosen = _chosen(candidates, sources, run_seed)
    rows, groups = chosen.to_pylist(), groups_of(chosen) or []
    counts = dict.fromkeys(CORRUPTIONS, 0)
    pairs: list[dict[str, Any]] = []
    for position, row in enumerate(rows):
        for name in (name for name, count in counts.items() if count < number):
            draw = Random(derive_seed(run_seed, STAGE, name, row["source_id"]))
            others = [rows[other]["output"] for other in _others(position, groups, draw)]
            text = CORRUPTIONS[name].apply(row["output"], others, draw)
            if text is not None and not is_blank(text) and text != row["output"]:
                pairs.append({**row, "corruption": name, "corrupted": text})
                counts[name] += 1
        if all(count == number for count in counts.values()):
            break
    return pa.Table.from_pylist(pairs, schema=PAIRS)


def _others(position: int, groups: list[str], draw: Random) -> Iterator[int]:
    """Up to `OTHERS` random positions of rows that are not near-duplicates of the one at `position`."""
    tried = draw.sample(range(len(groups)), min(len(groups), 2 * OTHERS))
    return iter([other for other in tried if groups[other] != groups[position]][:OTHERS])


def _chosen(candidates: Path, sources: Path, run_seed: int) -> pa.Table:
    """The first usable candidate of each of the chosen sources (`SCORED_INPUT`), in the order of their hashes."""
    lowest: dict[str, tuple[int, int, str]] = {}  # source → hash, sample, part
    for part in part_names(candidates):
        table = read_part(candidates, part).select(["source_id", "sample", "output", "error"])
        for row in table.to_pylist():
            if row["error"] is None and not is_blank(row["output"]):
                place = (derive_seed(run_seed, STAGE, row["source_id"]), row["sample"], part)
                lowest[row["source_id"]] = min(place, lowest.get(row["source_id"], place))
        if len(lowest) > MOST_SOURCES:
            lowest = dict(sorted(lowest.items(), key=lambda item: item[1])[:MOST_SOURCES])
    found = [SCORED_INPUT.empty_table()]
    for part in sorted({part for _, _, part in lowest.values()}):
        table = read_part(candidates, part)
        keys = zip(table["source_id"].to_pylist(), table["sample"].to_pylist(), strict=True)
        mask = pa.array([source in lowest and lowest[source][1:] == (sample, part) for source, sample in keys], pa.bool_())
        found.append(with_sources(table.filter(mask), read_part(sources, part)))
    rows = pa.concat_tables(found)
    order = sorted(range(rows.num_rows), key=lambda row: lowest[rows["source_id"][row].as_py()])
    return rows.take(pa.array(order, pa.int64()))
