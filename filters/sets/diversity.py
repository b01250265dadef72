"""Diversity: of all survivors of a source linked by entailment, keep one (Jung et al., Impossible Distillation, Algorithm 1).

The links are computed when the candidates are scored (`filters/models/entailment_graph.py`), so no model is called here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.config import Name, SetFilterConfig

UNKNOWN = "its links to other candidates were never computed"
MAYBE_LINKED = "whether entailment links it to a candidate with a higher score was never asked"


class DiversityConfig(SetFilterConfig):
    """The evidence column with each row's links, and the score that picks a component's representative."""

    kind: Literal["diversity"] = "diversity"
    name: Name = "diversity"
    graph: str = "equivalence.entails"
    by: str = "equivalence.strength"

    @property
    def reads(self) -> Mapping[str, str]:
        """The score that it ranks by, and the links between candidates."""
        return {"by": self.by, "graph": self.graph}

    @property
    def needs(self) -> frozenset[str]:
        """What it reads, and nothing else."""
        return frozenset((*self.reads.values(), f"{self.graph.rpartition('.')[0]}.unasked"))

    def build(self) -> "DiversityFilter":
        """Return the filter."""
        return DiversityFilter(self)


class Components:
    """The connected components of a growing graph over 0, ..., nodes - 1 (union-find: nearly constant time per call)."""

    def __init__(self, nodes: int) -> None:
        self._parents = list(range(nodes))

    def of(self, node: int) -> int:
        """The node that represents the component."""
        while self._parents[node] != node:
            self._parents[node] = node = self._parents[self._parents[node]]
        return node

    def join(self, a: int, b: int) -> bool:
        """Add an edge; return whether it joined two components."""
        a, b = self.of(a), self.of(b)
        self._parents[max(a, b)] = min(a, b)
        return a != b

    def lists(self) -> list[list[int]]:
        """The nodes of each component, ascending."""
        found: dict[int, list[int]] = {}
        for node in range(len(self._parents)):
            found.setdefault(self.of(node), []).append(node)
        return list(found.values())


class DiversityFilter:
    """Keeps the survivor with the highest score of each connected component."""

    def __init__(self, config: DiversityConfig) -> None:
        self.name = config.name
        self._config = config

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `candidate_id`, `reason`, `undecided` and `representative` of every row; rows with a null reason are kept.

        Ties go to the lower (sample, candidate_id). A row is undecided if a missing link could change its outcome; dropped rows
        stay dropped whatever the missing links are, because these can only join components. Linear in rows and links.
        """
        rows = sorted(self._rows(survivors), key=lambda row: (row["source_id"], row["sample"], row["candidate_id"]))
        judged: dict[str, dict[str, Any]] = {}
        for _, source in groupby(rows, lambda row: row["source_id"]):
            judged |= {verdict["candidate_id"]: verdict for verdict in _judge(list(source), self._config.by)}
        return pa.Table.from_pylist(
            [judged[row["candidate_id"]] for row in rows],
            schema=pa.schema(
                [
                    pa.field("candidate_id", pa.string(), nullable=False),
                    pa.field("reason", pa.string()),
                    pa.field("undecided", pa.bool_(), nullable=False),
                    pa.field("representative", pa.string()),
                ]
            ),
        )

    def _rows(self, survivors: pa.Table) -> list[dict[str, Any]]:
        graph, by = self._config.graph, self._config.by
        for column in (graph, by):
            if column not in survivors.column_names:
                known = ", ".join(name for name in survivors.column_names if "." in name) or "none"
                advice = "give the filter equivalence a `graph:` section" if column == graph else f"here are: {known}"
                raise LimbeckError(f"filter {self.name}: no column {column!r} (written filter.column); {advice}")
        columns = {name: survivors[name] for name in ("candidate_id", "source_id", "sample")}
        unasked = f"{graph.rpartition('.')[0]}.unasked"
        nothing = pa.nulls(survivors.num_rows, pa.list_(pa.string()))
        columns |= {
            "links": survivors[graph],
            "score": survivors[by].cast(pa.float64()),
            "unasked": survivors[unasked] if unasked in survivors.column_names else nothing,
        }
        rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
        return rows


def _judge(rows: Sequence[dict[str, Any]], by: str) -> Iterator[dict[str, Any]]:
    """Yield the outcome of each survivor of one source."""
    known = [row for row in rows if row["links"] is not None and row["score"] is not None]
    places = {row["candidate_id"]: place for place, row in enumerate(known)}
    components, possible = Components(len(known)), Components(len(known))
    for place, row in enumerate(known):
        for other in row["links"]:
            if other in places:
                components.join(place, places[other])
                possible.join(place, places[other])
        for other in row["unasked"] or ():
            if other in places:
                possible.join(place, places[other])
    best = {possible.of(group[0]): _best(known, group) for group in possible.lists()}
    for group in components.lists():
        representative = _best(known, group)
        id_ = known[representative]["candidate_id"]
        why = None if len(known) == len(rows) else UNKNOWN
        if why is None and best[possible.of(representative)] != representative:
            why = MAYBE_LINKED
        yield _verdict(known[representative], why, why is not None, id_)
        reason = f"entailment links it to candidate {id_}, which has the highest {by} of {len(group)}"
        yield from (_verdict(known[place], reason, False, id_) for place in group if place != representative)
    yield from (_verdict(row, UNKNOWN, True, None) for row in rows if row["candidate_id"] not in places)


def _best(rows: Sequence[dict[str, Any]], group: Sequence[int]) -> int:
    """The position of the highest score; rows are sorted, so a tie goes to the first. NaN ranks lowest."""
    scores = [rows[place]["score"] for place in group]
    return group[max(range(len(group)), key=lambda i: -math.inf if math.isnan(scores[i]) else scores[i])]


def _verdict(row: dict[str, Any], reason: str | None, undecided: bool, representative: str | None) -> dict[str, Any]:
    return {
        "candidate_id": row["candidate_id"],
        "reason": reason,
        "undecided": undecided,
        "representative": representative,
    }
