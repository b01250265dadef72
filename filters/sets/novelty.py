"""ROUGE-L novelty: reject a text that is too similar to one accepted before it, self-instruct's rule (Wang et al., 2023).

ROUGE-L is the F1 of the longest common subsequence of words, as `rouge_score` computes it without a stemmer; scripts other than
Latin, which it does not read, have words too (`corpus.text.rouge.words`). The result depends on the order: earlier rows are
accepted first, and only accepted rows reject later ones.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.corpus.seed_texts import pool_problems, read_pool
from limbeck.corpus.text.rouge.index import Judged, RougeIndex
from limbeck.corpus.text.rouge.words import Floats, Ints
from limbeck.filters.config import Name, SetFilterConfig
from limbeck.filters.sets.ranking import ranks, shown_above

_F1 = {"unit": "ROUGE-L F1, 0 to 1"}
NOVELTY = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("undecided", pa.bool_(), nullable=False),
        pa.field("rouge_l", pa.float64(), metadata=_F1),
        pa.field("nearest_id", pa.string()),
        pa.field("neighbour_ids", pa.list_(pa.string())),
        pa.field("neighbour_rouge_l", pa.list_(pa.float64()), metadata=_F1),
        pa.field("neighbour_mean", pa.float64(), metadata=_F1),
    ]
)
"""The returned columns with `nearest`; without it, `NOVELTY_MAXIMA`."""
NOVELTY_MAXIMA = pa.schema([field for field in NOVELTY if not field.name.startswith("neighbour_")])


class NoveltyConfig(SetFilterConfig):
    """Reject a text whose highest ROUGE-L F1 with any text accepted before it is above `max_rouge_l`."""

    semantics: ClassVar[int] = 2

    kind: Literal["novelty"] = "novelty"
    name: Name = "novelty"
    max_rouge_l: float = Field(0.7, ge=0, lt=1)
    exact_above: float | None = Field(None, ge=0, description="return `rouge_l` if it is above this; null: max_rouge_l")
    column: Literal["output", "prompt", "document"] = Field("output", description="which text is compared")
    by: str | None = Field(None, description="the score (`filter.column`); the best is accepted first; null: in sampling order")
    order: Literal["highest", "lowest"] = Field("highest", description="which score of `by` is the best")
    pool: tuple[str, ...] = Field((), strict=False, description="files of accepted texts: .txt (one per line) or .jsonl")
    pool_column: str = Field("text", description="the text column of .jsonl files")
    once_per_source: bool = Field(
        False,
        description="rows of a source with the same text (the instances of a task) are one text and share its decision",
    )
    nearest: int = Field(0, ge=0, le=1000, description="record this many nearest neighbours of each row")

    @model_validator(mode="after")
    def _check_floor(self) -> "NoveltyConfig":
        if self.exact_above is not None and self.exact_above > self.max_rouge_l:
            raise ValueError(f"exact_above {self.exact_above} is above max_rouge_l {self.max_rouge_l}; lower or remove it")
        return self

    @property
    def floor(self) -> float:
        """`rouge_l` is returned if it is above this."""
        return self.max_rouge_l if self.exact_above is None else self.exact_above

    @property
    def reads(self) -> Mapping[str, str]:
        """The score that it ranks by, if any."""
        return {"by": self.by} if self.by else {}

    def problems(self) -> list[str]:
        """Reports pool files that are missing or of an unsupported type."""
        return pool_problems(self.pool)

    @property
    def needs(self) -> frozenset[str]:
        """What it reads, and nothing else."""
        return frozenset((*self.reads.values(), self.column))

    def build(self) -> "NoveltyFilter":
        """Return the filter; raises LimbeckError if a pool file cannot be read."""
        return NoveltyFilter(self)


class NoveltyFilter:
    """Compares the survivors one after another with the pool and the survivors accepted so far."""

    def __init__(self, config: NoveltyConfig) -> None:
        """Read the pool."""
        self.name = config.name
        self._config = config
        self._pool = read_pool(config.pool, config.pool_column)

    def select(self, survivors: pa.Table) -> pa.Table:
        """Return `NOVELTY`, one row per survivor in the order of comparison: (source_id, sample), or the best `by` first.

        `rouge_l` and `nearest_id` (a candidate, or the pool's `file:line`) refer to the nearest text accepted before, and are
        null if it is not above the floor; with `nearest`, which compares with every accepted text, they are always set. A row
        whose `by` is null is undecided and rejects nothing; NaN ranks last. A text without words is always kept.
        """
        config = self._config
        survivors = survivors.take(np.argsort(ranks(survivors, config.by, self.name, lowest=config.order == "lowest")))
        unscored = survivors[config.by].is_null().to_numpy() if config.by else np.zeros(survivors.num_rows, bool)
        rows = survivors.filter(pa.array(~unscored))
        texts = [text or "" for text in rows[config.column].to_pylist()]
        judged_as = _firsts(rows["source_id"].to_pylist(), texts) if config.once_per_source else np.arange(len(texts))
        once, followed = np.unique(judged_as, return_inverse=True)  # the first row of each text, and each row's place in it
        every, rows, texts = rows["candidate_id"], rows.take(once), [texts[place] for place in once]
        index = RougeIndex([text for _, text in self._pool], floor=config.floor)
        judged = index.judge(texts, config.max_rouge_l)
        accepted = rows["candidate_id"].filter(pa.array(judged.accepted)).to_pylist()
        names = pa.array([origin for origin, _ in self._pool] + accepted, pa.string())
        reasons = self._reasons(judged, names)
        if config.nearest:
            scores, places = index.nearest_before(texts, judged.before, config.nearest)
            evidence = _maxima(scores[:, 0], places[:, 0], names) | _neighbours(scores, places, names)
        else:
            evidence = _maxima(judged.rouge_l, judged.nearest, names)
        undecided = survivors.filter(pa.array(unscored))["candidate_id"]
        columns = {"candidate_id": rows["candidate_id"], "reason": reasons, "undecided": np.zeros(len(texts), bool), **evidence}
        told = (
            pa.table(columns)
            .take(followed)
            .set_column(0, "candidate_id", every)
            .cast(NOVELTY if config.nearest else NOVELTY_MAXIMA)
        )
        return pa.concat_tables([told, _undecided(undecided, told.schema)])

    def _reasons(self, judged: Judged, names: pa.Array) -> pa.Array:
        """Why each row is rejected; null if it is accepted."""
        limit, pool = self._config.max_rouge_l, len(self._pool)
        reasons: list[str | None] = [None] * len(judged.accepted)
        for row in np.flatnonzero(~judged.accepted).tolist():
            score, place = float(judged.rouge_l[row]), int(judged.nearest[row])
            who = f"{'seed' if place < pool else 'candidate'} {names[place]}"
            reasons[row] = (
                f"ROUGE-L {shown_above(score, limit)} with {who} is above {limit:.4g}: too near to what was accepted before"
            )
        return pa.array(reasons, pa.string())


def _firsts(sources: Sequence[str], texts: Sequence[str]) -> Ints:
    """For each row, the first row of its source with its text."""
    first: dict[tuple[str, str], int] = {}
    return np.array([first.setdefault(key, place) for place, key in enumerate(zip(sources, texts, strict=True))], np.int64)


def _maxima(scores: Floats, places: Ints, names: pa.Array) -> dict[str, pa.Array]:
    """The columns on the nearest text; null if there is none.  # scores, places: [rows]"""
    return {"rouge_l": pa.array(scores, from_pandas=True), "nearest_id": _named(places, names)}


def _neighbours(scores: Floats, places: Ints, names: pa.Array) -> dict[str, pa.Array]:
    """The columns on the nearest texts, if any.  # scores, places: [rows, neighbours]"""
    there = places >= 0
    counts = there.sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    total = np.where(there, scores, 0.0).sum(axis=1)
    return {
        "neighbour_ids": pa.ListArray.from_arrays(offsets, _named(places[there], names)),
        "neighbour_rouge_l": pa.ListArray.from_arrays(offsets, pa.array(scores[there])),
        "neighbour_mean": pa.array(total / np.maximum(counts, 1), mask=counts == 0),
    }


def _named(places: Ints, names: pa.Array) -> pa.Array:
    """The ids at these positions, null at -1."""
    return names.take(pa.array(places, mask=places < 0))


def _undecided(ids: pa.ChunkedArray, schema: pa.Schema) -> pa.Table:
    """Undecided rows, with nulls in the other columns."""
    known = {"candidate_id": ids, "undecided": pa.array([True] * len(ids), pa.bool_())}
    return pa.table([known.get(field.name, pa.nulls(len(ids), field.type)) for field in schema], schema=schema)
